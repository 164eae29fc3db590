# What strata predict takes of the memory: the sums of 14 classes for a window's extent, not for the
# volume, and of them no more than the budget.
. "$(dirname "$0")/lib.sh"
if grep -q __asan_init "$STRATA"; then
  skip "under AddressSanitizer a process's memory says nothing (test_infer counts the sums there)"
fi
peak() { # peak DEPTH MEMORY: in MiB
  python3 "$SOURCE/tests/bench/predict_memory.py" --strata "$STRATA" --size 128 128 "$1" \
    --memory "$2" --window 48 >"$work/out" 2>"$work/err" || fail "predict_memory.py $*"
  sed -n 's/.*peak \([0-9]*\) MiB.*/\1/p' "$work/out"
}
short=$(peak 100 1GiB)
long=$(peak 400 1GiB)
spilled=$(peak 400 16MiB)
echo "128×128×100: $short MiB; 128×128×400: $long MiB; the same with a budget of 16 MiB: $spilled MiB"
# 300 more planes of the volume: 19 MiB as floats, 10 in the file, 5 of labels; of sums it would be 280.
[ $((long - short)) -lt 70 ] || fail "the sums grew with the volume"
# A band of 49 planes takes 46 MiB.
[ $((long - spilled)) -gt 15 ] || fail "the budget saved no memory"
