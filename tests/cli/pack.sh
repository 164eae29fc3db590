# A pack is all that a pipeline or a run is made of: it works where there is nothing else.
. "$(dirname "$0")/lib.sh"
make_phantom phantom 6

# A pipeline with files of its own: a base, a stage of another, a block, a script, a split.
mkdir -p mine/exp mine/nets mine/lua
cp "$SOURCE/pipelines/blocks/unet_residual_block.yaml" mine/nets/block.yaml
cp "$SOURCE/lua/poly.lua" mine/lua/slow.lua
sed 's|lua: poly}|lua: lua/slow}|' "$pipelines/tiny.yaml" >mine/base.yaml
cat >mine/split.yaml <<'YAML'
train: [phantom_001, phantom_002, phantom_003, phantom_004]
validation: [phantom_005]
test: [phantom_006]
YAML
cat >mine/exp/own.yaml <<'YAML'
strata: 1
use: ../base.yaml
model: {blocks: {unet_residual_block: ../nets/block.yaml}}
data: {split: {train: ~, validation: ~, test: ~, file: ../split.yaml}}
stages:
  - pretrain: {use: {pipeline: ../base.yaml, stage: pretrain}, epochs: 1}
  - segment: {use: ../base.yaml, epochs: 1}
YAML
try 0 "$STRATA" run mine/exp/own.yaml --set data.root=phantom --threads 1 --out run
try 0 "$STRATA" pack mine/exp/own.yaml
exists own.strata
prints "own.strata: "
try 2 "$STRATA" pack mine/exp/own.yaml
says "own.strata is there already"

# The same files, at another time and in another place, are the same bytes.
cp -r mine copy
touch -d 2001-01-01 copy/base.yaml
try 0 "$STRATA" pack copy/exp/own.yaml -o copy.strata
cmp own.strata copy.strata || fail "the same content gave other bytes"
try 0 "$STRATA" pack --list own.strata
for name in pack.yaml project/exp/own.yaml project/base.yaml project/nets/block.yaml \
  project/lua/slow.lua project/split.yaml pipelines/models/unetr.yaml lua/warmup_cosine.lua; do
  prints "  $name"
done

# With nothing else but the data: the same weights.
mkdir away
mv own.strata phantom away/
mkdir away-not && mv mine copy run away-not/
cd away
export STRATA_SHARE=$work/nowhere
try 0 "$STRATA" run own.strata --set data.root=phantom --threads 3 --out run
for stage in pretrain segment; do
  cmp run/weights/$stage.safetensors ../away-not/run/weights/$stage.safetensors ||
    fail "the pack trained other weights of $stage"
done
try 0 "$STRATA" check own.strata --set data.root=phantom
prints "no mistakes found"
try 0 "$STRATA" plan own.strata --set data.root=phantom --stage pretrain
try 0 "$STRATA" bench own.strata --set data.root=phantom --steps 1
try 0 "$STRATA" bench own.strata --set data.root=phantom --steps 1 --inference --json alone.json
prints "GFLOP/s"
has alone.json '"median_s"'
try 0 "$STRATA" data check own.strata --set data.root=phantom
# Relative paths of data begin where the pack lies.
(cd / && try 0 "$STRATA" check "$work/away/own.strata")
mkdir alone && cp own.strata alone/
try 1 "$STRATA" check alone/own.strata
says "There is no data set alone/phantom/dataset.json"

# The lock of that run, and the run with its weights.
try 0 "$STRATA" pack run -o lock.strata
try 0 "$STRATA" pack run --weights -o run.strata
try 0 "$STRATA" run lock.strata --threads 2 --out again
prints "identical to the lock: yes"
try 0 "$STRATA" predict run phantom/imagesTr/phantom_006.nii.gz -o whole.nii.gz
mv run run-gone
try 0 "$STRATA" predict run.strata phantom/imagesTr/phantom_006.nii.gz -o seg.nii.gz
cmp whole.nii.gz seg.nii.gz || fail "the pack predicts something else"
try 0 "$STRATA" predict run.strata,run.strata phantom/imagesTr/phantom_006.nii.gz -o two.nii.gz
exists two.nii.gz
try 1 "$STRATA" predict lock.strata phantom/imagesTr/phantom_006.nii.gz -o none.nii.gz
says "holds no weights/segment.safetensors"
try 1 "$STRATA" predict own.strata phantom/imagesTr/phantom_006.nii.gz -o none.nii.gz
says "own.strata is not a run, or not one packed with --weights"
try 0 "$STRATA" weights diff "run.strata: weights/segment.safetensors" \
  again/weights/segment.safetensors
