# Crops and augmentation of a stage of its own: `sample` in place of `data: sample`.
. "$(dirname "$0")/lib.sh"
make_phantom phantom

pretrain=(--set stages.segment.enabled=false --set evaluate= --set stages.segment.validate=
  --set stages.pretrain.epochs=1)
same='stages.pretrain.sample=[{random_crop: {size: "${roi}", positive: 1, negative: 1}}, {random_flip: {axes: x}}, {random_noise: {probability: 0.5}}]'
other='stages.pretrain.sample=[{random_crop: {size: "${roi}", positive: 1, negative: 1}}, {random_flip: {axes: x}}, {random_gamma: {prob: 1}}]'

# The list of the data, said again in the stage, draws the same crops to the bit; another list others.
try 0 "$STRATA" run "${tiny[@]}" "${pretrain[@]}" --out common
try 0 "$STRATA" run "${tiny[@]}" "${pretrain[@]}" --set "$same" --out same
try 0 "$STRATA" run "${tiny[@]}" "${pretrain[@]}" --set "$other" --out other
try 0 "$STRATA" weights diff common/weights/pretrain.safetensors same/weights/pretrain.safetensors
try 1 "$STRATA" weights diff common/weights/pretrain.safetensors other/weights/pretrain.safetensors

# What a run leaves says it, and trains the same again.
try 0 "$STRATA" run other/pipeline.lock.yaml --out again
cmp other/weights/pretrain.safetensors again/weights/pretrain.safetensors || fail "the lock trains other weights"
exists other/report.html

# The other stages keep to the list of the data; `check` and the preview show each its own.
try 0 "$STRATA" check "${tiny[@]}" --set "$other"
[ "$(grep -c "^  sample " out)" -eq 2 ] || fail "two lists of operators should be shown"
prints "  sample       random_crop → random_flip → random_noise → crop of 16×16×32 voxels, 1 channel"
prints "  sample       random_crop → random_flip → random_gamma → crop of 16×16×32 voxels, 1 channel"
try 0 "$STRATA" preview "${tiny[@]}" --set "$other" --stage pretrain -o pretrain.html
has pretrain.html random_gamma
try 0 "$STRATA" preview "${tiny[@]}" --set "$other" --stage segment -o segment.html
! grep -q random_gamma segment.html || fail "the preview of one stage shows the crops of another"

# Larger crops without labels than with them, where the network has no weight for each place.
cat >sizes.yaml <<YAML
strata: 1
name: sizes
use: $pipelines/tiny.yaml
data:
  root: $work/phantom
  sample: ~
model:
  use: models/dynunet.yaml
  with: {filters: [2, 2, 2], strides: [1, 2, 2], features: ~, hidden: ~, mlp: ~, heads: ~, layers: ~, dropout: ~}
stages:
  - pretrain:
      use: $pipelines/tiny.yaml
      epochs: 1
      sample: [random_crop: {size: [32, 16, 32]}]
  - segment:
      use: $pipelines/tiny.yaml
      epochs: 1
      sample: [random_crop: {size: 16}, random_flip]
YAML
try 0 "$STRATA" check sizes.yaml
[ "$(grep -c "^  sample " out)" -eq 2 ] || fail "a list that nobody reads is shown"
prints "crop of 32×16×32 voxels"
prints "crop of 16×16×16 voxels"
try 0 "$STRATA" run sizes.yaml --out sizes
exists sizes/weights/segment.safetensors sizes/evaluation.json
python3 -c "
import nibabel
assert nibabel.load('sizes/samples/pretrain/1-image.nii.gz').shape == (32, 16, 32)" || fail "the sample has another size"
has sizes/report.html "crop of 32×16×32"
has sizes/report.html "crop of 16×16×16"

# Mistakes stand at the stage's own list.
try 1 "$STRATA" check "${tiny[@]}" --set 'stages.pretrain.sample=[{random_crop: {size: 32}}]'
says "parameter vit.patch_embedding.position_embeddings is 1×2×24 here but 1×8×24 in stage \"pretrain\""
sed -e 's/{size: \[32, 16, 32\]}/{sise: 32}/' -e 's/random_flip\]/random_flop]/' sizes.yaml >typed.yaml
try 1 "$STRATA" check typed.yaml
says 'typed.yaml:14:30: error: random_crop has no attribute "sise"; did you mean "size"?'
says 'typed.yaml:18:41: error: There is no sample operator "random_flop"; did you mean "random_flip"?'
sed 's/random_crop: {size: 16}, //' sizes.yaml >uncropped.yaml
try 1 "$STRATA" check uncropped.yaml
says 'uncropped.yaml:18:16: error: the samples have no fixed extent along x: add random_crop or centre_crop to `sample`'
sed 's/{size: \[32, 16, 32\]}/{size: [32, 16, 30]}/' sizes.yaml >uneven.yaml
try 1 "$STRATA" check uneven.yaml
says "uneven.yaml:14:16: error: a crop of 32 × 16 × 30 voxels does not fit; the nearest sizes that do are 32 × 16 × 16 and 32 × 16 × 32"
