"""Makes single calls to the system fail, and looks at what the program makes of it.

  faults.py                        a sample of all faults, the same every time
  faults.py --all                  all of them: the first call from each place in the program
  faults.py run:write report       of those that begin so
  faults.py run:write:ENOSPC:17    one again: in "run" the 17th write finds no room

After a fault the program may be done all the same, with the results that it would have had, or with
a warning that names what is missing. Otherwise its exit status is 1, its message says what failed,
what was there before is untouched, every new file is whole, nothing else lies about, and the same
command goes on to the same bits. After SIGKILL the same holds, but for the message.

STRATA is the program, INJECT the library (inject.c), SOURCE the source folder: CTest sets them.
"""
import argparse
import json
import os
import queue
import random
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

STRATA, INJECT, SOURCE = (os.environ[name] for name in ("STRATA", "INJECT", "SOURCE"))
TIMEOUT_S = 120
KINDS = {  # +: and every one after it
    "memory": ["ENOMEM", "ENOMEM+"],
    "open": ["EIO", "SIGKILL"],
    "read": ["EIO", "short"],
    "write": ["ENOSPC", "ENOSPC+", "short", "SIGKILL"],
    "close": ["EIO"],
    "sync": ["EIO", "SIGKILL"],
    "rename": ["EIO", "SIGINT"],
    "mkdir": ["ENOSPC"],
    "lock": ["EIO", "EOPNOTSUPP"],
    "thread": ["EAGAIN"],
}

MINI = ["mini.yaml", "--set", "data.root=phantom", "--threads", "1"]
IMAGE = "phantom/imagesTr/phantom_001.nii.gz"
WEIGHTS = "done/weights/segment.safetensors"
# Commands, and how many of their faults are in the sample.
SCENARIOS = {
    "phantom": (12, ["phantom", "fresh", "--cases", "2", "--organs", "2", "--size", "16"]),
    "data": (12, ["data", "check", "mini.yaml", "--set", "data.root=phantom", "--json", "d.json"]),
    "check": (6, ["check", *MINI]),
    "plan": (6, ["plan", *MINI]),
    "run": (11, ["run", *MINI, "--out", "made"]),
    "longer": (4, ["run", *MINI, "--out", "short", "--resume"]),
    "ablate": (4, ["ablate", "study.lua", "--set", "data.root=phantom", "--threads", "1",
                   "--out", "studies"]),
    "predict": (6, ["predict", "done", IMAGE, "--threads", "1", "-o", "seg.nii.gz"]),
    "evaluate": (12, ["evaluate", "--prediction", "done/predictions", "--reference",
                      "phantom/labelsTr", "--json", "e.json", "--csv", "e.csv", "--metrics", "all"]),
    "report": (10, ["report", "done", "-o", "page.html"]),
    "preview": (6, ["preview", *MINI, "--stage", "pretrain", "-o", "preview.png"]),
    "compare": (12, ["compare", "done", "twin", "--json", "c.json", "--csv", "c.csv"]),
    "pack": (12, ["pack", "done", "--weights", "-o", "new.strata"]),
    "unpack": (12, ["unpack", "packed.strata", "out"]),
    "weights": (8, ["weights", WEIGHTS]),
    "diff": (8, ["weights", "diff", WEIGHTS, WEIGHTS]),
    "import": (12, ["weights", "import", SOURCE + "/tests/golden/pt/checkpoint.pt", "-o",
                    "in.safetensors"]),
    "ops": (6, ["ops"]),
}
GOES_ON = {"run", "longer", "ablate"}
SIGNALLED = {"run", "longer"}  # a study's trials would go on for a moment
GOES_ON_FROM = ("/state.safetensors", "/state.evaluation.jsonl")
SPEAKS_OF_TIME = GOES_ON | {"check", "predict"}  # on standard output

STEER = """return function(event)
  event.state.calls = (event.state.calls or 0) + 1
  event.set("lr", event.get("lr") * 0.5)
  event.log("call " .. event.state.calls)
end
"""
STUDY = """local base = pipeline("mini.yaml")
local study = ablation("grid")
study:grid(base, {{"mask", "stages.pretrain.graph.masked.ratio", {0.4}}})
study:seeds(1)
study:run()
study:report("dice")
"""


def strata(arguments, folder, fault=None):
    """Exit status ("hang" after TIMEOUT_S), standard output and standard error."""
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    environment["TMPDIR"] = folder
    if fault:
        environment.update(LD_PRELOAD=INJECT, **fault)
    try:
        p = subprocess.run([STRATA, *arguments], cwd=folder, env=environment, timeout=TIMEOUT_S,
                           stdin=subprocess.DEVNULL, capture_output=True)
    except subprocess.TimeoutExpired as late:
        return "hang", "", (late.stderr or b"").decode("utf8", "replace")
    return p.returncode, p.stdout.decode("utf8", "replace"), p.stderr.decode("utf8", "replace")


def succeed(arguments, folder):
    status, _, said = strata(arguments, folder)
    if status != 0:
        sys.exit(f"{' '.join(arguments)}: {said}")


