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

# Mirroring along the axis of the slabs is noted, not for a stage that leaves it out.
flips=(--set "data.sample.random_flip.axes=[x, z]")
try 0 "$STRATA" check "${tiny[@]}" "${flips[@]}"
prints "stage pretrain mirrors crops along z, along which it shuffles their parts: the order is ambiguous then;"
[ "$(grep -c "mirrors crops" out)" -eq 1 ] || fail "other notes"
try 0 "$STRATA" check "${tiny[@]}" "${flips[@]}" --set "$same"
! grep -q "mirrors crops" out || fail "a note on crops that are not mirrored"

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

# Numbers of sample operators by a schedule: they hold for an epoch, whatever the loader makes ahead.
cat >alternate.lua <<'LUA'
return function(step, epoch, total, base, steps_per_epoch)
  if step ~= epoch * steps_per_epoch then error("not the first step of the epoch") end
  return epoch % 2 * base
end
LUA
alternate='stages.pretrain.schedules={sample.random_noise.probability: {lua: alternate.lua}}'
noise=(--set stages.pretrain.epochs=2 --set stages.pretrain.schedule= --set data.sample.random_noise.probability=1)
losses() { sed 's/,"seconds".*//' "$1/metrics.jsonl" | sed -n "$2p"; }
try 0 "$STRATA" run "${tiny[@]}" "${pretrain[@]}" "${noise[@]}" --out always
try 0 "$STRATA" run "${tiny[@]}" "${pretrain[@]}" "${noise[@]}" --set data.sample.random_noise.probability=0 --out never
try 0 "$STRATA" run "${tiny[@]}" "${pretrain[@]}" "${noise[@]}" --set "$alternate" --out scheduled
[ "$(losses scheduled 1)" = "$(losses never 1)" ] || fail "the first epoch has the noise of another"
[ "$(losses scheduled 1)" != "$(losses always 1)" ] || fail "the noise changes nothing"
[ "$(losses scheduled 2)" != "$(losses never 2)" ] || fail "the second epoch has no noise"
try 0 "$STRATA" run "${tiny[@]}" "${pretrain[@]}" "${noise[@]}" --set "$alternate" --out ahead \
  --set data.loader_threads=4 --set data.queue=16 --threads 1
[ "$(losses scheduled 2)" = "$(losses ahead 2)" ] || fail "batches that are made ahead have other numbers"

# The other stages keep theirs; the preview shows those of the epoch.
try 0 "$STRATA" check "${tiny[@]}" --set "$alternate"
prints "sample.random_noise.probability by alternate.lua"
for epoch in 1 2; do
  try 0 "$STRATA" preview "${tiny[@]}" "${noise[@]}" --set "$alternate" --stage pretrain --epoch $epoch -o look-$epoch.html
done
[ "$(grep -o 'unchanged;' look-1.html | wc -l)" -gt "$(grep -o 'unchanged;' look-2.html | wc -l)" ] ||
  fail "the preview of an epoch has the numbers of another"

# A hook sets the base of a schedule, and is told that there has to be one.
echo 'return function(event) event.set("sample.random_noise.probability", 0) end' >quiet.lua
try 0 "$STRATA" run "${tiny[@]}" "${pretrain[@]}" "${noise[@]}" --set "$alternate" \
  --set 'stages.pretrain.on_epoch_end={lua: quiet.lua}' --out quiet
[ "$(losses quiet 2)" = "$(losses never 2)" ] || fail "the hook's base is not the schedule's"
try 1 "$STRATA" run "${tiny[@]}" "${pretrain[@]}" "${noise[@]}" \
  --set 'stages.pretrain.on_epoch_end={lua: quiet.lua}' --out told
says "quiet.lua:1:1: error"
says 'changes by a schedule alone, whose base a hook can set: add "sample.random_noise.probability: {lua: …}" under schedules:'

# Ranges by place, operators that stand twice by theirs.
twice='stages.pretrain.sample=[{random_crop: {size: "${roi}"}}, {random_gamma: {gamma: [0.8, 1.2]}}, {random_gamma: {gamma: [1, 2]}}]'
try 0 "$STRATA" check "${tiny[@]}" --set "$twice" --set 'stages.pretrain.schedules={sample.2.gamma.1: {lua: ramp, from: 1.5}}'
try 1 "$STRATA" check "${tiny[@]}" --set "$twice" --set 'stages.pretrain.schedules={sample.random_gamma.gamma.1: {lua: ramp}}'
says 'has no number "sample.random_gamma.gamma.1" to schedule; there are sample.random_crop.positive,'
says 'sample.1.gamma.0, sample.1.gamma.1, sample.1.probability, sample.1.channel_probability, sample.2.gamma.0'
try 1 "$STRATA" run "${tiny[@]}" "${pretrain[@]}" --set "$twice" --out upside_down \
  --set 'stages.pretrain.schedules={sample.1.gamma.0: {lua: ramp, from: 1.5, to: 1.5}}'
says 'stage "pretrain": gamma of random_gamma would go from 1.5 to 1.2; the first number must not be the larger one'
