#!/usr/bin/env bash
# A network once on a tensor file: outputs and gradients under their names, and what goes wrong.
. "$(dirname "$0")/lib.sh"

golden=$SOURCE/tests/golden/unetr/plain
arguments=(models/unetr.yaml --set outputs=2 --set features=2 --set hidden=12 --set mlp=20
  --set heads=2 --set embedding=conv --set res_block=false --set conv_block=false
  --set qkv_bias=true)
cat >only_image.yaml <<'MAP'
strata: 1
drop: [losses, out, levels.*]
rename: [{from: image, to: x}]
MAP
try 0 "$STRATA" weights import "$golden/expected.safetensors" --map only_image.yaml -o x.safetensors
files=(--weights "$golden/weights.safetensors" --input x.safetensors)

try 0 "$STRATA" forward "${arguments[@]}" "${files[@]}" --output y.safetensors \
  --gradients g.safetensors
prints "1×2×16×32×32"
prints "levels.3"
try 0 "$STRATA" weights y.safetensors
prints "out "
prints "levels.0"
prints "1×12×1×2×2"
try 0 "$STRATA" weights g.safetensors
prints "vit.blocks.11.attn.qkv.bias"

# The same bits on one thread; gradients do not change the outputs.
try 0 "$STRATA" forward "${arguments[@]}" "${files[@]}" --output again.safetensors --threads 1
try 0 "$STRATA" weights diff y.safetensors again.safetensors
prints "every bit the same"

# Dropout acts in training mode only, by the seed.
for seed in 1 2; do
  try 0 "$STRATA" forward "${arguments[@]}" --set dropout=0.3 "${files[@]}" --train \
    --seed $seed --output "train$seed.safetensors"
done
try 1 "$STRATA" weights diff train1.safetensors train2.safetensors
try 0 "$STRATA" forward "${arguments[@]}" --set dropout=0.3 "${files[@]}" --output eval.safetensors
try 0 "$STRATA" weights diff y.safetensors eval.safetensors

try 2 "$STRATA" forward "${arguments[@]}" --input x.safetensors --output y.safetensors
says "needs --weights"
try 1 "$STRATA" forward "${arguments[@]}" --weights "$golden/weights.safetensors" \
  --input "$golden/weights.safetensors" --output y.safetensors
says "has no tensor called x"
try 1 "$STRATA" forward "${arguments[@]}" --set features=3 "${files[@]}" --output y.safetensors
says "this network needs"
try 2 "$STRATA" forward "${arguments[@]}" --set fetures=3 "${files[@]}" --output y.safetensors
says 'did you mean "features"?'
try 1 "$STRATA" forward models/unetr.yaml "${files[@]}" --output y.safetensors
says 'needs the parameter "outputs"'
try 1 "$STRATA" forward models/untr.yaml "${files[@]}" --output y.safetensors
says "untr.yaml"
