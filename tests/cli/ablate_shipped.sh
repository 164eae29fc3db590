# Every shipped script, on the quickstart and one phantom: the smallest budget, one seed. All trials go
# into one folder, where the scripts share what they have in common.
. "$(dirname "$0")/lib.sh"
make_phantom phantom 6
budget=(--set "data.root=$work/phantom" --set "params.roi=[16, 16, 48]" --set model.with.features=2
  --set model.with.hidden=24 --set model.with.mlp=48 --set model.with.heads=2
  --set stages.pretrain.epochs=1 --set stages.segment.epochs=1
  --set stages.pretrain.steps_per_epoch=1 --set stages.segment.steps_per_epoch=1
  --set stages.segment.validate.every=0 --set evaluate.inferer.sliding_window.overlap=0
  --set "evaluate.metrics=[dice]")
begun=0

shipped() { # shipped NAME ROWS COLUMNS [OPTION…]: rows of the table and its first columns
  local name=$1 rows=$2 columns=$3
  try 0 "$STRATA" ablate "$name" "${budget[@]}" --arg seeds=1 --out runs --jobs 2 "${@:4}"
  exists "runs/$name.md" "runs/$name.csv" "runs/$name.json"
  has "runs/$name.md" "$columns"
  [ "$(wc -l <"runs/$name.csv")" -eq $((rows + 1)) ] || fail "$name: $rows arms expected"
  [ "$(grep -c '"state": "done"' "runs/$name.json")" -eq "$rows" ] || fail "$name: not all are done"
  begun=$((begun + $(grep -c '^begins ' "$work/out" || true)))
}
compared="trials | Dice | Δ Dice [95 % CI] | p"

shipped with_without_pretraining 2 "| arm | $compared |"
shipped objectives 4 "| objectives | $compared (Holm) |"
has runs/objectives.md "| order | 1 |"
shipped mask_ratio 2 "| mask ratio | $compared |" --arg "ratios=[0.2, 0.4]"
shipped mask_patch_size 2 "| mask patch | $compared |" --arg "sizes=[8, 16]"
shipped slabs 2 "| slabs | $compared |"
shipped pretraining_length 3 "| arm | $compared (Holm) |" --arg "shares=[1, 2]"
shipped label_fraction 4 "| labels | step 1 | $compared (Holm) |" --arg "fractions=[0.3, 1]"
has runs/label_fraction.md "the arm with step 1 without and else the same"
shipped initialization 6 "| arm | $compared (Holm) |"

# The quickstart as it is, and without step 1, belongs to five of them.
folders=(runs/trials/*)
[ "${#folders[@]}" -eq "$begun" ] || fail "$begun trials for ${#folders[@]} folders"
[ "$begun" -eq 17 ] || fail "$begun trials ran instead of 17"

# They also fit the recipe on real images, whose data need not be there to be changed.
for script in "$SOURCE"/lua/ablations/*.lua; do
  name=$(basename "$script" .lua)
  try 0 "$STRATA" ablate "$name" --arg pipeline=hippocampus/unetr.yaml --set "data.root=$work/phantom" \
    --dry-run --out other
  prints "$name: 0 of"
  grep -qF "\`$name\`" "$SOURCE/docs/ablations.md" || fail "docs/ablations.md lacks $name"
done
