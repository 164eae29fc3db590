# The report in a browser: its script runs without a complaint, charts are drawn, sliders and buttons
# work. Needs Chromium, which tests/run.sh installs where it can.
. "$(dirname "$0")/lib.sh"
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) ||
  skip "no chromium here; apt-get install chromium lets this test look at a report in a browser"

see() { # see WIDTH OPTION… PAGE
  # A profile of its own, so that no browser that is open is asked. Root may not have a sandbox.
  HOME=$work timeout 120 "$browser" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage \
    --user-data-dir="$work/profile" --window-size="$1,900" --virtual-time-budget=8000 \
    --enable-logging=stderr "${@:2}" >"$work/out" 2>"$work/err"
}
see 400 --dump-dom about:blank || skip "$browser shows no empty page here: $(tail -n 1 "$work/err")"

make_phantom phantom
try 0 "$STRATA" run "${tiny[@]}" --out run
try 0 "$STRATA" run "${tiny[@]}" --set stages.segment.epochs=2 --out other --quiet
try 0 "$STRATA" report run --against other -o both.html

# A script of the test's own at the end of the page: it does what a reader does and writes down what it
# finds. The policy of the page lets it run because it is inline.
probe() { # probe PAGE: that page with a script, of which the middle is standard input
  sed '/<\/body>/d' "$1"
  cat <<'EOF'
<script>
const found = [], say = (name, value) => found.push(`${name}=${value}`);
addEventListener('error', (e) => say('error', e.message));
const all = (q) => [...document.querySelectorAll(q)];
say('charts', all('figure.chart').length);
say('drawn', all('figure.chart').filter((f) => f.querySelector(':scope > svg path, :scope > svg rect, :scope > svg circle')).length);
const nan = all('svg *').filter((e) => [...e.attributes].some((a) => /NaN|undefined|Infinity/.test(a.value)));
say('nan', nan.length);
EOF
  cat
  cat <<'EOF'
say('wide', document.documentElement.scrollWidth <= innerWidth);
document.body.insertAdjacentHTML('beforeend', `<pre id="found">${found.join(' ')}</pre>`);
</script>
</body></html>
EOF
}

look() { # look WIDTH OPTION…
  see "$@" "file://$work/probed.html" || fail "$browser failed"
}

finds() { # finds WIDTH FACT…: what the script has to write down
  look "$1" --dump-dom
  if grep -F CONSOLE "$work/err" | grep -v probe; then fail "the console has something to say"; fi
  for fact in "${@:2}" nan=0 wide=true; do prints "$fact"; done
  if grep -q 'error=' "$work/out"; then fail "an exception"; fi
}

probe both.html >probed.html <<'EOF'
const key = document.querySelector('.keys button:not(.scale)');
const curves = () => key.closest('figure').querySelectorAll(':scope > svg .curve').length;
const before = curves();
key.click();
say('toggled', curves() < before && key.getAttribute('aria-pressed') === 'false');
key.click();
say('back', curves() === before);
const log = document.querySelector('.keys .scale');
const ticks = () => [...log.closest('figure').querySelectorAll(':scope > svg text')].map((t) => t.textContent).join(' ');
const linear = ticks();
log.click();
say('log', ticks() !== linear);

const chart = document.querySelector('figure.chart > svg');
const press = (k) => chart.dispatchEvent(new KeyboardEvent('keydown', { key: k, bubbles: true }));
press('End');
const reading = chart.parentNode.querySelector('.reading');
say('read', !reading.hidden && /\d/.test(reading.textContent));

const slider = document.querySelector('.viewer input'), stack = document.querySelector('.viewer img');
const top0 = getComputedStyle(stack).top;
slider.value = +slider.value === 0 ? 1 : 0;
slider.dispatchEvent(new Event('input'));
say('slid', getComputedStyle(stack).top !== top0);
document.querySelector('[data-layer="prediction"]').click();
say('hidden', getComputedStyle(document.querySelector('img.prediction')).display === 'none');
say('decoded', all('img').every((i) => i.complete && i.naturalWidth > 0));

document.querySelector('details#cases-table').open = true;
const head = document.querySelector('table.sortable th.n button'), names = () => all('table.sortable tbody th').map((t) => t.textContent).join();
head.click();
const rising = names();
head.click();
say('sorted', rising !== names());
EOF
for width in 1280 420; do
  finds $width toggled=true back=true log=true read=true slid=true hidden=true decoded=true sorted=true
  drawn=$(grep -o 'charts=[0-9]* drawn=[0-9]*' "$work/out")
  [ "$(echo "$drawn" | tr -dc '0-9 ' | awk '{print ($1 > 5 && $1 == $2)}')" = 1 ] || fail "charts: $drawn"
done

# A picture and a print come out, and are not empty.
look 1280 --screenshot="$work/page.png"
look 1280 --print-to-pdf="$work/page.pdf"
exists page.png page.pdf

# The page of an ablation: a box for each arm, the intervals of its differences, and no name is markup.
sed "s#root: phantom#root: $work/phantom#" "$pipelines/tiny.yaml" >tiny.yaml
cat >arms.lua <<'LUA'
local p = pipeline("tiny.yaml"):with("stages.pretrain.enabled", false):with("stages.segment.epochs", 1)
local s = ablation("arms")
s:arm("plain <b>&", p)
s:arm("faster", p:with("stages.segment.optimizer.sgd.lr", 0.02))
s:arm("blank", p:with("stages.segment.optimizer.sgd.lr", 0.3)) -- no foreground, so no distances
s:run()
s:report()
LUA
try 0 "$STRATA" ablate arms.lua --out ablations
prints "ablations/arms.md, .html, .csv, .json"
if grep -qi nan ablations/arms.md; then fail "a difference that is not there is shown as a number"; fi
probe ablations/arms.html >probed.html <<'EOF'
say('boxes', all('figure.chart .box').length > 0);
say('rows', all('#arms-table tbody tr').length + all('#trials-table tbody tr').length);
say('plain', document.querySelector('#arms-table tbody th').textContent === 'plain <b>&');
const interval = all('figure.chart').find((f) => /Δ Dice/.test(f.textContent)), svg = interval.querySelector('svg');
svg.dispatchEvent(new KeyboardEvent('keydown', { key: 'Home', bubbles: true }));
say('read', /faster against plain <b>&.*difference[+-]?\d/.test(interval.querySelector('.reading').textContent));
EOF
for width in 1280 420; do finds $width boxes=true rows=6 plain=true read=true; done
