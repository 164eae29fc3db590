# The recipes of published experiments on phantoms in the layouts of their data sets: checked at full
# size, and run from start to end at a fraction of their width and length.
. "$(dirname "$0")/lib.sh"
recipes=$SOURCE/pipelines

try 0 "$STRATA" phantom synapse --layout synapse --size 40
try 0 "$STRATA" phantom lung --layout lung --size 40
try 0 "$STRATA" phantom atrium --cases 6 --organs 1 --size 40
try 0 "$STRATA" phantom hippocampus --cases 6 --organs 2 --size 40
try 0 "$STRATA" phantom brats --layout brats --cases 6 --size 40
try 0 "$STRATA" data check synapse/RawData/Training
prints "BTCV, 30 cases"
prints "orientation  LAS (30)"

# What depends on the data set has to be measured first. The JSON goes where the pipeline looks for it.
try 1 "$STRATA" plan "$recipes/lung/unetr_plus_plus.yaml" --set data.root=lung --stage segment
says "there is no lung/fingerprint.json. Make it with"
for name in synapse lung; do
  try 0 "$STRATA" data check "$recipes/$name/unetr_plus_plus.yaml" --set data.root=$name \
    --json $name/fingerprint.json
done
prints "63 cases: 50 train, 0 validation, 13 test; 63 good"

# At full size: steps have up to 15 GiB, and nothing of them is made. A sanitizer's own address space is
# larger than any limit.
check() { # check RECIPE ROOT PARAMETERS
  if [ "$SANITIZED" = 0 ]; then
    (ulimit -v 4194304 && try 0 "$STRATA" check "$recipes/$1.yaml" --set data.root="$2") || exit 1
  else
    try 0 "$STRATA" check "$recipes/$1.yaml" --set data.root="$2"
  fi
  prints "no mistakes found"
  [ -z "${3:-}" ] || prints " $3 parameters"
}
check synapse/unetr synapse 92784046
prints "no label is read"
check synapse/unetr_authors synapse 92784046
! grep -q "no label is read" out || fail "the authors' step 1 is to read labels"
check synapse/swin_unetr synapse 62187296
check synapse/unetr_plus_plus synapse 42952850
check synapse/unetr_plus_plus_authors synapse 42952850
check lung/unetr_plus_plus lung 121174798
check left_atrium/unetr atrium 92783842
check brats/dynunet brats
check brats/swin_unetr brats 62191941 # as MONAI's SwinUNETR(in_channels=4, out_channels=3, feature_size=48)
prints "predicted as 1 2 3"
for recipe in "$recipes"/hippocampus/*.yaml; do
  check "hippocampus/$(basename "$recipe" .yaml)" hippocampus
done

run() { # run NAME RECIPE ROOT KEY=VALUE…
  local name=$1 recipe=$2 root=$3 key set=()
  shift 3
  for key in epochs=1 batch=1 steps_per_epoch=2; do
    set+=(--set "stages.pretrain.$key" --set "stages.segment.$key")
  done
  for key; do set+=(--set "$key"); done
  try 0 "$STRATA" run "$recipes/$recipe.yaml" --set data.root="$root" "${set[@]}" --out "$name"
  exists "$name/evaluation.json" "$name/weights/segment.safetensors"
}
unetr=(data.prepare.resample.spacing=3 'roi=[32,32,32]' slabs=2 model.with.features=2
  model.with.hidden=24 model.with.mlp=24 model.with.heads=2 model.with.layers=4)
plus_plus=('roi=[32,32,32]' 'field=[40,40,32]' slabs=2
  model.with.features=4 'model.with.depths=[1,1,1,1]' model.with.decoder_depth=1
  'model.with.projections=[8,8,4,2]' evaluate.inferer.sliding_window.mirror=x)
run unetr synapse/unetr synapse "${unetr[@]}"
has unetr/evaluation.json abdomen8
run atrium-run left_atrium/unetr atrium 'roi=[32,32,32]' "${unetr[@]:2}"
run swin synapse/swin_unetr synapse data.prepare.resample.spacing=3 'roi=[32,32,64]' \
  model.with.features=6 'model.with.heads=[1,2,3,3]' 'model.with.depths=[1,1,1,1]' slabs=2
run plus-plus synapse/unetr_plus_plus synapse "${plus_plus[@]}"
run lung-run lung/unetr_plus_plus lung "${plus_plus[@]}"
run brats-run brats/dynunet brats 'roi=[32,32,32]' 'model.with.filters=[4,8,8,8]'
has brats-run/evaluation.json '"enhancing tumour"'

# The numbers of the fingerprint are in the run's file, and the run needs it no more.
rm synapse/fingerprint.json
try 0 "$STRATA" check plus-plus/pipeline.lock.yaml
grep -q fingerprint plus-plus/pipeline.lock.yaml && fail "the resolved file names the fingerprint"
image=synapse/RawData/Training/img/img0001.nii.gz
try 0 "$STRATA" predict plus-plus $image -o again.nii.gz
cmp again.nii.gz plus-plus/predictions/img0001.nii.gz || fail "another prediction of the same case"
