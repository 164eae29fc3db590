# Real volumes, where they are on this machine: $DATA/Task04_Hippocampus (Medical Segmentation
# Decathlon) and $DATA/LeftAtrium.
. "$(dirname "$0")/lib.sh"
data=${DATA:-}
[ -s "$data/Task04_Hippocampus/dataset.json" ] ||
  skip "no real volumes at ${data:-DATA}/Task04_Hippocampus, so nothing is tested on them"

# Every case is read and prepared: one step an epoch, but all cases in the roles.
recipe=$SOURCE/pipelines/hippocampus/unetr.yaml
small=(--set "data.root=$data/Task04_Hippocampus" --set model.with.features=2
  --set model.with.hidden=24 --set model.with.mlp=48 --set model.with.layers=4
  --set params.roi=[16,48,16] --set evaluate.inferer.sliding_window.overlap=0)
try 0 "$STRATA" check "$recipe" "${small[@]}"
prints "no mistakes found"
prints "200 cases: 140 train, 20 validation, 40 test"
try 0 "$STRATA" run "$recipe" "${small[@]}" --set stages.pretrain.epochs=1 \
  --set stages.segment.epochs=1 --set stages.pretrain.batch=4 --set stages.segment.batch=4 \
  --set data.crops_per_case=1 --out run
[ "$(ls run/predictions | wc -l)" -eq 40 ] || fail "predictions of 40 test cases"
grep -q '"name": "hippocampus_' run/evaluation.json || fail "no case in the evaluation"

# Every file is looked at.
try 0 "$STRATA" data check "$recipe" "${small[@]}" --json look.json
prints "200 cases: 140 train, 20 validation, 40 test; 200 good"
prints "RAS (200)"
has look.json '"name": "Posterior"'

# A prediction lies on the grid of its input: same bytes of sizes, spacing and affine in the headers.
header() { gzip -dc "$1" 2>/dev/null | od -A n -t x1 -j "$2" -N "$3" -v; }
same_grid() { # dim, pixdim 1–3, and the sform, which the affine is written to
  [ "$(header "$1" 42 6)" = "$(header "$2" 42 6)" ] || fail "$1: another size than $2"
  [ "$(header "$1" 80 12)" = "$(header "$2" 80 12)" ] || fail "$1: another spacing than $2"
}
for file in run/predictions/*; do
  same_grid "$file" "$data/Task04_Hippocampus/imagesTr/$(basename "$file")"
done

# A volume from elsewhere, larger than anything in training: windows and the way back.
atrium=$(ls "$data"/LeftAtrium/imagesTr/*.nii.gz 2>/dev/null | head -n 1)
if [ -n "$atrium" ]; then
  try 0 "$STRATA" predict run "$atrium" -o atrium.nii.gz
  same_grid atrium.nii.gz "$atrium"
else
  echo "not tested: $data/LeftAtrium is not there"
fi
