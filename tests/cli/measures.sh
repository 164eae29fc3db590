# Metrics and case weights that Lua scripts compute: in the log, in the evaluation, the same on any
# number of threads and after a resume; and mistakes in them.
. "$(dirname "$0")/lib.sh"
make_phantom phantom 8
cat >ragged.lua <<'LUA'
-- Weights that no mistake in the order of cases would survive: by the digits of the names.
return function(case)
  assert(#case.classes == 2 and case.voxels > 0 and case.voxel_mm3 > 0)
  return tonumber(case.name:sub(-1)) % 3 + case.classes[1].voxels / case.voxels
end
LUA
sed -e 's/validate: .*/validate: {every: 1, output: net.out, metrics: [jaccard, {lua: fbeta, beta: 1, name: f1}]}\n      case_weights: {lua: ragged.lua}\n      on_validation: {lua: rank.lua}/' \
  -e 's/epochs: 3/epochs: 2/' -e 's/metrics: \[dice, hd95\]/metrics: [dice, hd95, {lua: fbeta}, {lua: fbeta, beta: 1, name: f1}]/' \
  "$pipelines/tiny.yaml" >measured.yaml
cat >rank.lua <<'LUA'
return function(event)
  local class = event.classes[1]
  event.log(string.format("f1 - dice %.3g", (class.f1 or 0) - (class.dice or 0)))
end
LUA
run=(measured.yaml --set "data.root=$work/phantom" --set stages.pretrain.enabled=false)
try 0 "$STRATA" run "${run[@]}" --out whole --threads 1
prints "segment: f1 - dice 0"
prints "fbeta"
has whole/metrics.jsonl '"validation.f1":'
has whole/metrics.jsonl '"validation.jaccard":'
has whole/evaluation.json '"fbeta": {'
head -n 1 whole/evaluation.csv | grep -qF "dice,hd95_mm,fbeta,f1," || fail "evaluation.csv lacks a metric"
# F1 of a class is its Dice: to the bit where both are rounded once, to nine digits here.
python3 - <<'PY' || fail "F1 is not Dice"
import json
e = json.load(open("whole/evaluation.json"))
pairs = [(e["dice"]["mean"], e["f1"]["mean"])]
for case in e["cases"]:
    pairs += [(case["dice"][c], case["f1"][c]) for c in case["dice"]]
assert len(pairs) > 2
assert all((a is None and b is None) or abs(a - b) < 1e-8 for a, b in pairs), pairs
PY
try 0 "$STRATA" check "${run[@]}"
prints "dice, hd95, fbeta, f1"

process=
cleanup='stop_process'
stop_process() { [ -z "$process" ] || kill -9 "$process" 2>/dev/null || true; }
"$STRATA" run "${run[@]}" --out broken --threads 3 --set data.loader_threads=4 >broken.log 2>&1 &
process=$!
wait_for_or_end broken.log "segment  epoch 1/2" "$process"
kill -INT "$process" 2>/dev/null || true
wait "$process" 2>/dev/null || true
process=
try 0 "$STRATA" run "${run[@]}" --out broken --resume
same_run whole broken
same_log whole broken

# Weights change what is learned.
sed '/case_weights:/d' measured.yaml >plain.yaml
try 0 "$STRATA" run plain.yaml "${run[@]:1}" --out plain
try 1 "$STRATA" weights diff whole/weights/segment.safetensors plain/weights/segment.safetensors

# ---- mistakes ----
refuse() { # refuse MESSAGE OPTION…
  rm -rf refused
  try 1 "$STRATA" run "${run[@]}" --out refused "${@:2}"
  says "$1"
}
weight() { printf 'return function(case)\n  %s\nend\n' "$1" >ragged.lua; }
weight 'return case.name == "phantom_001" and 1 or -0.5'
refuse "ragged.lua:1:1: error: case phantom_00"
says "the weight must be 0 or more, not -0.5"
says "named at measured.yaml:"
weight 'return 0'
refuse "every case has the weight 0"
weight 'return case.clases[1].voxels'
refuse "case.clases is not defined; did you mean case.classes?"
weight 'return 1'
printf 'return function(counts)\n  return counts.tp / 0 * 0\nend\n' >wild.lua
refuse "wild.lua:1:1: error: case phantom_00" \
  --set 'stages.segment.validate.metrics=[{lua: wild.lua}]'
exists refused/state.safetensors # as it stood before the validation
printf 'return function(counts)\n  while true do end\nend\n' >wild.lua
refuse "wild.lua:2:1: error: case phantom_00" --set 'evaluate.metrics=[{lua: wild.lua}]'
exists refused/weights/segment.safetensors
printf 'return function(counts) return 1 end\n' >wild.lua
try 0 "$STRATA" run "${run[@]}" --set 'evaluate.metrics=[{lua: wild.lua}]' --out refused --resume \
  --changed-scripts
prints "wild"
refuse 'evaluate: metrics: "dice" has a meaning already' \
  --set 'evaluate.metrics=[{lua: wild.lua, name: dice}]'
refuse 'reads no argument' --set 'evaluate.metrics=[{lua: wild.lua, depth: 3}]'
