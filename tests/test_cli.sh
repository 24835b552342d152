#!/bin/sh
# tests/test_cli.sh RUNG SOURCE WORK - the program as a user meets it: exit codes, one clear line, no partial files.
rung=$1
golden=$2/tests/golden/pipelines
work=$3
failed=0
checks=0
rm -rf "$work"
mkdir -p "$work"
cd "$work" || exit 1

fail() {
    echo "FAIL: $*"
    failed=$((failed + 1))
}

# expect STATUS PATTERN ARGS...: exit status, and one line on standard error that matches
expect() {
    want=$1
    pattern=$2
    shift 2
    checks=$((checks + 1))
    "$rung" "$@" >out.txt 2>err.txt </dev/null
    got=$?
    [ $got = "$want" ] || fail "rung $*: exit $got, wanted $want: $(cat err.txt)"
    grep -qE -- "$pattern" err.txt out.txt || fail "rung $*: no '$pattern' in: $(cat err.txt)"
    if [ "$want" != 0 ]; then
        [ "$(grep -c '^rung: ' err.txt)" = 1 ] || fail "rung $*: not one line of error: $(cat err.txt)"
        [ -z "$(find . -name '*.png' -o -name '*.tmp*')" ] || fail "rung $*: left a file: $(ls)"
    fi
}

draw="-m $golden/sd1 -W 32 -H 32 --steps 2 -q"

# Wrong usage
expect 2 'no prompt'
expect 2 'unknown option' --nonesuch
expect 2 'wants a value' -m
expect 2 '1 to 16384' $draw -W 0 x
expect 2 '1 to 16384' $draw -W 1000000000 x
expect 2 'multiples of 2' $draw -W 33 x
expect 2 'whole number' $draw --steps 1e9 x
expect 2 'number from' $draw --cfg-scale nan x
expect 2 'euler_a' $draw --sampler nonesuch x
expect 2 'karras' $draw --scheduler nonesuch x
expect 2 'cpu|cuda' $draw --rng dice x
expect 2 'f16' $draw --type int4 x
expect 2 'quotes' $draw a red apple
expect 2 'UTF-8' $draw "$(printf 'caf\351')"
expect 2 'sigmas' $draw --sigmas 3,2,x x
expect 2 'after %' $draw -o 'out%s.png' x
expect 2 'distilled' $draw --guidance 3 x

expect 2 'nonesuch' bench nonesuch
expect 2 'one file' $draw -b 2 --save-latents l.npy x
expect 2 'draws many' batch list.txt --noise n.npy
expect 2 'belongs to rung info' $draw --devices x
expect 2 'whole number from 0' $draw --device -1 x
expect 0 '^cpu +[a-z0-9]+, [0-9]+ threads' info --devices

# What cannot be done
expect 1 'nonesuch' -m nonesuch x
expect 1 'model_index.json' -m "$work" x
expect 1 'nonesuch/a.png' $draw -o nonesuch/a.png x
mkdir folder
expect 1 'folder' $draw -o folder x
expect 1 'noise.npy' $draw --noise noise.npy x
[ "$(id -u)" = 0 ] || { mkdir locked; chmod 500 locked; expect 1 'locked' $draw -o locked/a.png x; }
if [ -e /dev/full ]; then expect 1 '/dev/full' $draw --save-latents /dev/full x; fi
"$rung" $draw -o full.png x >/dev/full 2>err.txt && fail 'a full standard output went unnoticed'
rm -f full.png

# Success: the picture, the seed, JSON
expect 0 'rung-42.png' $draw "a red apple"
[ -s rung-42.png ] || fail 'no rung-42.png'
expect 0 'seed' -m "$golden/sd1" -W 32 -H 32 --steps 2 -s -1 -o random.png x
expect 0 '"seed":9007199254740993,' $draw --json -s 9007199254740993 -o big.png x
expect 0 '"peak_rss_bytes":[1-9]' $draw --json -o j.png x
expect 0 'n_03.png' $draw -b 3 -o 'n_%02d.png' x
[ -s n_01.png ] && [ -s n_02.png ] && [ -s n_03.png ] || fail 'batch names'
expect 0 'Samplers:.* euler_a' --help
expect 0 '^rung [0-9]' --version
expect 0 'UNet2DConditionModel' info "$golden/sd1"
expect 0 'GFLOPS' bench "linear 2x1280" -t 1
expect 0 '"parameters"' info --json "$golden/icons"

