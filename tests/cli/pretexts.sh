# The shipped pretexts fit together, and their stages can be taken into a pipeline of one's own.
. "$(dirname "$0")/lib.sh"
make_phantom phantom
for file in "$SOURCE"/pipelines/pretexts/*.yaml; do
  try 0 "$STRATA" check "$file" --set "data.root=$work/phantom" --set data.prepare=
  prints "no mistakes found"
done
try 1 "$STRATA" check "$SOURCE/pipelines/pretexts/contrastive.yaml" \
  --set "data.root=$work/phantom" --set stages.pretrain.batch=1
says 'set the stage'"'"'s "batch" to 2 or more'

# One after the other, with other values; the second starts from the first, but for its heads.
cat >mine.yaml <<YAML
strata: 1
use: $pipelines/tiny.yaml
data: {root: $work/phantom}
stages:
  - turns:
      use: {pipeline: pretexts/rotation.yaml, stage: pretrain}
      params: {turns: 4}
      epochs: 2
      steps_per_epoch: 2
  - pieces:
      use: {pipeline: pretexts/jigsaw.yaml, stage: pretrain}
      params: {cells: [1, 1, 2]}
      init: {from: turns, reset: [loss.heads]}
      epochs: 2
      steps_per_epoch: 2
  - views:
      use: {pipeline: pretexts/contrastive.yaml, stage: pretrain}
      init: {from: pieces, missing: fresh}
      batch: 2
      epochs: 1
      steps_per_epoch: 2
  - painted:
      use: {pipeline: pretexts/models_genesis.yaml, stage: pretrain}
      init: {from: views, missing: fresh}
      epochs: 1
      steps_per_epoch: 2
  - segment:
      use: $pipelines/tiny.yaml
      init: {from: painted}
      epochs: 1
YAML
for threads in 1 3; do
  try 0 "$STRATA" run mine.yaml --threads $threads --out "run$threads"
  has "run$threads/metrics.jsonl" '"stage":"turns","epoch":2,'
  has "run$threads/metrics.jsonl" '"loss.accuracy.3":'
  has "run$threads/metrics.jsonl" '"stage":"views","epoch":1,'
  exists "run$threads/weights/painted.safetensors" "run$threads/evaluation.json"
done
same_run run1 run3
same_log run1 run3
