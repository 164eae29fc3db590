# What goes wrong outside the pipeline file: each is named, and nothing that was done is lost.
. "$(dirname "$0")/lib.sh"
make_phantom phantom
process=
mounted=
cleanup='tidy'
tidy() {
  [ -z "$process" ] || kill -9 "$process" 2>/dev/null || true
  [ -z "$mounted" ] || umount "$mounted" || true
}

try 0 "$STRATA" run "${tiny[@]}" --out run
try 2 "$STRATA" run "${tiny[@]}" --out run
says "run already holds a run; add --resume"

# ---- no room ----------------------------------------------------------------------------------

# A state of the first stage is on disk; then files may not grow past 1 MiB, and the next state
# does not fit.
long=("${tiny[@]}" --set stages.pretrain.epochs=200 --out full)
"$STRATA" run "${long[@]}" >full.log 2>full.err &
process=$!
wait_for full.log "pretrain  epoch 1/" "$process"
kill -INT "$process"
wait "$process" 2>/dev/null || true
process=
exists full/state.safetensors
cp full/state.safetensors state
"$STRATA" run "${long[@]}" --resume >limited.log 2>limited.err &
process=$!
wait_for limited.log "pretrain  epoch" "$process"
kill -9 "$process" 2>/dev/null || true
wait "$process" 2>/dev/null || true
cp state full/state.safetensors
(
  ulimit -f 1024
  exec "$STRATA" run "${long[@]}" --resume
) >limited.log 2>limited.err &
process=$!
wait_for limited.log "goes on at epoch" "$process"
sleep 0.2
kill -INT "$process" 2>/dev/null || true
got=0
wait "$process" 2>/dev/null || got=$?
process=
[ "$got" -eq 1 ] || fail "exit status $got when the state cannot be written: $(cat limited.err)"
has limited.err "full/state.safetensors"
has limited.err "File too large"
cmp full/state.safetensors state || fail "the previous state was damaged"
[ "$(ls full | grep -c state)" -eq 1 ] || fail "a part of a state was left behind: $(ls full)"

# Weights that do not fit: the stage is not taken for done. (States, which are larger, are not saved.)
(
  ulimit -f 256
  exec "$STRATA" run "${tiny[@]}" --out cut --set stages.pretrain.checkpoint.every=10h
) >"$work/out" 2>"$work/err" && fail "weights were written past the limit"
says "cut/weights/pretrain.safetensors"
[ -z "$(ls cut/weights)" ] || fail "a part of the weights was left behind"
try 0 "$STRATA" run "${tiny[@]}" --out cut --resume
same_run run cut

# Of the last stage only the weights fit, not the state that it could be made longer with: it is finished.
(
  ulimit -f 1024
  exec "$STRATA" run "${tiny[@]}" --out tight --set stages.segment.checkpoint.every=10h
) >"$work/out" 2>"$work/err" || fail "no weights where they would have fitted"
prints "warning: cannot write tight/state.safetensors"
prints "File too large; without this state stage segment cannot be made longer"
[ "$(ls tight | grep -c 'state.*safetensors')" -eq 0 ] || fail "a part of a state was left behind: $(ls tight)"
same_run run tight
try 0 "$STRATA" run "${tiny[@]}" --out tight --set stages.segment.checkpoint.every=10h --resume
prints "stage segment: done before"
try 2 "$STRATA" run "${tiny[@]}" --out tight --set stages.segment.epochs=4 --resume
says "there is no state.final.safetensors to go on from"

name=$(cd run/predictions && ls | head -n 1)
(
  ulimit -f 1
  exec "$STRATA" predict run "phantom/imagesTr/$name" -o small.nii.gz
) >"$work/out" 2>"$work/err" && fail "a segmentation was written past the limit"
says "small.nii.gz"
[ ! -e small.nii.gz ] || fail "a part of a segmentation was left behind"

# What is printed is a result, too.
for command in "ops" "--help" "schema"; do
  got=0
  # shellcheck disable=SC2086
  "$STRATA" $command >/dev/full 2>"$work/err" || got=$?
  [ "$got" -eq 1 ] || fail "strata $command on a full disk ends with status $got"
  says "cannot write standard output: No space left on device"
done

# Memory that a stage does not get. (A sanitizer needs terabytes of addresses.)
if [ "$SANITIZED" = 0 ]; then
  (
    ulimit -v 8000000
    exec "$STRATA" bench "${tiny[@]}" --batch 60000 --steps 1
  ) >"$work/out" 2>"$work/err" && fail "a step of a hundred GiB was run in eight"
  says "stage segment: out of memory: could not allocate"
  says "A smaller batch or smaller crops need less"
