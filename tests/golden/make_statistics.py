"""Fixtures of test_statistics, from SciPy 1.17 and statsmodels (Holm).

    python tests/golden/make_statistics.py

Where SciPy has no exact answer (ties among more than 13 pairs) all signs are counted with Python's
whole numbers, which have no rounding at all.
"""

import json
import math
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import scipy
from scipy import special, stats
from statsmodels.stats.multitest import multipletests

OUT = Path(__file__).parent / "statistics"
random = np.random.default_rng(20261125)
warnings.simplefilter("ignore")
assert scipy.__version__.startswith("1.17"), scipy.__version__


def plain(value):
    """JSON has no NaN and no infinity: null, and "inf" or "-inf"."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(v) for v in value]
    if isinstance(value, (bool, str, int, np.integer)) or value is None:
        return int(value) if isinstance(value, np.integer) else value
    value = float(value)
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")


# ---- lists of differences -------------------------------------------------------------------------

def whole(n, low, high):
    return random.integers(low, high, n).astype(float)


LISTS = {
    "empty": [],
    "one": [0.25],
    "two": [0.5, -0.125],
    "two_alike": [0.5, 0.5],
    "zero": [0.0],
    "all_zero": [0.0] * 6,
    "all_tied": [2.0, -2.0, 2.0, 2.0, 2.0, -2.0, 2.0],
    "one_not_zero": [0.0, 0.0, 0.0, 1.5],
    "three": [0.1, 0.2, -0.05],
    "eight": random.normal(0.3, 1, 8),
    "thirteen_tied": whole(13, -3, 4),
    "twelve_with_zeros": whole(12, -2, 3),
    "balanced": [1.0, -1.0, 2.0, -2.0, 3.0, -3.0],
    "half_rank": [1.0, 1.0, -1.0, 2.0, 3.0, -4.0],
    "dice": np.round(random.beta(8, 2, 40) - random.beta(7, 2, 40), 3),
    "fifty": random.normal(0.2, 1, 50),
    "fifty_one": random.normal(-0.4, 1, 51),
    "hundred_tied": whole(100, -6, 9),
    "exact_at_most": random.normal(0.1, 1, 200),
    "too_long_for_exact": np.round(random.normal(0.1, 1, 201), 1),
    "strong": random.normal(5, 0.1, 120),
    "thousand_tied": whole(1000, -20, 22),
    "huge": np.round(random.standard_t(3, 20000) + 0.01, 2),
}


def exact_wilcoxon(d, zero_method):
    """Counts the signs whose rank sum is as far out, in whole numbers."""
    d = np.asarray(d, float)
    if zero_method == "wilcox":
        d = d[d != 0]
    twice = np.rint(2 * stats.rankdata(np.abs(d))).astype(int)
    plus = sum(int(r) for r, v in zip(twice, d) if v > 0)
    twice = [int(r) for r, v in zip(twice, d) if v != 0]
    minus = sum(twice) - plus
    if not twice:
        return math.nan
    ways = [1] + [0] * sum(twice)
    for r in twice:
        for s in range(len(ways) - 1, r - 1, -1):
            ways[s] += ways[s - r]
    return float(min(Fraction(1), Fraction(2 * sum(ways[:min(plus, minus) + 1]), 2 ** len(twice))))


def wilcoxon_entry(d, zero_method):
    d = np.asarray(d, float)
    differ = int((d != 0).sum())
    if differ == 0:
        return {"p_exact": None, "p_normal": None, "z": None}
    entry = {}
    normal = stats.wilcoxon(d, zero_method=zero_method, correction=True, method="asymptotic")
    entry["p_normal"], entry["z"] = min(normal.pvalue, 1), normal.zstatistic
    if differ <= 200:
        entry["p_exact"] = exact_wilcoxon(d, zero_method)
        ties = len(np.unique(np.abs(d))) < len(d) or differ < len(d)
        if not ties:
            peer = stats.wilcoxon(d, zero_method=zero_method, method="exact").pvalue
        elif len(d) <= 13:
            peer = stats.wilcoxon(d, zero_method=zero_method,
                                  method=stats.PermutationMethod(n_resamples=2 ** 14)).pvalue
        else:
            peer = entry["p_exact"]
        assert math.isclose(peer, entry["p_exact"], rel_tol=1e-9, abs_tol=1e-14), (peer, entry["p_exact"])
    ranks = stats.rankdata(np.abs(d[d != 0]) if zero_method == "wilcox" else np.abs(d))
    kept = d[d != 0] if zero_method == "wilcox" else d
    entry["plus"] = float(ranks[kept > 0].sum())
    entry["minus"] = float(ranks[kept < 0].sum())
    return entry


def list_entry(name, d):
    d = np.asarray(d, float)
    t = stats.ttest_1samp(d, 0) if len(d) > 1 else None
    constant = len(d) > 1 and np.all(d == d[0])
    entry = {
        "name": name,
        "differences": d,
        "wilcox": wilcoxon_entry(d, "wilcox"),
        "pratt": wilcoxon_entry(d, "pratt"),
        "mean": d.mean() if len(d) else math.nan,
        "deviation": d.std(ddof=1) if len(d) > 1 else math.nan,
        "quartiles": np.quantile(d, [0, 0.25, 0.5, 0.75, 1]) if len(d) else [math.nan] * 5,
        "t": math.nan, "t_p": math.nan, "cohen_dz": math.nan,
    }
    if constant and d[0] != 0:
        entry.update(t=math.copysign(math.inf, d[0]), t_p=0.0,
                     cohen_dz=math.copysign(math.inf, d[0]))
    elif len(d) > 1 and not constant:
        entry.update(t=t.statistic, t_p=t.pvalue, cohen_dz=d.mean() / d.std(ddof=1))
    return entry


# ---- bootstrap: SciPy's, with our random numbers --------------------------------------------------

def philox(counter, key):
    c, k = list(counter), list(key)
    mask = 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & mask, (p0 >> 32) ^ c[3] ^ k[1], p0 & mask]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    return c


class Stream(np.random.Generator):
    """Philox4x32-10 in the order of engine/base/rng.c, with Lemire's bounded integers."""

    def __init__(self, key, counter):
        super().__init__(np.random.PCG64(0))
        self.key, self.at, self.left = key, list(counter), []

    def word(self):
        if not self.left:
            self.left = philox(self.at, self.key)
            self.at[0] += 1
        return self.left.pop(0)

    def below(self, n):
        threshold = (2 ** 32 - n) % n
        while True:
            product = self.word() * n
            if product & 0xFFFFFFFF >= threshold:
                return product >> 32

    def integers(self, low, high=None, size=None, **_):
        assert low == 0
        count = int(np.prod(size))
        return np.array([self.below(high) for _ in range(count)]).reshape(size)


