# format.sh CLANG_FORMAT SOURCE: every C and CUDA file is laid out as .clang-format says.
set -euo pipefail
if [ ! -x "$1" ]; then
  echo "SKIPPED: there is no clang-format on this machine, so the layout of the C files is not checked"
  exit 77
fi
cd "$2"
find engine ops tests \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' \) -print0 | xargs -0 "$1" --dry-run --Werror
