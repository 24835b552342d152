#!/bin/sh
# tests/cuda_host_ranks.sh RUNG SOURCE WORK - one picture from several processes with --backend cuda, each on an emulated
# device, over a stand-in for NCCL (tests/cuda_host/nccl.cpp): the picture of one process, and failures that end all.
rung=$1
golden=$2/tests/golden/pipelines
work=$3
near=$3/../test_mpi
mpirun=${RUNG_MPIRUN:-mpirun}
failed=0
command -v "$mpirun" >/dev/null || { echo "SKIP: there is no mpirun"; exit 77; }
rm -rf "$work"
mkdir -p "$work"
cd "$work" || exit 1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 CUDA_HOST_DEVICES=4
over="--oversubscribe"
"$mpirun" --version 2>/dev/null | grep -q "Open MPI\|OpenRTE" || over=""

fail() {
    echo "FAIL: $*"
    failed=1
}
draw="-m $golden/icons --backend cuda -W 32 -H 32 --steps 3 -q"
"$rung" $draw -o one.png --save-latents one.npy "red apple" >/dev/null || fail "one process"
# Halves of a pair are the same numbers. Cut sums are rounded elsewhere, and TF32 and f16 make 2^-11 of it: this picture's
# latents, up to 6.1, are 0.0065 from the CPU's in one process too.
for how in 2:cfg=2:1e-4 2:tp=2:0.02 3:tp=3:0.02 4:tp=2,cfg=2:0.02; do
    n=${how%%:*} most=${how##*:}
    how=${how#*:}
    how=${how%:*}
    timeout -k 5 120 "$mpirun" $over -n "$n" "$rung" $draw --parallel "$how" -o "$n.png" --save-latents "$n.npy" \
        "red apple" >out.txt 2>err.txt || fail "$how: $(cat out.txt err.txt)"
    "$near" near one.npy "$n.npy" "$most" 2>near.txt || fail "$how: $(cat near.txt)"
    "$near" near one.png "$n.png" 2>near.txt || fail "$how: $(cat near.txt)"
    rm -f "$n.png" "$n.npy"
done
grep -q "largest difference" near.txt || fail "nothing was compared"

# A device or a transfer of rank 1 that fails: every rank says so, none has a picture.
for what in cudaMalloc:4 ncclCommInitRankConfig:1 ncclAllReduce:5 launch:60; do
    timeout -k 5 60 "$mpirun" $over -n 1 "$rung" $draw --parallel tp=2,timeout=5 -o no.png x : \
        -n 1 env CUDA_HOST_FAIL=$what "$rung" $draw --parallel tp=2,timeout=5 -o no.png x >out.txt 2>&1
    got=$?
    [ $got = 1 ] || fail "$what: exit $got: $(cat out.txt)"
    [ "$(grep -c '^rung: ' out.txt)" = 2 ] || fail "$what is not told by both: $(cat out.txt)"
    [ -z "$(ls ./no* ./.no* 2>/dev/null)" ] || fail "$what: left $(ls)"
done
exit $failed