def bootstrap_entry(name, values, resamples, confidence):
    key, counter = [12345, 678910], [0, 3, 0xFFFFFFFF, 17]
    entry = {"name": name, "values": values, "resamples": resamples, "confidence": confidence,
             "key": key, "counter": counter}
    for method in ["percentile", "BCa"]:
        found = stats.bootstrap((np.asarray(values),), np.mean, n_resamples=resamples, axis=-1,
                                confidence_level=confidence, method=method,
                                rng=Stream(key, counter)).confidence_interval
        entry[method.lower()] = [found.low, found.high]
    return entry


def eighths(n, low, high):
    """Sums of these have no rounding, so means that tie do so in every order of addition."""
    return whole(n, low, high) / 8


BOOTSTRAPS = [
    bootstrap_entry("two", [0.0, 1.0], 999, 0.95),
    bootstrap_entry("four", [0.5, -0.25, 0.125, 2.0], 1000, 0.95),
    bootstrap_entry("eight_with_ties", eighths(8, -3, 9), 2000, 0.95),
    bootstrap_entry("skewed", np.round(random.exponential(1, 32) * 64) / 64, 2000, 0.9),
    bootstrap_entry("dice", random.beta(8, 2, 40) - random.beta(7, 2, 40), 2000, 0.99),
    bootstrap_entry("one_outlier", list(random.normal(0, 0.01, 24)) + [5.0], 1000, 0.95),
]

# ---- Holm, variances, distributions ---------------------------------------------------------------


