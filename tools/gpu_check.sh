#!/bin/sh
# tools/gpu_check.sh - for someone with an NVIDIA GPU: builds for it, runs the CUDA tests on it, compute-sanitizer if it is
# there, draws a picture on CPU and GPU, measures, and writes gpu-report.txt to attach to an issue.
#   tools/gpu_check.sh [--device N]   N: as nvidia-smi counts them
# Needs a driver, the CUDA Toolkit (12 or newer), cuBLAS and cuDNN 9; Debian packages that the build needs are installed as
# ./check does. Some 10 minutes. Exit status 0: everything passed; 1: not, the report says what; 2: wrong usage.
set -u
here=$(cd "$(dirname "$0")/.." && pwd)
build=$here/build-gpu
report=$here/gpu-report.txt
device=
case $#:${1:-} in
0:) ;;
2:--device) device=$2 ;;
*) echo "usage: tools/gpu_check.sh [--device N]" >&2; exit 2 ;;
esac
case $device in *[!0-9]*) echo "--device wants a number" >&2; exit 2 ;; esac
export CUDA_DEVICE_ORDER=PCI_BUS_ID
[ -z "$device" ] || export CUDA_VISIBLE_DEVICES="$device" # else what the machine's scheduler has set, if any
# an installed toolkit is often in nobody's PATH
for folder in "${CUDA_HOME:-/usr/local/cuda}/bin" "${CUDA_HOME:-/usr/local/cuda}/compute-sanitizer"; do
    [ ! -d "$folder" ] || PATH=$PATH:$folder
done
export PATH
failed=0
: >"$report" || exit 1

say() { printf '%s\n' "$@" | tee -a "$report"; }

finish() {
    say "" "$1"
    echo "Please attach $report to an issue."
    exit $failed
}

# step NAME COMMAND...: its output goes to the report, its end decides
step() {
    name=$1
    shift
    say "" "## $name" "\$ $*"
    began=$(date +%s)
    if "$@" >"$build.log" 2>&1; then result=passed; else result="FAILED (exit $?)"; failed=1; fi
    tail -n 200 "$build.log" >>"$report"
    rm -f "$build.log"
    say "$name: $result, $(($(date +%s) - began)) s"
}

# sanitize TOOL PROGRAM
sanitize() {
    step "compute-sanitizer $1 $2" compute-sanitizer --tool "$1" --error-exitcode 9 "$build/tests/cuda_device/$2"
}

say "# rung on a GPU" "$(date -u '+%Y-%m-%d %H:%M UTC'), commit $(git -C "$here" rev-parse --short HEAD 2>/dev/null || echo unknown)"
say "$(uname -srm), $(nvcc --version 2>/dev/null | sed -n 's/.*release/nvcc release/p')"
say "$({ nvidia-smi --query-gpu=index,name,driver_version,memory.total,clocks.max.sm --format=csv,noheader; } 2>&1)"

if [ ! -e /dev/nvidia0 ] && ! nvidia-smi -L >/dev/null 2>&1; then # WSL has the second alone
    failed=1
    finish "NO GPU: neither /dev/nvidia0 nor an answer of nvidia-smi"
fi
. "$here/tools/setup.sh"
RUNG_PACKAGES="$RUNG_PACKAGES g++"
(rung_packages) || { failed=1; finish "SOMETHING IS MISSING: see above"; }
[ -d "$build" ] || mkdir "$build" || exit 1
command -v ninja >/dev/null 2>&1 && [ ! -f "$build/CMakeCache.txt" ] && export CMAKE_GENERATOR=Ninja
step configure cmake -S "$here" -B "$build" -DCMAKE_BUILD_TYPE=Release -DRUNG_CUDA=ON -DRUNG_GPU_TESTS=ON \
    -DRUNG_CUDA_ARCHITECTURES=native
[ $failed = 0 ] || finish "NOT CONFIGURED: the report says what is missing"
step build cmake --build "$build" --parallel "$(nproc 2>/dev/null || echo 2)" --target rung gpu_tests
[ $failed = 0 ] || finish "NOT BUILT"

step devices "$build/rung" info --devices
if ! "$build/rung" info --devices | grep -q '^cuda 0'; then
    failed=1
    finish "NO GPU THAT RUNG CAN USE"
fi
step "tests on the GPU" ctest --test-dir "$build" -L gpu --no-tests=error --output-on-failure
step "cuDNN's plans" ctest --test-dir "$build" -R '^test_cuda_dnn_plans$' --no-tests=error --output-on-failure
if command -v compute-sanitizer >/dev/null 2>&1; then
    for tool in memcheck racecheck initcheck synccheck; do sanitize $tool gpu_ops; done
    for tool in memcheck racecheck synccheck; do sanitize $tool gpu_layers; done
else
    say "" "compute-sanitizer is not there: left out"
fi
for backend in cpu cuda; do
    step "a picture, $backend" "$build/rung" --backend $backend -v --json -o "$build/apple-$backend.png" "a glossy red apple, 3d"
done
step "bench: our kernels beside cuBLASLt and cuDNN" "$build/rung" bench --backend cuda

if [ $failed = 0 ]; then finish "ALL PASSED"; else finish "SOMETHING FAILED"; fi
