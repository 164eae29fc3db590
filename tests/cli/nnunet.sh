# A trained model of nnU-Net: it becomes a pipeline, a run of no epochs is its network, whose segmentations
# are nnU-Net's, and training goes on from its weights. What its plans say that is not known here, or that
# is damaged, is named. golden/make_nnunet.py made the model, the data and the segmentations.
. "$(dirname "$0")/lib.sh"
golden=$SOURCE/tests/golden/nnunet
name=nnUNetTrainer__nnUNetPlans__3d_fullres
cp -r "$golden/$name" .
data=$golden/Dataset001_Thick
new=("$STRATA" new "$data" --nnunet "$name" -o model.yaml)

try 0 "${new[@]}"
prints "spacing   12.5 × 2.3 × 1.9 mm"
prints "crop      8 × 24 × 16 voxels, 2 a step"
for words in "orient: {axes: xzy}" "crop_foreground: {nonzero: true}" "standardize: {clip: [-60, 140]" \
  "use: models/plain_unet.yaml" "n_conv_per_stage: [1, 2, 1]" "strides: [1, [1, 2, 2], 2]" \
  "fold_\${fold}/checkpoint_final.pth" "mirror: [x, y, z]" "Not nnU-Net's folds"; do
  has model.yaml "$words"
done
try 0 "$STRATA" check model.yaml
prints "no mistakes found"

# The network as it is, on a grid of other spacing than its own, in windows, with mirroring and without.
step=(--set stages.segment.steps_per_epoch=1)
try 0 "$STRATA" run model.yaml "${step[@]}" --set stages.segment.epochs=0 --out run
prints "loaded   decoder.stages.1.convs.1.norm.weight"
prints ", 0 unexpected"
[ ! -s run/metrics.jsonl ] || fail "a run of no epochs has epochs"
image=$data/imagesTr/case_3_0000.nii.gz
window=evaluate.inferer.sliding_window
same_as() { # same_as FOLDER PREDICT-OPTION…: all but a voxel or two that are nearly a tie
  local folder=$1
  shift
  try 0 "$STRATA" predict run "$image" -o "$folder/case_3.nii.gz" "$@"
  try 0 "$STRATA" evaluate --prediction "$folder" --reference "$golden/$folder" --metrics dice --json same.json
  python3 - <<'PY' || fail "$folder: not nnU-Net's segmentation: $(cat same.json)"
import json
assert min(json.load(open("same.json"))["cases"][0]["dice"].values()) > 0.998
PY
}
mkdir plain mirrored
same_as mirrored
same_as plain --set "$window.mirror=[]"
# Each of its ways counts.
for other in resample=probabilities separate_axis=none blend=constant step=1; do
  try 0 "$STRATA" predict run "$image" -o other.nii.gz --set "$window.mirror=[]" --set "$window.$other"
  ! cmp -s other.nii.gz plain/case_3.nii.gz || fail "$other changes nothing"
done
# What the labels come from, on the same grid, adds up to one.
try 0 "$STRATA" predict run "$image" -o again.nii.gz --set "$window.mirror=[]" --probabilities soft
cmp again.nii.gz plain/case_3.nii.gz || fail "keeping probabilities changes the segmentation"
python3 - <<'PY' || fail "probabilities are none, or do not fit the segmentation"
import array, gzip
def values(path, kind):
    raw = gzip.open(path).read()
    out = array.array(kind)
    out.frombytes(raw[352:])
    return out
labels, soft = values("again.nii.gz", "B"), values("soft/again.nii.gz", "f")
n = len(labels)
assert len(soft) == 3 * n
for v in range(n):
    p = [soft[c * n + v] for c in range(3)]
    assert min(p) >= 0 and abs(sum(p) - 1) < 1e-5 and p[labels[v]] >= max(p) - 1e-5
PY
try 1 "$STRATA" check model.yaml --set "$window.average=probabilities"
says "there are no logits to resample where probabilities are averaged"

# Training goes on: from the weights, from the finished run of no epochs, in a folder that knows the folds.
step+=(--set stages.segment.epochs=1)
try 0 "$STRATA" run model.yaml "${step[@]}" --out one
try 0 "$STRATA" run model.yaml "${step[@]}" --out run --resume
try 0 "$STRATA" weights diff one/weights/segment.safetensors run/weights/segment.safetensors
prints "every bit the same"
mkdir prepared
echo '[{"train": ["case_0", "case_1"], "val": ["case_2", "case_3"]}]' >prepared/splits_final.json
echo "{\"preprocessed_dataset_folder_base\": \"$work/prepared\"}" >"$name/fold_0/debug.json"
rm model.yaml
try 0 "${new[@]}"
has model.yaml "split: {file: $work/prepared/splits_final.json, fold: \"\${fold}\"}"
try 0 "$STRATA" check model.yaml
prints "4 cases: 2 train, 0 validation, 2 test"

