#!/bin/sh
# tools/gpu_check.sh - for someone with an NVIDIA GPU: builds for it, runs the CUDA tests on it, compute-sanitizer if it is
# there, draws a picture on CPU and GPU, measures, and writes gpu-report.txt to attach to an issue.
#   tools/gpu_check.sh [--device N]
# Needs the CUDA Toolkit (12 or newer), cuDNN 9 and a C++ compiler. Exit status 0: everything passed.
set -u
here=$(cd "$(dirname "$0")/.." && pwd)
build=$here/build-gpu
report=$here/gpu-report.txt
device=0
[ "${1:-}" = --device ] && device=${2:?"--device wants a number"}
export CUDA_VISIBLE_DEVICES="$device"
failed=0
: >"$report"

say() { printf '%s\n' "$*" | tee -a "$report"; }

# step NAME COMMAND...: its output goes to the report, its end decides
step() {
    name=$1
    shift
    say "" "## $name" "\$ $*"
    if "$@" >"$build.log" 2>&1; then result=passed; else result="FAILED (exit $?)"; failed=1; fi
    tail -n 200 "$build.log" >>"$report"
    rm -f "$build.log"
    say "$name: $result"
}

say "# rung on a GPU" "$(date -u '+%Y-%m-%d %H:%M UTC'), commit $(git -C "$here" rev-parse --short HEAD 2>/dev/null || echo unknown)"
say "$(uname -srm)" "$(nvcc --version 2>/dev/null | tail -n 2 | head -n 1)"
say "$(nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader 2>&1)"

step configure cmake -S "$here" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DRUNG_CUDA=ON -DRUNG_GPU_TESTS=ON \
    -DRUNG_CUDA_ARCHITECTURES=native
step build cmake --build "$build"
[ $failed = 0 ] || { say "" "The report is in $report"; exit 1; }

step devices "$build/rung" info --devices
step "tests on the GPU" ctest --test-dir "$build" -L gpu --output-on-failure
step "cuDNN's plans" ctest --test-dir "$build" -R test_cuda_dnn_plans --output-on-failure
if command -v compute-sanitizer >/dev/null 2>&1; then
    for tool in memcheck racecheck initcheck synccheck; do
        step "compute-sanitizer $tool" compute-sanitizer --tool $tool --error-exitcode 9 "$build/tests/cuda_device/gpu_ops"
    done
    step "compute-sanitizer memcheck, layers" compute-sanitizer --tool memcheck --error-exitcode 9 \
        "$build/tests/cuda_device/gpu_layers"
else
    say "" "compute-sanitizer is not there: left out"
fi
for backend in cpu cuda; do
    step "a picture, $backend" "$build/rung" --backend $backend -v --json -o "$build/apple-$backend.png" "a glossy red apple, 3d"
done
step "bench: our kernels beside cuBLASLt and cuDNN" "$build/rung" bench --backend cuda

say ""
if [ $failed = 0 ]; then say "ALL PASSED"; else say "SOMETHING FAILED"; fi
echo "Please attach $report to an issue."
exit $failed
