# A run as a scheduler has it: signals in numbers, time that is over, output that nobody reads any
# more. Nothing of its work is lost.
. "$(dirname "$0")/lib.sh"
make_phantom phantom
one=("${tiny[@]}" --set stages.pretrain.enabled=false --threads 1)
long=("${one[@]}" --set stages.segment.epochs=400)

process=
cleanup='stop_process'
stop_process() { [ -z "$process" ] || kill -9 "$process" 2>/dev/null || true; }
end() { # end STATUS: of the process
  local got=0
  wait "$process" 2>/dev/null || got=$?
  process=
  [ "$got" -eq "$1" ] || fail "exit status $got instead of $1: $(tail -n 3 log err)"
}
start() { # start OPTION…, until it trains; on a busy machine this script shall be the quicker
  rm -f log err # what the last one said is not taken for this one
  nice -n 19 "$STRATA" run "$@" >log 2>err &
  process=$!
  wait_for log "stage segment:" "$process"
}

# Several signals at once, as timeout(1) and schedulers send them: the state is saved all the same.
asked=0
for signals in "TERM INT" "USR1 HUP" "USR2 XCPU"; do
  asked=$((asked + 1))
  start "${long[@]}" --out "asked-$asked"
  kill -STOP "$process"
  for signal in $signals; do kill "-$signal" "$process"; done
  kill -CONT "$process"
  end 130
  has err "the state is saved, and the same command with --resume goes on from there"
  exists "asked-$asked/state.safetensors"
done

# One that nohup has made deaf to the end of a session goes on, also when its reader is gone.
mkfifo pipe
(trap '' HUP && exec "$STRATA" run "${long[@]}" --out deaf >pipe 2>&1) &
process=$!
head -n 8 pipe >log
kill -HUP "$process"
before=$(wc -l <deaf/metrics.jsonl)
until [ "$(wc -l <deaf/metrics.jsonl)" -gt $((before + 2)) ]; do
  kill -0 "$process" || fail "it has ended without being told to"
  sleep 0.02
done
kill -TERM "$process"
end 130
exists deaf/state.safetensors

# Killed within an epoch that is longer than the time between two checkpoints: of two seconds, for this script
# to be quick enough, whatever a step takes here.
try 0 "$STRATA" bench "${one[@]}" --steps 5 --json bench.json
steps=$(sed -n 's/ *"min_s": \([0-9.e-]*\),/\1/p' bench.json | awk '{ print int(2 / $1) + 1 }')
epoch=("${one[@]}" --set stages.segment.epochs=1 --set "stages.segment.steps_per_epoch=$steps")
try 0 "$STRATA" run "${epoch[@]}" --out whole
start "${epoch[@]}" --out killed
kill -STOP "$process"
sleep 1.1
until [ -s killed/state.safetensors ]; do # not much further, however busy the machine is
  [ ! -s killed/metrics.jsonl ] || fail "no checkpoint within the epoch"
  kill -CONT "$process"
  sleep 0.01
  kill -STOP "$process"
done
kill -KILL "$process" || fail "the run was over before it could be killed"
end 137
[ ! -s killed/metrics.jsonl ] || fail "the epoch was over before the run could be killed"
try 0 "$STRATA" run "${epoch[@]}" --out killed --resume
prints "stage segment goes on at epoch 1, step"
same_run whole killed
same_log whole killed

# Asked while it validates, in the midst of a case that takes minutes.
start "${one[@]}" --set stages.segment.epochs=1 --set stages.segment.steps_per_epoch=1 --out slow \
  --set "evaluate.inferer.sliding_window={size: [16, 16, 32], overlap: 0.95, mirror: [x, y, z]}"
sleep 0.3
kill -TERM "$process"
for ((i = 0; i < 500; i++)); do
  kill -0 "$process" 2>/dev/null || break
  sleep 0.02
done
kill -0 "$process" 2>/dev/null && fail "it goes on validating"
end 130
has err "stopped in stage segment, epoch 1, step 1; the state is saved"

# The evaluation goes on where it was: a case that is segmented stays, unless its file is another now.
scored=("${one[@]}" --set stages.segment.epochs=1 --set stages.segment.steps_per_epoch=1
  --set "data.split={train: 0.4, validation: 0.1, test: 0.5}"
  --set evaluate.inferer.sliding_window.overlap=0.6)
