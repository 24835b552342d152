#!/bin/sh
# tests/test_convert.sh RUNG SOURCE WORK - rung convert as a user meets it: the model that comes out draws, an interrupted
# run goes on to the same bytes, converting again changes nothing, and what cannot be is refused and leaves nothing.
rung=$1
source=$2
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

# expect STATUS PATTERN ARGS...: exit status, one line of error that matches, and nothing left behind
expect() {
    want=$1
    pattern=$2
    shift 2
    checks=$((checks + 1))
    "$rung" "$@" >out.txt 2>err.txt </dev/null
    got=$?
    [ $got = "$want" ] || fail "rung $*: exit $got, wanted $want: $(cat err.txt)"
    grep -qE -- "$pattern" err.txt out.txt || fail "rung $*: no '$pattern' in: $(cat err.txt)"
    [ "$want" = 0 ] || [ "$(grep -c '^rung: ' err.txt)" = 1 ] || fail "rung $*: not one line of error: $(cat err.txt)"
    [ "$want" = 0 ] || [ -z "$(find . -name '*.partial' -o -name '*.tmp')" ] || fail "rung $*: left $(ls | grep -E 'partial|tmp')"
}
same() {
    checks=$((checks + 1))
    diff -r "$1" "$2" >diff.txt 2>&1 || fail "$3: $(head -3 diff.txt)"
}
draw() { "$rung" -m "$1" -W 32 -H 32 --steps 4 -q -s 1 --save-latents "$2" -o x.png "${3:-a red apple}" >/dev/null || fail "$1 does not draw"; }

# Every type, of every kind of model: it draws, lists itself, and converting it again to the same type changes no byte.
for model in sd1 sd2 icons sdxl turbo; do
    for type in fp6 e2m3 fp5 f16 bf16 f32; do
        [ $model = sd1 ] || [ $type = fp6 ] || [ $type = f16 ] || continue
        expect 0 'of it' convert "$golden/$model" $model-$type --type $type
        expect 0 'again of it|of it' convert $model-$type $model-$type-again --type $type
        same $model-$type $model-$type-again "$model $type converted again"
        expect 0 'tensors' info $model-$type
        [ $model = sdxl ] || draw $model-$type l.npy
        [ -e $model-$type/.convert ] && fail "$model-$type keeps its state"
    done
done

# To f32 and back is the way there: every code is a multiple of the scale that its row had.
expect 0 'of it' convert sd1-f32 there --type fp6
expect 0 'of it' convert there back --type f32
expect 0 'of it' convert back there-again --type fp6
same there there-again 'fp6, f32, fp6'
rm -rf there

# f32 is the model itself
draw "$golden/sd1" a.npy
draw sd1-f32 b.npy
cmp -s a.npy b.npy || fail 'f32 to f32 changes the picture'

# One file in the original layout: configs, tokenizer, names
for model in sd1 sd2; do
    expect 0 'of it' convert "$source/tests/golden/assets/$model.safetensors" ldm-$model --type f32
    expect 0 'diffusers layout' info ldm-$model
    for file in model_index.json unet/config.json vae/config.json text_encoder/config.json tokenizer/merges.txt \
        tokenizer/vocab.json scheduler/scheduler_config.json; do
        [ -s ldm-$model/$file ] || fail "ldm-$model lacks $file"
    done
done

# Pruned: the zeros are there, the file is smaller, the picture is another one but of the same kind
cat >prompts.txt <<'P'
a red apple
--prompt "a blue boat" --seed 5 --steps 2
P
expect 0 'of it' convert "$golden/sd1" sparse --type fp6 --sparsity 0.5
expect 0 'of it' convert "$golden/sd1" wanda --type fp6 --sparsity 0.5 --calibrate prompts.txt -W 32 -H 32 --steps 3
draw sparse a.npy
draw wanda b.npy
cmp -s a.npy b.npy && fail 'calibration changes nothing'
expect 0 '"sparsity":0\.[1-9]' convert "$golden/sd1" sparse-16 --type f16 --sparsity 0.5 --json
grep -q '"form":"bitmap"' out.txt || fail 'no tensor became a bitmap'
expect 0 'of it' convert sparse-16 sparse-16-again --type f16
same sparse-16 sparse-16-again 'a sparse model converted again'
expect 0 'kept +F16' convert "$golden/sd1" kept --type fp6 --sparsity 0.5 --keep '*.to_out.*' --keep 'vae/*'
expect 0 'of it' convert "$golden/sd1" threads-1 --type fp6 --sparsity 0.5 -t 1
same sparse threads-1 'threads change the result'
"$rung" batch prompts.txt -m sparse -W 32 -H 32 --steps 2 -q -o 'batch/{line}.png' >/dev/null || fail 'batch on a sparse model'

# LoRA on the result
for model in sd1-fp6 sparse; do
    "$rung" -m $model -W 32 -H 32 --steps 2 -q -o lora.png --save-latents a.npy --lora "$golden/lora.safetensors:1" x >/dev/null ||
        fail "LoRA on $model"
    "$rung" -m $model -W 32 -H 32 --steps 2 -q -o lora.png --save-latents b.npy x >/dev/null
    cmp -s a.npy b.npy && fail "LoRA on $model changes nothing"
done

