# A run that is killed or stopped, wherever, and resumed equals one that never was. (test_resume does
# the same in one process after every single step.)
. "$(dirname "$0")/lib.sh"
make_phantom phantom
epochs=${EPOCHS:-12}
long=("${tiny[@]}" --set "stages.pretrain.epochs=$epochs" --set "stages.segment.epochs=$epochs"
  --set "stages.pretrain.schedules={sample.random_noise.probability: {lua: ramp}}"
  --set stages.pretrain.accumulate=2 --set "stages.segment.ema={decay: 0.9, warmup: true}"
  --set stages.segment.validate.keep_best=dice
  --set "stages.segment.no_decay=[norm, bias]" --set log.tensorboard=true)

process=
cleanup='stop_process'
stop_process() { [ -z "$process" ] || kill -9 "$process" 2>/dev/null || true; }

start() { # start RUN [OPTION…]: in the background, with its lines in RUN.log
  "$STRATA" run "${long[@]}" --out "$1" "${@:2}" >"$1.log" 2>"$1.err" &
  process=$!
}
end() { # end SIGNAL STATUS
  kill "-$1" "$process" 2>/dev/null || fail "the run was over before it could be interrupted"
  local got=0
  wait "$process" 2>/dev/null || got=$?
  process=
  [ "$got" -eq "$2" ] || fail "exit status $got instead of $2 after signal $1"
}
until_or_end() { # until_or_end COMMAND…: until it succeeds, or a fast machine's run is over
  local i
  for ((i = 0; i < 6000; i++)); do
    if "$@" 2>/dev/null || ! kill -0 "$process" 2>/dev/null; then return 0; fi
    sleep 0.02
  done
}

try 0 "$STRATA" run "${long[@]}" --out whole

# One run, interrupted four times in four ways.
start broken
wait_for broken.log "pretrain  epoch 1/$epochs" "$process"
end KILL 137
[ ! -e broken/weights/pretrain.safetensors ] || fail "weights before the end of the stage"
start broken --resume
wait_for broken.log "pretrain  epoch 2/$epochs" "$process"
kill -STOP "$process" # a run that is at work has its folder to itself, however it was started
try 2 "$STRATA" run "${long[@]}" --out broken --resume
says "another program is at work in broken"
kill -CONT "$process"
end INT 130
has broken.err "the state is saved, and the same command with --resume goes on from there"
exists broken/state.safetensors
cp broken/state.safetensors before
start broken --resume
wait_for broken.log "stage pretrain goes on at epoch" "$process"
wait_for broken.log "segment  epoch 1/$epochs" "$process"
end KILL 137
exists broken/weights/pretrain.safetensors
start broken --resume
wait_for broken.log "stage pretrain: done before" "$process"
wait_for broken.log "segment  epoch 2/$epochs" "$process"
end TERM 130
try 0 "$STRATA" run "${long[@]}" --out broken --resume
prints "stage segment goes on at epoch"
same_run whole broken
same_log whole broken

# The same after a checkpoint of its own accord, in either stage.
start killed
until_or_end test -s killed/state.safetensors
kill -9 "$process" 2>/dev/null || true
wait "$process" 2>/dev/null || true
start killed --resume
until_or_end grep -q "segment  epoch 2/" killed.log
until_or_end test -s killed/state.safetensors
kill -9 "$process" 2>/dev/null || true
wait "$process" 2>/dev/null || true
process=
try 0 "$STRATA" run "${long[@]}" --out killed --resume
same_run whole killed
same_log whole killed

# A finished run has nothing to repeat but the evaluation.
try 0 "$STRATA" run "${long[@]}" --out killed --resume
prints "stage pretrain: done before"
prints "stage segment: done before"
same_run whole killed
same_log whole killed

# Another pipeline, other data or no run at all are refused, and nothing is touched.
try 2 "$STRATA" run "${long[@]}" --set seed=6 --out killed --resume
says "was started from another pipeline"
try 2 "$STRATA" run "${long[@]}" --set stages.segment.initialize=lsuv --out killed --resume
says "was started from another pipeline"
try 2 "$STRATA" run "${long[@]}" --set stages.segment.optimizer.sgd.lr=0.5 --out killed --resume
says "was started from another pipeline"
try 2 "$STRATA" run "${long[@]}" --out nowhere --resume
says "nowhere holds no run to resume"
try 2 "$STRATA" run "${long[@]}" --resume
says "--resume needs --out"
for image in phantom/imagesTr/*; do cat "$image" >>grown && printf 'more' >>"$image"; done
try 1 "$STRATA" run "${long[@]}" --out killed --resume
says "what the run is made of has changed since killed was started; --allow-changes goes on"
says "phantom/imagesTr/phantom_001.nii.gz has changed"
same_run whole killed

# A damaged state is an error, not a crash and not a silent new start.
cp -r whole damaged
rm damaged/weights/segment.safetensors
head -c 5000 before >damaged/state.safetensors
for image in phantom/imagesTr/*; do truncate -s -4 "$image"; done
try 1 "$STRATA" run "${long[@]}" --out damaged --resume
says "damaged/state.safetensors"

# Table and event files tell the log's epochs too, each once.
try 0 python3 "$SOURCE/tests/cli/read_records.py" whole broken killed
prints "whole $((2 * epochs)) epochs"
prints "broken $((2 * epochs)) epochs"
