# docs/tutorial.md, as a reader follows it: every file it shows is written, every command it shows is
# run, in order, in a new folder, with the program that `cmake --install` puts into ~/.local.
#
# Only two commands are not run as they stand: configuring and building, which made the program under
# test; that there is such a preset is checked. A sanitizer is slow, so stages have three steps there.
. "$(dirname "$0")/lib.sh"
build=$(dirname "$STRATA")
export HOME=$work PATH=$work/.local/bin:$PATH
mkdir parts mine

# parts/001.sh, parts/002.file, whose first line is the file's name, …
awk -v folder=parts '
  /^```/ && inside { inside = 0; close(out); next }
  /^```/ {
    inside = 1
    out = sprintf("%s/%03d.%s", folder, ++count, $1 == "```sh" ? "sh" : "file")
    if ($1 != "```sh") print $2 >out
    next
  }
  inside { print >out }
  END { if (inside) exit 1 }
' "$SOURCE/docs/tutorial.md" || fail "a code block has no end"

# cmake as the install block uses it.
cmake() {
  case "$*" in
  "--preset release "*)
    (cd "$SOURCE" && command cmake --list-presets) | grep -q '"release"' || return 1 ;;
  "--build --preset release")
    (cd "$SOURCE" && command cmake --list-presets=build) | grep -q '"release"' || return 1 ;;
  "--install build --prefix $HOME/.local")
    command cmake --install "$build" --prefix "$HOME/.local" ;;
  *)
    echo "the test does not know: cmake $*" >&2
    return 1 ;;
  esac
}
export -f cmake
export build SOURCE

files=0 commands=0
for part in parts/*; do
  part=$(basename "$part")
  case $part in
  *.file)
    name=$(head -n 1 "parts/$part")
    [ -n "$name" ] || fail "the file in block $part has no name"
    tail -n +2 "parts/$part" >"mine/$name"
    [ "$EPOCHS" -gt 6 ] || sed -i -E 's/epochs: [0-9]+\}/epochs: 1, steps_per_epoch: 3}/; s/seeds\(2\)/seeds(1)/' "mine/$name"
    files=$((files + 1)) ;;
  *.sh)
    folder=$work/mine
    ! grep -q setup.sh "parts/$part" || folder=$SOURCE
    got=0
    (cd "$folder" && bash -euo pipefail "$work/parts/$part") >out 2>err || got=$?
    [ "$got" -eq 0 ] || fail "exit status $got: $(cat "parts/$part")"
    commands=$((commands + $(grep -c '^[a-z]' "parts/$part"))) ;;
  esac
done
[ "$files" -ge 5 ] && [ "$commands" -ge 15 ] || fail "only $files files and $commands commands"

# What the text promises.
exists .local/share/strata/strata.schema.json .local/share/strata/pipelines/quickstart.yaml
cd mine
for run in first flipped risen; do
  exists runs/$run/report.html runs/$run/evaluation.json runs/$run/weights/segment.safetensors
done
exists flipped.png pretrain.html comparison.html ablations/study.md ablations/study.csv segmented.nii.gz
cmp segmented.nii.gz runs/flipped/predictions/phantom_001.nii.gz ||
  fail "another segmentation than the run's own"