def holm_entry(p):
    p = np.asarray(p, float)
    adjusted = np.full(len(p), math.nan)
    there = ~np.isnan(p)
    if there.any():
        adjusted[there] = multipletests(p[there], method="holm")[1]
    return {"p": p, "adjusted": adjusted}


HOLM = [
    holm_entry([0.01]), holm_entry([0.04, 0.01, 0.03, 0.005]), holm_entry([0.5, 0.6, 0.7]),
    holm_entry([0.02, 0.02, 0.02]), holm_entry([math.nan, 0.01, math.nan, 0.2]),
    holm_entry([math.nan, math.nan]), holm_entry(random.uniform(0, 0.1, 40)), holm_entry([1, 0, 1e-300]),
]


def variance_entry(*groups):
    entry = {"groups": [list(g) for g in groups]}
    for center in ["median", "mean"]:
        found = stats.levene(*groups, center=center)
        entry[center] = [found.statistic, found.pvalue]
    a, b = groups[0], groups[1]
    f = np.var(a, ddof=1) / np.var(b, ddof=1)
    law = stats.f(len(a) - 1, len(b) - 1)
    entry["ratio"] = [f, min(1, 2 * min(law.sf(f), law.cdf(f)))]
    return entry


VARIANCES = [
    variance_entry(random.normal(0, 1, 3), random.normal(0, 2, 3)),
    variance_entry(random.normal(0.8, 0.01, 5), random.normal(0.82, 0.002, 4)),
    variance_entry(random.normal(0, 1, 10), random.normal(0, 1, 12), random.normal(0, 3, 9)),
    variance_entry([1.0, 1.0, 2.0, 2.0], [1.0, 3.0, 5.0, 7.0, 7.0]),
    variance_entry(random.normal(0, 1, 300), random.normal(0, 1.3, 500)),
]

DISTRIBUTIONS = {
    "normal_above": [[z, stats.norm.sf(z)] for z in [-8, -1.5, -0.0, 1e-9, 0.3, 1, 1.96, 5, 12, 37]],
    "normal_quantile": [[p, special.ndtri(p)] for p in
                        [0, 1e-300, 1e-20, 1e-5, 0.025, 0.2, 0.4999, 0.5, 0.7, 0.975, 1 - 1e-12, 1]],
    "student_outside": [[t, f, 2 * stats.t.sf(abs(t), f)]
                        for f in [1, 2, 3, 4, 9, 19, 20, 39, 300, 4999, 1e6, 1e8]
                        for t in [0, 1e-3, 0.1, -0.7, 1, 2.2, -6, 30]],
    "f_above": [[f, a, b, stats.f.sf(f, a, b)] for a, b in
                [(1, 1), (1, 4), (2, 2), (2, 27), (4, 3), (30, 25), (299, 499), (1, 1e5), (5000, 7000)]
                for f in [1e-6, 0.2, 0.97, 1, 1.4, 5, 60]],
}

root = {
    "scipy": scipy.__version__,
    "lists": [list_entry(name, d) for name, d in LISTS.items()],
    "bootstraps": BOOTSTRAPS,
    "holm": HOLM,
    "variances": VARIANCES,
    "distributions": DISTRIBUTIONS,
}
OUT.mkdir(exist_ok=True)
(OUT / "statistics.json").write_text(json.dumps(plain(root), separators=(",", ":")) + "\n")


# ---- evaluations to compare -----------------------------------------------------------------------

CLASSES = ["liver", "left kidney", "spleen"]


def evaluation(cases, values):
    """evaluation.json's shape; values[metric][case][class], NaN where a metric is not defined."""
    entries = [{"name": name} for name in cases]
    root = {}
    for metric, table in values.items():
        root[metric] = {"mean": 0.0, "per_class": dict.fromkeys(CLASSES, 0.0)}
        for entry, row in zip(entries, table):
            entry[metric] = {c: float(f"{v:.9g}") for c, v in zip(CLASSES, row)}
    root["hd95_mm"]["definition"] = "max"
    root["empty_policy"] = "skip"
    root["cases"] = entries
    return root


