# What an editor says with the schema of `strata schema`, and what `strata check` says:
#  * every shipped file (pipelines, models, blocks, examples) is valid;
#  * every file in tests/pipelines/broken, with one wrong key, type or value each, is marked by the
#    schema and gives exactly the errors from `strata check` that its first comments announce;
#  * of a valid pipeline whose keys are misspelt one after the other, both find the same ones wrong, but
#    for names that are the user's own, which the schema does not follow.
. "$(dirname "$0")/lib.sh"
python=
for candidate in "${PYTHON:-python3}" /usr/bin/python3; do
  if "$candidate" -W ignore -c 'import jsonschema, yaml' 2>/dev/null; then
    python=$candidate
    break
  fi
done
[ -n "$python" ] || skip "python3 has no jsonschema or yaml (Debian: python3-jsonschema python3-yaml)"
validate=("$python" -W ignore "$SOURCE/tests/cli/schema.py" "$work/schema.json")
try 0 "$STRATA" schema
cp out schema.json
make_phantom phantom

try 0 "${validate[@]}" --examples
prints "examples and defaults are valid"

shipped=$(find "$SOURCE/pipelines" "$SOURCE/examples" "$SOURCE/tests/bench" -name '*.yaml' \
  -not -path '*/splits/*' | sort)
# shellcheck disable=SC2086
try 0 "${validate[@]}" $shipped "$pipelines"/*.yaml "$pipelines"/models/*.yaml
! grep -v ': ok$' out >err || fail "the schema marks files that are right"
[ "$(wc -l <out)" -ge 50 ] || fail "only $(wc -l <out) files"

cd "$pipelines/broken"
files=0
for file in *.yaml; do
  files=$((files + 1))
  # Graphs are looked into once the data set's list has been read.
  data=()
  case $file in graph_*) data=(--set "data.dataset.decathlon=$work/phantom/dataset.json") ;; esac
  try 1 "$STRATA" check "$file" "${data[@]}"
  sed -n "/^ /!s/^$file:\([0-9:]*\) error: /# expect \1 /p" "$work/err" >"$work/came"
  grep '^# expect ' "$file" >"$work/expected" || fail "$file announces no error"
  diff "$work/expected" "$work/came" || fail "$file: other errors than it announces"
done
[ "$files" -ge 40 ] || fail "only $files files"
try 0 "${validate[@]}" *.yaml
! grep ': ok$' "$work/out" >"$work/err" || fail "the schema finds nothing wrong in these"
[ "$(wc -l <"$work/out")" -eq "$files" ] || fail "not every file was looked at"
cd "$work"

try 0 "${validate[@]}" --mutate "$pipelines/tiny.yaml" misspelt
mv out verdicts
marked=0
while IFS= read -r verdict; do
  file=${verdict%%: *} got=0
  "$STRATA" check "$file" --set "data.root=$work/phantom" >out 2>err || got=$?
  if [[ $verdict != *": ok" ]]; then
    marked=$((marked + 1))
    [ "$got" -eq 1 ] || fail "only the schema marks $verdict"
  elif [ "$got" -ne 0 ]; then
    grep -qE 'is not defined|has no parameter|there is no stage|nothing above is called|nothing to minimise|reads no argument' err ||
      fail "only check finds a mistake in $verdict"
  fi
done <verdicts
[ "$marked" -ge 80 ] || fail "the schema marks only $marked misspelt keys"

# A key that no word is near to is answered with all there are: the schema has the same.
{
  echo 'strata: 1'
  for part in data evaluate model; do echo "$part: {zzzzzzzzzzzzzzz: 1}"; done
  echo 'zzzzzzzzzzzzzzz: 1'
  echo 'stages: [{train: {zzzzzzzzzzzzzzz: 1, validate: {zzzzzzzzzzzzzzz: 1}, init: {zzzzzzzzzzzzzzz: 1}}}]'
} >keys.yaml
try 1 "$STRATA" check keys.yaml
sed -n 's/.* error: \(.*\) has no key "z*"; it can have \(.*\)\.$/\1: \2/p' err >known
[ "$(wc -l <known)" -eq 7 ] || fail "other lists of keys than expected"
try 0 "$python" - <<'PYTHON'
import json

definitions = json.load(open("schema.json"))["definitions"]
stage, whole = definitions["stage"]["properties"], definitions["pipeline"]["properties"]
parts = {"the pipeline": whole, "data": whole["data"]["properties"],
         "evaluate": whole["evaluate"]["properties"], "model": whole["model"]["properties"],
         "stage train": stage, "stage train: validate": stage["validate"]["properties"],
         "stage train: init": stage["init"]["properties"]}
for line in open("known"):
    part, keys = line.rstrip("\n").rsplit(": ", 1)
    known = set(keys.replace(" and ", ", ").split(", "))
    extra = set(parts[part]) - known
    if part == "model":  # the keys of a model file, which stand here too
        extra -= {"doc", "inputs", "params", "graph", "outputs", "unused"}
    if part == "the pipeline":  # of a lock; nobody is to add it to a file
        extra -= {"lock"}
    assert not known - set(parts[part]) and not extra, (part, known ^ set(parts[part]))
PYTHON

# The lock of a run is a pipeline file, too.
try 0 "$STRATA" run "${tiny[@]}" --set stages.pretrain.enabled=false --set stages.segment.epochs=1 --out run
try 0 "${validate[@]}" run/pipeline.lock.yaml
prints "pipeline.lock.yaml: ok"
