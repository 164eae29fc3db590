# One script, many runs: a grid over seeds, what is done is not done again, a trial that fails, two at
# a time, and tables in every format.
. "$(dirname "$0")/lib.sh"
make_phantom phantom
budget=(--set "data.root=$work/phantom" --set stages.pretrain.epochs=1 --set stages.segment.epochs=1
  --set stages.pretrain.steps_per_epoch=1 --set stages.segment.steps_per_epoch=2
  --set stages.segment.validate.every=0 --set evaluate.inferer.sliding_window.overlap=0)

cat >grid.lua <<LUA
local base = pipeline("$pipelines/tiny.yaml")
assert(base:get("stages.pretrain.graph.masked.ratio") == 0.4)
assert(base:get("stages.segment.epochs") == 1, "--set is part of it")
assert(base:get("no.such") == nil)
local study = ablation("grid")
study:grid(base, {
  {"mask", "stages.pretrain.graph.masked.ratio", {0.4, 0.7}},
  {"rate", {{"as it is"}, {"high", {["stages.segment.optimizer.sgd.lr"] = 0.1}}}},
})
study:baseline({rate = "as it is"})
study:seeds(args.seeds or 2)
local results = study:run()
print("trials " .. #results .. ", cases " .. #results[1].cases .. ", " .. results[1].mask)
local rows = study:report("dice", "hd95")
show("by_hand", {{arm = rows[1].arm, dice = rows[1].dice.mean}}, {"arm", "dice"})
LUA

# What would run, and nothing runs.
try 0 "$STRATA" ablate grid.lua "${budget[@]}" --out runs --dry-run
prints "to do          mask 0.4, rate as it is, seed 5"
prints "grid: 0 of 8 trials done"
[ ! -e runs ] || fail "--dry-run wrote something"

# Arms whose graphs do not compile stop the study before it begins, each with its mistakes.
sed 's/{0.4, 0.7}/{0.4, 0.7}},\n  {"patches", "stages.pretrain.graph.masked.size", {16, 5}},\n  {"slabs", "params.slabs", {2, 3}/' \
  grid.lua >uncompiled.lua
try 1 "$STRATA" ablate uncompiled.lua "${budget[@]}" --out runs
says "tiny.yaml:30:22: error: mask 0.4, patches 16, slabs 3, rate as it is: shuffled (shuffle_slabs): 3 parts do not divide"
says "tiny.yaml:15:7: error: mask 0.4, patches 16, slabs 3, rate as it is: a crop of 16 × 16 × 32 voxels does not fit;"
says "tiny.yaml:31:20: error: mask 0.4, patches 5, slabs 2, rate as it is: masked (mask_patches): patches of 5 voxels do not"
[ ! -e runs ] || fail "a study that cannot be run has begun"

try 0 "$STRATA" ablate grid.lua "${budget[@]}" --out runs --jobs 2 --threads 2
prints "trials 8, cases 2, 0.4"
[ "$(grep -c '^begins ' "$work/out")" -eq 8 ] || fail "eight trials begin"
[ "$(grep -c '^done ' "$work/out")" -eq 8 ] || fail "eight trials are done"
exists runs/grid.{md,csv,json} runs/by_hand.{md,csv,json}
has runs/grid.md "| mask | rate | trials | Dice | Δ Dice [95 % CI] | p (Holm) | HD95 mm |"
has runs/grid.md "each with its mean over the seeds"
[ "$(wc -l <runs/grid.csv)" -eq 5 ] || fail "grid.csv has a row for each arm"
head -n 1 runs/grid.csv >head
for column in arm mask rate dice_mean dice_sd dice_difference dice_ci_low dice_p_wilcoxon dice_p_holm \
  dice_rank_biserial hd95_mm_mean; do
  has head "$column"
done
has runs/by_hand.csv "arm,dice"
grep -q '"state": "done"' runs/grid.json || fail "grid.json has the trials"

# Every trial is an ordinary run, and its log can be repeated.
trials=(runs/trials/*)
[ "${#trials[@]}" -eq 8 ] || fail "eight folders, not ${#trials[@]}"
for trial in "${trials[@]}"; do
  exists "$trial/evaluation.json" "$trial/log.txt" "$trial/weights/segment.safetensors"
  has "$trial/trial.json" '"state": "done"'
  [[ $trial =~ ^runs/trials/tiny-[0-9a-f]{8}$ ]] || fail "a folder called $trial"
done
command=$(head -n 1 "${trials[0]}/log.txt")
command=${command#"\$ strata"}
rm -r again 2>/dev/null || true
eval "try 0 \"\$STRATA\" ${command/--out ${trials[0]}/--out again}"
same_run "${trials[0]}" again

# The same again is read, not run; another script that asks for one of these trials finds it.
cp runs/grid.csv before.csv
try 0 "$STRATA" ablate grid.lua "${budget[@]}" --out runs
[ "$(grep -c '^begins ' "$work/out")" -eq 0 ] || fail "a finished trial ran again"
cmp runs/grid.csv before.csv || fail "the table changed"
cat >other.lua <<LUA
local study = ablation("other")
study:arm("plain", pipeline("$pipelines/tiny.yaml"))
study:run()
study:report()
LUA
try 0 "$STRATA" ablate other.lua "${budget[@]}" --out runs
[ "$(grep -c '^begins ' "$work/out")" -eq 0 ] || fail "a trial of another script ran again"
sed 's/ablation("other")/ablation("late")/' other.lua >late.lua
printf 'study:seeds(3)\nstudy:report()\n' >>late.lua
sed -i 's/^local study/study/' late.lua
try 1 "$STRATA" ablate late.lua "${budget[@]}" --out runs
says "late.lua:6:1: error: call run before report, and again after"
try 0 "$STRATA" ablate grid.lua "${budget[@]}" --out runs --dry-run
prints "grid: 8 of 8 trials done"
prints "trials 8, cases 2, 0.4" # with all done the script goes on

# Folds: every case is tested once, and pairs are taken over all of them.
cat >folds.lua <<LUA
local base = pipeline("$pipelines/tiny.yaml", {["stages.pretrain.enabled"] = false})
local study = ablation("folds")
study:arm("slow", base)
study:arm("fast", base:with("stages.segment.optimizer.sgd.lr", 0.1))
study:arm("other folds", base:with("data.split_seed", 9)) -- all of them test the same cases
study:folds(2)
local results = study:run()
local rows = study:report("dice")
assert(#results == 6 and #results[1].cases + #results[2].cases == 8)
for i = 2, 3 do assert(rows[i].dice.pairs == 8 and rows[i].dice.runs == 1, rows[i].dice.pairs) end
LUA
try 2 "$STRATA" ablate folds.lua "${budget[@]}" --out runs --device cpu,gpu
says 'unknown device "gpu"; there are auto, cpu, cuda, or cuda:1'
try 0 "$STRATA" ablate folds.lua "${budget[@]}" --out runs --device cpu,auto
prints "A run is a seed with its 2 folds."
for device in cpu auto; do # two at a time, each with one of them
  grep -qsw -- "--device $device" runs/trials/*/log.txt || fail "no trial on $device"
done

# A trial that fails on its way: its arm says so, the others are compared.
echo 'return function(event) error("no more of this") end' >fails.lua
cat >failing.lua <<LUA
local base = pipeline("$pipelines/tiny.yaml")
local study = ablation("failing")
study:arm("good", base)
study:arm("hooked", base:with("stages.segment.on_epoch_end", {lua = "$work/fails.lua"}))
study:arm("better", base:with("stages.segment.optimizer.sgd.lr", 0.1))
local results = study:run()
study:report("dice")
show("failed", {{arm = results[2].arm, dice = results[2].dice}}, {"arm", "dice"})
LUA
try 1 "$STRATA" ablate failing.lua "${budget[@]}" --out runs
grep -qE "^hooked +0 of 1 +–" "$work/out" || fail "a failed arm has figures"
prints "failed trial"
prints "fails.lua:1:1: error: no more of this"
prints "/log.txt"
says "1 of 3 trials failed; the same command tries them again"
[ "$(grep -c '^begins ' "$work/out")" -eq 1 ] || fail "only the new trial begins"
has runs/failing.md "| hooked | 0 of 1 | – | – | – |"
has runs/failed.md "| hooked |" # of numbers that are not there a column is empty

# Random numbers by name; what a trial measured on its validation cases, to choose by.
cat >search.lua <<LUA
local base = pipeline("$pipelines/tiny.yaml")
local study = ablation("search")
study:arm("drawn", base:with("stages.segment.optimizer.sgd.lr", 10 ^ (-3 + 2 * random("rate", 1))))
local again = random(1)
local sum = 0
for i = 1, 1000 do
  local x = random("x", i)
  assert(x >= 0 and x < 1 and x ~= random(i, "x") and x == random("x", i * 1.0))
  sum = sum + x / 1000
end
assert(math.abs(sum - 0.5) < 0.03 and again == random(1) and random(1) ~= random("1"), sum)
print(string.format("random %.12f", random("rate", 1)))
local measured = study:run()[1].measured
for name in pairs(measured) do assert(not name:find("context"), "of another stage") end
print("validation " .. type(measured["validation.dice"]) .. ", step 1 " .. type(measured["own.x"]))
print(measured["validation.dcie"])
LUA
try 1 "$STRATA" ablate search.lua "${budget[@]}" --out runs
prints "random 0.118661214839"
prints "validation number, step 1 nil"
says 'the last stage measured no "validation.dcie"; did you mean "validation.dice"?'

# Slips are found before anything runs, at the script's line.
slip() { # slip TEXT LUA…
  printf '%s\n' "local base = pipeline(\"$pipelines/tiny.yaml\")" "${@:2}" >slip.lua
  try 1 "$STRATA" ablate slip.lua "${budget[@]}" --out slips
  says "$1"
  [ ! -e slips ] || fail "something ran although: $1"
}
slip 'slip.lua:2:1: error: --set stages.pretrian.epochs=3: there is no "pretrian"' \
  'base:set("stages.pretrian.epochs", 3)'
slip 'epochs must be from 0 to' 'base:set("stages.pretrain.epochs", -1)'
slip "did you mean study:report?" 'local s = ablation("x")' 's:reprot()'
slip 'call it with a colon: p:' 'base.set("seed", 3)'
slip 'there are two arms called "a"' 'local s = ablation("x")' 's:arm("a", base)' 's:arm("a", base)'
slip 'the baseline "c" is no arm of "x"' 'local s = ablation("x")' 's:arm("a", base)' \
  's:baseline("c")' 's:run()'
slip "are the same pipeline, seed and data" 'local s = ablation("x")' 's:arm("a", base)' \
  's:arm("b", base:with("seed", 5))' 's:run()'
slip 'a factor cannot be called "cases"' 'local s = ablation("x")' 's:vary(base, "cases", "seed", {1, 2})'
slip 'the study has no factor "mas"; did you mean "mask"?' 'local s = ablation("x")' \
  's:vary(base, "mask", "seed", {1, 2})' 's:baseline({mas = 1})'
slip 'call run before report' 'local s = ablation("x")' 's:arm("a", base)' 's:report()'
slip "a name of files consists of" 'ablation("../x")'
slip "a function cannot be the value of a key" 'base:set("seed", print)'
slip 'slip.lua:2:1: error: --set stages.segment.optimizer.sgd.lr=fast: sgd: lr: expected a number' \
  'base:set("stages.segment.optimizer.sgd.lr", "fast")'
slip 'a pipeline is missing here: argument 2 is a string' 'ablation("x"):arm("a", "tiny.yaml")'
slip 'a grid is a list of 1 to 8 factors' 'ablation("x"):grid(base, {rate = {1, 2}})'
slip 'the factor "rate" has no levels; they are a list' 'ablation("x"):vary(base, "rate", {low = 1})'
slip 'no row has a field "dice"; did you mean "dcie"?' 'show("x", {{arm = "a", dcie = 1}}, {"arm", "dice"})'

# So is what stands behind the trials: the script is rehearsed without them.
study='local s = ablation("x"):arm("a", base)'
slip 'slip.lua:4:1: error: arm "a": the evaluations hold no metric "dcie"; did you mean "dice"? They hold dice' \
  "$study" 's:run()' 's:report("dcie")'
slip 'the evaluations hold no metric "nsd".' "$study" 's:run()' 's:report("dice", "nsd")'
slip 'slip.lua:4:1: error: a result has no "dcie"; did you mean "dice"? (found before the trials)' \
  "$study" 'local r = s:run()' 'print(r[1].fold, r[1].error, r[1].dcie)'
slip 'a result has no "hd95"; did you mean "hd95_mm"?' "$study" 'print(s:run()[1].hd95)'
slip 'a result has no "dcie"; did you mean "dice"? (found' "$study" 'show("x", s:run(), {"arm", "dcie"})'
slip 'slip.lua:5:1: error: dcie is not defined' "$study" 's:run()' 'local rows = s:report("dice")' \
  'print(rows[1].dice.mean, dcie)'
slip '"b" is scored on other test cases than "a", which it is compared with' "$study" \
  's:arm("b", base:with("seed", 4))' 's:run()' 's:report()'
slip 'hold no metric "hd59"' "$study" 's:run()' 's:arm("b", base:with("stages.segment.epochs", 2))' \
  's:run()' 's:report("hd59")'

# An arm that is not evaluated has no figures in a report, which is no mistake either.
cat >bare.lua <<LUA
local base = pipeline("$pipelines/tiny.yaml")
local study = ablation("bare"):arm("scored", base)
study:arm("bare", base:with("stages.segment.validate", nil):set("evaluate", nil)):arm("high", base:with("stages.segment.optimizer.sgd.lr", 0.1))
study:run()
study:report("dice")
LUA
try 0 "$STRATA" ablate bare.lua "${budget[@]}" --out bare
grep -qE "^bare +1 +–" "$work/out" || fail "an arm without an evaluation has figures"

# What is wrong only for want of results is no mistake, and nothing is printed or written twice.
cat >decides.lua <<LUA
local base = pipeline("$pipelines/tiny.yaml")
print("decides")
local rates = {0.01, 0.1}
for round = 1, 2 do
  local study = ablation("round" .. round)
  study:vary(base:with("seed", 40 + round), "rate", "stages.segment.optimizer.sgd.lr", rates)
  local results = study:run()
  for _, r in ipairs(results) do r.is_high = r.dice and r.dice > 2 or nil end
  assert(not results[1].is_high, "a field of one's own")
  if #results[1].cases == 0 then error("nothing was tested") end
  table.sort(results, function(a, b) return a.dice > b.dice end)
  rates = {tonumber(results[1].rate)}
end
show("decided", {{rate = rates[1]}}, {"rate"})
LUA
try 0 "$STRATA" ablate decides.lua "${budget[@]}" --out decided
[ "$(grep -c '^decides$' "$work/out")" -eq 1 ] || fail "the rehearsal printed"
[ "$(grep -c '^begins ' "$work/out")" -eq 3 ] || fail "two rounds of trials"
exists decided/decided.csv

printf 'print(args.seeds)\nablation("x")\n' >slip.lua
try 1 "$STRATA" ablate slip.lua --arg seeds=3 --arg seeds=4
says 'The key "seeds" is here twice.'
try 1 "$STRATA" ablate slip.lua --arg sedes=3
says "reads no argument 'sedes'; did you mean 'seeds'?"
try 1 "$STRATA" ablate mask_ration
says "did you mean \"mask_ratio.lua\"?"
try 1 "$STRATA" ablate with_without_pretraining --arg pipeline=quickstrat.yaml
says "did you mean \"quickstart.yaml\"?"

# One arm with one seed: its spread is that of its cases, and the legend says so.
cat >one.lua <<LUA
local study = ablation("one")
study:arm("as it is", pipeline("$pipelines/tiny.yaml"))
study:seeds(1)
study:run()
study:report("dice")
LUA
try 0 "$STRATA" ablate one.lua "${budget[@]}" --out runs
grep -qE "^as it is +1 +0\.[0-9]+ ± 0\.[0-9]+" out || fail "no spread of one arm"
prints "±: standard deviation over the cases of the one seed"
