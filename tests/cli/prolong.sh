# A stage is made longer when its run is resumed; a run that is resumed with another pipeline says which
# keys differ.
. "$(dirname "$0")/lib.sh"
make_phantom phantom
run=("${tiny[@]}" --set stages.pretrain.steps_per_epoch=1 --set stages.segment.steps_per_epoch=2
  --set stages.segment.validate.every=0 --set evaluate.inferer.sliding_window.overlap=0
  --set "evaluate.metrics=[dice]")

# Without a schedule the length changes nothing that was done before: a run made longer is the longer
# run, to the bit. With averaged weights, whose exchange at the end must not enter what goes on.
even=("${run[@]}" --set stages.segment.schedule= --set "stages.segment.ema={decay: 0.9}"
  --set stages.pretrain.epochs=1)
six=(--set stages.segment.epochs=6)
try 0 "$STRATA" run "${even[@]}" "${six[@]}" --out whole
try 0 "$STRATA" run "${even[@]}" --out longer
exists longer/state.final.safetensors
[ ! -e longer/state.safetensors ] || fail "a finished run looks unfinished"
try 0 "$STRATA" run "${even[@]}" "${six[@]}" --out longer --resume
prints "stages.segment.epochs: 6 (was 3)"
prints "stage segment has 6 epochs from here on, it had 3"
same_run whole longer
[ "$(grep -c '"segment"' longer/metrics.jsonl)" -eq 6 ] || fail "metrics.jsonl has other epochs"
has longer/run.json '"stages.segment.epochs"'
# Its lock is that of the longer run, and trains its weights.
! grep -q pipeline_changed longer/pipeline.lock.yaml || fail "the lock disowns its weights"
try 0 "$STRATA" run longer/pipeline.lock.yaml --out again
prints "identical to the lock: yes"

# A schedule is computed for the new length from there on, and the run says what that does.
scheduled=("${run[@]}" --set stages.pretrain.enabled=false)
try 0 "$STRATA" run "${scheduled[@]}" --out cosine
try 0 "$STRATA" run "${scheduled[@]}" --set stages.segment.epochs=5 --out cosine --resume
prints "lr jumps from"
has cosine/pipeline.lock.yaml "pipeline_changed: true"
try 0 "$STRATA" run "${scheduled[@]}" --set stages.segment.epochs=5 --out cosine --resume
prints "stage segment: done before"
# Back to fewer epochs than are done there is no way.
try 2 "$STRATA" run "${scheduled[@]}" --out cosine --resume
says "it cannot end after 3"

# Half-finished: stopped, then longer.
"$STRATA" run "${scheduled[@]}" --set stages.segment.epochs=400 --out half >half.log 2>half.err &
process=$!
cleanup='kill -9 $process 2>/dev/null || true'
wait_for half/metrics.jsonl '"epoch":2' "$process"
kill -INT "$process"
wait "$process" || true
cleanup=:
exists half/state.safetensors
done=$(grep -c '"segment"' half/metrics.jsonl)
try 0 "$STRATA" run "${scheduled[@]}" --set "stages.segment.epochs=$((done + 2))" --out half --resume
[ "$(grep -c '"segment"' half/metrics.jsonl)" -eq $((done + 2)) ] || fail "not every epoch once"

# A stage whose weights another one has begun with stays as it is.
try 2 "$STRATA" run "${even[@]}" "${six[@]}" --set stages.pretrain.epochs=9 --out longer --resume
says "stage pretrain is finished, and stage segment goes on from its weights"
# A state that was not kept.
rm longer/state.final.safetensors
try 2 "$STRATA" run "${even[@]}" --set stages.segment.epochs=9 --out longer --resume
says "there is no state.final.safetensors to go on from"
says "init={from: longer/weights/segment.safetensors}"

# Another pipeline: every key that differs, with both values. --allow-changes goes on with it.
other=(--set seed=6 --set "stages.segment.optimizer.sgd.lr=0.5" --set stages.segment.clip_norm=
  --set stages.segment.epochs=8)
try 2 "$STRATA" run "${scheduled[@]}" "${other[@]}" --out cosine --resume
says "cosine was started from another pipeline"
says "--allow-changes goes on"
says "seed is 6; cosine was started with 5"
says "stages.segment.optimizer.sgd.lr is 0.5; cosine was started with 1.0e-2"
says "stages.segment.clip_norm is left out; cosine was started with 1"
says "stages.segment.epochs is 8; cosine was started with 5"
try 0 "$STRATA" run "${scheduled[@]}" "${other[@]:2}" --out cosine --resume --allow-changes
prints "stages.segment.clip_norm: left out (was 1)"
[ "$(grep -c '"segment"' cosine/metrics.jsonl)" -eq 8 ] || fail "the run did not go on"
has cosine/run.json '"pipeline_changes"'
# A stage that is done is not trained again; it is said that its keys change nothing.
try 0 "$STRATA" run "${scheduled[@]}" "${other[@]:4}" --out cosine --resume --allow-changes
prints "warning: stage segment is finished; what has changed in it has no effect"
