# A first pipeline for a data set: what it decides, that it is valid, and that it runs.
. "$(dirname "$0")/lib.sh"
make_phantom phantom 12
short=(--set stages.pretrain.epochs=1 --set stages.pretrain.steps_per_epoch=2 --set stages.segment.epochs=1
  --set stages.segment.steps_per_epoch=2 --set "model.with.filters=[4, 4, 4, 4]")

try 0 "$STRATA" new phantom -o my.yaml
has out "my.yaml: a pipeline for Phantom, 12 cases, 12 of them labelled"
taken=$(sed -n 's/^  memory *\([0-9.]*\) MiB a training step.*/\1/p' out)
for words in "Made by" "standardize: {clip: " "deep_supervision: [label, net.out, net.out2]" \
  "split: {folds: 5, fold: 0, validation: 0.1}"; do
  has my.yaml "$words"
done
try 0 "$STRATA" check my.yaml
has out "no mistakes found"
python3 - "$taken" <<'PY' || fail "the memory of a step is not that of the larger stage, $taken MiB"
import re, sys
stages = [float(step) + float(weights) for step, weights in
          re.findall(r"memory +([0-9.]+) MiB for the step .*?, ([0-9.]+) MiB for weights", open("out").read())]
assert len(stages) == 2 and stages[0] > stages[1] + 1 and abs(float(sys.argv[1]) - stages[0]) < 1, stages
PY
try 0 "$STRATA" run my.yaml "${short[@]}" --out run
[ -s run/evaluation.json ] || fail "the run has not been evaluated"

# A smaller step takes a smaller crop; the other network; what is there stays.
try 0 "$STRATA" new phantom/dataset.json -o small.yaml --memory 250MiB --network resenc_unet
has small.yaml "use: models/resenc_unet.yaml"
crop() { sed -n 's/^  roi: \[\(.*\)\]$/\1/p' "$1" | tr -d ' ' | tr ',' '*'; }
[ $(($(crop small.yaml))) -lt $(($(crop my.yaml))) ] || fail "the crop is no smaller"
try 0 "$STRATA" check small.yaml
try 0 "$STRATA" new phantom -o batch.yaml --memory 250MiB --batch 5
[ "$(grep -c '^ *batch: 5$' batch.yaml)" = 2 ] || fail "not both stages take five crops a step"
try 2 "$STRATA" new phantom -o x.yaml --batch 65536
says "even with the smallest crop"
try 2 "$STRATA" new phantom -o x.yaml --batch 65537
says "--batch is at most 65536"
try 2 "$STRATA" new phantom -o my.yaml
says "my.yaml is there already"
try 2 "$STRATA" new phantom -o tiny.yaml --memory 1MiB
says "even with the smallest crop"
try 2 "$STRATA" new phantom -o x.yaml --memory much
says "--memory takes a size such as 4GiB"
try 2 "$STRATA" new phantom -o x.yaml --network unet
says "--network is one of dynunet, resenc_unet"
[ ! -e tiny.yaml ] && [ ! -e x.yaml ] || fail "a failed command left a file"

# Skull-stripped MRI of four channels.
try 0 "$STRATA" phantom brains --layout brats --cases 4 --size 48
try 0 "$STRATA" new brains -o brains.yaml
for words in crop_foreground "scope: nonzero" "split: {folds: 4, fold: 0}"; do has brains.yaml "$words"; done
try 0 "$STRATA" check brains.yaml

# nnU-Net's layout: channels scaled by their names, regions of which dataset.json has the inner one first,
# and folders whose names mean something in YAML and in pipelines.
for folder in '~' 'a, ${b}'; do
  mkdir -p "$folder/imagesTr" "$folder/labelsTr"
  for i in 01 02 03 04; do
    cp "phantom/imagesTr/phantom_0$i.nii.gz" "$folder/imagesTr/case_${i}_0000.nii.gz"
    cp "phantom/imagesTr/phantom_0$i.nii.gz" "$folder/imagesTr/case_${i}_0001.nii.gz"
    cp "phantom/labelsTr/phantom_0$i.nii.gz" "$folder/labelsTr/case_$i.nii.gz"
  done
  cat >"$folder/dataset.json" <<'JSON'
{"channel_names": {"0": "ct", "1": "rescale_to_0_1"}, "numTraining": 4, "file_ending": ".nii.gz",
 "labels": {"background": 0, "inner": 2, "outer": [1, 2]}}
JSON
  rm -f nn.yaml
  try 0 "$STRATA" new "$folder" -o nn.yaml
  try 0 "$STRATA" check nn.yaml
  prints "outer [1, 2], inner [2]; predicted as 1 2"
  prints "4 cases: 3 train, 0 validation, 1 test"
done
has nn.yaml ", channels: [0]}"
has nn.yaml "normalize: {mode: minmax, channels: [1]}"
try 0 "$STRATA" run nn.yaml "${short[@]}" --set "model.with.filters=[2, 2, 2, 2]" --out run-nn
has run-nn/evaluation.json '"outer"'

# The same again, and with a file that cannot be read nothing.
try 0 "$STRATA" new phantom -o again.yaml
cmp my.yaml again.yaml || fail "the same data set gives another file"
name=$(cd phantom/imagesTr && ls | head -n 1)
echo broken >"phantom/imagesTr/$name"
try 1 "$STRATA" new phantom -o broken.yaml
says "$name"
[ ! -e broken.yaml ] || fail "a broken data set has a pipeline"
