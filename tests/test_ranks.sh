#!/bin/sh
# tests/test_ranks.sh RUNG SOURCE WORK - one picture from 1, 2, 3 and 4 MPI processes on this machine: the same picture
# however it is cut, printed and written once; ranks that die, hang or have another model end the run in time, with a
# message and without a picture.
rung=$1
golden=$2/tests/golden/pipelines
work=$3
mpi=${RUNG_TEST_MPI:-$3/../test_mpi}
failed=0
mpirun=${RUNG_MPIRUN:-mpirun} # of the MPI that the program was built with
command -v "$mpirun" >/dev/null || { echo "SKIP: there is no mpirun"; exit 77; }
rm -rf "$work"
mkdir -p "$work"
cd "$work" || exit 1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

fail() {
    echo "FAIL: $*"
    failed=$((failed + 1))
}
over="--oversubscribe"
"$mpirun" --version 2>/dev/null | grep -q "Open MPI\|OpenRTE" || over=""
# With ThreadSanitizer: the order in which Open MPI's TCP transport takes its own locks is its affair.
echo "deadlock:mca_btl_tcp" >tsan.supp
export TSAN_OPTIONS="suppressions=$work/tsan.supp"
# With AddressSanitizer: leaks are ours unless an MPI library or plugin is among their callers, which takes libraries that
# stay loaded until the end and whole call stacks.
clean=""
if [ -n "$RUNG_KEEP_LIBRARIES" ]; then
    for library in libmpi libopen- libpmix mca_ libhwloc libevent libfabric libuc; do echo "leak:$library"; done >mpi.supp
    export LSAN_OPTIONS="suppressions=$work/mpi.supp:print_suppressions=0"
    clean="env ASAN_OPTIONS=fast_unwind_on_malloc=0"
    clean="$clean LD_PRELOAD=$(ldd "$rung" | awk '/libasan/ { print $3 }'):$RUNG_KEEP_LIBRARIES"
fi
ranks() { # N COMMAND...: at most 60 s
    n=$1
    shift
    timeout -k 5 60 "$mpirun" $over -n "$n" $clean "$@"
}
near() { "$mpi" near "$1" "$2" 2>near.txt || fail "$1 and $2: $(cat near.txt)"; }

ranks 2 "$mpi" poll >probe.txt 2>&1
"$rung" --parallel tp=2 x >refused.txt 2>&1 && fail "tp=2 in one process"
grep -q "2 ranks, 1 was launched" refused.txt || fail "tp=2 in one process: $(cat refused.txt)"
ranks 2 "$rung" --version >version.txt 2>&1
[ "$(wc -l <version.txt)" = 1 ] || fail "--version is printed $(wc -l <version.txt) times"
grep -q "0 failed" probe.txt || { cat probe.txt; grep -q "no MPI" probe.txt && exit 77; }

# The transfers themselves, by each kind of progress.
for n in 2 3; do
    for progress in poll thread none; do
        ranks $n "$mpi" $progress >out.txt 2>&1 || fail "test_mpi $progress over $n: $(cat out.txt)"
        [ "$(grep -c ' 0 failed' out.txt)" = $n ] || fail "test_mpi $progress over $n: $(cat out.txt)"
    done
done