# Models that differ from this one in their plans, made all at once.
changes=()
differs() { # differs FOLDER PYTHON: of `plans`, their configuration `c`, its arguments `k`, dataset.json `d`
  changes+=("$1" "$2")
}
make_changed() {
  python3 - "$golden/$name" "${changes[@]}" <<'PY'
import json, os, shutil, sys
for folder, change in zip(sys.argv[2::2], sys.argv[3::2]):
    shutil.copytree(sys.argv[1], folder)
    paths = [folder + "/plans.json", folder + "/dataset.json"]
    plans, d = [json.load(open(path)) for path in paths]
    c = plans["configurations"]["3d_fullres"]
    k = c["architecture"]["arch_kwargs"]
    exec(change)
    for path, value in zip(paths, (plans, d)):
        json.dump(value, open(path, "w"))
PY
}

# Other words for the same, as plans before nnU-Net 2.4 have them; what a configuration inherits.
differs same pass
differs older 'del c["architecture"]; c.update(UNet_class_name="PlainConvUNet", UNet_base_num_features=4,
  unet_max_num_features=8, n_conv_per_stage_encoder=k["n_conv_per_stage"], conv_kernel_sizes=k["kernel_sizes"],
  n_conv_per_stage_decoder=k["n_conv_per_stage_decoder"], pool_op_kernel_sizes=k["strides"])'
differs heir 'plans["configurations"] = {"base": c, "3d_fullres": {"inherits_from": "base", "batch_size": 3}}'
differs other 'd["labels"] = {"background": 0, "bone": 1, "air": 2}; plans["dataset_name"] = "Dataset002_Other"'
differs nnUNetTrainerNoMirroring__nnUNetResEncUNetMPlans__3d_fullres '
c["normalization_schemes"], c["use_mask_for_norm"] = ["ZScoreNormalization"], [True]
c["architecture"]["network_class_name"] = "x.ResidualEncoderUNet"
k["n_blocks_per_stage"] = k.pop("n_conv_per_stage")
k["norm_op"], k["conv_bias"] = "torch.nn.BatchNorm3d", False
plans["image_reader_writer"] = "NibabelIOWithReorient"
c["batch_dice"] = True'
# What is damaged or not known.
messages=()
refuses() { # refuses PYTHON MESSAGE
  differs "bad${#messages[@]}" "$1"
  messages+=("$2")
}
here=configurations.3d_fullres
refuses 'del c["patch_size"]' "$here.patch_size is missing; it has to be 3 whole numbers from 1 to 4096"
refuses 'c["patch_size"] = [8, 24, 1e30]' "$here.patch_size is [8, 24, 1e30]; it has to be 3 whole numbers"
refuses 'c["patch_size"] = [24, 16]' "networks are of volumes here, not of slices"
refuses 'c["patch_size"] = [8, 24, 15]' "the plans do not fit together: joined.1 (concat)"
refuses 'c["spacing"] = ["a", {}, None]' "$here.spacing is [\"a\", {}, null]; it has to be three numbers"
refuses 'c["spacing"] = [1, 1, 0]' "three numbers from 0.001 to 100"
refuses 'c["batch_size"] = 10**18' "$here.batch_size is 1000000000000000000; it has to be 1 whole number"
refuses 'c["median_image_size_in_voxels"] = [[1, 2, 3]]' "$here.median_image_size_in_voxels"
refuses 'c["normalization_schemes"] = ["MyOwn"]' "$here.normalization_schemes is [\"MyOwn\"]"
refuses 'c["normalization_schemes"] = "CT"' "a list of 1 to 64 channels' schemes"
refuses 'c["normalization_schemes"] *= 2; c["use_mask_for_norm"] *= 2
i = "foreground_intensity_properties_per_channel"; plans[i]["1"] = plans[i]["0"]' \
  "the model takes 2 channels, the data set has 1"
refuses 'c["use_mask_for_norm"] = 7' "$here.use_mask_for_norm"
refuses 'plans["foreground_intensity_properties_per_channel"]["0"]["std"] = 0' \
  "foreground_intensity_properties_per_channel.0.std is 0; it has to be a number from 1e-06"
