# TensorBoard's own reader finds what a run logged. (resume.sh reads the files of interrupted runs
# without it.)
. "$(dirname "$0")/lib.sh"

python=
for candidate in "${PYTHON:-python3}" /usr/bin/python3; do
  if "$candidate" -c 'import tensorboard' 2>/dev/null; then
    python=$candidate
    break
  fi
done
[ -n "$python" ] || skip "python3 has no tensorboard, so its reader cannot be tried on our files"

make_phantom phantom
try 0 "$STRATA" run "${tiny[@]}" --out run --set log.tensorboard=true
try 0 "$python" - <<'PYTHON'
import json
import math

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

lines = [json.loads(line) for line in open("run/metrics.jsonl")]
for stage in sorted({line["stage"] for line in lines}):
    events = EventAccumulator(f"run/tensorboard/{stage}")
    events.Reload()
    of_stage = [line for line in lines if line["stage"] == stage]
    tags = {k.replace(".", "/") for line in of_stage for k in line} - {"stage", "epoch", "updates"}
    assert set(events.Tags()["scalars"]) == tags, (stage, events.Tags()["scalars"], tags)
    loss = events.Scalars("loss")
    assert [e.step for e in loss] == [line["epoch"] for line in of_stage]
    for event, line in zip(loss, of_stage):
        assert math.isclose(event.value, line["loss"], rel_tol=1e-6)
    print(stage, len(loss), "epochs")
PYTHON
prints "pretrain 3 epochs"
prints "segment 3 epochs"