# One picture, cut in every way. The golden SD1 is small: 3 steps tell.
draw() { # NAME RANKS PARALLEL OPTIONS...
    name=$1 n=$2 how=$3
    shift 3
    ranks "$n" "$rung" --parallel "$how" -o "$name.png" --save-latents "$name.npy" "$@" >"$name.out" 2>"$name.err" ||
        fail "$name: $(cat "$name.err")"
    [ "$(cat "$name.out")" = "$name.png" ] || fail "$name printed: $(cat "$name.out")"
}
compare() { # MODEL-NAME OPTIONS...
    base=$1
    shift
    "$rung" -q -o "$base.png" --save-latents "$base.npy" "$@" >/dev/null || fail "$base"
    for how in 2:tp=2 2:cfg=2 3:tp=3 4:tp=2,cfg=2 2:tp=2,progress=thread 3:tp=3,progress=none; do
        name=$base-$(echo "$how" | tr ':=,' '---')
        draw "$name" "${how%%:*}" "${how#*:}" -q "$@"
        near "$base.npy" "$name.npy"
        near "$base.png" "$name.png"
    done
}
compare icons "a red apple, 3d" --steps 8
compare fp6 --type fp6 "a red apple, 3d" --steps 4
compare sd1 -m "$golden/sd1" -W 32 -H 32 --steps 3 "a cat"
compare plain --cfg-scale 1 "a blue house" --steps 4
grep -q "largest difference" near.txt || fail "nothing was compared"

# With nothing said: a guided picture of two ranks is halved, several pictures are shared out; seeds are one seed.
ranks 2 "$rung" -q -o default.png "a red apple, 3d" --steps 8 >/dev/null || fail "default"
cmp -s default.png icons-2-cfg-2.png || fail "the default over 2 ranks is not cfg=2"
ranks 2 "$rung" -q -s -1 -o random.png "x" --steps 2 >/dev/null || fail "a random seed"
"$rung" -q -b 3 --steps 3 -o "one-%d.png" "a tree" >one.txt
ranks 2 "$rung" -q -b 3 --steps 3 -o "two-%d.png" "a tree" >two.txt || fail "-b 3"
[ "$(sed s/two/one/ two.txt)" = "$(cat one.txt)" ] || fail "-b 3 printed $(cat two.txt)"
for i in 1 2 3; do cmp -s "one-$i.png" "two-$i.png" || fail "picture $i of three"; done
ranks 4 "$rung" -q -b 3 --steps 3 --parallel tp=2,batch -o "four-%d.png" "a tree" >/dev/null || fail "tp=2,batch"
for i in 1 2 3; do near "one-$i.png" "four-$i.png"; done

# A prompt file, read by rank 0 alone (from a pipe), its pictures shared out and written by rank 0.
printf 'a red apple\n--prompt "a cat" --seed 7 --batch_size 3\n--prompt x --colour red\na dog\n' >list.txt
"$rung" batch list.txt -q --steps 2 --batch-size 1 -o 'b1/{line}-{index}.png' >b1.txt 2>b1.err
ranks 3 "$rung" batch - -q --steps 2 --batch-size 1 -o 'b3/{line}-{index}.png' <list.txt >b3.txt 2>b3.err
[ $? = 1 ] || fail "batch with a wrong line: exit status"
grep -c "colour" b3.err | grep -q '^[1-9]' || fail "batch: the wrong line is not told: $(cat b3.err)"
[ "$(sort b3.txt | sed s/b3/b1/)" = "$(sort b1.txt)" ] || fail "batch printed $(cat b3.txt)"
for i in 0001-1 0002-1 0002-2 0002-3 0004-1; do cmp -s "b1/$i.png" "b3/$i.png" || fail "batch picture $i"; done
[ "$(wc -l <b3/manifest.jsonl)" = 5 ] || fail "batch: manifest of $(wc -l <b3/manifest.jsonl) lines"

# What does not fit is refused, before anything is computed.
ranks 3 "$rung" -q --parallel tp=2 -o no.png x >out.txt 2>&1
[ $? = 2 ] || fail "tp=2 over 3 ranks: exit status"
grep -q "takes 2 ranks, 3 were" out.txt || fail "tp=2 over 3 ranks: $(cat out.txt)"

