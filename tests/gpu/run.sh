#!/usr/bin/env bash
# Checks the CUDA device on a machine with an NVIDIA GPU, and prints one short table.
#
#   tests/gpu/run.sh pack [FOLDER]   on a build machine: a self-contained folder, build-gpu by default
#                                    (CUDAARCHS=90-real before it: for Hopper alone, in a fifth of the time)
#   FOLDER/run.sh [FOLDER]           on the GPU machine, which needs the driver and CUDA's libraries
#                                    (cuBLASLt; cuDNN 9 if it is to be used): checks, then times
#
# Checks: every operator against the CPU, in f32, bf16 and tf32, twice with the same bits; every sample operator;
# convolutions by cuDNN and by our own kernels; what cuDNN plans; every network against PyTorch's recorded
# results; both stages of a pipeline, losses and predictions equal to the CPU's; compute-sanitizer where it
# is installed. Times: training steps and inference of the published networks in bf16, beside PyTorch's
# where it and MONAI are installed, the card's ceilings, and what augmentation adds to a step.
# FOLDER/results.json is written after every row. The exit status is 0 when every check passed.
#
# Parts can be left out: CHECKS="operators networks run sanitizer" TIMES="step samples". LIMIT=900 is how
# many seconds a row may take. COMPARE adds options of compare_networks.py, such as
# COMPARE="--networks unetr --works train --precisions f32 tf32 bf16 --own-convolutions".
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

pack() {
  local source folder build
  source=$(cd "$here/../.." && pwd)
  folder=${1:-$source/build-gpu}
  build=$folder.build
  cmake -S "$source" -B "$build" -G Ninja -Wno-dev -DCMAKE_BUILD_TYPE=Release \
    -DSTRATA_PORTABLE=ON -DSTRATA_TESTS=ON -DSTRATA_CUDA=ON
  cmake --build "$build" --target strata strata_cuda compare_devices compare_storage test_device \
    test_augment test_ahead test_convolutions test_networks test_cudnn_plans
  mkdir -p "$folder/bin" "$folder/share"
  cp "$build"/strata "$build"/libstrata_cuda.so "$folder/bin/"
  cp "$build"/tests/gpu/{compare_devices,compare_storage,test_device,test_augment,test_ahead,test_convolutions,test_cudnn_plans} "$build"/tests/test_networks \
    "$folder/bin/"
  # The only library of the test programs that is not linked into them.
  cp "$(ldd "$folder/bin/test_device" | awk '/libcmocka/ {print $3}')" "$folder/bin/"
  cp -r "$source"/pipelines "$source"/lua "$folder/share/"
  mkdir -p "$folder"/tests/{golden,pipelines,cli,gpu,bench}
  cp -r "$source"/tests/golden/networks "$folder/tests/golden/"
  cp "$source"/tests/pipelines/{device*,tiny}.yaml "$folder/tests/pipelines/"
  cp "$source"/tests/cli/lib.sh "$folder/tests/cli/"
  cp "$source"/tests/gpu/{end_to_end.sh,storage.sh,time_samples.py} "$folder/tests/gpu/"
  cp "$source"/tests/bench/{compare_networks.py,torch_networks.py,network.yaml} "$folder/tests/bench/"
  cp "$here/run.sh" "$folder/run.sh"
  echo "$folder: $(du -sh "$folder" | cut -f1); run $folder/run.sh on the GPU machine"
}

if [ "${1:-}" = pack ]; then
  pack "${2:-}"
  exit
fi

