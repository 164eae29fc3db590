# Ctrl-C stops all trials that run and says how to go on; what goes on ends with the same bits. A
# script that is killed takes its trials with it. Scripts that mean harm do none.
. "$(dirname "$0")/lib.sh"
make_phantom phantom
epochs=$((${EPOCHS:-12} / 4 + 3))
budget=(--set "data.root=$work/phantom" --set "stages.segment.epochs=$epochs"
  --set stages.segment.validate.every=0 --set evaluate.inferer.sliding_window.overlap=0)
cat >study.lua <<LUA
local base = pipeline("$pipelines/tiny.yaml", {["stages.pretrain.enabled"] = false})
local study = ablation("study")
study:arm("slow", base)
study:arm("fast", base:with("stages.segment.optimizer.sgd.lr", 0.1))
study:run()
study:report("dice")
LUA

process=
cleanup='stop_process'
stop_process() { [ -z "$process" ] || kill -9 "$process" 2>/dev/null || true; }
start() {
  "$STRATA" ablate study.lua "${budget[@]}" --out broken --jobs 2 --threads 2 >log 2>err &
  process=$!
}
in_second_epoch() { # Both trials have written a line of their logs, or it is over.
  while kill -0 "$process" 2>/dev/null; do
    [ "$(cat broken/trials/*/metrics.jsonl 2>/dev/null | wc -l)" -ge "$1" ] && return 0
    sleep 0.02
  done
}
nobody_works() { # A trial's lock is held as long as somebody works on it.
  local trial i
  for trial in broken/trials/*; do
    for ((i = 0; i < 3000; i++)); do
      flock -n "$trial/trial.lock" true && continue 2
      sleep 0.02
    done
    fail "somebody still works on $trial"
  done
}

try 0 "$STRATA" ablate study.lua "${budget[@]}" --out whole
start
in_second_epoch 2
kill -INT "$process"
got=0
wait "$process" || got=$?
process=
[ "$got" -eq 130 ] || fail "exit status $got instead of 130 after Ctrl-C"
has err "the same command goes on from there"
[ "$(grep -c '^stopped ' log)" -ge 1 ] || fail "no trial was stopped: $(cat log)"
nobody_works
grep -q '"state": "begun"' broken/trials/*/trial.json || fail "no trial is begun"

# A scheduler tells everybody at once, and again: the trials stop as if they had been told once.
start
in_second_epoch 3
read -ra trials <"/proc/$process/task/$process/children" || true
kill -STOP "$process" "${trials[@]}" 2>/dev/null || true
kill -TERM "$process" "${trials[@]}" 2>/dev/null || true
kill -HUP "$process" "${trials[@]}" 2>/dev/null || true
kill -CONT "$process" "${trials[@]}" 2>/dev/null || true
got=0
wait "$process" || got=$?
process=
[ "$got" -eq 130 ] || fail "exit status $got instead of 130 after SIGTERM"
[ "$(grep -c '^failed ' log)" -eq 0 ] || fail "a trial that was stopped counts as failed: $(cat log)"
nobody_works

# Killed without a chance to say anything: the trials stop by themselves, and can go on.
start
in_second_epoch 4
kill -KILL "$process" 2>/dev/null || true
wait "$process" 2>/dev/null || true
process=
nobody_works
try 0 "$STRATA" ablate study.lua "${budget[@]}" --out broken
[ -e broken/study.md ] || fail "no table"
for trial in whole/trials/*; do
  same_run "$trial" "broken/trials/$(basename "$trial")"
  same_log "$trial" "broken/trials/$(basename "$trial")"
done
cmp whole/study.csv broken/study.csv || fail "the tables differ"

# ---- scripts that mean harm: an error with a line, no file, no process --------------------------
harm() { # harm TEXT LUA
  printf '%s\n' "$2" >harm.lua
  try 1 timeout 300 "$STRATA" ablate harm.lua --set "data.root=$work/phantom" --out harm
  says "$1"
  says "harm.lua:"
  [ ! -e harm ] || fail "a harmful script wrote something: $2"
}
harm "io is not available" 'io.open("/etc/passwd")'
harm "os is not available" 'os.execute("touch harm")'
harm "load is not available" 'load("return 1")()'
harm "require is not available" 'require("os")'
harm "getmetatable is not available" 'getmetatable(ablation("x")).__index = nil'
harm "coroutine is not available" 'coroutine.wrap(function() end)()'
harm "pcall is not available" 'pcall(error)'
harm "string.dump is not available" 'string.dump(function() end)'
harm "million instructions" 'while true do end'
harm "nested calls" 'local function f() return 1 + f() end f()'
harm "of memory" 'local t = {} for i = 1, 1e9 do t[i % 4000 + 1] = {string.rep("x", 1e6 + i % 9)} end'
harm "a string of more than 1024 KiB" 'local s = string.rep("x", 1e9)'
harm "million instructions" "local p = pipeline('$pipelines/tiny.yaml')
while true do p = p:with('doc', string.rep('x', 60000)) end"
harm "at most 200 changes" "local p = pipeline('$pipelines/tiny.yaml')
for i = 1, 300 do p:set('seed', i) end"
harm "names are UTF-8" "ablation('x'):arm('\\255', pipeline('$pipelines/tiny.yaml'))"
harm "a name of files" 'show("/tmp/x", {}, {"a"})'
harm "nothing can be assigned" 'ablation("x").run = print'
harm "deeper than 16" "local t = {} t.t = t pipeline('$pipelines/tiny.yaml'):set('params', t)"
