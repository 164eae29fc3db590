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

# cmocka runs the unit tests, g++ compiles the CUDA kernels for the host; nibabel is the oracle for what
# others see of our files, jsonschema for what an editor says about a pipeline.
bash examples/setup.sh libcmocka-dev g++ python3-nibabel python3-jsonschema python3-yaml
# Looks at a report. The one test that needs it says so and skips without.
bash examples/setup.sh chromium || echo "SKIPPED: no chromium, so no browser looks at a report"

# ---- build and test ---------------------------------------------------------------------------

jobs=$(nproc)

build() { # build FOLDER [CMAKE OPTION…]
  cmake -S . -B "$1" -G Ninja -Wno-dev -DSTRATA_TESTS=ON "${@:2}" >/dev/null
  if ! cmake --build "$1" --parallel "$jobs" >"$1/build.log" 2>&1; then
    grep -A 20 -m 5 -E "FAILED|error" "$1/build.log" >&2 || cat "$1/build.log" >&2
    exit 1
  fi
  tail -n 1 "$1/build.log"
}

# The CUDA plug-in, for one architecture: the others take minutes and the same source.
cuda=OFF
if command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then
  cuda=ON
  export PATH="$PATH:/usr/local/cuda/bin"
else
  echo "SKIPPED: there is no nvcc, so the plug-in for NVIDIA GPUs is not compiled (its kernels are" \
    "tested on the host all the same)"
fi
build build -DCMAKE_BUILD_TYPE=Release -DSTRATA_SANITIZE=OFF -DSTRATA_CUDA=$cuda \
  -DCMAKE_CUDA_ARCHITECTURES=90-real

failed=0
if [ "$what" = all ]; then
  build build-asan -DCMAKE_BUILD_TYPE=RelWithDebInfo -DSTRATA_SANITIZE=ON
  echo "== with the address and undefined-behaviour sanitizers"
  ASAN_OPTIONS=halt_on_error=1:detect_stack_use_after_return=1 \
    UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
    ctest --test-dir build-asan --parallel "$jobs" --output-on-failure --timeout 1800 || failed=1
  [ "$failed" -eq 0 ] || echo "== the tests above failed under the sanitizers"
fi
echo "== release"
ctest --test-dir build --parallel "$jobs" --output-on-failure || failed=1
exit "$failed"
