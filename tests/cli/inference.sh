# What changes how a finished run segments: mirroring, steps, batches, ensembles, components, memory.
. "$(dirname "$0")/lib.sh"
make_phantom phantom 6
short=(--set stages.pretrain.enabled=false --set stages.segment.epochs=1 --set stages.segment.validate=)
window=evaluate.inferer.sliding_window
try 0 "$STRATA" run "${tiny[@]}" "${short[@]}" --out run0
try 0 "$STRATA" run "${tiny[@]}" "${short[@]}" --set seed=6 --out run1
image=phantom/imagesTr/$(cd run0/predictions && ls | head -n 1)
segment() { # segment FILE RUNS [OPTION…]
  local out=$1 runs=$2
  shift 2
  try 0 "$STRATA" predict "$runs" "$image" -o "$out" "$@"
}
segment plain.nii.gz run0

# Batches, threads and a budget that a few rows exceed change no voxel, and no file is left.
mkdir tmp
TMPDIR=$work/tmp segment spilled.nii.gz run0 --set "$window.memory=64KiB" --threads 2
cmp plain.nii.gz spilled.nii.gz || fail "the memory budget changed a voxel"
[ -z "$(ls -A tmp)" ] || fail "a temporary file is left"
segment batched.nii.gz run0 --set "$window.batch=3" --threads 1
cmp plain.nii.gz batched.nii.gz || fail "a batch of windows changed a voxel"
TMPDIR=$work/nowhere try 1 "$STRATA" predict run0 "$image" -o x.nii.gz --set "$window.memory=64KiB"
says "nowhere"
[ ! -e x.nii.gz ] || fail "a failed prediction left a file"

# Mirroring, another placing and another network change some.
segment mirrored.nii.gz run0 --set "$window.mirror=[x, y, z]" --set "$window.average=probabilities"
if cmp -s plain.nii.gz mirrored.nii.gz; then fail "mirroring changed nothing"; fi
segment stepped.nii.gz run0 --set "$window.overlap=" --set "$window.step=0.5" \
  --set "$window.blend=gaussian_nnunet"
if cmp -s plain.nii.gz stepped.nii.gz; then fail "the step changed nothing"; fi
segment other.nii.gz run1

# The mean of a run with itself is the run; two runs are a third opinion, in either order.
segment twice.nii.gz run0,run0 --set "$window.blend=constant"
segment once.nii.gz run0 --set "$window.blend=constant"
cmp twice.nii.gz once.nii.gz || fail "an ensemble of a run with itself differs from the run"
segment both.nii.gz run0,run1
if cmp -s both.nii.gz plain.nii.gz && cmp -s both.nii.gz other.nii.gz; then
  fail "an ensemble is each of its members"
fi
try 1 "$STRATA" predict run0,run2 "$image" -o x.nii.gz
says "run2 is not a run"
try 0 "$STRATA" run "${tiny[@]}" "${short[@]}" --set data.prepare.scale_range.to.1=2 --out run3
try 1 "$STRATA" predict run0,run3 "$image" -o x.nii.gz
says "prepare their images differently"

# The probabilities of the classes, a channel each, on the grid of the input: the labels are their largest,
# the mean over an ensemble is that of the probabilities for average: probabilities, and with them not a voxel
# of the labels changes.
soft() { # soft FILE RUNS [OPTION…]: to $1/case.nii.gz and its labels
  local folder=$1 runs=$2
  shift 2
  segment "$folder.nii.gz" "$runs" --probabilities "$folder" "$@"
}
mean=(--set "$window.average=probabilities" --set "$window.blend=constant" --set "$window.overlap=0")
soft soft run0
cmp plain.nii.gz soft.nii.gz || fail "labels change when probabilities are kept"
TMPDIR=$work/tmp soft spilled run0 --set "$window.memory=64KiB" --threads 2
cmp soft/soft.nii.gz spilled/spilled.nii.gz || fail "the memory budget changed a probability"
soft soft0 run0 "${mean[@]}"
soft soft1 run1 "${mean[@]}"
soft softs run0,run1 "${mean[@]}"
python3 - "$image" <<'PY' || fail "the probabilities are not those of the labels"
import sys, numpy, nibabel
read = lambda path: numpy.asarray(nibabel.load(path).dataobj)
image = nibabel.load(sys.argv[1])
for name in "soft", "soft0", "soft1", "softs":
    file = nibabel.load(f"{name}/{name}.nii.gz")
    values = numpy.asarray(file.dataobj)
    assert file.get_data_dtype() == numpy.float32 and file.shape == image.shape + (3,), file.header
    assert numpy.array_equal(file.affine, image.affine) and file.header["qform_code"] == image.header["qform_code"]
    assert values.min() >= 0 and abs(values.sum(-1) - 1).max() < 1e-5
    assert values.max() > 0.4 and values.std() > 1e-3
    labels = read(f"{name}.nii.gz")
    of_label = numpy.take_along_axis(values, labels[..., None].astype(int), -1)[..., 0]
    assert (of_label >= values.max(-1) - 1e-6).all() and len(numpy.unique(labels)) > 1
