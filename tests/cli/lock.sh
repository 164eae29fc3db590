# A lock trains the same weights again, anywhere, or says what is not as it was.
. "$(dirname "$0")/lib.sh"
make_phantom phantom 6
short=(--set data.root=phantom --set stages.pretrain.epochs=1 --set stages.segment.epochs=1)

# A pipeline with a base, a block and a script of its own.
mkdir -p mine/nets
cp "$SOURCE/pipelines/blocks/unet_residual_block.yaml" mine/nets/block.yaml
cp "$SOURCE/lua/poly.lua" mine/slow.lua
cp "$pipelines/tiny.yaml" mine/base.yaml
cat >mine/own.yaml <<'YAML'
strata: 1
use: base.yaml
name: own
model: {blocks: {unet_residual_block: nets/block.yaml}}
YAML
sed -i 's/schedule: {lua: poly}/schedule: {lua: slow}/' mine/base.yaml
try 0 "$STRATA" run mine/own.yaml "${short[@]}" --threads 1 --out run
hash=$(sed -n 's/^weights of segment: //p' out)
[ ${#hash} -eq 32 ] || fail "no hash of the weights"
prints "to quote: strata "
prints "weights ${hash:0:16}"
lock=run/pipeline.lock.yaml
exists $lock
[ ! -e run/pipeline.yaml ] || fail "two files say what the pipeline is"
for text in "segment: \"$hash\"" 'conv3d: ' 'name: "phantom_001"' "mine/nets/block.yaml" \
  "mine/slow.lua" pipelines/models/unetr.yaml; do
  has $lock "$text"
done

# In another folder, with other threads, when nothing else is left but the data, elsewhere.
mkdir away
cp $lock away/
mv phantom away/data
mv mine gone
cd away
again=(run pipeline.lock.yaml --set data.root=data --threads 3)
try 1 "$STRATA" run pipeline.lock.yaml --out nowhere
says "--set data.root=DIR"
STRATA_SHARE=nowhere try 0 "$STRATA" "${again[@]}" --out again
prints "weights of segment: $hash, identical to the lock: yes"
for stage in pretrain segment; do
  cmp again/weights/$stage.safetensors ../run/weights/$stage.safetensors ||
    fail "other weights of $stage"
done
grep -v ' root: ' pipeline.lock.yaml >a
grep -v ' root: ' again/pipeline.lock.yaml >b
cmp a b || fail "the lock of the second run is another one"

# What predicts and what resumes reads the lock, too.
try 0 "$STRATA" predict again data/imagesTr/phantom_001.nii.gz -o seg.nii.gz
try 0 "$STRATA" "${again[@]}" --out again --resume
prints "stage segment: done before"
prints "$hash, identical to the lock: yes"

# changed TEXT [COMMAND…]: refused before anything is trained, for one reason that is named exactly.
changed() {
  try 1 "$STRATA" "${again[@]}" "${@:2}" --out refused
  says "$1"
  says "--allow-changes runs it with what has changed"
  [ "$(grep -c 'error:' "$work/err")" -eq 2 ] || fail "more than one reason"
  [ ! -e refused ] || fail "a run that was refused left a folder"
}
image=data/imagesTr/phantom_003.nii.gz
cp $image whole
printf '\0' >>$image
changed "case phantom_003: the image $image has changed"
# The same change when a run is resumed: file sizes would not show it.
cp whole $image
printf '\x01' | dd of=$image bs=1 seek=4 conv=notrunc 2>dd.log # the time in gzip's header
try 1 "$STRATA" "${again[@]}" --set data.root=data --out again --resume
says "case phantom_003: the image $image has changed"
cp whole $image
label=data/labelsTr/phantom_002.nii.gz
cp $label whole
printf '\0' >>$label
changed "case phantom_002: the label $label has changed"
cp whole $label

cp pipeline.lock.yaml kept
edit() { # edit SED: one line of the lock
  sed "$1" kept >pipeline.lock.yaml
  [ "$(diff kept pipeline.lock.yaml | grep -c '^>')" -eq 1 ] || fail "$1 changes another number of lines"
}
edit "$(grep -n 'base \* (1 - step' kept | cut -d: -f1)s/\$/ -- one line/"
changed "mine/slow.lua has changed"
edit "$(grep -n 'residual path, which is a normalized' kept | tail -1 | cut -d: -f1)s/\$/ one word/"
changed "mine/nets/block.yaml has changed"
edit 's/^seed: 5$/seed: 6/'
try 1 "$STRATA" "${again[@]}" --out refused
says "the pipeline's key seed says something else than it said"
says "its role is" # the seed deals the cases, too
edit 's/ conv3d: [0-9]*,/ conv3d: 999,/'
changed "the operator conv3d is of another version"
edit 's/numerics: ".*"/numerics: "AVX9"/'
changed "the lock was made with AVX9: the last bits will differ"
cp kept pipeline.lock.yaml
changed "the pipeline's key stages.segment.epochs is 2, in the lock 1" --set stages.segment.epochs=2

# Wanted changes are run, told and written down; other weights are told, too.
try 0 "$STRATA" "${again[@]}" --set stages.segment.clip_norm=0.5 --allow-changes --out other
prints "changed: the pipeline's key stages.segment.clip_norm is 0.5, in the lock 1."
prints "weights of pretrain: "
prints "identical to the lock: no, there $hash"
prints "strata weights diff A B"
has other/run.json "the pipeline's key stages.segment.clip_norm is 0.5"
grep -q changes again/run.json || fail "run.json does not name its lock"

# So are more changes than an error lists.
try 0 "$STRATA" phantom many --cases 56 --organs 2 --size 16
few=(--set data.root=many --set stages.pretrain.epochs=1 --set stages.segment.epochs=1
  --set data.split.train=0.96 --set data.split.validation=0.02 --set data.split.test=0.02)
try 0 "$STRATA" run "$pipelines/tiny.yaml" "${few[@]}" --out many_run
for image in many/imagesTr/*; do printf '\0' >>"$image"; done
try 0 "$STRATA" run many_run/pipeline.lock.yaml --allow-changes --out many_again
prints "changed: case phantom_050: the image "
prints "changed: … and 6 more"

# A lock is no base, and what is no lock has nothing to allow.
printf 'strata: 1\nuse: pipeline.lock.yaml\n' >based.yaml
try 1 "$STRATA" check based.yaml
says "it is no base for others"
try 2 "$STRATA" run "$pipelines/tiny.yaml" --set data.root=data --allow-changes --out none
says "--allow-changes is for locks"
