# report.html: of a finished run, of one in progress, of one whose files are gone, with hostile names.
. "$(dirname "$0")/lib.sh"
check=$SOURCE/tests/cli/check_report.py
page() { # page REPORT [WORD…]
  python3 "$check" "$@" >"$work/out" 2>"$work/err" || fail "$1"
}

make_phantom phantom
try 0 "$STRATA" run "${tiny[@]}" --out run
prints "report:      run/report.html"
page run/report.html scores cases pretext training network origin '!comparison'
prints "Worst, median and best case"
prints "$STRATA run $pipelines/tiny.yaml --set data.root=$work/phantom --out run"
prints "seed 5"
prints "patient's right"

# What the self-supervised stage saw and made.
for volume in 1-image 2-shuffled; do exists run/samples/pretrain/$volume.nii.gz; done
exists run/samples/pretrain/sample.json
prints "shuffled what it should give back · shuffle_slabs"
prints "masked what the network sees · mask_patches"
prints "net what it gives back · model"
prints "shuffled.order (shuffle_slabs)"

# The same run gives the same page.
cp run/report.html first.html
try 0 "$STRATA" report run
prints "run/report.html"
cmp run/report.html first.html || fail "the report of the same run differs"
try 0 "$STRATA" report run -o elsewhere.html
cmp elsewhere.html first.html || fail "-o changes the report"

# Against another run.
try 0 "$STRATA" run "${tiny[@]}" --set seed=6 --set data.split_seed=5 --out other --quiet
try 0 "$STRATA" report run --against other -o both.html
page both.html scores comparison training origin
prints "run against other"
prints "differences are run − other"

# A run in progress: no evaluation yet, a line half written.
mkdir begun
cp run/run.json run/pipeline.lock.yaml begun
head -n 2 run/metrics.jsonl >begun/metrics.jsonl
printf '{"stage":"pretrain","epo' >>begun/metrics.jsonl
try 0 "$STRATA" report begun
page begun/report.html training origin '!scores' '!cases'
prints "There is no evaluation.json"

# Nothing but the description.
mkdir bare
cp run/run.json bare
try 0 "$STRATA" report bare
page bare/report.html origin '!training'

# Volumes that are gone are said to be, and the rest is there.
cp -r run gone
mv phantom/imagesTr phantom/away
try 0 "$STRATA" report gone
page gone/report.html scores cases training origin
prints "are not where they were"
mv phantom/away phantom/imagesTr
rm gone/predictions/*
try 0 "$STRATA" report gone
page gone/report.html cases
prints "no longer in the run folder"

# A sample that somebody has changed: paths do not lead out of its folder, and an order that is none is
# shown as numbers.
cp -r run changed
python3 - <<'EOF'
import json
path = "changed/samples/pretrain/sample.json"
s = json.load(open(path))
s["numbers"][0]["values"] = [7, 7]
json.dump(s, open(path, "w"))
EOF
try 0 "$STRATA" report changed
page changed/report.html pretext
prints "shuffled.order (shuffle_slabs): 7 7"
sed -i 's|1-image.nii.gz|../../../phantom/imagesTr/x.nii.gz|' changed/samples/pretrain/sample.json
try 0 "$STRATA" report changed
page changed/report.html pretext
prints "sample.json is damaged"
echo '[' >changed/samples/pretrain/sample.json
try 0 "$STRATA" report changed
page changed/report.html '!pretext' training
prints "sample.json is damaged"

# Names from strangers are text.
cp -r run hostile
evil='</script><script>alert(1)</script><img src=x onerror=alert(2)>"&amp;'
EVIL=$evil python3 - <<'EOF'
import json, os
evil = os.environ["EVIL"]
d = json.load(open("hostile/run.json"))
d["name"] = d["device"] = d["strata"] = evil
d["classes"] = ["background", evil, evil + "2"]
d["command"] = ["strata", "run", evil, "a b'c"]
d[evil] = {evil: [evil]}
json.dump(d, open("hostile/run.json", "w"))
lines = open("hostile/metrics.jsonl").read().replace("loss.context", "loss." + json.dumps(evil)[1:-1])
open("hostile/metrics.jsonl", "w").write(lines.replace('"pretrain"', json.dumps(evil)))
e = json.load(open("hostile/evaluation.json"))
for metric in ("dice", "hd95_mm"):
    for part in ("per_class", "per_class_standard_deviation", "per_class_cases"):
        e[metric][part] = {evil if k == "liver" else k: v for k, v in e[metric][part].items()}
for case in e["cases"]:
    case["name"] = evil + case["name"]
    case["missed"] = [evil]
e["empty_policy"] = e["aggregation"] = evil
e["of " + evil] = e["dice"]
json.dump(e, open("hostile/evaluation.json", "w"))
with open("hostile/pipeline.lock.yaml", "a") as f:
    f.write("# " + evil + "\n")
EOF
try 0 "$STRATA" report hostile
page hostile/report.html scores training origin
prints "$evil"
prints "of $evil"
if grep -qF -e '<script>alert' -e '<img src=x' hostile/report.html; then fail "a name became markup"; fi

# What is no run says so; damage is a note.
try 1 "$STRATA" report phantom
says "is not a run folder"
try 1 "$STRATA" report run --against phantom
says "phantom is not a run folder"
echo '{' >gone/evaluation.json
try 0 "$STRATA" report gone
page gone/report.html training '!scores'
prints "evaluation.json is damaged"

# The script is one; Node, where it is, reads it.
if command -v node >/dev/null; then node --check "$SOURCE/engine/report/report.js" || fail "report.js"; fi