# Another model, another version of its files, another request: noticed by every rank, exit status 1.
differ() { # WORD COMMAND-OF-RANK-0 -- COMMAND-OF-RANK-1
    word=$1
    shift
    start=$(date +%s)
    timeout -k 5 60 "$mpirun" $over "$@" >out.txt 2>&1
    status=$?
    [ $status = 1 ] || fail "$word: exit status $status"
    [ $(($(date +%s) - start)) -lt 20 ] || fail "$word took $(($(date +%s) - start)) s"
    grep -q "$word" out.txt || fail "$word: $(cat out.txt)"
    [ "$(grep -c '^rung: ' out.txt)" -ge 2 ] || fail "$word is not told by both: $(cat out.txt)"
    [ -z "$(ls no*.png .no* 2>/dev/null)" ] || fail "$word: left $(ls -a)"
}
cp -R "$2/assets/icons" other
chmod -R u+w other
weights=other/transformer/diffusion_pytorch_model.safetensors
size=$(wc -c <"$weights")
printf '\001' | dd of="$weights" bs=1 seek=$((size / 2)) conv=notrunc 2>/dev/null
printf '\002' | dd of="$weights" bs=1 seek=$((size / 2 + 1)) conv=notrunc 2>/dev/null
differ "another model" -n 1 "$rung" -q --parallel tp=2 -o no.png x : -n 1 "$rung" -q --parallel tp=2 -o no.png -m other x
differ "another request" -n 1 "$rung" -q --parallel tp=2 -s 1 -o no.png x : -n 1 "$rung" -q --parallel tp=2 -s 2 -o no.png x
differ "layout" -n 1 "$rung" -q --parallel tp=2 -o no.png x : -n 1 "$rung" -q --parallel cfg=2 -o no.png x
lora=$golden/lora.safetensors
differ "another model" -n 1 "$rung" -q --parallel tp=2 -m "$golden/sd1" -W 32 -H 32 --lora "$lora:0.5" -o no.png x : \
    -n 1 "$rung" -q --parallel tp=2 -m "$golden/sd1" -W 32 -H 32 --lora "$lora:0.25" -o no.png x
version=$("$rung" --version | sed 's/.* //')
LC_ALL=C sed "s/$(echo "$version" | sed 's/[.]/[.]/g')/$(echo "$version" | tr 0-9 1-90)/g" "$rung" >rung-other
chmod +x rung-other
[ "$(./rung-other --version)" != "$("$rung" --version)" ] || fail "no other version: $(./rung-other --version)"
differ "version of rung" -n 1 "$rung" -q --parallel tp=2 -m "$2/assets/icons" -o no.png x : \
    -n 1 ./rung-other -q --parallel tp=2 -m "$2/assets/icons" -o no.png x
# what only the leaders of groups read
for file in vae/diffusion_pytorch_model.safetensors tokenizer/vocab.txt; do
    cp -R "$2/assets/icons/." other/
    chmod -R u+w other
    size=$(wc -c <"other/$file")
    printf '\003' | dd of="other/$file" bs=1 seek=$((size - 3)) conv=notrunc 2>/dev/null
    differ "text encoder or VAE" -n 1 "$rung" -q --parallel batch -b 2 -o no-%d.png x : \
        -n 1 "$rung" -q --parallel batch -b 2 -o no-%d.png -m other x
done
differ "nowhere" -n 1 "$rung" -q --parallel tp=2 -o no.png x : -n 1 "$rung" -q --parallel tp=2 -o no.png -m nowhere x

