# Split files: nnU-Net's splits_final.json and published lists, from the check to the lock and the pack.
. "$(dirname "$0")/lib.sh"
make_phantom phantom 6

mkdir -p nn/imagesTr nn/labelsTr
for i in 1 2 3 4 5 6; do
  cp "phantom/imagesTr/phantom_00$i.nii.gz" "nn/imagesTr/case_00${i}_0000.nii.gz"
  cp "phantom/labelsTr/phantom_00$i.nii.gz" "nn/labelsTr/case_00$i.nii.gz"
done
cat >nn/dataset.json <<'JSON'
{"channel_names": {"0": "CT"}, "numTraining": 6, "file_ending": ".nii.gz",
 "labels": {"background": 0, "a": 1, "b": 2}}
JSON
cp "$pipelines/tiny.yaml" .
# As nnU-Net writes it.
python3 - <<'PY'
import json
cases = [f"case_00{i}" for i in range(1, 7)]
folds = [{"train": [c for c in cases if c not in held], "val": held}
         for held in (cases[:2], cases[2:4], cases[4:])]
json.dump(folds, open("splits_final.json", "w"), sort_keys=False, indent=4)
PY
cat >folds.yaml <<YAML
strata: 1
use: tiny.yaml
data:
  root: .
  dataset: {decathlon: ~, nnunet: nn}
  split: {train: ~, test: ~, file: splits_final.json, fold: 1, validation: 0.25}
YAML
short=(--set stages.pretrain.enabled=false --set stages.segment.epochs=1)

try 0 "$STRATA" check folds.yaml "${short[@]}"
prints "6 cases: 3 train, 1 validation, 2 test"
try 0 "$STRATA" run folds.yaml "${short[@]}" --out run
[ "$(cd run/predictions && echo *)" = "case_003.nii.gz case_004.nii.gz" ] ||
  fail "fold 1 tested $(ls run/predictions)"
has run/pipeline.lock.yaml "validation: 0.25"

# A pack has the file; the lock has what its lists say.
try 0 "$STRATA" pack folds.yaml -o folds.strata
try 0 "$STRATA" pack --list folds.strata
prints "  project/splits_final.json"
mv splits_final.json gone.json
try 0 "$STRATA" check folds.strata --set data.split.fold=2 --set data.split.validation=~
prints "6 cases: 4 train, 0 validation, 2 test"
try 0 "$STRATA" run run/pipeline.lock.yaml --out again
prints "identical to the lock: yes"
same_run run again
try 1 "$STRATA" check folds.yaml "${short[@]}"
says "splits_final.json"

# What does not fit is said with its place in the file.
sed 's/case_005/case_007/' gone.json >splits_final.json
try 1 "$STRATA" check folds.yaml "${short[@]}"
says "splits_final.json:18:13: error: the split's train list names case_007, which is not in nn; did you mean"
says '"case_007"'
sed 's/case_005/case_006/' gone.json >splits_final.json
try 1 "$STRATA" check folds.yaml "${short[@]}"
says "splits_final.json:19:13: error: case case_006 is in the split's train list twice"
sed 's/case_005/case_003/' gone.json >splits_final.json
try 1 "$STRATA" check folds.yaml "${short[@]}"
says "error: case case_003 is in the split's train and test lists"
try 1 "$STRATA" check folds.yaml "${short[@]}" --set data.split.fold=3
says "data: split: fold is 3, but splits_final.json has folds 0 to 2."
try 1 "$STRATA" check folds.yaml "${short[@]}" --set data.split.fold=~
says "splits_final.json is a list of folds, and fold: 0 to 2 says which"
head -c 5000000 /dev/zero | tr '\0' ' ' >splits_final.json
try 1 "$STRATA" check folds.yaml "${short[@]}"
says "splits_final.json"
says "is larger than the 4096 KiB allowed here"
{ head -c 300 /dev/zero | tr '\0' '['; } >splits_final.json
try 1 "$STRATA" check folds.yaml "${short[@]}"
says "splits_final.json:1:"

# MONAI's lists number the folds in their entries.
python3 - <<'PY'
import json
entries = [{"image": f"imagesTr/case_00{i}.nii.gz", "label": f"labelsTr/case_00{i}.nii.gz",
            "fold": i % 3} for i in range(1, 6)]
lists = {"training": entries, "testing": [{"image": "imagesTr/case_006.nii.gz"}]}
json.dump(lists, open("datalist.json", "w"), indent=1)
del entries[2]["fold"]
json.dump(lists, open("gap.json", "w"), indent=1)
PY
lists=("${short[@]}" --set data.split.file=datalist.json --set data.split.validation=~)
try 0 "$STRATA" check folds.yaml "${lists[@]}"
prints "6 cases: 3 train, 0 validation, 2 test, 1 in no role"
try 0 "$STRATA" check folds.yaml "${lists[@]}" --set data.split.fold=0
prints "6 cases: 4 train, 0 validation, 1 test, 1 in no role"
try 0 "$STRATA" check folds.yaml "${lists[@]}" --set data.split.validation=0.25 --set data.split.fold=0
prints "6 cases: 3 train, 1 validation, 1 test, 1 in no role"
try 0 "$STRATA" check folds.yaml "${lists[@]}" --set data.split.fold=~
prints "6 cases: 5 train, 0 validation, 1 test"
try 1 "$STRATA" check folds.yaml "${lists[@]}" --set data.split.fold=3
says "data: split: no case is in fold 3; they are numbered up to 2."
try 1 "$STRATA" check folds.yaml "${lists[@]}" --set data.split.file=gap.json
says 'gap.json:13:3: error: This case has no "fold", but others have.'

# nnU-Net's word in the pipeline itself.
try 1 "$STRATA" check folds.yaml "${short[@]}" --set "data.split={train: [case_001], val: [case_002]}"
says "Strata's words are validation"

# A published list, with a share of its training cases to validate on.
mkdir -p btcv/img btcv/label
for i in $(seq 1 10) $(seq 21 40); do
  name=$(printf %04d "$i")
  # Different bytes, as one image under two names is a leak.
  { cat phantom/imagesTr/phantom_001.nii.gz; echo "$i"; } >"btcv/img/img$name.nii.gz"
  cp phantom/labelsTr/phantom_001.nii.gz "btcv/label/label$name.nii.gz"
done
sed -e 's/nnunet: nn/btcv: btcv/' -e 's/file: .*/file: splits\/synapse_18_12.yaml, validation: 0.1}/' folds.yaml >btcv.yaml
try 0 "$STRATA" check btcv.yaml "${short[@]}"
prints "30 cases: 16 train, 2 validation, 12 test"
