# What the command-line tests share. A test starts with `. lib.sh`, which takes the program to test
# from STRATA and the source folder from SOURCE (CTest sets both), and gives it an empty folder of
# its own, $work, as the current folder. The last output of a command is in $work/out and $work/err.

set -euo pipefail
: "${STRATA:?is the program to test}" "${SOURCE:?is the source folder}"

# A sanitizer's report must not pass for an ordinary error, whose exit status is 1.
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}exitcode=99"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:+$UBSAN_OPTIONS:}exitcode=99"
export LSAN_OPTIONS="${LSAN_OPTIONS:+$LSAN_OPTIONS:}exitcode=99"

pipelines=$SOURCE/tests/pipelines
work=$(mktemp -d "$PWD/cli-XXXXXX")
cleanup=:
leave() {
  local status=$?
  $cleanup
  cd / && rm -rf "$work"
  exit $status
}
trap leave EXIT
cd "$work"

fail() {
  echo "FAIL: $*"
  echo "--- standard output"
  tail -n 40 "$work/out" 2>/dev/null || true
  echo "--- standard error"
  tail -n 40 "$work/err" 2>/dev/null || true
  exit 1
}

skip() {
  echo "SKIPPED: $*"
  exit 77
}

# try STATUS COMMAND…
try() {
  local wanted=$1 got=0
  shift
  "$@" >"$work/out" 2>"$work/err" || got=$?
  [ "$got" -eq "$wanted" ] || fail "exit status $got instead of $wanted: $*"
}

prints() {
  grep -qF -e "$1" "$work/out" || fail "standard output lacks: $1"
}

says() {
  grep -qF -e "$1" "$work/err" || fail "standard error lacks: $1"
}

has() { # has FILE TEXT
  grep -qF -e "$2" "$1" || fail "$1 lacks: $2"
}

exists() {
  local path
  for path; do [ -s "$path" ] || fail "$path is missing or empty"; done
}

# A data set of small volumes, 44 to 55 voxels wide.
make_phantom() { # make_phantom FOLDER [CASES]
  try 0 "$STRATA" phantom "$1" --cases "${2:-8}" --organs 2 --size 48
}

tiny=("$pipelines/tiny.yaml" --set "data.root=$work/phantom")

# Waits until a file holds a text, which must come while process $3 runs.
wait_for() { # wait_for FILE TEXT PROCESS
  local i
  for ((i = 0; i < 15000; i++)); do
    if grep -qF -e "$2" "$1" 2>/dev/null; then return 0; fi
    kill -0 "$3" 2>/dev/null || break
    sleep 0.02
  done
  grep -qF -e "$2" "$1" || fail "$1 never said: $2"
}

# Waits until a file holds a text or the process is over, whichever comes first: for interruptions
# whose moment does not matter.
wait_for_or_end() { # wait_for_or_end FILE TEXT PROCESS
  while kill -0 "$3" 2>/dev/null && ! grep -qF -e "$2" "$1" 2>/dev/null; do sleep 0.02; done
}

# The weights of every stage and the evaluation of two runs, to the bit.
same_run() { # same_run RUN RUN
  local stage
  for stage in "$1"/weights/*.safetensors; do
    try 0 "$STRATA" weights diff "$stage" "$2/weights/$(basename "$stage")"
    prints "every bit the same"
  done
  cmp "$1/evaluation.json" "$2/evaluation.json" || fail "the evaluations of $1 and $2 differ"
  local file
  for file in "$1"/predictions/*; do
    cmp "$file" "$2/predictions/$(basename "$file")" || fail "$file differs"
  done
}

# Every epoch of every stage once, in order: the log without what depends on the clock.
same_log() { # same_log RUN RUN
  local run
  for run; do sed 's/,"seconds":[^,}]*//' "$run/metrics.jsonl" >"$work/log-$(basename "$run")"; done
  diff "$work/log-$(basename "$1")" "$work/log-$(basename "$2")" || fail "the logs differ"
}
