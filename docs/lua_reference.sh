#!/usr/bin/env bash
# Writes the reference part of docs/lua.md anew, from what the program says: after a change of what
# scripts can use. A test (test_script) compares the two.
set -euo pipefail
strata=${1:-$(dirname "$0")/../build/strata}
page=$(dirname "$0")/lua.md
new=$(mktemp "$page.XXXXXX")
trap 'rm -f "$new"' EXIT
{
  sed '/^<!-- made by docs\/lua_reference.sh/q' "$page"
  echo
  "$strata" lua --markdown
  echo
  sed -n '/^<!-- end of the reference -->/,$p' "$page"
} >"$new"
chmod --reference="$page" "$new"
mv "$new" "$page"