def make_base(base):
    """What a scenario finds: a data set, a pipeline with hooks, runs that are done, one of them short. It
    is copied; the hook is beside it, for a lock names it by its absolute path."""
    os.makedirs(base)
    steer = os.path.dirname(base) + "/steer.lua"
    text = open(SOURCE + "/tests/pipelines/tiny.yaml").read()
    for old, new in [("epochs: 3", "epochs: 2"), ("steps_per_epoch: 3", "steps_per_epoch: 1"),
                     ("steps_per_epoch: 4", "steps_per_epoch: 2"),
                     ("checkpoint: {every: 1}", "checkpoint: {every: 0}"),
                     ("      optimizer:", "      on_epoch_end: {lua: " + steer + "}\n      optimizer:"),
                     ("hidden: 24, mlp: 48", "hidden: 8, mlp: 8"),
                     ("stages:", "log: {tensorboard: true}\nstages:")]:
        if old not in text:
            sys.exit(f"tiny.yaml has no {old!r}")
        text = text.replace(old, new)
    for path, content in [(base + "/mini.yaml", text), (base + "/study.lua", STUDY), (steer, STEER)]:
        with open(path, "w") as file:
            file.write(content)
    succeed(["phantom", "phantom", "--cases", "4", "--organs", "2", "--size", "16"], base)
    succeed(["run", *MINI, "--out", "done"], base)
    succeed(["pack", "done", "--weights", "-o", "packed.strata"], base)
    shutil.copytree(base + "/done", base + "/twin")
    succeed(["run", *MINI, "--set", "stages.segment.epochs=1", "--out", "short"], base)


def files_of(folder):
    """Content by name; an event file of TensorBoard has the second in its name."""
    found = {}
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            with open(path, "rb") as file:
                found[re.sub(r"tfevents\.\d+", "tfevents", os.path.relpath(path, folder))] = file.read()
    return found


def damage(name, content):
    """Why a file whose content no two runs share is not whole; None where it is."""
    try:
        if name.endswith((".jsonl", ".json")):
            lines = content.decode().splitlines() if name.endswith(".jsonl") else [content]
            for line in lines:
                json.loads(line)
        elif name.endswith(".html"):
            return None if content.rstrip().endswith(b"</html>") else "it is cut"
        elif name.endswith(".safetensors"):
            begin = 8 + int.from_bytes(content[:8], "little")
            tensors = json.loads(content[8:begin])
            tensors.pop("__metadata__", None)
            end = max(t["data_offsets"][1] for t in tensors.values())
            return None if begin + end == len(content) else "its length is wrong"
    except (ValueError, UnicodeDecodeError) as error:
        return str(error)
    return None


HAS_TIMES = re.compile(r"run\.json|metrics\.|report\.html|page\.html|log\.txt|trial\.|grid\.|d\.json|"
                       r"state\.|tfevents|pipeline\.lock\.yaml")
CACHED = re.compile(r"\.strata-cache/\w+\.hash$")  # knows files by their inodes, too


def wrongs_of(files, before, wanted, is_done):
    """What is wrong with the files, where `wanted` are there without a fault."""
    wrongs = []
    for name, content in files.items():
        if before.get(name) == content or CACHED.search(name):
            continue
        if name not in wanted and not name.endswith(GOES_ON_FROM):
            wrongs.append(f"{name} lies about")
        elif HAS_TIMES.search(name):
            why = damage(name, content)
            if why:
                wrongs.append(f"{name} is damaged: {why}")
        elif content != wanted[name]:
            wrongs.append(f"{name} is not what it should be")
    kept = wanted if is_done else {name for name in before if name in wanted}
    return wrongs + [f"{name} is missing" for name in kept
                     if name not in files and not CACHED.search(name)]


def all_said(folder, printed, said):
    """With what the trials of a study have said."""
    logs = [content.decode("utf8", "replace") for name, content in files_of(folder).items()
            if name.startswith("studies/") and name.endswith("/log.txt")]
    return "\n".join([said, *logs, printed] if logs else [said])


def wrongs_of_message(fault_class, said):
    if not said.strip():
        return ["there is no message"]
    wrongs = [f"the message says {word}" for word in ("Success", "(null)") if word in said]
    known = {"memory": "memory|thread", "thread": "thread"}.get(fault_class, r"/|\.\w|folder \w|standard output")
    if not re.search(known, said):
        wrongs.append("the message does not name what failed")
    return wrongs


