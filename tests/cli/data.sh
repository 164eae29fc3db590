# Data sets in the layouts of BTCV and nnU-Net, from the command line: looked through, trained on,
# scored; broken files and leaks between roles.
. "$(dirname "$0")/lib.sh"

try 0 "$STRATA" phantom phantom --cases 6 --size 48 --organs 4
try 0 "$STRATA" data check phantom --json look.json
prints "Phantom, 6 cases: 6 train, 0 validation, 0 test; 6 good"
has look.json '"problems": []'

mkdir -p btcv/img btcv/label nn/imagesTr nn/labelsTr
for i in 1 2 3 4 5 6; do
  cp "phantom/imagesTr/phantom_00$i.nii.gz" "btcv/img/img000$i.nii.gz"
  cp "phantom/labelsTr/phantom_00$i.nii.gz" "btcv/label/label000$i.nii.gz"
  cp "phantom/imagesTr/phantom_00$i.nii.gz" "nn/imagesTr/case_00${i}_0000.nii.gz"
  cp "phantom/labelsTr/phantom_00$i.nii.gz" "nn/labelsTr/case_00$i.nii.gz"
done
cat >nn/dataset.json <<'JSON'
{"channel_names": {"0": "CT"}, "numTraining": 6, "file_ending": ".nii.gz",
 "labels": {"background": 0, "a": 1, "b": 2, "c": 3, "d": 4, "e": 5}}
JSON
try 0 "$STRATA" data check btcv
prints "BTCV, 6 cases: 6 train, 0 validation, 0 test; 6 good"
prints "portal and splenic vein"
try 0 "$STRATA" data check nn/dataset.json
prints "nn, 6 cases: 6 train, 0 validation, 0 test; 6 good"
prints "note: class 5 (e) is in no label"

# A folder above a data set is told the one below it, at most two further down.
mkdir -p above/RawData/Testing/img above/RawData/Training above/few
cp -r btcv/img btcv/label above/RawData/Training
for folder in above above/RawData; do
  try 1 "$STRATA" data check $folder
  says "nor img and label (BTCV): above/RawData/Training is a folder that has"
done
try 1 "$STRATA" new above -o none.yaml
says "above/RawData/Training is a folder that has"
mkdir higher && mv above higher/
try 1 "$STRATA" data check higher
says "nor img and label (BTCV). Describe other layouts in a pipeline file"
rm -r higher

# What nothing can be learned from is said: it is no error.
mkdir -p flat/img flat/label
python3 - <<'PY'
import struct
def volume(path, code, bits, size, values):
    header = struct.pack("<i36x8h14x2h", 348, 3 + (size[3] > 1), *size, 1, 1, 1, code, bits)
    header += struct.pack("<2x8f3f", 1, 1, 1, 1, 1, 1, 1, 1, 352, 1, 0)
    header = header.ljust(254, b"\0") + struct.pack("<h", 1) + bytes(24)
    for row in ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)): header += struct.pack("<4f", *row)
    form = {16: "f", 2: "B"}[code]
    with open(path, "wb") as out:
        out.write(header.ljust(344, b"\0") + b"n+1\0" + bytes(4))
        out.write(struct.pack(f"<{len(values)}{form}", *values))
