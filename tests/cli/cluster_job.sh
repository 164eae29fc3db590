# The job script of docs/cluster.md, as it stands there, under a scheduler of a few lines: two jobs at
# once on one cache, one of them stopped, queued again and finished, then compared.
. "$(dirname "$0")/lib.sh"
make_phantom phantom
sed -n '/^#!\/bin\/bash$/,/^```$/p' "$SOURCE/docs/cluster.md" | sed '$d' >job.sh
exists job.sh
cat >my.yaml <<YAML
strata: 1
use: $pipelines/tiny.yaml
name: my
data: {root: $work/phantom}
YAML
mkdir bin
cat >bin/strata <<SH
#!/bin/bash
exec "$STRATA" "\$@" \$MORE
SH
cat >bin/srun <<'SH'
#!/bin/bash
while [ "${1#-}" != "$1" ]; do shift; done
echo $$ >"step-$SLURM_ARRAY_TASK_ID"
exec "$@"
SH
cat >bin/scontrol <<'SH'
#!/bin/bash
echo "$@" >>requeued
SH
chmod +x bin/*
export PATH=$work/bin:$PATH SLURM_CPUS_PER_TASK=1

cleanup='stop_jobs'
stop_jobs() { kill -9 $(cat step-* 2>/dev/null) 2>/dev/null || true; }
job() { # job TASK: in the background, as the scheduler starts it
  SLURM_ARRAY_TASK_ID=$1 SLURM_JOB_ID=90$1 bash job.sh >>"job-$1.log" 2>&1 &
}

MORE="--set stages.pretrain.epochs=400" job 0
stopped=$!
job 1
whole=$!
wait_for job-0.log "pretrain  epoch 1/" "$stopped"
kill -TERM "$(cat step-0)"
status=0
wait "$stopped" || status=$?
[ "$status" = 130 ] || fail "the job ended with $status: $(tail -n 3 job-0.log)"
has requeued "requeue 900"
[ -s runs/ours-1/state.safetensors ] || fail "no state"
wait "$whole" || fail "$(tail -n 3 job-1.log)"
has job-1.log "stage pretrain: switched off"
[ "$(wc -l <requeued)" = 1 ] || fail "a job that was finished is queued again"
epochs=$(($(wc -l <runs/ours-1/metrics.jsonl) + 1))
export MORE="--set stages.pretrain.epochs=$epochs"
job 0
wait $! || fail "$(tail -n 3 job-0.log)"
has job-0.log "stage pretrain goes on at epoch"
job 0 # once more than there is to do
wait $! || fail "$(tail -n 3 job-0.log)"
has job-0.log "stage segment: done before"
try 0 "$STRATA" compare base=runs/base-1 ours=runs/ours-1