both = (read("soft0/soft0.nii.gz") + read("soft1/soft1.nii.gz")) / 2
assert abs(both - read("softs/softs.nii.gz")).max() < 1e-6
PY
try 0 "$STRATA" predict run0 "$image" -o folder --probabilities folder.soft
cmp soft/soft.nii.gz "folder.soft/${image##*/}" || fail "a folder's probabilities are others"
mkdir same
try 2 "$STRATA" predict run0 "$image" -o same --probabilities same/.
says "--probabilities takes another folder than -o"
try 2 "$STRATA" predict run0 "$image" -o same --probabilities soft.nii.gz
says "--probabilities takes a folder"
try 2 "$STRATA" predict run0 "$image" -o "same/${image##*/}" --probabilities phantom/imagesTr
says "the probabilities of $image would replace the input"

# Postprocessing: fewer foreground voxels, and a class that is not there is a mistake in the pipeline, and
# for a run.
segment largest.nii.gz run0 --set "evaluate.postprocess=[keep_largest]"
if cmp -s plain.nii.gz largest.nii.gz; then fail "keep_largest changed nothing"; fi
segment same.nii.gz run0 --set "evaluate.postprocess=[remove_small: {below: 0.001}]"
cmp plain.nii.gz same.nii.gz || fail "remove_small removed something larger than 1 mm³"
segment none.nii.gz run0 --set "evaluate.postprocess=[remove_small: {below: 1.0e+6}]"
if cmp -s plain.nii.gz none.nii.gz; then fail "remove_small left more than 1 m³"; fi
try 1 "$STRATA" check "${tiny[@]}" --set "evaluate.postprocess=[keep_largest: {classes: [2, 3]}]"
says "keep_largest has class 3, but the classes end with 2"
try 1 "$STRATA" predict run0 "$image" -o x.nii.gz --set "evaluate.postprocess=[remove_small: {below: 1, replace: 3}]"
says "remove_small has class 3, but the classes end with 2"
try 0 "$STRATA" check "${tiny[@]}" --set "evaluate.postprocess=[keep_largest, fill_holes]"
has out "postprocess  keep_largest → fill_holes → segmentation"

# What prediction does not read cannot be meant.
for key in stages.segment.epochs=77 data.root=elsewhere evaluate.metrics=[dice] evaluate.groups.a=[1] params.slabs=2 \
  evaluation.postprocess=; do
  try 2 "$STRATA" predict run0 "$image" -o x.nii.gz --set "$key"
  says "--set ${key%%=*}: nothing that predict reads"
done
segment same.nii.gz run0 --set stages.segment.precision=f32 --set evaluate.stage=segment --set threads=1
cmp plain.nii.gz same.nii.gz || fail "the same settings segment otherwise"

# Scored so, a folder of segmentations says what was done to it, and stays as it is.
mkdir -p plain largest
cp plain.nii.gz plain/case.nii.gz
cp largest.nii.gz largest/case.nii.gz
try 0 "$STRATA" evaluate --prediction plain --reference largest --postprocess keep_largest --json scores.json
has out "Segmentations are scored after keep_largest."
has scores.json '"keep_largest: {classes: [], together: false, components: 1, replace: 0}"'
has scores.json '"mean": 1.0'
cmp plain/case.nii.gz plain.nii.gz || fail "evaluate changed a segmentation"
try 0 "$STRATA" evaluate --prediction plain --reference largest --postprocess '[keep_largest]' --json listed.json
cmp scores.json listed.json || fail "a list in brackets is another"
try 2 "$STRATA" evaluate --prediction plain --reference largest --postprocess keep_larges
says 'There is no postprocess operator "keep_larges"; did you mean "keep_largest"?'

# On a terminal it says how far it is, window by window, and results stand on lines of their own.
script -qec "'$STRATA' predict run0 phantom/imagesTr -o all --set $window.overlap=0.6" seen >/dev/null </dev/null ||
  fail "predict on a terminal: $(cat seen)"
for words in "predict ░" "case 0/6" "case 5/6" "ETA"; do has seen "$words"; done
tr '\r' '\n' <seen | grep -q $'^\e\[Kall/.*\.nii\.gz$' || fail "a file's line is not its own"
script -qec "'$STRATA' predict run0 phantom/imagesTr -o all --quiet" seen >/dev/null </dev/null
if grep -q "ETA" seen; then fail "--quiet shows progress"; fi
has seen "all/"
script -qec "'$STRATA' evaluate --prediction all --reference phantom/labelsTr" seen >/dev/null </dev/null
for words in "case 0/6" "mean"; do has seen "$words"; done
script -qec "'$STRATA' data check phantom" seen >/dev/null </dev/null
for words in "data check" "case 1/6"; do has seen "$words"; done

# Ctrl-C ends it in the middle of a volume; what is finished stays.
"$STRATA" predict run0 "$image" -o x.nii.gz --set "$window.overlap=0.95" >out 2>err &
process=$!
sleep 1
kill -INT "$process" || fail "the prediction was over before it could be interrupted"
wait "$process" && fail "an interrupted prediction succeeded"
says "stopped after 0 of 1 inputs"
[ ! -e x.nii.gz ] || fail "an interrupted prediction left a file"
