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
draw="-m $golden/icons --backend cuda -W 32 -H 32 -q"
compare() { # NAME MOST RANKS:PARALLEL...: what is in $one against one process, latents within MOST
    name=$1 most=$2
    shift 2
    "$rung" $draw $one -o one.png --save-latents one.npy "red apple" >/dev/null || fail "$name: one process"
    for how; do
        n=${how%%:*} how=${how#*:}
        timeout -k 5 120 "$mpirun" $over -n "$n" "$rung" $draw $one --parallel "$how" -o "$n.png" \
            --save-latents "$n.npy" "red apple" >out.txt 2>err.txt || fail "$name, $how: $(cat out.txt err.txt)"
        "$near" near one.npy "$n.npy" "$most" 2>near.txt || fail "$name, $how: $(cat near.txt)"
        "$near" near one.png "$n.png" 2>near.txt || fail "$name, $how: $(cat near.txt)"
        rm -f "$n.png" "$n.npy"
    done
}
# One call of the network, F32 weights: what the sums over ranks change is 3e-5 of latents up to 4.3.
one="--type f32 --steps 1 --cfg-scale 1"
compare "one call" 1e-4 2:tp=2 3:tp=3 4:tp=4
# Halves of a pair are the same numbers.
one="--steps 3"
compare "three steps" 1e-4 2:cfg=2
# A cut sum that falls to the other side of a rounding to TF32 or f16 (2^-11) is enlarged by the steps after it: these
# latents, up to 6.1, are 0.0065 from the CPU's in one process too.
compare "three steps" 0.02 2:tp=2 3:tp=3 4:tp=2,cfg=2
draw="$draw --steps 3"
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
