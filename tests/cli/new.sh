# A first pipeline for a data set: what it decides, that it is valid, and that it runs.
. "$(dirname "$0")/lib.sh"
make_phantom phantom 12
short=(--set stages.pretrain.epochs=1 --set stages.pretrain.steps_per_epoch=2 --set stages.segment.epochs=1
  --set stages.segment.steps_per_epoch=2 --set "model.with.filters=[4, 4, 4, 4]")

try 0 "$STRATA" new phantom -o my.yaml
has out "my.yaml: a pipeline for Phantom, 12 cases, 12 of them labelled"
for words in "Made by" "standardize: {clip: " "deep_supervision: [label, net.out, net.out2]" \
  "split: {folds: 5, fold: 0, validation: 0.1}"; do
  has my.yaml "$words"
done
try 0 "$STRATA" check my.yaml
has out "no mistakes found"
try 0 "$STRATA" run my.yaml "${short[@]}" --out run
[ -s run/evaluation.json ] || fail "the run has not been evaluated"

# A smaller step takes a smaller crop; the other network; what is there stays.
try 0 "$STRATA" new phantom/dataset.json -o small.yaml --memory 250MiB --network resenc_unet
has small.yaml "use: models/resenc_unet.yaml"
crop() { sed -n 's/^  roi: \[\(.*\)\]$/\1/p' "$1" | tr -d ' ' | tr ',' '*'; }
[ $(($(crop small.yaml))) -lt $(($(crop my.yaml))) ] || fail "the crop is no smaller"
try 0 "$STRATA" check small.yaml
try 0 "$STRATA" new phantom -o batch.yaml --memory 250MiB --batch 5
[ "$(grep -c '^ *batch: 5$' batch.yaml)" = 2 ] || fail "not both stages take five crops a step"
try 2 "$STRATA" new phantom -o x.yaml --batch 65536
says "even with the smallest crop"
try 2 "$STRATA" new phantom -o x.yaml --batch 65537
says "--batch is at most 65536"
try 2 "$STRATA" new phantom -o my.yaml
says "my.yaml is there already"
try 2 "$STRATA" new phantom -o tiny.yaml --memory 1MiB
says "even with the smallest crop"
try 2 "$STRATA" new phantom -o x.yaml --memory much
says "--memory takes a size such as 4GiB"
try 2 "$STRATA" new phantom -o x.yaml --network unet
says "--network is one of dynunet, resenc_unet"
[ ! -e tiny.yaml ] && [ ! -e x.yaml ] || fail "a failed command left a file"

# Skull-stripped MRI of four channels.
try 0 "$STRATA" phantom brains --layout brats --cases 4 --size 48
try 0 "$STRATA" new brains -o brains.yaml
for words in crop_foreground "scope: nonzero" "split: {folds: 4, fold: 0}"; do has brains.yaml "$words"; done
try 0 "$STRATA" check brains.yaml

# The same again, and with a file that cannot be read nothing.
try 0 "$STRATA" new phantom -o again.yaml
cmp my.yaml again.yaml || fail "the same data set gives another file"
name=$(cd phantom/imagesTr && ls | head -n 1)
echo broken >"phantom/imagesTr/$name"
try 1 "$STRATA" new phantom -o broken.yaml
says "$name"
[ ! -e broken.yaml ] || fail "a broken data set has a pipeline"
