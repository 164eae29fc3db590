# strata weights: list, diff and import, and what they say of files that do not fit; then, where
# PyTorch is installed, that a file written here loads there with the same numbers.
. "$(dirname "$0")/lib.sh"
pt=$SOURCE/tests/golden/pt

# A file from PyTorch and the same tensors from safetensors.
try 0 "$STRATA" weights "$pt/checkpoint.pt"
prints "state dict: state_dict"
prints "not read optimizer"
prints "7 tensors, 33 numbers"
try 0 "$STRATA" weights diff "$pt/ordered.pt" "$pt/net.safetensors"
prints "7 tensors, every bit the same"
try 0 "$STRATA" weights diff "$pt/checkpoint.pt" "$pt/checkpoint.pt" --key ema.shadow
try 1 "$STRATA" weights diff "$pt/net.safetensors" "$pt/changed.safetensors"
prints "differs by 0.5      relative 0.5      norms 2         2.29129   1.weight"
prints "another shape       f32 4, f32 2×2: 0.bias"
says "2 tensors differ"
try 1 "$STRATA" weights diff "$pt/net.safetensors" "$pt/changed.safetensors" --within 0.5
says "1 tensor differs"
try 2 "$STRATA" weights diff "$pt/net.safetensors" "$pt/changed.safetensors" --within 2
says "--within takes a number between 0 and 1"

# Import: wrappers' prefixes go, counters are left out, and the input's own name is kept.
try 0 "$STRATA" weights import "$pt/checkpoint.pt" -o net.safetensors
prints "all names begin with \"module.\", which is taken off"
prints "left out"
prints "net.safetensors: 6 tensors, 32 numbers"
try 0 "$STRATA" weights net.safetensors
prints "# imported from: checkpoint.pt"
try 1 "$STRATA" weights diff "$pt/net.safetensors" net.safetensors
prints "only in the first   1.num_batches_tracked"
says "1 tensor differs"
try 0 "$STRATA" weights import net.safetensors -o again.safetensors
try 0 "$STRATA" weights diff net.safetensors again.safetensors

# Rules.
cat >rules.yaml <<'YAML'
strata: 1
strip: [backbone., module.]
drop: ["*.num_batches_tracked"]
rename:
  - {from: "0.*", to: "linear.*"}
  - {from: "1.running_*", to: "norm.running_*"}
  - {from: "1.*", to: "norm.*"}
YAML
try 0 "$STRATA" weights import "$pt/checkpoint.pt" --map rules.yaml -o mapped.safetensors
prints "renamed  module.1.running_mean"
prints "dropped  module.1.num_batches_tracked"
try 0 "$STRATA" weights mapped.safetensors
prints "linear.weight"
prints "norm.running_var"
try 1 "$STRATA" weights diff net.safetensors mapped.safetensors
says "12 tensors differ"
sed -i 's/num_batches_tracked/num_batches_trakced/' rules.yaml
try 1 "$STRATA" weights import "$pt/checkpoint.pt" --map rules.yaml -o never.safetensors
says "rules.yaml:3:8: error: drop: \"*.num_batches_trakced\" fits none of the 7 names; did you"
says "mean \".num_batches_tracked\"?"
[ ! -e never.safetensors ] || fail "a refused import left a file"

# Refusals.
try 1 "$STRATA" weights import "$pt/refused/command.pt" -o never.safetensors
says "it asks Python for posix.system"
[ ! -e harmed ] || fail "something in a weight file was run"
try 1 "$STRATA" weights import "$pt/refused/legacy.pt" -o never.safetensors
says "torch.save(torch.load(PATH, weights_only=True), NEW_PATH)"
try 1 "$STRATA" weights import "$pt/checkpoint.pt" --key optimizer -o never.safetensors
says "\"optimizer\" is no dict of tensors"
try 2 "$STRATA" weights import "$pt/checkpoint.pt"
says "-o OUT.safetensors"
try 2 "$STRATA" weights import "$pt/checkpoint.pt" -o net.pt
says "-o names a .safetensors file"
try 2 "$STRATA" weights imprt "$pt/checkpoint.pt"
says "did you mean \"strata weights import\"?"
try 2 "$STRATA" weights net.safetensors mapped.safetensors
says "strata weights diff A B"
try 2 "$STRATA" weights net.safetensors -o other.safetensors
says "-o goes with strata weights import"

