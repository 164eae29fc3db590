# What is found before anything is trained: crops and windows that do not fit a network, headers that do
# not fit each other, images without labels.
. "$(dirname "$0")/lib.sh"
make_phantom phantom

# A crop that the network does not take: the line of its size, and the nearest sizes that fit, which do.
check=(check "${tiny[@]}")
try 1 "$STRATA" "${check[@]}" --set "params.roi=[16, 24, 32]"
says "tiny.yaml:15:7: error: a crop of 16 × 24 × 32 voxels does not fit; the nearest sizes that do are 16 × 16 × 32 and 16 × 32 × 32"
try 1 "$STRATA" "${check[@]}" --set "params.roi=[8, 16, 40]"
says "the nearest size that does is 16 × 16 × 64"
try 0 "$STRATA" "${check[@]}" --set "params.roi=[16, 32, 32]"
# Slabs count, too; a mistake that no size mends gets no such advice.
try 1 "$STRATA" check "${tiny[@]}" --set params.slabs=3
says "a crop of 16 × 16 × 32 voxels does not fit; the nearest size that does is 16 × 16 × 48"
try 1 "$STRATA" "${check[@]}" --set model.with.heads=5
! grep -q "does not fit;" "$work/err" || fail "advice on a size that is not at fault"
# Windows have a size of their own.
try 1 "$STRATA" check "${tiny[@]}" --set "evaluate.inferer.sliding_window.size=[16, 16, 40]"
says "a window of 16 × 16 × 40 voxels does not fit; the nearest sizes that do are 16 × 16 × 32 and 16 × 16 × 48"
try 1 "$STRATA" check "${tiny[@]}" --set "evaluate.inferer.sliding_window.size=[16, 16, 48]"
says "position_embeddings is 1×2×24 for crops of 16 × 16 × 32 and would be 1×3×24 for windows of 16 × 16 × 48: this network takes windows of the crops' size"

# U-Nets of fewer levels than they have by default, with nothing else said; a list too short is named.
net=(check "${tiny[@]}" --set stages.pretrain.enabled=false)
for levels in 2 3 7; do
  filters=$(printf '2, %.0s' $(seq "$levels")) strides=$(printf ', 2%.0s' $(seq 2 "$levels"))
  size=$((2 ** (levels - 1) > 8 ? 2 ** (levels - 1) : 8))
  crop=(--set "params.roi=[$size, $size, $size]")
  try 0 "$STRATA" "${net[@]}" --set model.use=models/dynunet.yaml "${crop[@]}" \
    --set "model.with={filters: [${filters%, }], strides: [1$strides]}"
  [ "$levels" -lt 7 ] || continue # blocks of seven stages have to be listed
  try 0 "$STRATA" "${net[@]}" --set model.use=models/resenc_unet.yaml "${crop[@]}" \
    --set "model.with={features_per_stage: [${filters%, }], strides: [1$strides]}"
done
try 1 "$STRATA" "${net[@]}" --set model.use=models/dynunet.yaml --set "model.with={strides: [1, 2, 2, 2, 2, 2, 2]}"
says "outside filters, a list of 6"
# Levels for the slabs' order are as many as there are.
try 0 "$STRATA" check "${tiny[@]}" --set model.use=models/dynunet.yaml \
  --set "model.with={filters: [2, 2, 2], strides: [1, 2, 2]}"

# Headers are compared before a stage trains, all of them.
cp -r phantom torn
python3 - torn/labelsTr/phantom_002.nii.gz torn/labelsTr/phantom_005.nii.gz <<'PY'
import gzip, struct, sys
for name in sys.argv[1:]:
    data = bytearray(gzip.open(name).read())
    struct.pack_into("<f", data, 80, 9.0)                 # pixdim[1]
    for at in (280, 284, 288): struct.pack_into("<f", data, at, 9 * struct.unpack_from("<f", data, at)[0])
    gzip.open(name, "wb").write(bytes(data))
PY
try 1 "$STRATA" run "$pipelines/tiny.yaml" --set "data.root=$work/torn" --out never
says "case phantom_002: the headers of the image"
says "case phantom_005: the headers of the image"
[ ! -e never ] || fail "a run that was refused left a folder"
[ "$(grep -c "error:" "$work/err")" -eq 2 ] || fail "other errors"

# Images that were cut off are found then, too, those that are only tested among them; files of several gzip
# members, and with something behind the voxels, are whole.
cp -r phantom cut
for case in 001 002; do
  image=cut/imagesTr/phantom_$case.nii.gz
  head -c -100 "$image" >part && mv part "$image"