def simulate(runs, cases, shift):
    """Runs of an arm: Dice with small differences, HD95 of voxels' steps (many ties), a metric of
    the user's."""
    hard = np.random.default_rng(5).beta(8, 2, (cases, len(CLASSES)))
    for _ in range(runs):
        dice = np.clip(hard + shift + random.normal(0, 0.02, hard.shape), 0, 1)
        hd95 = np.sqrt(random.integers(1, 12, hard.shape).astype(float)) * (1 - 4 * shift)
        own = random.integers(-3, 4, hard.shape) / 4
        dice[3, 1] = math.nan  # absent from both
        yield {"dice": dice, "hd95_mm": hd95, "own": own}


NAMES = [f"case_{i:02}" for i in range(18)]
ARMS = {"a": list(simulate(3, 18, 0.0)), "b": list(simulate(4, 18, 0.02))}
ARMS["a"][1]["hd95_mm"][7, 0] = math.nan  # missed by one run of the baseline
ARMS["b"][0]["hd95_mm"][7, 0] = math.nan
ARMS["b"][2]["hd95_mm"][9, 2] = math.nan
ARMS["b"][2]["hd95_mm"][11, :] = math.nan
for arm, runs in ARMS.items():
    for i, values in enumerate(runs):
        order = random.permutation(18)  # the order of the cases in a file means nothing
        shuffled = {m: v[order] for m, v in values.items()}
        text = json.dumps(plain(evaluation([NAMES[k] for k in order], shuffled)), indent=1)
        (OUT / f"{arm}{i + 1}.json").write_text(text + "\n")


def as_written(metric, arm):
    """[run][case][class], with the digits of the file."""
    rounded = np.vectorize(lambda v: float(f"{v:.9g}"))
    return np.array([rounded(values[metric]) for values in ARMS[arm]])


def contrast(metric, row):
    a, b = as_written(metric, "a"), as_written(metric, "b")
    there = ~np.isnan(a).any(0) & ~np.isnan(b).any(0)
    if row == "mean":
        mean = lambda x: np.nanmean(np.where(there, x, math.nan), axis=-1)
        a, b, pairs = mean(a), mean(b), there.any(-1)
    else:
        k = CLASSES.index(row)
        a, b, pairs = a[..., k], b[..., k], there[..., k]
    a, b = a[:, pairs], b[:, pairs]
    x, y = a.mean(0), b.mean(0)
    d = y - x
    step = 10 ** (math.ceil(math.log10(max(np.abs(x).max(), np.abs(y).max()))) - 8)
    ranked = np.round(d / step) * step
    gain = -ranked if metric == "hd95_mm" else ranked
    t = stats.ttest_rel(y, x)
    seeds = [a.mean(1), b.mean(1)]
    bf = stats.levene(*seeds, center="median")
    f = seeds[1].var(ddof=1) / seeds[0].var(ddof=1)
    law = stats.f(3, 2)
    names = np.array(NAMES)[pairs]
    return {
        "metric": metric, "class": row, "pairs": int(pairs.sum()),
        "baseline": [x.mean(), x.std(ddof=1), np.median(x)],
        "arm": [y.mean(), y.std(ddof=1), np.median(y)],
        "difference": [d.mean(), d.std(ddof=1), np.median(d)],
        "wilcoxon": {z: exact_wilcoxon(ranked, z) for z in ["wilcox", "pratt"]},
        "t": [t.statistic, t.pvalue], "cohen_dz": d.mean() / d.std(ddof=1),
        "cases": [int((gain > 0).sum()), int((gain < 0).sum()), int((gain == 0).sum())],
        "best": names[np.argmax(gain)], "worst": names[np.argmin(gain)],
        "seeds": [list(s) for s in seeds],
        "brown_forsythe": [bf.statistic, bf.pvalue],
        "variance_ratio": [f, min(1, 2 * min(law.sf(f), law.cdf(f)))],
    }


expected = [contrast(m, c) for m in ["dice", "hd95_mm", "own"] for c in CLASSES + ["mean"]]
for name, p in [("wilcoxon_holm", [e["wilcoxon"]["wilcox"] for e in expected]),
                ("t_holm", [e["t"][1] for e in expected])]:
    for e, adjusted in zip(expected, multipletests(p, method="holm")[1]):
        e[name] = adjusted
(OUT / "compare.json").write_text(json.dumps(plain(expected), indent=1) + "\n")