prints "every bit the same"

# Unpacked, it is files again, that ordinary tools read, too.
try 0 "$STRATA" unpack own.strata files
cmp files/project/base.yaml ../away-not/mine/base.yaml || fail "another file came out"
STRATA_SHARE=files try 0 "$STRATA" check files/project/exp/own.yaml --set data.root=phantom
try 2 "$STRATA" unpack own.strata files
says "files is there already"
try 0 "$STRATA" unpack own.strata -o files2
diff -r files files2 || fail "-o DIR gives other files than DIR"
try 2 "$STRATA" unpack own.strata
says "unpack needs one folder"
try 2 "$STRATA" unpack own.strata a -o b
python3 - <<'PY' || fail "Python's zipfile does not read the packs"
import zipfile
for name in ("own.strata", "run.strata"):
    assert zipfile.ZipFile(name).testzip() is None
PY

# Weights that a stage begins with come along when they are wanted, and only then.
cat >warm.yaml <<'YAML'
strata: 1
use: files/project/base.yaml
stages:
  - segment: {use: files/project/base.yaml, epochs: 1,
      init: {from: warm.safetensors, map: rules.yaml, reset: [net.out], missing: fresh}}
YAML
printf 'strata: 1\ndrop: ["loss.*"]\n' >rules.yaml
cp run-gone/weights/pretrain.safetensors warm.safetensors
unset STRATA_SHARE
try 0 "$STRATA" run warm.yaml --set data.root=phantom --out warm
try 0 "$STRATA" pack warm.yaml -o cold.strata
prints "not packed: warm.safetensors, with which stage segment begins"
try 0 "$STRATA" pack warm.yaml --weights -o warm.strata
mv warm.safetensors kept.safetensors
try 1 "$STRATA" check cold.strata --set data.root=phantom
says "there is no weight file warm.safetensors"
try 0 "$STRATA" check cold.strata --set data.root=phantom \
  --set stages.segment.init.from=kept.safetensors
mv rules.yaml rules-gone.yaml
try 0 "$STRATA" run warm.strata --set data.root=phantom --out warm-again
cmp warm/weights/segment.safetensors warm-again/weights/segment.safetensors ||
  fail "the packed initial weights trained others"
try 0 "$STRATA" run warm/pipeline.lock.yaml --set stages.segment.init.from=kept.safetensors \
  --set stages.segment.init.map=rules-gone.yaml --out warm-locked
prints "identical to the lock: yes"
cp kept.safetensors other.safetensors
printf '\001' | dd of=other.safetensors bs=1 seek=$(($(stat -c %s other.safetensors) - 4)) \
  conv=notrunc 2>dd.log
try 1 "$STRATA" run warm/pipeline.lock.yaml --set stages.segment.init.map=rules-gone.yaml \
  --set stages.segment.init.from=other.safetensors --out refused
says "init of stage segment: weights reads another file"

# What could not work elsewhere is not packed.
sed "s|: \.\./nets/block.yaml|: $PWD/files/project/nets/block.yaml|; s|\.\./|$PWD/files/project/|" \
  files/project/exp/own.yaml >absolute.yaml
try 0 "$STRATA" check absolute.yaml --set data.root=phantom
try 1 "$STRATA" pack absolute.yaml
says "a file of yours is named relative to the file that names it, and a shipped one without the folder"
[ ! -e absolute.strata ] || fail "a pack that does not work was left"
try 2 "$STRATA" pack phantom
says "is neither a pipeline file nor a run"
printf 'PK\003\004 and no more' >broken.strata
try 1 "$STRATA" run broken.strata
says "broken.strata is not a usable pack"
try 1 "$STRATA" unpack broken.strata broken
says "broken.strata is not a usable pack"
[ ! -e broken ] || fail "a folder for nothing"
