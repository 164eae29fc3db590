# The same pipeline on the CPU and on a CUDA device: losses, checkpoints and predictions agree; what
# is wrong is said. STRATA_CUDA_PLUGIN names the plug-in, by default the emulated one.
. "$SOURCE/tests/cli/lib.sh"

"$STRATA" phantom phantom --cases 4 --size 16 --organs 2 >/dev/null 2>&1
pipeline=$pipelines/device.yaml
run() { # run DEVICE FOLDER [OPTION…]
  "$STRATA" run "$pipeline" --set data.root="$work/phantom" --device "$1" --out "$2" "${@:3}" \
    >"$work/out" 2>"$work/err"
}

run cpu on-cpu || fail "the run on the CPU"
run cuda on-cuda || fail "the run on the CUDA device"
[ "$(grep -c "crops and augmentation on the device" "$work/out")" = 2 ] ||
  fail "the device does not make the samples of both stages"
grep -q '"device": ".*sm_' on-cuda/run.json || fail "run.json does not name the device"

agree() { # agree CPU CUDA LOSSES SHARE: losses apart at most, and share of equal voxels at least
  python3 - "$@" <<'PYTHON'
import gzip, json, os, sys
one, other, losses, share = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
def lines(folder):
    return [json.loads(line) for line in open(folder + "/metrics.jsonl")]
cpu, cuda = lines(one), lines(other)
assert len(cpu) == len(cuda) == 3, (len(cpu), len(cuda))
for a, b in zip(cpu, cuda):
    for key in a:
        if "loss" in key:
            assert abs(a[key] - b[key]) <= losses * max(1, abs(a[key])), (key, a[key], b[key])
same = total = 0
for name in os.listdir(one + "/predictions"):
    x, y = (gzip.open(f + "/predictions/" + name).read()[352:] for f in (one, other))
    same += sum(p == q for p, q in zip(x, y)); total += len(x)
assert total > 0 and same >= share * total, (same, total)
PYTHON
}
agree on-cpu on-cuda 1e-4 0.999 || fail "the two runs differ"

# Products of rounded factors: near the CPU's, and not those of f32.
bf16=(--set stages.pretrain.precision=bf16 --set stages.segment.precision=bf16)
run cpu rounded-on-cpu "${bf16[@]}" || fail "bf16 on the CPU"
run cuda rounded-on-cuda "${bf16[@]}" || fail "bf16 on the CUDA device"
agree rounded-on-cpu rounded-on-cuda 1e-3 0.99 || fail "the two runs in bf16 differ"
! cmp -s on-cuda/weights/segment.safetensors rounded-on-cuda/weights/segment.safetensors ||
  fail "bf16 gives the weights of f32"

tf32=(--set stages.pretrain.precision=tf32 --set stages.segment.precision=tf32)
run cuda in-tf32 "${tf32[@]}" || fail "tf32 on the CUDA device"
! grep -q "note: tf32" "$work/out" || fail "tf32 is said to be f32 on the CUDA device"
agree on-cpu in-tf32 1e-3 0.99 || fail "the run in tf32 is far from f32"
! cmp -s on-cuda/weights/segment.safetensors in-tf32/weights/segment.safetensors ||
  fail "tf32 gives the weights of f32"

# A checkpoint made on one device goes on on the other.
"$STRATA" predict on-cuda phantom/imagesTr/"$(ls phantom/imagesTr | head -n 1)" -o p.nii.gz \
  --device cpu >"$work/out" 2>"$work/err" || fail "the CUDA run's weights on the CPU"

# The same bits launch by launch as in recorded steps, although rates, weights and ratios change.
STRATA_CUDA_GRAPHS=off STRATA_EMULATOR_STREAMS=mixed run cuda unrecorded || fail "the run without recorded steps"
for stage in pretrain segment; do
  cmp on-cuda/weights/$stage.safetensors unrecorded/weights/$stage.safetensors ||
    fail "recorded steps give other weights"
done

# Twice the same, on the second card, with room for one prepared case at a time, and batches made as early
# as they may be. (A card has the room it has, and its own order, and may be the only one.)
second=cuda
[[ ${STRATA_CUDA_PLUGIN:-} != *emulated* ]] || second=cuda:1
STRATA_EMULATOR_CARDS=2 STRATA_EMULATOR_FREE_BYTES=50000 STRATA_EMULATOR_STREAMS=early \
  run $second again || fail "the second run on the CUDA device"
for stage in pretrain segment; do
  cmp on-cuda/weights/$stage.safetensors again/weights/$stage.safetensors ||
    fail "two runs on one device give different weights"
done

# What a benchmark needs to know: memory of the device's own, and what every call does.
"$STRATA" bench "$pipeline" --set data.root="$work/phantom" --device cuda --steps 2 --json bench.json \
  >"$work/out" 2>"$work/err" || fail "bench on the CUDA device"
python3 - <<'PYTHON' || fail "what bench says of the CUDA device"
import json
found = json.load(open("bench.json"))
assert found["device_bytes"] >= found["arena_bytes"] + found["outside_bytes"], found["device_bytes"]
assert found["device_bytes"] < 2 * (found["arena_bytes"] + found["outside_bytes"]) + 2**24, found["device_bytes"]
nodes = [c for c in found["calls"] if c["node"]]
assert len(nodes) > 20 and all(c["bytes"] > 0 for c in nodes if c["op"] == "conv3d"), len(nodes)
assert abs(sum(c["flops"] for c in nodes) - found["flops"]) <= 1e-6 * found["flops"]
assert found["update_bytes"] > 0
PYTHON

# Results are read a step late; what is wrong with them is still said of the step and its cases.
if run cuda diverged --set stages.pretrain.optimizer.adamw.lr=1000 --set stages.pretrain.schedule= \
  --set stages.pretrain.epochs=20 --set stages.pretrain.optimizer.adamw.weight_decay=1000; then
  fail "a loss that is no number"
fi
grep -qE "epoch [0-9]+, step [1-4] \(case phantom_00[^)]*\): the loss.* became (NaN|infinite)" "$work/err" ||
  fail "the message does not say where the loss stopped being a number"

# No plug-in: an error for cuda, the CPU with a reason for auto.
if STRATA_CUDA_PLUGIN=/nowhere.so run cuda none; then fail "a plug-in that is not there"; fi
grep -q "STRATA_CUDA_PLUGIN" "$work/err" || fail "the missing plug-in is not named"
STRATA_CUDA_PLUGIN=/nowhere.so run auto none || fail "auto without a plug-in"
grep -q "so the CPU is used" "$work/out" "$work/err" || fail "auto does not say why"

echo "losses and predictions agree; two runs give the same weights to the bit"