refuses 'plans["foreground_intensity_properties_per_channel"] = []' "it has to be a mapping"
refuses 'plans["transpose_forward"] = [0, 0, 1]' "transpose_forward is [0, 0, 1]; it has to be 0, 1 and 2"
refuses 'plans["image_reader_writer"] = "Tiff3DIO"' "image_reader_writer is \"Tiff3DIO\""
refuses 'c["preprocessor_name"] = "Mine"' "$here.preprocessor_name"
refuses 'c["previous_stage"] = "3d_lowres"' "a cascade's second network"
refuses 'c["resampling_fn_data"] = "resample_torch_fornnunet"' "$here.resampling_fn_data is"
refuses 'c["resampling_fn_data_kwargs"]["order"] = 2' "of order 0, 1 or 3"
refuses 'c["resampling_fn_data_kwargs"]["force_separate_z"] = True' "it has to be null or false"
refuses 'c["inherits_from"] = "3d_fullres"' "or in a circle"
refuses 'plans["configurations"] = {"2d": c}' "which configuration was trained"
refuses 'plans["configurations"] = 3' "configurations is 3; it has to be a mapping"
refuses 'c["architecture"]["network_class_name"] = "a.b.Mamba"' "PlainConvUNet or ResidualEncoderUNet"
refuses 'k["stochastic_depth_p"] = 0.1' "arch_kwargs.stochastic_depth_p changes the network in a way that is not known"
refuses 'k["conv_op"] = "torch.nn.Conv2d"' "it has to be Conv3d"
refuses 'k["nonlin_kwargs"] = {"negative_slope": 0.2}' "it has to be a number from 0.01 to 0.01"
refuses 'k["norm_op_kwargs"]["affine"] = False' "norm_op_kwargs.affine"
refuses 'k["strides"] *= 9' "arch_kwargs.strides is"
refuses 'k["strides"][1] = [1, 2]' "three whole numbers from 1 to 16 for each of 3 stages"
refuses 'k["features_per_stage"] = [4, 6]' "3 whole numbers from 1 to 4096"
refuses 'k["features_per_stage"][0] = -1' "3 whole numbers from 1 to 4096"
refuses 'd["regions_class_order"] = "all"' "regions_class_order is \"all\"; it has to be a list of classes"
refuses 'd["regions_class_order"] = [1, 2]' "the model's regions_class_order has 2 classes, and there are 0"
refuses 'd["labels"] = ["fat"]' "labels is [\"fat\"]; it has to be a mapping"
refuses 'd["labels"]["fat"] = "one"' "labels.fat is \"one\"; it has to be a class, from 0 to 254"
refuses 'd["labels"]["fat"] = 10**9' "labels.fat is 1000000000; it has to be a class, from 0 to 254"

make_changed
from() { # from FOLDER: the pipeline of its model, with the weights of the first
  try 0 "$STRATA" new "$data" --nnunet "$1" -o "$1.yaml"
  sed -i "s#$work/$1/#$work/$name/#" "$1.yaml"
}
from same
from older
sed 's/features_per_stage: \[4, 6, 8\]/features_per_stage: [4, 8, 8]/' same.yaml | cmp - older.yaml ||
  fail "older plans give another pipeline"
from heir
sed "s/batch: 2$/batch: 3/; s/foreground: 0.5}/foreground: 0.333}/" same.yaml | cmp - heir.yaml || fail "what is inherited differs"
# A model of another data set: no cases of it have been seen, and its heads say something else.
from other
has other.yaml "/checkpoint_final.pth\", reset: [net.out]}"
! grep -q "Not nnU-Net's folds" other.yaml || fail "cases of another data set have been seen"
try 0 "$STRATA" run other.yaml "${step[@]}" --out other-run
prints "reset    decoder.seg_layers.1.weight"
from nnUNetTrainerNoMirroring__nnUNetResEncUNetMPlans__3d_fullres
for words in "orient: {axes: RSA}" "normalize: {mode: zscore, scope: body}" "use: models/resenc_unet.yaml" \
  "n_blocks_per_stage: [1, 2, 1]" "norm: batch" "conv_bias: false" "            batch: true"; do
  has nnUNetTrainerNoMirroring__nnUNetResEncUNetMPlans__3d_fullres.yaml "$words"
done
! grep -q "mirror:\|random_flip" nnUNetTrainerNoMirroring__nnUNetResEncUNetMPlans__3d_fullres.yaml ||
  fail "what was not trained is mirrored"

for i in "${!messages[@]}"; do
  try 1 "$STRATA" new "$data" --nnunet "bad$i" -o bad.yaml
  says "${messages[i]}"
  [ ! -e bad.yaml ] || fail "a refused model left a pipeline: ${messages[i]}"
done
head -c 200 "$golden/$name/plans.json" >older/plans.json
try 1 "$STRATA" new "$data" --nnunet older -o bad.yaml
says "plans.json"
rm older/plans.json
try 1 "$STRATA" new "$data" --nnunet older -o bad.yaml
says "has no plans.json: a trained model of nnU-Net is a folder such as"
rm heir.yaml
mv heir/fold_0 heir/fold_all
try 0 "$STRATA" new "$data" --nnunet heir -o heir.yaml
has heir.yaml "fold: all"
rm -r heir/fold_all
try 1 "$STRATA" new "$data" --nnunet heir -o bad.yaml
says "heir has no weights: fold_0/checkpoint_final.pth"
try 2 "$STRATA" new "$data" --nnunet heir -o bad.yaml --memory 1GiB
says "--memory does not go with --nnunet"
try 1 "$STRATA" new "$data" --nnunet nowhere -o bad.yaml
says "nowhere"