# The same seed is the same picture, whatever the threads and the CPU features; another seed is another one.
expect 0 a.png $draw -s 3 -t 1 -o a.png x
expect 0 b.png $draw -s 3 -t 3 -o b.png x
cmp -s a.png b.png || fail 'threads change the picture'
expect 0 c.png $draw -s 4 -o c.png x
cmp -s a.png c.png && fail 'the seed does not change the picture'

# Hooks: latents go out, noise and embeddings come in
expect 0 d.png $draw --save-latents l.npy --save-embeds e.npy -o d.png "a cat"
expect 0 e.png $draw --save-latents l2.npy --embeds e.npy -o e.png
cmp -s l.npy l2.npy || fail 'embeddings from a file give another picture'
expect 0 f.png $draw --noise l.npy -o f.png x

# Model files that lie: every one refused with a name, none crashes
rm -f ./*.png
copy() { rm -rf bad; cp -r "$golden/sd1" bad; chmod -R u+w bad; }
unet=bad/unet/diffusion_pytorch_model.safetensors
copy; head -c 1000 "$golden/sd1/unet/diffusion_pytorch_model.safetensors" >$unet; expect 1 'diffusion_pytorch' -m bad x
copy; : >$unet; expect 1 'diffusion_pytorch' -m bad x
copy; rm $unet; expect 1 'unet' -m bad x
copy; rm $unet; mkdir $unet; expect 1 'diffusion_pytorch' -m bad x
copy; sed -i 's/conv_in.weight/conv_in.weighs/' $unet; expect 1 'conv_in.weigh' -m bad x
copy; sed -i 's/"norm_num_groups": 4/"norm_num_groups": 5/' bad/unet/config.json; expect 1 'norm_num_groups|groups' -m bad x
copy; sed -i 's/"cross_attention_dim": 24/"cross_attention_dim": -1/' bad/unet/config.json; expect 1 'cross_attention_dim' -m bad x
copy; sed -i 's/"layers_per_block": 1/"layers_per_block": 2147483648/' bad/unet/config.json; expect 1 'layers_per_block' -m bad x
copy; sed -i 's/"cross_attention_dim": 24/"cross_attention_dim": 32/' bad/unet/config.json; expect 1 'wanted' -m bad x
copy; echo '{' >bad/vae/config.json; expect 1 'vae/config.json' -m bad x
copy; echo '[1, 2' >bad/tokenizer/tokenizer.json; expect 1 'tokenizer.json' -m bad x
copy; echo '{"_class_name": "DDIMScheduler", "num_train_timesteps": -5}' >bad/scheduler/scheduler_config.json
expect 1 'num_train_timesteps' -m bad x
copy; echo '{}' >bad/model_index.json; expect 1 'model_index' -m bad x

# Bit flips all over a file: refused or drawn, never a crash (exit 0 or 1), one byte in 40 places
i=0
while [ $i -lt 40 ]; do
    copy
    at=$((i * 997 % 9000))
    printf '\377' | dd of=$unet bs=1 seek=$at conv=notrunc 2>/dev/null
    "$rung" -m bad -W 16 -H 16 --steps 1 -q -o flip.png x >/dev/null 2>err.txt </dev/null
    status=$?
    [ $status -le 1 ] || fail "byte $at of the U-Net set to 255: exit $status: $(cat err.txt)"
    checks=$((checks + 1))
    i=$((i + 1))
done

# Ctrl-C in the middle: exit 130, no picture
rm -f ./*.png
"$rung" -m "$golden/sd1" -W 128 -H 128 --sampler ddim --steps 500 -q -o stopped.png x 2>err.txt &
pid=$!
sleep 1
kill -INT $pid 2>/dev/null || kill -TERM $pid
wait $pid
status=$?
[ $status = 130 ] || fail "interrupted: exit $status: $(cat err.txt)"
[ -z "$(find . -name '*.png' -o -name '*.tmp*')" ] || fail "interrupted: left $(ls)"

echo "$((checks + 2)) checks, $failed failed"
[ $failed = 0 ]
