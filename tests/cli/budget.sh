# The memory budget of a stage: what plan, check and bench say of it, the same weights with any, and
# a resume under another.
. "$(dirname "$0")/lib.sh"
make_phantom phantom 4
few=("${tiny[@]}" --set stages.pretrain.epochs=2 --set stages.segment.epochs=1 --set evaluate=
  --set stages.segment.validate=)

# A budget halfway between what a step holds and the smallest that can be met.
try 1 "$STRATA" plan "${few[@]}" --threads 2 --stage pretrain --set stages.pretrain.memory=1KiB
says "--set stages.pretrain.memory=1KiB: error: stage pretrain: memory is 1.00 KiB, but a step holds"
smallest=$(sed -n 's/.*smallest budget that can be met is \([0-9]*\)KiB.*/\1/p' err)
[ -n "$smallest" ] || fail "no smallest budget is named"
try 0 "$STRATA" plan "${few[@]}" --threads 2 --stage pretrain --set "stages.pretrain.memory=${smallest}KiB"
prints "the budget is"
prints "nodes run twice: "
grep -q ' again$' out || fail "the plan does not mark what runs twice"
try 0 "$STRATA" plan "${few[@]}" --threads 2 --stage pretrain
prints "alive at once at most"
! grep -q 'again\|twice' out || fail "something runs twice without a budget"

budget=(--set "stages.pretrain.memory=$((smallest + 200))KiB" --threads 2)
try 0 "$STRATA" check "${few[@]}" "${budget[@]}"
grep -q '^  budget  .* run twice: ' out || fail "check does not say how the budget is met"
try 0 "$STRATA" check "${few[@]}" --set stages.pretrain.memory=8GiB
prints "8.00 GiB; met without recomputing anything"
# Before anything is trained, not when the stage's turn comes.
try 1 "$STRATA" run "${few[@]}" --set stages.segment.memory=1KiB --out refused
says "stage segment: memory is 1.00 KiB"
[ ! -e refused ] || fail "a run was begun"

try 0 "$STRATA" bench "${few[@]}" "${budget[@]}" --stage pretrain --steps 4 --json bench.json
prints "page faults a step; "
python3 - <<'CHECK' || fail "bench.json"
import json, os
b = json.load(open("bench.json"))
assert b["recomputed"]["nodes"] > 0 and b["recomputed"]["flops"] > 0, b
assert 0 < b["arena_lower_bound_bytes"] <= b["arena_bytes"] and b["outside_bytes"] > 0, b
# In the middle step none by itself, though the system may move a page. A sanitizer's shadow has its own.
assert os.environ["SANITIZED"] == "1" or b["page_faults_per_step"] < 20, b
CHECK

# The same run, and one that goes on with another budget.
try 0 "$STRATA" run "${few[@]}" --out plain
try 0 "$STRATA" run "${few[@]}" "${budget[@]}" --out tight
prints "nodes run twice"
same_run_weights() {
  local stage
  for stage in pretrain segment; do
    try 0 "$STRATA" weights diff "$1/weights/$stage.safetensors" "$2/weights/$stage.safetensors"
    prints "every bit the same"
  done
}
same_run_weights plain tight
"$STRATA" run "${few[@]}" "${budget[@]}" --out moved >moved.log 2>moved.err &
process=$!
wait_for_or_end moved.log "pretrain  epoch 1/2" "$process"
kill -INT "$process" 2>/dev/null || true
wait "$process" || true
try 0 "$STRATA" run "${few[@]}" --out moved --resume
same_run_weights plain moved
