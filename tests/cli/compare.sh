# strata compare: arms, names, outputs and refusals.
. "$(dirname "$0")/lib.sh"

golden=$SOURCE/tests/golden/statistics
cp "$golden"/[ab][1-4].json .

# Arms of several seeds, with names.
try 0 "$STRATA" compare base=a1.json,a2.json,a3.json ours=b1.json,b2.json,b3.json,b4.json \
  --json out.json --csv out.csv
prints "ours against base: 18 cases"
prints "Brown–Forsythe p"
prints "Holm: over all 12 comparisons."
prints "A metric that Strata does not know counts as better when higher."
prints "HD95 mm of liver: 2 of 18 cases without a pair"
has out.csv "base,ours,hd95_mm,left kidney,17,"
has out.json '"metric": "own"'
cp out.json first.json
cp out.csv first.csv

# The same figures again; other draws of the bootstrap with another seed.
try 0 "$STRATA" compare base=a1.json,a2.json,a3.json ours=b1.json,b2.json,b3.json,b4.json \
  --json out.json --csv out.csv
cmp out.json first.json && cmp out.csv first.csv || fail "a comparison does not repeat"
try 0 "$STRATA" compare base=a1.json,a2.json,a3.json ours=b1.json,b2.json,b3.json,b4.json \
  --csv out.csv --seed 2
if cmp -s out.csv first.csv; then fail "--seed changes nothing"; fi
diff <(cut -d, -f1-18,21-99 first.csv) <(cut -d, -f1-18,21-99 out.csv) ||
  fail "--seed changes more than the interval"

# Fewer comparisons, Markdown, a third arm.
try 0 "$STRATA" compare a1.json b1.json b2.json --metrics dice,hd95 --classes mean --markdown
prints "## b1.json against a1.json: 18 cases"
prints "## b2.json against a1.json: 18 cases"
prints "|---|---|---:|"
prints "Holm: over all 4 comparisons of all arms."
if grep -q liver out; then fail "--classes mean prints classes"; fi

# A file whose name looks like a list of named arms is a file.
cp a1.json 'x=1,2.json'
try 0 "$STRATA" compare 'x=1,2.json' b1.json --resamples 200 --bootstrap percentile --zeros pratt
prints "percentile bootstrap, 200 resamples"
prints "ranked first (Pratt)"

# Cases that only one run has.
sed 's/case_05/case_99/' b1.json >other.json
try 1 "$STRATA" compare a1.json other.json
says "case case_05 is in a1.json, not in other.json"
says "case case_99 is in other.json, not in a1.json"
says "--common compares the 17 cases and 3 classes that all have"
try 0 "$STRATA" compare a1.json other.json --common
prints "17 cases"
prints "* case case_99 is in other.json, not in a1.json"

# Nothing gets better or worse: no case is called a gain or a loss.
cp a1.json same.json
try 0 "$STRATA" compare a1.json same.json --metrics dice --classes liver --resamples 200
grep -qE '^Dice +liver +– +– +– +– *$' out || fail "a difference of 0 passes for a gain or a loss"

# Wrong command lines and files.
try 2 "$STRATA" compare a1.json
says "usage: strata compare A B…"
try 2 "$STRATA" compare a1.json,a1.json b1.json
says "a1.json stands in arm a1.json,a1.json twice"
try 2 "$STRATA" compare x=a1.json x=b1.json
says "two arms are called x"
try 2 "$STRATA" compare a1.json b1.json --zeros zsplit
says "--zeros is one of wilcox, pratt"
try 2 "$STRATA" compare a1.json b1.json --resamples 3
says "100 or more"
try 2 "$STRATA" compare a1.json b1.json --metrics dcie
says 'did you mean dice?'
try 1 "$STRATA" compare a1.json nowhere
says "nowhere"
mkdir unfinished
try 1 "$STRATA" compare a1.json unfinished
says "unfinished holds no evaluation.json"
sed 's/"max"/"pooled"/' b1.json >pooled.json
try 1 "$STRATA" compare a1.json pooled.json
says "hd95_mm means something else in a1.json"

try 0 "$STRATA" compare --help
prints "How to read it"
