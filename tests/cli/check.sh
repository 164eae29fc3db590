# `strata check` prints the plan of a run. What depends on the machine (time, instruction set, the
# workspaces of its kernels, compressed sizes) is masked; every other figure is compared.
. "$(dirname "$0")/lib.sh"
make_phantom phantom
cp "$pipelines/tiny.yaml" .

stable() {
  sed -E -e 's/CPU, 2 threads, .*/CPU, 2 threads, …/' -e 's/[^ ]+ [KM]iB of files/… of files/' \
    -e 's/[^ ]+ [KM]iB for the step/… for the step/' -e 's/at most [^ ]+ [KM]iB/at most …/' -e 's/(time here +).*/\1…/' \
    -e 's/about .* of training here/about … of training here/' "$work/out"
}

try 0 "$STRATA" check tiny.yaml --threads 2
stable >plan
diff "$SOURCE/tests/cli/check.expected" plan >out || fail "another plan than tests/cli/check.expected"
[ ! -e runs ] || fail "check wrote something"

# What is prepared, what is switched off and whose label is withheld.
try 0 "$STRATA" run tiny.yaml --set stages.pretrain.enabled=false --set stages.segment.epochs=1
try 0 "$STRATA" check tiny.yaml
prints "runs/.strata-cache: 8 of 8 cases are prepared"
try 0 "$STRATA" check tiny.yaml --set stages.pretrain.enabled=false --set data.label_fraction=0.5 \
  --set stages.segment.time_limit=0.001 --set evaluate= --set stages.segment.validate=
prints "runs/.strata-cache: 6 of 8 cases are prepared" # two without their label
prints "written to runs/tiny-2"
prints "label_fraction: stages that read labels train on 2 of 4 cases"
prints "stage segment starts from fresh weights, since stage pretrain is switched off"
prints "stage pretrain is switched off"
prints "stage segment ends by its time_limit"
prints "no \`evaluate:\`"
try 0 "$STRATA" check tiny.yaml --set stages.segment.batch=20
prints "stage segment: a batch of 20 is more than the "
# Crops that are larger than cases, which the header alone tells after other spacings or turns.
try 0 "$STRATA" check tiny.yaml --set roi.2=64
prints "of 4 training cases 4 along z are smaller than the crop and padded with 0"
prepare='[{orient: {axes: RAS}}, {resample: {spacing: [0, 0, 40]}}, crop_foreground, {orient: {axes: RSA}}]'
try 0 "$STRATA" check tiny.yaml --set "data.prepare=$prepare"
prints "of 4 training cases at least 4 along y are smaller than the crop and padded with 0"
try 0 "$STRATA" check tiny.yaml --set device=cuda
prints "the figures above are of the CPU; "
# Other operators make other cases; the cache does not take the old ones for them.
try 0 "$STRATA" check tiny.yaml --set data.prepare.scale_range.clip=false
prints "runs/.strata-cache: 0 of 8 cases are prepared"
try 0 "$STRATA" check tiny.yaml --set data.cache=none
prints "none: cases are prepared anew in every stage"

# A shipped pipeline goes by its name in any folder; what is there goes before it.
for name in quickstart.yaml pipelines/quickstart.yaml; do
  try 0 "$STRATA" check $name --set data.root=phantom
  prints "quickstart: $SOURCE/pipelines/quickstart.yaml"
done
try 1 "$STRATA" check quickstrat.yaml
says 'There is no file quickstrat.yaml; did you mean "quickstart.yaml"?'
mkdir pipelines
printf 'strata: 1\nuse: ../tiny.yaml\nname: mine\n' >pipelines/quickstart.yaml
try 0 "$STRATA" check pipelines/quickstart.yaml --set data.root=phantom
prints "mine: pipelines/quickstart.yaml"
try 2 "$STRATA" check runs/tiny
says "runs/tiny is the folder of a run; its pipeline is runs/tiny/pipeline.lock.yaml"

# Headers that disagree are found here: another channel, a label on another grid.
try 0 python3 - phantom <<'PY'
import gzip, shutil, struct, sys
def header(path, offset, format, *values):
    data = bytearray(gzip.open(path).read())
    struct.pack_into(format, data, offset, *values)
    with gzip.open(path, "wb") as out: out.write(data)
shutil.copytree(sys.argv[1], "odd")
image, label = "odd/imagesTr/phantom_002.nii.gz", "odd/labelsTr/phantom_003.nii.gz"
size = struct.unpack_from("<8h", gzip.open(image).read(), 40)
header(image, 40, "<8h", 4, size[1], size[2], size[3] // 2, 2, 1, 1, 1)
header(label, 42, "<h", 7)
PY
try 1 "$STRATA" check tiny.yaml --set data.root=odd
says "case phantom_002: the label odd/labelsTr/phantom_002.nii.gz has"
says "case phantom_003: the label odd/labelsTr/phantom_003.nii.gz has 7 × "
rm odd/labelsTr/phantom_002.nii.gz
try 1 "$STRATA" check tiny.yaml --set data.root=odd \
  --set 'data.dataset={files: {images: "imagesTr/*.nii.gz", classes: [a]}}' \
  --set stages.segment.enabled=false --set stages.segment.validate= --set evaluate=
says "odd/imagesTr/phantom_002.nii.gz has 2 channels, the data set 1"

# Files that do not pair say what their wildcards stand for.
try 1 "$STRATA" check tiny.yaml --set data.root=odd \
  --set 'data.dataset={files: {images: "imagesTr/*1.nii.gz", labels: "labelsTr/*.nii.gz", classes: [a]}}'
says 'error: odd/labelsTr/phantom_003.nii.gz: there is no image to this label: the wildcards of its'
says 'for "phantom_00"'

# A header that is broken is found here, not in the third hour.
head -c 300 /dev/urandom >phantom/imagesTr/"$(ls phantom/imagesTr | head -n 1)"
try 1 "$STRATA" check tiny.yaml
says "case $(ls phantom/imagesTr | head -n 1 | sed 's/\.nii.*//')"