folder=${1:-$here}
cd "$folder"
# cuDNN and cuBLASLt may be there as PyTorch's packages alone.
packaged=$(python3 -c 'import glob, sysconfig
print(":".join(sorted(glob.glob(sysconfig.get_paths()["purelib"] + "/nvidia/*/lib"))))' 2>/dev/null || true)
export LD_LIBRARY_PATH="$folder/bin${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}${packaged:+:$packaged}"
export STRATA="$folder/bin/strata" SOURCE="$folder" STRATA_SHARE="$folder/share"
export STRATA_CUDA_PLUGIN="${STRATA_CUDA_PLUGIN:-$folder/bin/libstrata_cuda.so}"
export STRATA_TEST_FIXTURES="$folder/tests"
checks=${CHECKS-operators networks run sanitizer}
times=${TIMES-step samples}
mkdir -p logs
results=()
failed=0

row() { # row NAME RESULT DETAIL SECONDS
  printf '%-28s %-8s %4s s  %s\n' "$1" "$2" "$4" "$3"
  results+=("$(printf '{"name": "%s", "result": "%s", "seconds": %s, "detail": "%s"}' "$1" "$2" "$4" \
    "$(printf %s "$3" | tr -d '"\\[:cntrl:]')")")
  [ "$2" != FAIL ] || failed=1
  write_results
}
write_results() {
  {
    printf '{"checks": ['
    (IFS=,; printf '%s' "${results[*]}")
    printf '], "steps": '
    cat logs/steps.json 2>/dev/null || printf 'null'
    printf ', "samples": '
    cat logs/samples.json 2>/dev/null || printf 'null'
    printf '}\n'
  } >results.json
}
check() { # check NAME LOG COMMAND…: the last line of the log is the detail
  local name=$1 log=logs/$2.log status=0 begin=$SECONDS
  timeout "${LIMIT:-900}" "${@:3}" >"$log" 2>&1 || status=$?
  local seconds=$((SECONDS - begin)) last
  last=$(tail -n 1 "$log")
  case $status in
    0) row "$name" ok "$last" "$seconds" ;;
    77) row "$name" skipped "$last" "$seconds" ;;
    124) row "$name" FAIL "not done after $seconds s; $last" "$seconds" ;;
    *) row "$name" FAIL "$(grep -m 1 -E 'FAIL|error' "$log" || printf %s "$last")" "$seconds" ;;
  esac
}
asked() { case " $1 " in *" $2 "*) true ;; *) false ;; esac }

nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null ||
  echo "no nvidia-smi here"

if asked "$checks" operators; then
  check "device" device bin/test_device
  check "what cuDNN plans" cudnn bin/test_cudnn_plans
  check "operators against the CPU" operators bin/compare_devices
  check "samples against the CPU" samples bin/test_augment
  check "batches beside steps" ahead bin/test_ahead
  STRATA_CUDNN=off check "our own convolutions" convolutions bin/compare_devices conv3d \
    conv_transpose3d
  check "... by tensor cores" tensor-cores bin/test_convolutions
  check "values stored as bf16" storage bin/compare_storage
  STRATA_CUDNN=off check "... for our convolutions" storage-own bin/compare_storage conv3d \
    conv_transpose3d
fi
if asked "$checks" networks; then
  STRATA_TEST_DEVICE=cuda check "networks against PyTorch" networks bin/test_networks
fi
if asked "$checks" run; then
  check "both stages, CPU and GPU" run bash tests/gpu/end_to_end.sh
  check "both stages, stored as bf16" storage-run bash tests/gpu/storage.sh
fi
if asked "$checks" sanitizer; then
  if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
      check "compute-sanitizer $tool" "$tool" compute-sanitizer --tool "$tool" --error-exitcode 1 \
        bin/compare_devices --trials 1
      check "$tool, samples" "$tool-samples" compute-sanitizer --tool "$tool" --error-exitcode 1 \
        bin/test_augment
    done
  else
    row "compute-sanitizer" skipped "not installed" 0
  fi
fi
if asked "$times" step; then
  read -r -a compare <<<"${COMPARE:-}"
  rm -f logs/steps.json
  check "steps and inference" steps python3 -u tests/bench/compare_networks.py --strata "$STRATA" \
    --device cuda --rounds 3 --networks unetr unetr-plus-plus swin-unetr --precisions bf16 \
    --json logs/steps.json "${compare[@]}"
  cat logs/steps.log
fi
if asked "$times" samples; then
  check "augmentation" samples-time python3 tests/gpu/time_samples.py --json logs/samples.json
  cat logs/samples-time.log
fi
write_results
exit "$failed"
