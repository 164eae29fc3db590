# Lua in a run: schedules that follow metrics, hooks of every kind, and what is left when one of them
# goes wild.
. "$(dirname "$0")/lib.sh"
make_phantom phantom 8

process=
cleanup='stop_process'
stop_process() { [ -z "$process" ] || kill -9 "$process" 2>/dev/null || true; }

# ---- schedules of metrics, and hooks, the same when the run is interrupted ----
cat >follow.lua <<'LUA'
-- Half the mask when the loss of the epoch before is odd in its seventh digit: any rounding would show.
return function(step, epoch, total, base, steps_per_epoch, metrics)
  if epoch == 0 then assert(not metrics.loss) return base end
  return math.floor(metrics.loss * 1e7) % 2 == 0 and base or base / (metrics["own.parts"] or 2)
end
LUA
cat >watch.lua <<'LUA'
return function(event)
  event.state.seen = (event.state.seen or 0) + 1
  event.set("lr", 0.01 / event.state.seen)
  event.record("seen", event.state.seen)
  event.log(string.format("validation %d: %s %.17g", event.state.seen, event.classes[1].name,
                          event.classes[1].dice or -1))
end
LUA
sed -e '0,/schedule: {.*/s//&\n      schedules: {masked.ratio: {lua: follow.lua}}\n      on_stage_end: {lua: summary}/' \
  -e 's/validate: .*/validate: {every: 1, output: net.out}\n      on_validation: {lua: watch.lua}\n      on_stage_end: {lua: summary, only: validation}/' \
  -e "s/epochs: 3/epochs: 5/" "$pipelines/tiny.yaml" >hooked.yaml
hooked=(hooked.yaml --set "data.root=$work/phantom")
try 0 "$STRATA" run "${hooked[@]}" --out whole
cp out whole.log
prints "pretrain: ended (epochs) after epoch 5, step 15"
prints "segment: validation 5: "
prints "segment:   validation.dice = "
[ "$(grep -c "pretrain: ended" out)" -eq 1 ] || fail "on_stage_end was not called once"
[[ $(tail -n 1 whole/metrics.jsonl) == *'"own.seen":5.0'* ]] || fail "a recorded number is not in metrics.jsonl"
has whole/metrics.csv ',own.seen'
for text in "pretrain  epoch 2/5" "segment: validation 2:"; do
  "$STRATA" run "${hooked[@]}" --out broken $([ -d broken ] && echo --resume) >broken.log 2>&1 &
  process=$!
  wait_for_or_end broken.log "$text" "$process"
  kill -INT "$process" 2>/dev/null || true
  wait "$process" 2>/dev/null || true
  process=
done
try 0 "$STRATA" run "${hooked[@]}" --out broken --resume
cat broken.log out >ends.log # the second process may have come to the end of the stage
same_run whole broken
same_log whole broken
grep -F "segment:   validation.dice = " whole.log >"$work/a"
grep -F "segment:   validation.dice = " ends.log >"$work/b"
cmp a b || fail "the summaries differ"

# ---- an argument of the base's script, which another script does not read ----
cp "$pipelines/tiny.yaml" base.yaml
printf 'strata: 1\nuse: base.yaml\nstages:\n  - pretrain: {use: base.yaml, schedule: {lua: poly}}\n' >other.yaml
try 1 "$STRATA" check other.yaml --set "data.root=$work/phantom" --set evaluate=
says "base.yaml:36:38: error: "
says 'If it was given to another script, take it away: "warmup: ~" beside lua:'
sed -i 's/lua: poly/lua: poly, warmup: ~/' other.yaml
try 0 "$STRATA" check other.yaml --set "data.root=$work/phantom" --set evaluate=

# ---- a hook that goes wild in the third epoch ----
wild() { # wild LUA: what it does in epoch 3
  printf 'return function(event)\n  event.state.calls = (event.state.calls or 0) + 1\n%s%s%s' \
    '  if event.epoch < 2 then return end' $'\n  '"$1" $'\nend\n' >wild.lua
}
sed -e '0,/schedule: {.*/s//&\n      on_epoch_end: {lua: wild.lua}/' -e "s/epochs: 3/epochs: 4/" \
  -e 's/checkpoint: .*/checkpoint: {every: 1000}/' -e '/^  - segment:/,$d' "$pipelines/tiny.yaml" \
  >wild.yaml # the first stage alone
run=(wild.yaml --set "data.root=$work/phantom")
wild 'return'
try 0 "$STRATA" run "${run[@]}" --out tame
wild 'while true do end'
try 1 "$STRATA" run "${run[@]}" --out wild
says "wild.lua:4:1: error: more than 20 million instructions in one call"
says "(the script is named at wild.yaml:"
says "The state before it is saved"
exists wild/state.safetensors
try 1 "$STRATA" run "${run[@]}" --out wild --resume
says "more than 20 million"
wild 'event.log("call " .. event.state.calls)'
try 2 "$STRATA" run "${run[@]}" --out wild --resume
says "with --changed-scripts it goes on"
try 0 "$STRATA" run "${run[@]}" --out wild --resume --changed-scripts
prints "pretrain: call 3"
has wild/run.json '"script_changes"'
try 0 "$STRATA" weights diff tame/weights/pretrain.safetensors wild/weights/pretrain.safetensors
prints "every bit the same"
same_log tame wild
try 2 "$STRATA" run "${run[@]}" --set seed=9 --out wild --resume --changed-scripts
says "was started from another pipeline"

# ---- whatever it does, the state is kept and the message says where ----
attack() { # attack LUA MESSAGE
  rm -rf attacked
  wild "$1"
  try 1 "$STRATA" run "${run[@]}" --out attacked
  says "wild.lua:4:1: error: $2"
  says "named at wild.yaml:"
  exists attacked/state.safetensors
}
attack 'local t = {} while true do t = {t} end' "the script needs more than 16 MiB"
attack 'local function f() return 1 + f() end f()' "more than 2000 nested calls"

# ---- the other kinds ----
wild 'return'
printf 'return function(event)\n  event.set("lr", 1)\nend\n' >end.lua
try 1 "$STRATA" run "${run[@]}" --set 'stages.pretrain.on_stage_end={lua: end.lua}' --out ended
says "end.lua:2:1: error: event.set is not available in this script (on_stage_end)"
exists ended/state.safetensors
[ ! -e ended/weights/pretrain.safetensors ] || fail "the stage counts as done"
printf 'return function(event)\n  event.log(event.reason)\nend\n' >end.lua
try 0 "$STRATA" run "${run[@]}" --set 'stages.pretrain.on_stage_end={lua: end.lua}' --out ended \
  --resume --changed-scripts
prints "pretrain: epochs"
same_log tame ended
# A schedule that fails at once is found before anything is trained, whatever its stage.
printf 'return function(step, epoch, total)\n  return bass * step / total\nend\n' >none.lua
late=("${tiny[@]}" --set 'stages.segment.schedule={lua: none.lua}')
try 1 "$STRATA" check "${late[@]}"
says "none.lua:2:1: error: bass is not defined"
try 1 "$STRATA" run "${late[@]}" --out refused
says "none.lua:2:1: error: bass is not defined"
[ ! -e refused ] || fail "a run with a schedule that cannot work was begun"
printf 'return function(step)\n  return step < 7 and 0.1 or nil\nend\n' >rate.lua
try 1 "$STRATA" run "${run[@]}" --set 'stages.pretrain.schedule={lua: rate.lua}' --out rated
says "rate.lua:1:1: error: the schedule must return a number; at step 7 it returned a nil value"
says "named by --set"
exists rated/state.safetensors