def case(name, size, values):
    volume(f"flat/img/{name}.nii", 16, 32, (*size, 2), values)
    volume(f"flat/label/{name}.nii", 2, 8, (*size, 1), [0] * (len(values) // 2))
n = 4 * 4 * 4
case("constant", (4, 4, 4), [*range(n), *[7.5] * n])
case("huge", (4, 4, 4), [*range(2 * n - 1), -2e30])
case("slice", (4, 4, 1), list(range(32)))
PY
cat >flat.yaml <<YAML
strata: 1
use: $pipelines/tiny.yaml
data:
  root: .
  dataset: {decathlon: ~, files: {images: "flat/img/*.nii", labels: "flat/label/*.nii", classes: [a, b]}}
YAML
try 0 "$STRATA" data check flat.yaml
prints "note: case constant: every voxel of channel 1 is 7.5"
prints "note: case huge: values reach -2e+30, whose square is more than float32 holds"
prints "note: case slice: one voxel along z of the file; 4 × 4 × 1 is no volume"
prints "note: no label has a voxel of any class but the background"
[ "$(grep -c '^note: ' "$work/out")" = 4 ] || fail "other notes than those four"
try 0 "$STRATA" check flat.yaml --set stages.pretrain.enabled=false
prints "case slice has one voxel along an axis"

# A pipeline on the first: names for roles, half of the labels.
cat >btcv.yaml <<YAML
strata: 1
use: $pipelines/tiny.yaml
data:
  root: .
  dataset: {decathlon: ~, btcv: btcv}
  split: {train: [img0001, img0002, img0003, img0004], validation: [label0005], test: [img0006]}
  label_fraction: 0.5
evaluate:
  metrics: all
  tolerance: [2, 3]
  groups: {pair: [1, 6]}
YAML
epoch=(--set stages.pretrain.epochs=1 --set stages.segment.epochs=1 --set model.with.features=2)
try 0 "$STRATA" check btcv.yaml "${epoch[@]}"
prints "6 cases: 4 train (2 with labels), 1 validation, 1 test"
try 0 "$STRATA" data check btcv.yaml
prints "6 cases: 4 train, 1 validation, 1 test; 6 good"
try 0 "$STRATA" run btcv.yaml "${epoch[@]}" --out run
exists run/predictions/img0006.nii.gz run/evaluation.json
has run/evaluation.json '"relative_volume_difference"'
has run/evaluation.json '"pair"'

# Two channels in files of their own, and folds.
sed -i 's/"0": "CT"/"0": "CT", "1": "CT again"/' nn/dataset.json
for i in 1 2 3 4 5 6; do cp "nn/imagesTr/case_00${i}_0000.nii.gz" "nn/imagesTr/case_00${i}_0001.nii.gz"; done
cat >nn.yaml <<YAML
strata: 1
use: $pipelines/tiny.yaml
data:
  root: .
  dataset: {decathlon: ~, nnunet: nn}
  split: {train: ~, test: ~, folds: 3, fold: 1, validation: 0.25}
YAML
two=("${epoch[@]}" --set stages.pretrain.enabled=false)
# Regions, as nnU-Net has them for tumours in parts, are scored in place of classes.
sed -i 's/"a": 1, "b": 2/"a": 1, "both": [1, 2]/' nn/dataset.json
try 0 "$STRATA" check nn.yaml "${two[@]}"
prints "1 a, 2 class 2, 3 c"
prints "dice, hd95 of the regions a, both, c, d, e, on the grid of the files"
try 0 "$STRATA" run nn.yaml "${two[@]}" --out run-nn
prints "6 cases: 3 train, 1 validation, 2 test"
prints "region "
prints "both "
python3 - <<'PY' || fail "other regions or scores than in the files"
import json
scores = json.load(open("run-nn/evaluation.json"))
assert scores["regions"] == {"a": [1], "both": [1, 2], "c": [3], "d": [4], "e": [5]}
for case in scores["cases"]:
    both, a = case["voxels"]["both"], case["voxels"]["a"]
    assert both["reference"] > a["reference"] > 0 and both["overlap"] >= a["overlap"]
    assert abs(case["dice"]["both"] - 2 * both["overlap"] / (both["reference"] + both["predicted"])) < 1e-8
PY
try 1 "$STRATA" check nn.yaml "${two[@]}" --set "evaluate.regions={far: [1, 9]}"
says "evaluate: regions: far has class 9, but the classes of the data set end with 5."
# A broken test case ends the evaluation after the others; mended, it is done again. That a file has
# changed since the run was started is said first.
test_cases=$(ls run-nn/predictions)
broken=$(echo "$test_cases" | head -n 1)
cp "nn/labelsTr/$broken" mended.nii.gz
head -c 100 /dev/zero | dd of="nn/labelsTr/$broken" bs=1 seek=1000 conv=notrunc status=none # as long as it was
rm run-nn/evaluation.json run-nn/predictions/*
try 1 "$STRATA" run nn.yaml "${two[@]}" --out run-nn --resume
says "labelsTr/$broken has changed"
says "--allow-changes goes on all the same"
try 1 "$STRATA" run nn.yaml "${two[@]}" --out run-nn --resume --allow-changes
says "labelsTr/$broken"
[ ! -e run-nn/evaluation.json ] || fail "an evaluation of fewer cases than asked for"
[ "$(ls run-nn/predictions)" = "$(echo "$test_cases" | tail -n 1)" ] || fail "the other cases were not segmented"
cp mended.nii.gz "nn/labelsTr/$broken"
try 0 "$STRATA" run nn.yaml "${two[@]}" --out run-nn --resume --allow-changes
has run-nn/run.json "changes_at_resume"
exists run-nn/evaluation.json

case1=nn/imagesTr/case_001
try 0 "$STRATA" predict run-nn "${case1}_0000.nii.gz,${case1}_0001.nii.gz" -o segmented
exists segmented/case_001.nii.gz
try 1 "$STRATA" predict run-nn "${case1}_0000.nii.gz" -o segmented
says "the network takes 2. Files of its channels go with commas between them"
# A folder: the channels of a case are found by their names.
try 0 "$STRATA" predict run-nn nn/imagesTr -o all
[ "$(ls all | wc -l)" -eq 6 ] || fail "6 cases, but $(ls all)"
cmp all/case_001.nii.gz segmented/case_001.nii.gz || fail "a folder gives another segmentation"
mkdir gap && cp nn/imagesTr/case_00[12]_000?.nii.gz gap && rm gap/case_002_0001.nii.gz
try 1 "$STRATA" predict run-nn gap -o none
says "gap/case_002_0001.nii.gz is missing: the run takes 2 channels a case, in nnU-Net's files"
mv gap/case_002_0000.nii.gz gap/case_002_0001.nii.gz # every case is looked at
cp gap/case_001_0001.nii.gz gap/case_001_0002.nii.gz
cp gap/case_001_0000.nii.gz gap/whole.nii.gz
try 1 "$STRATA" predict run-nn gap -o none
says "gap/case_001_0002.nii.gz is a channel too many: the run takes 2"
says "gap/case_002_0000.nii.gz is missing: the run takes 2"
says "gap/whole.nii.gz has no channel's number: the run takes 2"
[ "$(grep -c "the run takes" err)" -eq 3 ] && [ ! -e none ] || fail "other errors, or a result"
rm gap/case_002_0001.nii.gz gap/case_001_0002.nii.gz gap/whole.nii.gz
try 0 "$STRATA" predict run-nn gap -o one.nii.gz
cmp one.nii.gz segmented/case_001.nii.gz || fail "a folder of one case gives another segmentation"
try 2 "$STRATA" predict run-nn gap -o one.nrrd
says "one.nrrd: segmentations are NIfTI files"
[ ! -e one.nrrd ] || fail "a folder called one.nrrd"
mkdir empty && try 1 "$STRATA" predict run-nn empty -o none
says "there is no .nii or .nii.gz file in empty"
try 2 "$STRATA" predict run-nn run-nn nn/imagesTr -o none
says "run-nn is a run; those of an ensemble go with commas between them"
cp -r run-nn unfinished && rm unfinished/weights/segment.safetensors
try 1 "$STRATA" predict unfinished nn/imagesTr -o none
says "unfinished has no weights of stage segment yet: the run is not finished"
try 2 "$STRATA" predict run-nn "${case1}_0000.nii.gz,${case1}_0001.nii.gz" \
  -o "${case1}_0001.nii.gz"
says "would replace the input"

# What the run wrote can be scored again.
mkdir references
cp btcv/label/label0006.nii.gz references/img0006.nii.gz
try 0 "$STRATA" evaluate --prediction run/predictions --reference references --metrics dice,nsd \
  --tolerance 2 --group pair=1,2 --csv scores.csv --json scores.json
prints "NSD: tolerance 2 mm."
prints "pair"
has scores.csv "case,class,dice,nsd,reference_voxels"
has scores.csv "img0006,1,"
try 2 "$STRATA" evaluate --prediction run/predictions --reference references --metrics dise
says 'did you mean "dice"?'
try 2 "$STRATA" evaluate --prediction run/predictions --reference references --group pair
says "--group takes NAME=CLASSES"
try 2 "$STRATA" evaluate --prediction run/predictions --reference references --group a=1,2 --group a=3
says '--group: "a" is there twice'

# The union of two classes scores as the classes taken for one.
try 0 "$STRATA" evaluate --prediction run-nn/predictions --reference nn/labelsTr --region both=1,2 \
  --region "e alone"=5 --json unions.json
prints "e alone"
prints "A region in neither the reference nor the prediction"
python3 - <<'PY' || fail "regions of folders score otherwise than those of the run"
import json
here, run = (json.load(open(name)) for name in ("unions.json", "run-nn/evaluation.json"))
assert here["dice"]["per_class"]["both"] == run["dice"]["per_class"]["both"]
assert list(here["dice"]["per_class"]) == ["both", "e alone"]
PY
try 2 "$STRATA" evaluate --prediction run-nn/predictions --reference nn/labelsTr --region a=1 --region a=3
says '--region: "a" is there twice'
try 2 "$STRATA" evaluate --prediction run-nn/predictions --reference nn/labelsTr --region a=1 --group b=1,2
says "--group is a mean over classes, and with --region no class is scored by itself"
try 2 "$STRATA" evaluate --prediction run-nn/predictions --reference nn/labelsTr --region a=256
says "a class is a number from 1 to 255, not 256"
try 2 "$STRATA" evaluate --prediction run-nn/predictions --reference nn/labelsTr --region a=1 --names a
says "--names names classes, and with --region no class is scored by itself"

# Names for the classes, so that what others have segmented can be compared with a run.
scored=(evaluate --prediction run/predictions --reference references)
thirteen=spleen,b,c,d,e,liver,g,h,i,j,k,l,m
try 0 "$STRATA" "${scored[@]}" --names $thirteen --group pair=1,6 --csv scores.csv
prints "liver"
has scores.csv "img0006,spleen,"
try 1 "$STRATA" "${scored[@]}" --names spleen --csv none.csv
says "img0006: class 2 occurs, but only classes 1 to 1 have been named"
[ ! -e none.csv ] || fail "scores without a class"
try 2 "$STRATA" "${scored[@]}" --names spleen,spleen
says '"spleen" is there twice'
try 0 "$STRATA" "${scored[@]}" --group far=1,200
prints "Class 200 of far is in no file"

# Postprocessing of a class that there is not: by its names, or in what was read.
try 2 "$STRATA" "${scored[@]}" --names $thirteen --postprocess 'keep_largest: {classes: [1, 14]}'
says "keep_largest has class 14, but the classes end with 13"
try 0 "$STRATA" "${scored[@]}" --postprocess 'remove_small: {classes: [9], below: 1.0e+6}, keep_largest: {classes: [9, 99]}'
prints "Class 99 of keep_largest is in no prediction."
[ "$(grep -c "is in no prediction" out)" -eq 1 ] || fail "what was removed had been there"

# A group of classes that the data set does not have.
try 1 "$STRATA" check btcv.yaml "${epoch[@]}" --set evaluate.groups.pair=[1,14]
says "groups: pair has class 14"

# Leaks.
try 1 "$STRATA" check btcv.yaml "${epoch[@]}" --set data.split.test=[img0006,img0001]
says "case img0001 is in the split's train and test lists"
cp btcv/img/img0001.nii.gz btcv/img/img0006.nii.gz
try 1 "$STRATA" check btcv.yaml "${epoch[@]}"
says "hold the same image"

# A broken file is named; the others are still looked at.
truncate -s 2000 btcv/img/img0002.nii.gz
echo nonsense >btcv/label/label0003.nii.gz
rm btcv/label/label0006.nii.gz btcv/img/img0006.nii.gz
try 1 "$STRATA" data check btcv --json look.json
prints "5 cases: 5 train, 0 validation, 0 test; 3 good"
says "img0002.nii.gz"
says "label0003.nii.gz"
has look.json "stops before its end"
