#!/usr/bin/env bash
# Installs the Debian packages that building Strata needs, those that are missing only.
# More packages can be named as arguments.
set -euo pipefail

packages=(gcc libc6-dev cmake ninja-build pkg-config libyaml-dev liblua5.4-dev libnifti2-dev
  libniftiio-dev libznz-dev zlib1g-dev libdeflate-dev libjansson-dev libxxhash-dev "$@")

if ! command -v dpkg-query >/dev/null; then
  echo "setup: this is not Debian; please see that there is what these packages hold: ${packages[*]}"
  exit 0
fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

echo "installing: ${missing[*]}"
run=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "setup: run this as root, or install these packages yourself: ${missing[*]}" >&2
    exit 1
  fi
  run=(sudo)
fi
if ! { "${run[@]}" apt-get update -qq &&
  "${run[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }; then
  echo "setup: apt-get could not install: ${missing[*]}" >&2
  exit 1
fi