try 0 "$STRATA" run "${scored[@]}" --out in-one-go
start "${scored[@]}" --out in-two
record=in-two/state.evaluation.jsonl
until [ "$(cat "$record" 2>/dev/null | wc -l)" -ge 2 ]; do
  kill -0 "$process" || fail "the evaluation was over before it could be killed"
  sleep 0.005
done
kill -KILL "$process"
end 137
printf '{"by":' >>"$record" # a line that is not whole
mapfile -t cases < <(sed -n 's/.*"case":"\([^"]*\)".*/in-two\/predictions\/\1.nii.gz/p' "$record")
printf 'more' >>"${cases[0]}"
kept=$(stat -c %i "${cases[1]}")
try 0 "$STRATA" run "${scored[@]}" --out in-two --resume
[ "$(stat -c %i "${cases[1]}")" = "$kept" ] || fail "a case was segmented twice"
same_run in-one-go in-two
# Once all is done there is nothing to segment: as when a whole array of jobs is submitted again.
before=$(stat -c %i in-two/predictions/*)
try 0 "$STRATA" run "${scored[@]}" --out in-two --resume-if-any
[ "$(stat -c %i in-two/predictions/*)" = "$before" ] || fail "a finished run segments again"

# One command for the first start and all that follow. What a killed program has left half written is
# removed, in the cache only when it is old; a cache that takes nothing is told once.
touch full # where the cache's folder would be
job=("${one[@]}" --set data.cache=full --out job --resume-if-any)
start "${job[@]}" --set stages.segment.epochs=400
kill -TERM "$process"
end 130
[ "$(grep -c "the prepare cache is not kept" log)" = 1 ] || fail "not one warning: $(cat log)"
mkdir -p cache job/predictions
touch job/state.safetensors.part-77-0 job/weights/segment.safetensors.part-7-12 \
  job/predictions/x.nii.gz.part-1-1 job/mine.part-a cache/new.case.part-77-3
touch -d '2 days ago' cache/old.case.part-77-2
epochs=$(($(wc -l <job/metrics.jsonl) + 2))
job+=(--set "stages.segment.epochs=$epochs" --set data.cache=cache)
try 0 "$STRATA" run "${job[@]}"
prints "stage segment goes on at epoch"
[ "$(find job cache -name '*.part-*' | sort | tr '\n' ' ')" = "cache/new.case.part-77-3 job/mine.part-a " ] ||
  fail "left half written: $(find job cache -name '*.part-*')"
try 0 "$STRATA" run "${job[@]}"
prints "stage segment: done before"
try 2 "$STRATA" run "${one[@]}" --out job
says "--resume-if-any"
try 2 "$STRATA" run "${one[@]}" --resume-if-any
says "--resume-if-any needs --out"

# Copied to another machine: with what is shipped beside it, also beside the sources that it was built
# from, and without anything.
mkdir -p opt/bin opt/share/strata
elsewhere=${SOURCE//?/x} # of the same length
LC_ALL=C sed "s|$SOURCE|$elsewhere|g" "$STRATA" >opt/bin/strata
chmod +x opt/bin/strata
try 1 opt/bin/strata check "${tiny[@]}"
says "what is shipped with this program is not there: copy its share/strata beside its bin"
cp -r "$SOURCE/pipelines" "$SOURCE/lua" opt/share/strata/
try 0 opt/bin/strata check "${tiny[@]}"
cp "$STRATA" opt/bin/strata
sed -i 's/^params:/params: {}\nwrong:/' opt/share/strata/pipelines/models/unetr.yaml
try 1 opt/bin/strata check "${tiny[@]}"
says "opt/bin/../share/strata/pipelines/models/unetr.yaml:"

# As many threads as the process may use; what it may not have is noted before anything runs.
try 0 taskset -c "$(taskset -cp $$ | sed 's/.*[:,-] *//')" "$STRATA" check "${tiny[@]}"
prints "1 thread"
if [ "${SANITIZED:-0}" = 0 ]; then # a sanitizer takes more address space than there is memory
  large=(--set "params.roi=[96, 96, 96]" --set model.with.features=64 --set stages.segment.batch=4)
  try 0 bash -c 'ulimit -v 2000000 && exec "$@"' - "$STRATA" check "${tiny[@]}" "${large[@]}"
  prints "on the CPU, beside prepared cases, and this process may have 1.9"
fi