# Interrupted, by a signal or killed, at whatever point: the next run ends with the same bytes. A slow disk is made of
# many small runs: each gets a moment more.
for how in 'INT auto' 'KILL auto' 'KILL tiled-csl'; do
    signal=${how% *}
    form=${how#* }
    options="--type e2m3 --sparsity 0.6 --form $form"
    rm -rf cut cut.partial
    [ -d whole-$form ] || expect 0 'of it' convert "$source/assets/icons" whole-$form $options
    tries=0
    until [ -d cut ] || [ $tries = 40 ]; do
        "$rung" convert "$source/assets/icons" cut $options -q >/dev/null 2>err.txt &
        pid=$!
        sleep $(printf '%d.%02d' $((tries / 25)) $((tries * 4 % 100)))
        kill -$signal $pid 2>/dev/null
        wait $pid 2>/dev/null
        status=$?
        [ $status = 0 ] || [ $status = 130 ] || [ $status = 137 ] || { fail "interrupted: exit $status: $(cat err.txt)"; break; }
        tries=$((tries + 1))
    done
    # A busy machine may not get to the end between two signals: the last one is then let finish
    [ -d cut ] || "$rung" convert "$source/assets/icons" cut $options -q >/dev/null 2>err.txt ||
        fail "continued after $tries interruptions: $(cat err.txt)"
    same whole-$form cut "$form interrupted by $signal $tries times"
    [ -e cut.partial ] && fail 'cut.partial is still there'
done
diff -rq whole-auto whole-tiled-csl >/dev/null && fail '--form tiled-csl changes nothing'

# Not continued: other options, or something that is no conversion
timeout -s KILL 0.05 "$rung" convert "$source/assets/icons" half --type fp6 --sparsity 0.6 -q >/dev/null 2>&1
if [ -e half.partial/.convert/request ]; then
    "$rung" convert "$source/assets/icons" half --type e2m3 >/dev/null 2>err.txt && fail 'continued with another type'
    grep -q 'another conversion' err.txt || fail "other options: $(cat err.txt)"
    [ -d half.partial ] || fail 'the interrupted conversion is gone'
    checks=$((checks + 1))
fi
rm -rf half.partial
mkdir taken.partial
"$rung" convert "$golden/sd1" taken --type fp6 >/dev/null 2>err.txt && fail 'a foreign taken.partial was taken'
grep -q 'in the way' err.txt || fail "taken.partial: $(cat err.txt)"
rmdir taken.partial || fail 'taken.partial was touched'

# Refused, and nothing is left
mkdir there
: >file
expect 2 'already' convert "$golden/sd1" there --type fp6
expect 2 'already' convert "$golden/sd1" file --type fp6
rmdir there || fail 'there was touched'
cp -r "$golden/sd1" model
chmod -R u+w model
expect 2 'outside' convert model model/inside --type fp6
expect 2 'outside' convert ./model "$PWD/model/unet/inside" --type fp6
[ "$(ls model)" = "$(ls "$golden/sd1")" ] || fail "the model was touched: $(ls model)"
expect 2 'already' convert model model/ --type fp6
expect 2 'new folder' convert model '' --type fp6
expect 2 'new folder|already' convert model .. --type fp6
expect 1 'nonesuch' convert model nonesuch/a/b --type fp6
expect 1 'nonesuch' convert nonesuch out --type fp6
expect 2 'wanted' convert model out --type int4
expect 2 '--type' convert model out
expect 2 'model and a new folder' convert model --type fp6
expect 2 'number from' convert model out --type fp6 --sparsity 1
expect 2 'number from' convert model out --type fp6 --sparsity -0.1
expect 2 'nonesuch' convert model out --type fp6 --keep 'unet/nonesuch*'
expect 2 'sparsity above' convert model out --type fp6 --calibrate prompts.txt
expect 1 'nonesuch' convert model out --type fp6 --sparsity 0.5 --calibrate nonesuch
echo '--nonesuch 3' >bad.txt
expect 1 'line 1' convert model out --type fp6 --sparsity 0.5 --calibrate bad.txt
: >empty.txt
expect 1 'none' convert model out --type fp6 --sparsity 0.5 --calibrate empty.txt
expect 2 'convert' --sparsity 0.5 x
expect 2 'convert' --type e2m3 x
expect 2 'wanted' convert model out --type fp6 --form nonesuch
expect 2 'convert' --form dense x
weights=model/unet/diffusion_pytorch_model.safetensors
head -c 20000 "$golden/sd1/unet/diffusion_pytorch_model.safetensors" >$weights
expect 1 'diffusion_pytorch_model' convert model out --type fp6

# A full disk: one line, nothing left
if command -v prlimit >/dev/null; then
    checks=$((checks + 1))
    prlimit --fsize=20000 "$rung" convert "$golden/sd1" full --type fp6 >/dev/null 2>err.txt
    status=$?
    [ $status = 1 ] || fail "a full disk: exit $status: $(cat err.txt)"
    grep -q 'safetensors' err.txt || fail "a full disk: $(cat err.txt)"
    [ -z "$(ls -d full* 2>/dev/null)" ] || fail "a full disk: left $(ls -d full*)"
fi

echo "$checks checks, $failed failed"
[ $failed = 0 ]