# A checkpoint of MONAI's UNETR, saved under a wrapper: what does not fit the network is found
# before training, and name rules settle it.
monai=$pt/monai
cat >unetr.yaml <<'YAML'
strata: 1
strip: [module.]
drop: ["*.norm_cross_attn.*"]   # made by MONAI, never used
YAML
make_phantom phantom
one=("${tiny[@]}" --set stages.pretrain.enabled=false --set stages.segment.epochs=1
  --set model.with.hidden=12 --set model.with.mlp=12 --set model.with.layers=12
  --set model.with.embedding=conv --set model.with.dropout=0
  --set stages.segment.init.from="$monai/unetr.pt")
# (what MONAI made and never uses is known and no mistake)
try 0 "$STRATA" check "${one[@]}"
try 1 "$STRATA" check "${one[@]}" --set model.with.layers=8
says "unetr.pt holds 44 tensors that this network does not have: vit.blocks.10.attn.out_proj.bias, "
says "vit.blocks.10.mlp.linear2.bias and 38 more; rules in \`map:\` rename or drop them"
cat >prefix.yaml <<'YAML'
strata: 1
rename: [{from: "module.out.*", to: "head.*"}, {from: "module.*", to: "ours.*"}]
YAML
try 0 "$STRATA" weights import "$monai/unetr.pt" --map prefix.yaml -o ours.safetensors
try 1 "$STRATA" check "${one[@]}" --set stages.segment.init.from=ours.safetensors
says "there it is ours.vit.patch_embedding.patch_embeddings.weight, here vit.patch_embedding.patch_"
says "\`strip: [ours.]\`, named by \`map:\`, takes off"
cp "$monai/unetr.pt" last.ckpt
try 0 "$STRATA" check "${one[@]}" --set stages.segment.init.from=last.ckpt
try 1 "$STRATA" check "${one[@]}" --set stages.segment.init.key=optimizer
says "\"optimizer\" is no dict of tensors"
try 1 "$STRATA" check "${one[@]}" --set stages.segment.init.map=missing.yaml
says "there is no file of name rules"
one+=(--set stages.segment.init.map=unetr.yaml)
try 1 "$STRATA" check "${one[@]}" --set model.with.features=3
says "31 parameters have another shape than in $monai/unetr.pt: encoder1.layer.conv1.conv.weight is 3×1×3×3×3 here but 2×1"
try 0 "$STRATA" run "${one[@]}" --out run
prints "loaded   vit.blocks.11.mlp.linear2.weight"
prints "reset    out.conv.conv.weight"
prints "168 loaded, 2 reset, 0 unused, 0 unexpected"

# The imported checkpoint gives the output that MONAI gave.
echo '{strata: 1, drop: ["levels.*"]}' >only_out.yaml
try 0 "$STRATA" weights import "$monai/unetr.pt" --map unetr.yaml -o unetr.safetensors
try 0 "$STRATA" weights import "$monai/unetr_input.pt" -o x.safetensors
try 0 "$STRATA" forward models/unetr.yaml --set outputs=1 --set features=2 --set hidden=12 \
  --set mlp=12 --set heads=2 --set embedding=conv --weights unetr.safetensors \
  --input x.safetensors --output y.safetensors
try 0 "$STRATA" weights import y.safetensors --map only_out.yaml -o out.safetensors
try 0 "$STRATA" weights diff "$monai/unetr_output.safetensors" out.safetensors --within 1e-4
prints "1 tensor, the same within"
cat "$work/out"

# The other way. The file's layout without Python is tested by test_weights.
python=
for candidate in "${PYTHON:-python3}" /usr/bin/python3; do
  if "$candidate" -c 'import torch, safetensors.torch' 2>/dev/null; then
    python=$candidate
    break
  fi
done
[ -n "$python" ] || skip "python3 has no torch and safetensors; all else passed"
try 0 "$python" - "$pt" <<'PYTHON'
import sys
import safetensors.torch, torch

torch.set_num_threads(1)
theirs = torch.load(sys.argv[1] + "/checkpoint.pt", weights_only=True)["ema"]["shadow"]
net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).eval()
net.load_state_dict(theirs)
ours = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).eval()
ours.load_state_dict(safetensors.torch.load_file("net.safetensors"))
x = torch.randn(5, 3)
assert torch.equal(net(x), ours(x))
with safetensors.safe_open("net.safetensors", "pt") as f:
    assert f.metadata() == {"imported from": "checkpoint.pt"}, f.metadata()
    for name in f.keys():
        t = f.get_tensor(name)
        assert t.dtype == torch.float32 and torch.equal(t, theirs[name]), name
PYTHON

# Networks of MONAI, both ways.
"$python" -c 'import monai' 2>/dev/null || skip "python3 has no monai; all else passed"
(cd "$SOURCE" && "$python" tests/golden/check_export.py "$STRATA") >"$work/out" 2>"$work/err" ||
  fail "check_export.py"
prints "UNETR trained by Strata, in PyTorch"
cat "$work/out"