done
for case in 003 004; do gunzip -c cut/imagesTr/phantom_$case.nii.gz >$case.nii; done
(head -c 5000 003.nii | gzip && tail -c +5001 003.nii | gzip) >cut/imagesTr/phantom_003.nii.gz
(cat 004.nii && head -c 10 /dev/zero) | gzip >cut/imagesTr/phantom_004.nii.gz
try 1 "$STRATA" run "$pipelines/tiny.yaml" --set "data.root=$work/cut" --out never
says "case phantom_001: $work/cut/imagesTr/phantom_001.nii.gz: the gzip stream stops before its end"
says "case phantom_002: $work/cut/imagesTr/phantom_002.nii.gz: the gzip stream stops before its end"
[ ! -e never ] || fail "a run that was refused left a folder"
[ "$(grep -c "error:" "$work/err")" -eq 2 ] || fail "other errors"

# Images alone: no classes, and stages that read no label train on them.
cat >bare.yaml <<YAML
strata: 1
use: $pipelines/tiny.yaml
data:
  root: $work/phantom
  dataset: {decathlon: ~, files: {images: "imagesTr/*.nii.gz"}}
  sample:
    - random_crop: {size: "\${roi}"}
evaluate: ~
YAML
bare=(bare.yaml --set stages.pretrain.epochs=1 --set stages.segment.validate=)
try 0 "$STRATA" check "${bare[@]}" --set stages.segment.enabled=false
try 0 "$STRATA" run "${bare[@]}" --set stages.segment.enabled=false --out bare
exists bare/weights/pretrain.safetensors
try 1 "$STRATA" check "${bare[@]}"
says '${classes}: the data set has no classes'
try 1 "$STRATA" predict bare phantom/imagesTr/phantom_001.nii.gz -o seg.nii.gz
try 1 "$STRATA" check "${bare[@]}" --set "data.dataset.files.labels=labelsTr/*.nii.gz"
says 'needs "classes"'

# Cases without labels train where none is read. They are not dealt to validation and test, where
# they would say nothing.
mkdir some && cp phantom/labelsTr/phantom_00[1-4].nii.gz some
sed -e 's|images: "imagesTr/\*.nii.gz"|&, labels: "../some/*.nii.gz", classes: [a, b, c, d]|' \
  -e 's/^evaluate: ~$//' bare.yaml >some.yaml
some=(some.yaml --set stages.pretrain.epochs=1 --set stages.segment.epochs=1
  --set stages.pretrain.steps_per_epoch=0 --set stages.segment.steps_per_epoch=0)
all=$(ls phantom/imagesTr | wc -l)
try 0 "$STRATA" check "${some[@]}"
prints "$all cases: $((all - 2)) train (2 with labels), 1 validation, 1 test"
prints "$((all - 4)) cases have no label: only stages that read none learn from them"
prints "1 epoch of $(((all - 1) / 2)) steps, 2 crops a step; adamw; no label is read"
prints "1 epoch of 2 steps, 1 crop a step; sgd; labels are read"
try 0 "$STRATA" run "${some[@]}" --out some-run
[ "$(ls some-run/predictions | wc -l)" -eq 1 ] || fail "other test cases than one"
rm some/* && cp phantom/labelsTr/phantom_001.nii.gz some
try 1 "$STRATA" check "${some[@]}" --set "data.split={train: [phantom_002], test: [phantom_001]}"
says "stage segment learns from labels, and no training case has one"

# What a stage validates by is found where it is plain, and else asked for.
plain=("${tiny[@]}" --set stages.pretrain.enabled=false --set stages.segment.epochs=1 --set "stages.segment.validate={every: 1}")
try 0 "$STRATA" run "${plain[@]}" --out plain
has plain/metrics.jsonl '"validation.dice"'
try 0 "$STRATA" check "${tiny[@]}" --set "stages.segment.validate={every: 1, metrics: [hd95]}"
try 1 "$STRATA" check "${tiny[@]}" --set "stages.segment.validate={every: 1, metrics: [hd95], output: ~}"
says 'need "output"'
try 0 "$STRATA" run "${plain[@]}" --set "stages.segment.validate={every: 1, output: ~}" --out losses
has losses/metrics.jsonl '"validation.loss"'
! grep -q validation.dice losses/metrics.jsonl || fail "\`output: ~\` is segmented"
try 0 "$STRATA" check "${plain[@]}" --set "stages.segment.graph.loss={dice_ce: [net.out, label]}" --set evaluate=
prints "stage segment validates by its losses only"
