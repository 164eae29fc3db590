# `validate: keep_best`: a stage leaves the weights of its best validation, however it was interrupted.
. "$(dirname "$0")/lib.sh"
make_phantom phantom
cp "$pipelines/tiny.yaml" best.yaml
# From the fourth epoch on the weights are driven to nonsense.
cat >spoil.lua <<'LUA'
return function(step, epoch, total, base)
  return epoch < 3 and base or 1000 * base
end
LUA
run=("$STRATA" run best.yaml --set "data.root=$work/phantom" --set stages.pretrain.enabled=false
  --set evaluate.inferer.sliding_window.overlap=0
  --set "stages.segment.schedule={lua: spoil.lua}" --set stages.segment.ema.decay=0.5)
keeping=(--set stages.segment.epochs=6 --set "stages.segment.validate={every: 1, output: net.out, metrics: [hd95], keep_best: dice}")
try 0 "${run[@]}" "${keeping[@]}" --out kept
best=$(sed -n 's/.*the weights of epoch \([0-9]*\), whose validation.dice of .* is the best.*/\1/p' out)
[ -n "$best" ] && [ "$best" -lt 6 ] || fail "no epoch before the last is said to be the best"
try 0 "${run[@]}" --set "stages.segment.epochs=$best" --out short
try 0 "$STRATA" weights diff kept/weights/segment.safetensors short/weights/segment.safetensors
prints "every bit the same"
cmp kept/evaluation.json short/evaluation.json || fail "what is evaluated is not what was best"

# Stopped after the best epoch, and resumed: the state holds it.
cat >fail.lua <<'LUA'
return function(e)
  if e.epoch == 4 then error("enough") end
end
LUA
try 1 "${run[@]}" "${keeping[@]}" --set "stages.segment.on_epoch_end={lua: fail.lua}" --out broken
sed -i 's/== 4/== 99/' fail.lua
try 0 "${run[@]}" "${keeping[@]}" --set "stages.segment.on_epoch_end={lua: fail.lua}" --out broken \
  --resume --changed-scripts
try 0 "$STRATA" weights diff kept/weights/segment.safetensors broken/weights/segment.safetensors
prints "every bit the same"
# Made longer: the last state went on from the last weights, and the best stay the best.
try 0 "${run[@]}" "${keeping[@]}" --set stages.segment.epochs=7 --out kept --resume
says_or_prints=$(cat out err)
case $says_or_prints in *"the weights of epoch $best, "*) ;; *) fail "a longer stage forgot its best epoch" ;; esac
try 0 "$STRATA" weights diff kept/weights/segment.safetensors short/weights/segment.safetensors
prints "every bit the same"

# The lowest loss, where nothing is segmented.
try 0 "${run[@]}" --set stages.segment.epochs=6 --set "stages.segment.validate={every: 1, output: ~, keep_best: loss}" --out loss
best=$(sed -n 's/.*the weights of epoch \([0-9]*\), whose validation.loss of .* is the best.*/\1/p' out)
lowest=$(sed -n 's/.*"epoch":\([0-9]*\).*"validation.loss":\([0-9.e+-]*\).*/\2 \1/p' loss/metrics.jsonl | sort -g | head -n 1)
[ "$best" = "${lowest#* }" ] || fail "epoch $best is not the one of the lowest loss, $lowest"

wrong() { # wrong VALIDATE MESSAGE [OPTION…]
  try 1 "${run[@]}" --set stages.segment.validate="$1" --out wrong "${@:3}"
  says "$2"
}
wrong "{every: 1, output: net.out, keep_best: hd95}" 'keep_best is one of what is validated and has a better: dice; not "hd95"'
wrong "{every: 1, output: ~, keep_best: dice}" 'keep_best can be "loss", for only losses are validated here'
wrong "{output: net.out, keep_best: dice}" 'say "every"'
wrong "{every: 1, output: net.out, keep_best: dice}" "no case has the role validation" \
  --set "data.split={train: 0.5, validation: 0, test: 0.5}"
