# Labels with voxels whose class is unknown: from the pipeline's key or nnU-Net's dataset.json to the
# predictions, the scores, the report and the pictures. The phantom's third organ is the unknown part.
. "$(dirname "$0")/lib.sh"

try 0 "$STRATA" phantom phantom --cases 6 --organs 3 --size 48
partial=("$pipelines/tiny.yaml" --set "data.root=$work/phantom" --set data.ignore_label=3)

try 0 "$STRATA" check "${partial[@]}"
prints "; 3 unknown, left out"
try 0 "$STRATA" data check "${partial[@]}" --json look.json
prints "3 unknown, left out"
has look.json '"ignore_label": 3'
has look.json '"unknown_share": 0.'

# Distances to boundaries that are known in part.
cat >boundary.yaml <<YAML
strata: 1
use: $pipelines/tiny.yaml
data: {root: $work/phantom, ignore_label: 3}
stages:
  - pretrain: {use: $pipelines/tiny.yaml}
  - segment:
      use: $pipelines/tiny.yaml
      graph:
        - net: {model: image, outputs: "\${classes}"}
        - loss.overlap: {dice_ce: [net.out, label]}
        - loss.boundary: {boundary: [net.out, label]}
YAML
try 1 "$STRATA" check boundary.yaml
says "boundary.yaml:11:"
says "known in part"
says "such as dice_ce"
try 0 "$STRATA" check boundary.yaml --set data.ignore_label=

# Learned, segmented, scored, shown.
try 0 "$STRATA" run "${partial[@]}" --out run
has run/run.json '"ignore_label": 3'
has run/evaluation.json '"ignore_label": 3'
has run/evaluation.json '"ignored_voxels"'
prints "Voxels with the label 3 in the reference are left out"
has run/report.html "unknown (ignored)"
try 0 "$STRATA" evaluate --prediction run/predictions --reference run/predictions --json values.json
if grep -qF '"3"' values.json; then fail "a prediction holds the ignore label"; fi

# The same scores from the command line, and others without the key.
names=$(sed -n 's/^ *"[1-9]": "\(.*\)",*$/\1/p' phantom/dataset.json | head -n 2 | paste -sd,)
scored=(--prediction run/predictions --reference phantom/labelsTr --names "$names")
try 0 "$STRATA" evaluate "${scored[@]}" --ignore-label 3 --json again.json
cmp again.json run/evaluation.json || fail "strata evaluate scores otherwise than the run"
try 1 "$STRATA" evaluate "${scored[@]}"
says "class 3 occurs"
try 2 "$STRATA" evaluate "${scored[@]}" --ignore-label 0
says "0 is the background"

# A lock has the key.
try 0 "$STRATA" check run/pipeline.lock.yaml
prints "; 3 unknown, left out"

try 0 "$STRATA" preview "${partial[@]}" --stage segment -o preview.html
has preview.html "unknown (ignored)"
has preview.html "% unknown"

# nnU-Net's dataset.json says it by itself.
mkdir -p nn/imagesTr nn/labelsTr
for i in 1 2 3; do
  cp "phantom/imagesTr/phantom_00$i.nii.gz" "nn/imagesTr/case_00${i}_0000.nii.gz"
  cp "phantom/labelsTr/phantom_00$i.nii.gz" "nn/labelsTr/case_00$i.nii.gz"
done
cat >nn/dataset.json <<'JSON'
{"channel_names": {"0": "CT"}, "numTraining": 3, "file_ending": ".nii.gz",
 "labels": {"background": 0, "a": 1, "b": 2, "ignore": 3}}
JSON
try 0 "$STRATA" data check nn
prints "3 unknown, left out"
prints "3 good"
sed -i 's/, "ignore": 3//' nn/dataset.json
try 1 "$STRATA" data check nn
says "say data: {ignore_label: 3}"
