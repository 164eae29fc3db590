# Both stages on phantoms, then everything a finished run is good for.
. "$(dirname "$0")/lib.sh"
make_phantom phantom

try 0 "$STRATA" check "${tiny[@]}"
prints "no mistakes found"
prints "8 cases: 4 train, 2 validation, 2 test"

try 0 "$STRATA" run "${tiny[@]}" --out run
exists run/pipeline.lock.yaml run/run.json run/metrics.jsonl run/evaluation.json \
  run/weights/pretrain.safetensors run/weights/segment.safetensors
[ ! -e run/state.safetensors ] || fail "a finished run looks unfinished"

# The transfer between the stages is reported tensor by tensor.
prints "loaded   vit.blocks.3.mlp.linear2.weight"
prints "reset    out.conv.conv.weight"
prints "reset    out.conv.conv.bias"
prints "unused   loss.structure.heads.0.weight"
prints "80 loaded, 2 reset, 8 unused, 0 unexpected"

# One line an epoch; every part of the loss, and the accuracy of every level, in training and in
# validation.
[ "$(grep -c '"stage":"pretrain"' run/metrics.jsonl)" -eq 3 ] || fail "epochs of pretrain"
[ "$(grep -c '"stage":"segment"' run/metrics.jsonl)" -eq 3 ] || fail "epochs of segment"
grep '"stage":"pretrain","epoch":3' run/metrics.jsonl >last
for key in loss loss.context loss.structure structure.accuracy.{0,1,2,3} lr; do
  has last "\"$key\":"
done
for key in loss loss.context loss.structure structure.accuracy.{0,1,2,3}; do
  has last "\"validation.$key\":"
done
grep '"stage":"segment","epoch":2' run/metrics.jsonl >validated
for key in loss loss.dice loss.ce lr validation.dice; do has validated "\"$key\":"; done

# Numbers of the evaluation, and a row for each of the two test cases.
tr -d ' \n' <run/evaluation.json >flat
grep -qE '"dice":\{"mean":[0-9.e-]+,' flat || fail "evaluation.json lacks dice.mean"
grep -qE '"dice":\{[^}]*"per_class":\{"spleen":[0-9.e-]+,"liver":[0-9.e-]+\}' flat ||
  fail "evaluation.json lacks dice.per_class"
grep -qE '"hd95_mm":\{"mean":' flat || fail "evaluation.json lacks hd95_mm"
cases=$(cd run/predictions && ls)
[ "$(echo "$cases" | wc -l)" -eq 2 ] || fail "two test cases, but predictions of: $cases"
for name in $cases; do has flat "{\"name\":\"${name%.nii.gz}\",\"dice_mean\":"; done

# `predict` segments as the evaluation did, byte for byte, alone and with others.
first=$(echo "$cases" | head -n 1)
try 0 "$STRATA" predict run "phantom/imagesTr/$first" -o one.nii.gz
cmp one.nii.gz "run/predictions/$first" || fail "predict and the evaluation differ"
paths=()
for name in $cases; do paths+=("phantom/imagesTr/$name"); done
try 0 "$STRATA" predict run "${paths[@]}" -o several
for name in $cases; do cmp "several/$name" "run/predictions/$name" || fail "$name differs"; done

# A damaged input is named; the others are done all the same.
head -c 2000 "${paths[0]}" >damaged.nii.gz
try 1 "$STRATA" predict run "${paths[0]}" damaged.nii.gz "${paths[1]}" -o rest
says "damaged.nii.gz"
[ ! -e rest/damaged.nii.gz ] || fail "a damaged input left a segmentation"
for name in $cases; do cmp "rest/$name" "run/predictions/$name" || fail "$name differs"; done

# Once it is repaired, --resume does what is left: that, an input that is another now, and what somebody
# has changed. With another key of the pipeline that is everything.
second=$(echo "$cases" | tail -n 1)
mkdir copy && cp "${paths[@]}" copy && cp "${paths[0]}" copy/third.nii.gz
again=("copy/$first" damaged.nii.gz "copy/$second" copy/third.nii.gz -o rest)
try 1 "$STRATA" predict run "${again[@]}"
exists rest/state.predict.jsonl
kept=$(stat -c %i "rest/$first")
cp "${paths[0]}" damaged.nii.gz && cp "${paths[0]}" "copy/$second" && printf more >>rest/third.nii.gz
cp -r rest other
try 0 "$STRATA" predict run "${again[@]}" --resume
prints "1 of 4 were segmented before"
[ "$(grep -c '^rest/' out)" -eq 4 ] || fail "not all segmentations are named: $(cat out)"
[ "$(stat -c %i "rest/$first")" = "$kept" ] || fail "a case was segmented twice"
[ ! -e rest/state.predict.jsonl ] || fail "the record of a finished command stays"
for name in damaged.nii.gz "$second" third.nii.gz; do
  cmp "rest/$name" "run/predictions/$first" || fail "$name is not the segmentation of its input"
done
kept=$(stat -c %i "other/$first")
try 0 "$STRATA" predict run "${again[@]/rest/other}" --resume --set "evaluate.postprocess=[keep_largest]"
[ "$(stat -c %i "other/$first")" != "$kept" ] || fail "a segmentation by another pipeline stays"
try 2 "$STRATA" predict run "${paths[0]}" -o one.nii.gz --resume
says "--resume goes on with a folder"

# Nothing is overwritten by accident.
try 2 "$STRATA" predict run "${paths[0]}" "copy/$first" -o merged
says "would both be segmented to"
try 2 "$STRATA" predict run "copy/$first" -o copy
says "would replace the input"
cmp "copy/$first" "${paths[0]}" || fail "an input was overwritten"

# The folders can be scored again, and the numbers agree.
mkdir references
for name in $cases; do cp "phantom/labelsTr/$name" references/; done
try 0 "$STRATA" evaluate --prediction run/predictions --reference references --json scores.json
mean() { tr -d ' \n' <"$1" | sed -E 's/.*"dice":\{"mean":([^,]+),.*/\1/'; }
[ "$(mean scores.json)" = "$(mean run/evaluation.json)" ] || fail "evaluate: another mean Dice"

# A baseline without step 1 says so.
try 0 "$STRATA" run "${tiny[@]}" --set stages.pretrain.enabled=false --out baseline
prints "stage pretrain: switched off"
prints "starts from fresh weights"

# The resolved pipeline alone describes the run: it loads from anywhere and gives the same weights.
try 0 "$STRATA" run run/pipeline.lock.yaml --out again
prints "identical to the lock: yes"
same_run run again
