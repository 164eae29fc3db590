#!/usr/bin/env bash
# The edits of examples/ pass the check and train both stages; their wrong variants are one error.
. "$(dirname "$0")/lib.sh"
make_phantom phantom 6

short=(--set data.root=phantom --set stages.pretrain.epochs=1 --set stages.segment.epochs=1
  --set stages.pretrain.steps_per_epoch=1 --set stages.segment.steps_per_epoch=1)
for edit in swap_norm convolution_for_attention deeper_decoder; do
  try 0 "$STRATA" check "$SOURCE/examples/$edit/pipeline.yaml" "${short[@]}"
  prints "no mistakes found"
  # A copy works anywhere, and so does a pack of it.
  cp -r "$SOURCE/examples/$edit" "$edit"
  try 0 "$STRATA" pack "$edit/pipeline.yaml" -o "$edit.strata"
  rm -r "$edit"
  try 0 "$STRATA" check "$edit.strata" "${short[@]}"
  prints "no mistakes found"
done
try 0 "$STRATA" run "$SOURCE/examples/swap_norm/pipeline.yaml" "${short[@]}" --out run
try 0 "$STRATA" weights run/weights/segment.safetensors
prints "decoder2.conv_block.norm1.weight"
# The resolved file finds the block from anywhere.
try 0 "$STRATA" check run/pipeline.lock.yaml

one_error() { # one_error TEXT FILE [OPTION…]
  try 1 "$STRATA" check "${@:2}" --set data.root=phantom
  says "$1"
  [ "$(grep -c 'error:' err)" -eq 1 ] || fail "more than one error"
}
sed 's/groups: 4 .*/groups: 16/' "$SOURCE/examples/swap_norm/group_norm_block.yaml" >groups.yaml
try 1 "$STRATA" check "$SOURCE/examples/swap_norm/pipeline.yaml" --set data.root=phantom \
  --set model.blocks.unet_residual_block=groups.yaml
says "16 groups do not divide the 8 channels"
one_error "a grid of 3×3×3 has 27 places, but x has 36 tokens" \
  "$SOURCE/examples/convolution_for_attention/pipeline.yaml" --set "roi=[48,48,64]" --set slabs=4
sed 's/\[decoder3, encoder2\]/[decoder3, encoder1]/' "$SOURCE/examples/deeper_decoder/unet.yaml" \
  >skip.yaml
one_error "all but the channels must agree" "$SOURCE/examples/deeper_decoder/pipeline.yaml" \
  --set model.use=skip.yaml