class Scenario:
    def __init__(self, name, work):
        self.name, self.base = name, work + "/base"
        self.share, self.arguments = SCENARIOS[name]
        folder = f"{work}/wanted-{name}"
        shutil.copytree(self.base, folder)
        sites = f"{work}/sites-{name}"
        status, self.prints, said = strata(self.arguments, folder,
                                           {"FAULT_SITES": sites, "FAULT_COUNTS": sites + ".counts"})
        if status != 0:
            sys.exit(f"{name} fails without a fault: {said}")
        self.wanted = files_of(folder)
        shutil.rmtree(folder)
        self.sites = {name: [] for name in KINDS}
        for line in open(sites):
            fault_class, number = line.split()
            self.sites[fault_class].append(int(number))

    def faults(self, patterns, all_of_them):
        """All, or a sample with every kind of fault in it that there is room for."""
        of_kind = {}
        for fault_class, numbers in self.sites.items():
            for kind in KINDS[fault_class]:
                fault = f"{self.name}:{fault_class}:{kind}"
                fits = not patterns or any((fault + ":").startswith(p + ":") for p in patterns)
                if numbers and fits and (self.name in SIGNALLED or not kind.startswith("SIG")):
                    of_kind[fault] = sorted(set(numbers))
        if all_of_them:
            return [f"{kind}:{n}" for kind, numbers in of_kind.items() for n in numbers]
        draw = random.Random(self.name)
        kinds = draw.sample(sorted(of_kind), len(of_kind))
        return sorted({f"{kind}:{draw.choice(of_kind[kind])}"
                       for kind in (kinds * self.share)[:self.share]})

    def try_fault(self, fault, folder):
        """What is wrong after it, and what the program said."""
        _, fault_class, kind, n = fault.split(":")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.base, folder)
        before = files_of(folder)
        trace, counts = folder + ".trace", folder + ".counts"
        for path in (trace, counts):
            if os.path.exists(path):
                os.remove(path)
        call = {"FAULT_CALL": fault_class, "FAULT_AT": n, "FAULT_ERROR": kind.rstrip("+"),
                "FAULT_TRACE": trace, "FAULT_COUNTS": counts}
        if kind.endswith("+"):
            call["FAULT_STAYS"] = "1"
        status, printed, said = strata(self.arguments, folder, call)
        if not os.path.exists(trace):
            return [], "not reached"  # the order of calls depends on threads
        ended = {"SIGKILL": -9, "SIGINT": 130}.get(kind, 1)
        wrongs = [] if status in (0, ended) else [f"exit status {status}"]
        wrongs += wrongs_of(files_of(folder), before, self.wanted, status == 0)
        said = all_said(folder, printed, said)
        warned = "warning: " in printed + said
        if kind == "EOPNOTSUPP" and not warned:
            wrongs.append("there is no warning")
        if status == 0 and warned:
            wrongs = [wrong for wrong in wrongs if not wrong.endswith(" is missing")]
        if fault_class == "memory":  # none to remove half a folder with; its name says what it is
            wrongs = [wrong for wrong in wrongs if not wrong.startswith("out.part-")]
        if status == 0 and self.name not in SPEAKS_OF_TIME and printed != self.prints:
            wrongs.append("standard output is not what it should be")
        if status == 1:
            wrongs += wrongs_of_message(fault_class, said)
        if status != 0 and self.name in GOES_ON:
            wrongs += self.go_on(folder, before)
        what = "warned" if status == 0 and warned else "no matter" if status == 0 else "failed"
        return wrongs, f"{what}: {said.strip()[-300:]}"

    def go_on(self, folder, before):
        more = ["--resume"] if self.name == "run" and os.path.exists(folder + "/made/run.json") else []
        status, _, said = strata([*self.arguments, *more], folder)
        if status != 0:
            return [f"it does not go on: {said.strip()[-300:]}"]
        return ["gone on, " + w for w in wrongs_of(files_of(folder), before, self.wanted, True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="not a sample")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("which", nargs="*", help="SCENARIO[:CLASS[:KIND[:N]]]")
    options = parser.parse_args()
    work = os.path.abspath(f"faults-{os.getpid()}")
    make_base(work + "/base")
    chosen = {w.split(":")[0] for w in options.which}
    names = [name for name in SCENARIOS if not chosen or name in chosen]
    with ThreadPoolExecutor(options.jobs) as pool:
        scenarios = dict(zip(names, pool.map(lambda name: Scenario(name, work), names)))
    faults = [w for w in options.which if w.count(":") == 3]
    patterns = [w for w in options.which if w.count(":") < 3]
    if patterns or not faults:
        faults += [f for s in scenarios.values() for f in s.faults(patterns, options.all)]
    folders = queue.Queue()
    for i in range(options.jobs):
        folders.put(f"{work}/{i}")

    def try_one(fault):
        folder = folders.get()
        try:
            return fault, *scenarios[fault.split(":")[0]].try_fault(fault, folder)
        finally:
            folders.put(folder)

    failed = 0
    outcomes = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        for fault, wrongs, outcome in pool.map(try_one, faults):
            word = outcome.split(":")[0]
            outcomes[word] = outcomes.get(word, 0) + 1
            if wrongs:
                failed += 1
                print(f"FAIL: {fault}: {'; '.join(wrongs)}\n  {outcome}\n  again: "
                      f"{os.path.basename(__file__)} {fault}", flush=True)
    shutil.rmtree(work)
    print(f"{len(faults)} faults: " + ", ".join(f"{n} {word}" for word, n in sorted(outcomes.items())))
    sys.exit(failed > 0)


main()