fi

# A disk that is really full, where this user may mount one.
mkdir small
if mount -t tmpfs -o size=900k tmpfs small 2>/dev/null; then
  mounted=$work/small
  # Without states in between, however slow the machine is, the first stage's weights fit.
  try 1 "$STRATA" run "${tiny[@]}" --set "data.cache=$work/cache" --out small/run \
    --set stages.pretrain.checkpoint.every=3600 --set stages.segment.checkpoint.every=3600
  says "No space left on device"
  says "small/run/"
  exists small/run/weights/pretrain.safetensors
  try 0 "$STRATA" weights diff small/run/weights/pretrain.safetensors run/weights/pretrain.safetensors
  # A full cache is only slower.
  try 0 "$STRATA" run "${tiny[@]}" --set "data.cache=$work/small/cache" --out uncached
  prints "warning: "
  same_run run uncached
else
  echo "not tested: a full disk (mounting one is not permitted here)"
fi

# ---- numbers ----------------------------------------------------------------------------------

try 1 "$STRATA" run "${tiny[@]}" --set stages.pretrain.optimizer.adamw.lr=1000 \
  --set stages.pretrain.optimizer.adamw.weight_decay=1000 --out diverged
grep -qE 'stage pretrain, epoch [12], step [123] \(case phantom_00.*the loss.* became (NaN|infinite)' \
  "$work/err" || fail "the message does not say where the loss stopped being a number"
says "Try a lower learning rate"

# The loss of the only step is finite, the weights after it are not.
try 1 "$STRATA" run "${tiny[@]}" --set 'stages.pretrain.optimizer={sgd: {lr: 1000}}' \
  --set stages.pretrain.graph.loss.context.weight=1e38 \
  --set stages.pretrain.epochs=1 --set stages.pretrain.steps_per_epoch=1 --out overflowed
grep -qE 'stage pretrain, epoch 1, update 1: vit.* became (NaN|infinite)' "$work/err" ||
  fail "the message does not say when which parameter stopped being a number"
says "Try a lower learning rate"
[ -z "$(ls overflowed/weights)" ] || fail "weights that are no numbers were written"

# ---- data -------------------------------------------------------------------------------------

broken() { # broken: a copy of the data set to damage
  rm -rf broken
  cp -r phantom broken
}
on_broken=("$pipelines/tiny.yaml" --set "data.root=$work/broken")

broken
for image in broken/imagesTr/*; do truncate -s 3000 "$image"; done
try 1 "$STRATA" run "${on_broken[@]}" --out bad1
says "case phantom_00"
says "broken/imagesTr/phantom_00"

broken
for label in broken/labelsTr/*; do cp phantom/labelsTr/phantom_001.nii.gz "$label"; done
try 1 "$STRATA" run "${on_broken[@]}" --out bad2
says "case phantom_00"
says "They must be on one grid"

broken
rm broken/imagesTr/phantom_003.nii.gz broken/labelsTr/phantom_005.nii.gz
try 1 "$STRATA" check "${on_broken[@]}"
says "phantom_003"
says "phantom_005"

broken
printf '{"training": [' >broken/dataset.json
try 1 "$STRATA" check "${on_broken[@]}"
says "dataset.json"

# ---- runs -------------------------------------------------------------------------------------

image=phantom/imagesTr/$name
try 1 "$STRATA" predict nowhere "$image" -o x.nii.gz
says "nowhere is not a run"
try 2 "$STRATA" predict run "$image"
says "-o"
try 2 "$STRATA" predict run "$image" "$image" -o x.nii.gz
says "need a folder after -o"
try 1 "$STRATA" predict run missing.nii.gz -o x.nii.gz
says "missing.nii.gz"
[ "$(grep -o missing.nii.gz "$work/err" | wc -l)" -eq 1 ] || fail "a file is named twice"
cp -r run hurt
head -c 300000 run/weights/segment.safetensors >hurt/weights/segment.safetensors
try 1 "$STRATA" predict hurt "$image" -o x.nii.gz
says "segment.safetensors"
cp run/weights/pretrain.safetensors hurt/weights/segment.safetensors
try 1 "$STRATA" predict hurt "$image" -o x.nii.gz
says "out.conv.conv.weight is 1×2×1×1×1, this network needs 3×2×1×1×1"
echo '{' >hurt/run.json
try 1 "$STRATA" predict hurt "$image" -o x.nii.gz
says "hurt/run.json is damaged"
[ ! -e x.nii.gz ] || fail "a failed prediction left a file"
