# `precision: bf16` and `tf32`: said where the pipeline is looked at and run, the same bits for any number of
# threads and after an interruption, and kept for prediction.
. "$(dirname "$0")/lib.sh"
make_phantom phantom
# Both stages: a model's gradients and heads of every sort.
bf16=("${tiny[@]}" --set stages.pretrain.precision=bf16 --set stages.segment.precision=bf16
  --set stages.pretrain.epochs=1 --set stages.segment.epochs=2)

try 0 "$STRATA" plan "${bf16[@]}" --stage segment
prints "precision: bf16 in "
warning=$(grep -o 'bf16 is no faster than f32 on this processor.*' "$work/out" || true)
try 0 "$STRATA" check "${bf16[@]}"
prints "  precision    bf16 in "
try 0 "$STRATA" bench "${bf16[@]}" --stage segment --steps 2
prints "precision: bf16 in "
try 0 "$STRATA" plan "${tiny[@]}" --stage segment
! grep -q bf16 "$work/out" || fail "bf16 without being asked for"

try 0 "$STRATA" run "${bf16[@]}" --threads 2 --out one
[ -z "$warning" ] || prints "warning: $warning"
try 0 "$STRATA" run "${bf16[@]}" --threads 3 --out other
same_run one other
same_log one other

# tf32 is f32 on a CPU, which says so: one pipeline file serves machines with a GPU and without.
tf32=("${bf16[@]}" --set stages.pretrain.precision=tf32 --set stages.segment.precision=tf32)
note="note: tf32 is a format of NVIDIA GPUs; on the CPU these products are f32"
try 0 "$STRATA" plan "${tf32[@]}" --stage segment
prints "precision: tf32 allowed in "
prints "; the rest is f32; $note"
try 0 "$STRATA" run "${tf32[@]}" --threads 2 --out tf32
prints "$note"
try 1 "$STRATA" run "${bf16[@]}" --set stages.segment.precision=tf23 --out typing-error
says "tf32"

# Rounding changes results, so another precision is another run.
try 2 "$STRATA" run "${bf16[@]}" --set stages.segment.precision=f32 --out one --resume
says "was started from another pipeline"
try 0 "$STRATA" run "${bf16[@]}" --set stages.segment.precision=f32 \
  --set stages.pretrain.precision=f32 --out f32
try 0 "$STRATA" weights diff f32/weights/segment.safetensors tf32/weights/segment.safetensors
try 1 "$STRATA" weights diff one/weights/segment.safetensors f32/weights/segment.safetensors

# What a run of bf16 predicts is bf16: its own predictions again.
input=$(ls phantom/imagesTr/*.nii.gz | while read -r file; do
  [ -e "one/predictions/$(basename "$file")" ] && echo "$file" && break
done)
try 0 "$STRATA" predict one "$input" -o again.nii.gz
[ -z "$warning" ] || says "warning: $warning"
cmp <(gzip -dc again.nii.gz) <(gzip -dc "one/predictions/$(basename "$input")") ||
  fail "predict and run segment differently"
