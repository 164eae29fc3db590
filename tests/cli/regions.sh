# Networks that segment regions, unions of classes with a sigmoid each: from `data: regions` to the
# predictions, which hold classes, and the scores, which are of the regions.
. "$(dirname "$0")/lib.sh"

try 0 "$STRATA" phantom phantom --cases 6 --organs 3 --size 48
cat >regions.yaml <<YAML
strata: 1
name: regions
use: $pipelines/tiny.yaml
data:
  root: $work/phantom
  regions: {all organs: [1, 2, 3], smaller: [2, 3], smallest: [3]}
stages:
  - segment:
      use: $pipelines/tiny.yaml
      epochs: 8
      init: ~
      graph:
        - net: {model: image, outputs: "\${regions}"}
        - loss: {dice_ce: [net.out, regions]}
      validate: {every: 4}
YAML

try 0 "$STRATA" check regions.yaml
prints "all organs [1, 2, 3], smaller [2, 3], smallest [3]; predicted as 1 2 3"
prints "dice, hd95 of the regions all organs, smaller, smallest"
prints "    regions                  label              1×16×16×32"
[ "$(grep -c "^    regions " out)" -eq 1 ] || fail "a stage that reads no regions has them"

try 0 "$STRATA" preview regions.yaml --stage segment -o look.html
has look.html random_crop

try 0 "$STRATA" run regions.yaml --out run
has run/evaluation.json '"smallest"'
has run/evaluation.json '"all organs"'
has run/metrics.jsonl '"validation.dice"'
dice=$(grep -o '"validation.dice": *[0-9.]*' run/metrics.jsonl | tail -n 1 | grep -o '[0-9.]*$')
awk -v d="$dice" 'BEGIN { exit !(d > 0.05) }' || fail "nothing was learned: Dice $dice"

# Predictions hold the classes of the label files, the same from predict as from the evaluation.
case=$(basename "$(ls run/predictions/*.nii.gz | head -n 1)")
try 0 "$STRATA" predict run "phantom/imagesTr/$case" -o again.nii.gz --probabilities soft
python3 - <<'PY' || fail "the regions' probabilities are not those of the labels"
import numpy, nibabel
soft, labels = (numpy.asarray(nibabel.load(p).dataobj) for p in ("soft/again.nii.gz", "again.nii.gz"))
assert soft.shape == labels.shape + (3,)
inside = soft > 0.5
last = numpy.where(inside.any(-1), 3 - inside[..., ::-1].argmax(-1), 0)
clear = (abs(soft - 0.5) > 1e-6).all(-1)
assert clear.mean() > 0.9 and (last == labels)[clear].all() and len(numpy.unique(labels)) > 1
PY
cmp again.nii.gz "run/predictions/$case" || fail "predict segments otherwise than the run"
try 0 "$STRATA" evaluate --prediction run/predictions --reference phantom/labelsTr \
  --region 'all organs=1,2,3' --region smaller=2,3 --region smallest=3 --json again.json
cmp again.json run/evaluation.json || fail "strata evaluate scores otherwise than the run"

# Networks of the same regions predict together, others do not.
sed 's/all organs: \[1, 2, 3\]/all organs: [1]/; s/epochs: 8/epochs: 1/' regions.yaml >other.yaml
try 0 "$STRATA" run other.yaml --out other
try 0 "$STRATA" predict run,run "phantom/imagesTr/$case" -o together.nii.gz
cmp together.nii.gz "run/predictions/$case" || fail "two equal networks segment otherwise than one"
try 1 "$STRATA" predict run,other "phantom/imagesTr/$case" -o apart.nii.gz
says "run and other segment different regions"

# A lock says the same.
try 0 "$STRATA" check run/pipeline.lock.yaml
prints "predicted as 1 2 3"

# Losses at several resolutions, and every other loss that takes regions.
cat >losses.yaml <<YAML
strata: 1
name: losses
use: regions.yaml
stages:
  - segment:
      use: regions.yaml
      epochs: 1
      graph:
        - net: {model: image, outputs: "\${regions}"}
        - half: {max_pool3d: net.out, kernel: 2, stride: 2}
        - loss.a: {deep_supervision: [regions, net.out, half]}
        - loss.b: {dice_focal: [net.out, regions]}
        - loss.c: {cross_entropy: [net.out, regions]}
        - loss.d: {tversky: [net.out, regions]}
        - loss.e: {generalized_dice: [net.out, regions]}
YAML
try 0 "$STRATA" run losses.yaml --out losses
has losses/metrics.jsonl '"loss.e"'
