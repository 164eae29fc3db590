# What a CUDA device stores as bf16 changes no bit: weights and predictions of both stages, with it and
# without, and in a budget of memory that has values computed twice and gradients consumed one by one.
# STRATA_CUDA_PLUGIN names the plug-in, by default the emulated one.
. "$SOURCE/tests/cli/lib.sh"

"$STRATA" phantom phantom --cases 4 --size 32 --organs 2 >/dev/null 2>&1
options=(--set data.root="$work/phantom" --set evaluate.inferer.sliding_window.overlap=0
  --set stages.segment.clip_norm=0)
for stage in pretrain segment; do
  options+=(--set stages.$stage.precision=bf16 --set stages.$stage.epochs=1
    --set stages.$stage.steps_per_epoch=1)
done
run() { # run FOLDER [OPTION…]
  "$STRATA" run "$pipelines/tiny.yaml" --device cuda --out "$1" "${options[@]}" "${@:2}" \
    >"$work/out" 2>"$work/err"
}
arena() { # of the plan of the segmentation, in KiB
  "$STRATA" plan "$pipelines/tiny.yaml" --device cuda --stage segment "${options[@]}" "$@" \
    >"$work/out" 2>"$work/err" || fail "the plan"
  awk '/^memory: planned peak/ {print $4 * ($5 ~ /^MiB/ ? 1024 : 1)}' "$work/out"
}

stored=$(arena)
grep -Eq "^storage: keeps [0-9]{2,} values as bf16" "$work/out" || fail "the plan stores nothing"
all=$(STRATA_STORAGE=f32 arena)
awk "BEGIN {exit !($stored < $all)}" || fail "planned: $stored KiB stored as bf16, $all KiB as f32"

run as-bf16 || fail "the run"
STRATA_STORAGE=f32 run as-f32 || fail "the run with everything stored as f32"
less=(--set stages.pretrain.memory=3.2MiB --set stages.segment.memory=1.8MiB)
for stage in pretrain segment; do
  "$STRATA" plan "$pipelines/tiny.yaml" --device cuda --stage $stage "${options[@]}" "${less[@]}" \
    >"$work/out" 2>"$work/err" || fail "the plan of $stage in less memory"
  grep -Eq "^[0-9]+ nodes run twice" "$work/out" || fail "nothing of $stage runs twice"
  grep -q "of weights and moments" "$work/out" || fail "$stage keeps all its gradients"
done
run in-less "${less[@]}" || fail "the run in less memory"
for other in as-f32 in-less; do
  for stage in pretrain segment; do
    cmp as-bf16/weights/$stage.safetensors $other/weights/$stage.safetensors ||
      fail "$other: other weights after $stage"
  done
  diff -r as-bf16/predictions $other/predictions || fail "$other: other predictions"
done
echo "weights and predictions are the same to the bit; planned $stored KiB in place of $all"
