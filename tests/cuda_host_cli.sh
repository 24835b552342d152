#!/bin/sh
# tests/cuda_host_cli.sh RUNG SOURCE WORK - the program with --backend cuda on an emulated device (tests/cuda_host): a
# picture, and every way in which a GPU fails: exit 1, one line that says so, no file.
rung=$1
golden=$2/tests/golden/pipelines
work=$3
failed=0
rm -rf "$work"
mkdir -p "$work"
cd "$work" || exit 1
draw="-m $golden/icons --backend cuda -W 32 -H 32 --steps 3 -q"

fail() {
    echo "FAIL: $*"
    failed=1
}

# refused PATTERN ARGS...: exit 1, one line that matches, nothing written
refused() {
    pattern=$1
    shift
    "$rung" $draw "$@" >out.txt 2>err.txt
    got=$?
    [ $got = 1 ] || fail "$*: exit $got: $(cat err.txt)"
    [ "$(wc -l <err.txt)" = 1 ] || fail "$*: not one line: $(cat err.txt)"
    grep -q "$pattern" err.txt || fail "$*: no '$pattern' in: $(cat err.txt)"
    [ -z "$(ls ./*.png* 2>/dev/null)" ] || fail "$*: left $(ls)"
}

"$rung" info --devices >out.txt || fail "info --devices"
grep -q '^cuda 1 .*compute capability 9.0' out.txt || fail "no second device in: $(cat out.txt)"
"$rung" info --devices --json | grep -q '"major":9' || fail "info --devices --json"

refused 'no device 7' --device 7 x
refused 'no device 2' --device 2 x
for n in 1 4 20 40; do CUDA_HOST_FAIL=cudaMalloc:$n refused 'out of memory' x; done
CUDA_HOST_FAIL=cudaMallocHost:1 refused 'out of memory' x
for n in 1 30 100; do CUDA_HOST_FAIL=launch:$n refused 'unspecified launch failure' x; done
CUDA_HOST_FAIL=cublasLtMatmul:5 refused 'CUBLAS_STATUS_EXECUTION_FAILED' x
CUDA_HOST_FAIL=cublasLtCreate:1 refused 'CUBLAS_STATUS_NOT_INITIALIZED' x
CUDA_HOST_FAIL=cudnnBackendExecute:2 refused 'CUDNN_STATUS_EXECUTION_FAILED' x
CUDA_HOST_DEVICES=0 refused 'no CUDA-capable device' x
CUDA_HOST_DEVICES=0 "$rung" info --devices | grep -q '^no GPU .*no CUDA-capable device' || fail "info without a GPU"

"$rung" bench --backend cuda --json "linear 2x1280x320" >out.txt || fail "bench"
[ "$(grep -c '"isa":"cuda"' out.txt)" = 4 ] || fail "bench: $(cat out.txt)"
"$rung" bench --backend cuda nonesuch 2>err.txt && fail "bench: no such shape"
grep -q nonesuch err.txt || fail "bench nonesuch: $(cat err.txt)"

"$rung" $draw --device 1 -o apple.png "red apple" || fail "no picture on the second device"
[ -s apple.png ] || fail "no picture"
exit $failed