# A rank that ends, hangs or is killed.
ranks 3 "$mpi" fails >out.txt 2>&1
[ "$(grep -c 'on purpose' out.txt)" = 3 ] || fail "fails: $(cat out.txt)"
start=$(date +%s)
ranks 3 "$mpi" hangs >out.txt 2>&1 && fail "hangs: exit status 0"
[ "$(grep -c 'nothing heard' out.txt)" = 2 ] || fail "hangs: $(cat out.txt)"
[ $(($(date +%s) - start)) -lt 20 ] || fail "hangs: took $(($(date +%s) - start)) s"
start=$(date +%s)
ranks 2 "$mpi" dies >out.txt 2>&1 && fail "dies: exit status 0"
[ $(($(date +%s) - start)) -lt 20 ] || fail "dies: took $(($(date +%s) - start)) s"
# A rank that leaves with a sum under way, and one that is to stop while it waits: 1 is what they end with, not a signal.
for how in leaves asks; do
    # MPICH's transport (UCX) aborts when it cannot read the buffer of a peer that has left
    [ "$how$over" != leaves ] || continue
    ranks 2 "$mpi" $how >out.txt 2>&1
    status=$?
    [ $status = 1 ] || fail "$how: exit status $status: $(cat out.txt)"
    grep -q "rank 1 failed: .* on purpose\|asked after" out.txt || fail "$how: $(cat out.txt)"
    grep -i "signal: \|segmentation" out.txt && fail "$how: ended by a signal"
done

# The same in the middle of a picture: rank 1 stopped, then killed.
for signal in STOP KILL; do
    rm -f no.png
    timeout -k 5 60 "$mpirun" $over -n 1 "$rung" -q --parallel tp=2,timeout=2 --steps 5000 -o no.png x : \
        -n 1 sh -c 'echo $$ >rank1.pid; exec "$@"' sh "$rung" -q --parallel tp=2,timeout=2 --steps 5000 -o no.png x \
        >out.txt 2>&1 &
    run=$!
    sleep 3
    kill -$signal "$(cat rank1.pid)" || fail "$signal: rank 1 was gone: $(cat out.txt)"
    start=$(date +%s)
    wait $run && fail "$signal: exit status 0"
    [ $(($(date +%s) - start)) -lt 20 ] || fail "$signal: took $(($(date +%s) - start)) s"
    # MPICH's transport ends the process itself when a peer is gone
    [ $signal$over = KILL ] || grep -q '^rung: .*rank 0' out.txt || fail "$signal: rank 0 said nothing: $(cat out.txt)"
    [ -z "$(ls no.png .no* 2>/dev/null)" ] || fail "$signal: left $(ls -a)"
done

# A rank killed at any moment, from its start to the end of the picture: the run ends in time, with a message or with the
# whole picture. The moments follow from the seed.
seed=${RUNG_SEED:-9}
draw_killed() { # VICTIM SECONDS PARALLEL
    rm -f no.png .no*.tmp rank.pid
    set -- "$1" "$2" "$rung" -q --parallel "$3,timeout=2" --steps 100 -s 3 -o no.png "a red apple, 3d"
    victim=$1 moment=$2
    shift 2
    note='test "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}" = $0 && echo $$ >rank.pid; exec "$@"'
    timeout -k 5 60 "$mpirun" $over -n 2 sh -c "$note" "$victim" "$@" >out.txt 2>&1 &
    run=$!
    while [ ! -s rank.pid ] && kill -0 $run 2>/dev/null; do sleep 0.05; done
    sleep "$moment"
    kill -KILL "$(cat rank.pid)" 2>/dev/null
    start=$(date +%s)
    wait $run
    status=$?
    what="rank $victim killed after $moment s, seed $seed"
    [ $(($(date +%s) - start)) -lt 20 ] || fail "$what: took $(($(date +%s) - start)) s"
    [ $status != 0 ] || [ -f no.png ] || fail "$what: exit status 0 and no picture"
    [ ! -f no.png ] || cmp -s no.png killed-none.png || fail "$what: left a picture that is not whole"
    [ -f no.png ] || ended=$((ended + 1))
}
ended=0
ranks 2 "$rung" -q --parallel tp=2 --steps 100 -s 3 -o killed-none.png "a red apple, 3d" >/dev/null || fail "100 steps"
for i in 1 2 3 4 5 6 7 8; do
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    draw_killed $((seed / 65536 % 2)) "0.$(printf %03d $((seed / 131072 % 700)))" tp=2
done
[ $ended -gt 0 ] || fail "no kill came in time to end a run"
echo "$failed failed"
[ $failed = 0 ]
