# Threads decide how fast a run is, never what comes out.
. "$(dirname "$0")/lib.sh"
make_phantom phantom
try 0 "$STRATA" run "${tiny[@]}" --threads 1 --set data.loader_threads=1 --out one
for threads in 2 3; do
  try 0 "$STRATA" run "${tiny[@]}" --threads $threads --set data.loader_threads=3 \
    --set data.queue=$threads --out "run$threads"
  same_run one "run$threads"
  same_log one "run$threads"
done
# Neither does the cache of prepared cases, warm or absent.
try 0 "$STRATA" run "${tiny[@]}" --set data.cache=none --threads 2 --out uncached
same_run one uncached
same_log one uncached
# Another seed is another run.
try 0 "$STRATA" run "${tiny[@]}" --set seed=6 --out other
try 1 "$STRATA" weights diff one/weights/segment.safetensors other/weights/segment.safetensors
