#!/usr/bin/env bash
# Builds and tests everything: installs the Debian packages that are missing, builds a release and
# one under the address and undefined-behaviour sanitizers, and runs the whole suite in both. Ends
# with CTest's summary; the exit status is 0 when every test passed.
#
#   tests/run.sh            all of it
#   tests/run.sh release    only the release build (about a third of the time)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
what=${1:-all}
case $what in
all | release) ;;
*)
  echo "usage: tests/run.sh [all | release]" >&2
  exit 2
  ;;
esac

# ---- packages ---------------------------------------------------------------------------------

packages=(gcc g++ cmake ninja-build pkg-config libyaml-dev liblua5.4-dev libnifti2-dev
  libniftiio-dev libznz-dev zlib1g-dev libdeflate-dev libjansson-dev libcmocka-dev libxxhash-dev)

is_installed() {
  dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed
}

if command -v dpkg-query >/dev/null; then
  missing=()
  for package in "${packages[@]}"; do is_installed "$package" || missing+=("$package"); done
  if [ ${#missing[@]} -gt 0 ]; then
    echo "installing ${missing[*]}"
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then
      if ! command -v sudo >/dev/null; then
        echo "These packages are missing, and installing them takes root or sudo:" >&2
        echo "  apt-get install ${missing[*]}" >&2
        exit 1
      fi
      as_root=(sudo)
    fi
    if ! { "${as_root[@]}" apt-get update -qq &&
      "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }; then
      echo "apt-get could not install: ${missing[*]}" >&2
      echo "Install them by hand, then run this again." >&2
      exit 1
    fi
  fi
else
  echo "This is not Debian; the tests need what these packages hold: ${packages[*]}"
fi

# ---- build and test ---------------------------------------------------------------------------

jobs=$(nproc)

build() { # build FOLDER [CMAKE OPTION…]
  cmake -S . -B "$1" -G Ninja -Wno-dev "${@:2}" >/dev/null
  cmake --build "$1" --parallel "$jobs" | tail -n 1
}

build build -DCMAKE_BUILD_TYPE=Release -DSTRATA_SANITIZE=OFF

failed=0
if [ "$what" = all ]; then
  build build-asan -DCMAKE_BUILD_TYPE=RelWithDebInfo -DSTRATA_SANITIZE=ON
  echo "== with the address and undefined-behaviour sanitizers"
  ASAN_OPTIONS=halt_on_error=1:detect_stack_use_after_return=1 \
    UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
    ctest --test-dir build-asan --output-on-failure --timeout 1800 || failed=1
  [ "$failed" -eq 0 ] || echo "== the tests above failed under the sanitizers"
fi
echo "== release"
ctest --test-dir build --output-on-failure || failed=1
exit "$failed"
