# A Lua hook that changes numbers and ends stages: the same when the run is interrupted on the way.
. "$(dirname "$0")/lib.sh"
make_phantom phantom
cat >steer.lua <<'LUA'
return function(event)
  local state = event.state
  state.calls = (state.calls or 0) + 1
  if event.stage == "pretrain" then
    event.set("loss.context.weight", event.get("loss.context.weight") * 0.5)
    event.set("masked.ratio", 0.8 / state.calls)
  else
    event.set("groups.0.lr_scale", 1 / state.calls)
    event.set("lr", 0.02 / state.calls)
  end
  event.record("calls", -1) -- the last one counts
  event.record("calls", state.calls)
  event.log("call " .. state.calls .. ", lr " .. string.format("%.17g", event.get("lr")))
  if event.epoch == args_stop then event.stop("enough") end
end
LUA
stop=$((${EPOCHS:-12} / 2 + 2))
sed -i "s/args_stop/$stop/" steer.lua
sed -e "s/epochs: 3/epochs: 100/" -e '/optimizer:/i\      on_epoch_end: {lua: steer.lua}' \
  -e '/optimizer:/i\      groups: [{match: "*.weight", lr_scale: 0.5}]' "$pipelines/tiny.yaml" >hooked.yaml
hooked=(hooked.yaml --set "data.root=$work/phantom")

try 0 "$STRATA" run "${hooked[@]}" --out whole
prints "stage pretrain ended by its hook after epoch $((stop + 1)): enough"
prints "stage segment ended by its hook after epoch $((stop + 1)): enough"
prints "pretrain: call 2, lr"
last=$(tail -n 1 whole/metrics.jsonl)
[[ $last == *"\"epoch\":$((stop + 1)),"* ]] || fail "the last epoch is $last"
[[ $last == *"\"own.calls\":$((stop + 1)).0,"* && $last != *"calls\":-1"* ]] || fail "recorded: $last"

process=
cleanup='stop_process'
stop_process() { [ -z "$process" ] || kill -9 "$process" 2>/dev/null || true; }
interrupt() { # interrupt TEXT SIGNAL: once the log says so
  "$STRATA" run "${hooked[@]}" --out broken "${@:3}" >broken.log 2>broken.err &
  process=$!
  wait_for_or_end broken.log "$1" "$process"
  kill "-$2" "$process" 2>/dev/null || true
  wait "$process" 2>/dev/null || true
  process=
}
interrupt "pretrain: call 2," INT
has broken.err "the state is saved"
interrupt "pretrain: call " INT --resume
interrupt "segment: call " INT --resume
interrupt "segment: call " KILL --resume
try 0 "$STRATA" run "${hooked[@]}" --out broken --resume
same_run whole broken
same_log whole broken

# Without the hook it is another run.
try 0 "$STRATA" run "${tiny[@]}" --out plain
try 1 "$STRATA" weights diff whole/weights/pretrain.safetensors plain/weights/pretrain.safetensors

# A hook that fails is reported at its own line and at the line that names it.
printf 'return function(event)\n  event.set("los.weight", 1)\nend\n' >steer.lua
try 1 "$STRATA" run "${hooked[@]}" --out failed
says "stage \"pretrain\" has no number \"los.weight\" to set; there are lr, weight_decay, groups.0.lr_scale, masked.ratio"

# A metric that the stage does not measure would be waited for to the end.
plateau='{lua: stop_on_plateau, metric: validation.dcie}'
try 1 "$STRATA" run "${tiny[@]}" --set "stages.segment.on_epoch_end=$plateau" --out misspelt
says 'this stage measures no "validation.dcie"; did you mean "validation.dice"?'
[ "$(grep -c '^segment  epoch ' "$work/out")" -eq 1 ] || fail "not found after the first epoch"
follow='{masked.ratio: {lua: by_metric, metric: structure.accuracy.7, from: 0, to: 1, value: 0.5}}'
try 1 "$STRATA" check "${tiny[@]}" --set "stages.pretrain.schedules=$follow"
says 'this stage measures no "structure.accuracy.7"; did you mean "structure.accuracy'
# Of a stage without a segmentation the validation cases have a loss and no Dice.
try 0 "$STRATA" check "${tiny[@]}" --set "stages.pretrain.schedules=${follow/structure.accuracy.7/validation.loss}"
try 1 "$STRATA" check "${tiny[@]}" --set "stages.pretrain.schedules=${follow/structure.accuracy.7/validation.dice}"
says 'this stage measures no "validation.dice"'

# What a group freezes, a hook or a schedule thaws.
cat >thaw.lua <<'LUA'
return function(event)
  if event.epoch == 0 then event.set("groups.0.lr_scale", 1) end
end
LUA
cat >frozen.yaml <<YAML
strata: 1
use: $pipelines/tiny.yaml
data: {root: $work/phantom}
evaluate: ~
stages:
  - segment:
      use: $pipelines/tiny.yaml
      init: {from: $work/whole/weights/segment.safetensors, reset: ~}
      groups: [{match: "*", lr_scale: 0}]
      validate: ~
YAML
from=whole/weights/segment.safetensors
try 0 "$STRATA" run frozen.yaml --out frozen
try 0 "$STRATA" weights diff $from frozen/weights/segment.safetensors
thaw=(--set "stages.segment.on_epoch_end={lua: $work/thaw.lua}")
try 0 "$STRATA" run frozen.yaml "${thaw[@]}" --set stages.segment.epochs=1 --out thawed-late
try 0 "$STRATA" weights diff $from thawed-late/weights/segment.safetensors
try 0 "$STRATA" run frozen.yaml "${thaw[@]}" --out thawed
try 1 "$STRATA" weights diff $from thawed/weights/segment.safetensors
ramp="{groups.0.lr_scale: {lua: ramp, to: 1}}"
try 0 "$STRATA" run frozen.yaml --set "stages.segment.schedules=$ramp" --out ramped
try 1 "$STRATA" weights diff $from ramped/weights/segment.safetensors
try 1 "$STRATA" check frozen.yaml --set "stages.segment.schedules={groups.1.lr_scale: {lua: ramp}}"
says 'has no number "groups.1.lr_scale" to schedule; did you mean "groups.0.lr_scale"?'
printf 'return function(event)\n  event.set("groups.0.lr_scale", -1)\nend\n' >thaw.lua
try 1 "$STRATA" run frozen.yaml "${thaw[@]}" --out below
says "groups.0.lr_scale must be from 0 to 1000000, not -1"

# Numbers from scripts keep to the bounds of the pipeline file: a kernel relies on them.
printf 'return function(event)\n  event.set("masked.ratio", 1.5)\nend\n' >steer.lua
try 1 "$STRATA" run "${hooked[@]}" --out beyond
says "masked.ratio must be from 0 to 1, not 1.5"
printf 'return function(step)\n  return 0.5 + step\nend\n' >climb.lua
sed '0,/schedule: {.*/s//schedules: {masked.ratio: {lua: climb.lua}}/' "$pipelines/tiny.yaml" \
  >scheduled.yaml
try 1 "$STRATA" run scheduled.yaml --set "data.root=$work/phantom" --out scheduled
says "masked.ratio must be from 0 to 1, not 1.5"
