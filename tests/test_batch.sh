#!/bin/sh
# tests/test_batch.sh RUNG SOURCE WORK - rung batch: names, faults, resuming after kill -9, several processes, and that a
# line's picture depends neither on its neighbours nor on the batch size.
rung=$1
golden=$2/tests/golden/pipelines
work=$3
failed=0
rm -rf "$work"
mkdir -p "$work"
cd "$work" || exit 1
options="-m $golden/sd1 -W 32 -H 32 --steps 3 -q"

fail() {
    echo "FAIL: $*"
    failed=$((failed + 1))
}

same() { cmp -s "$1" "$2" || fail "$1 and $2 differ"; }
pictures() { ls "$1"/*.png 2>/dev/null | wc -l; }

# The manifest lists each picture once, and each listed picture is there.
check_manifest() { # FOLDER PICTURES
    [ "$(pictures "$1")" = "$2" ] || fail "$1: $(pictures "$1") pictures, wanted $2"
    [ "$(wc -l <"$1/manifest.jsonl")" = "$2" ] || fail "$1: $(wc -l <"$1/manifest.jsonl") manifest lines, wanted $2"
    [ "$(sed 's/.*"output":"\([^"]*\)".*/\1/' "$1/manifest.jsonl" | sort -u | xargs ls 2>/dev/null | wc -l)" = "$2" ] ||
        fail "$1: the manifest names other pictures than there are"
    [ -z "$(find "$1" -name '*.claim' -o -name '*.tmp')" ] || fail "$1: left $(find "$1" -name '.*')"
}

cat >list.txt <<'LIST'
# four lines of pictures, one of them two, one of another size; one line is wrong
a red apple
--prompt a cat, the blue house --negative_prompt low quality --seed 7 --batch_size 2
--prompt "a sign -- red" --width 48 --steps 2 --sampler_name "Euler a"
--prompt x --colour red
{"prompt": "caf\u00e9 / \"quoted\"", "seed": 3, "cfg_scale": 1}
LIST

# A wrong line is told with its number, the others are drawn, the exit status is 1.
"$rung" batch list.txt $options --batch-size 4 -o 'a/{line}-{index}-{prompt}-{seed}.png' >out.txt 2>err.txt
[ $? = 1 ] || fail "a wrong line: exit $?"
grep -q 'list.txt:5: .*colour' err.txt || fail "the wrong line is not named: $(cat err.txt)"
check_manifest a 5
[ -f a/0002-1-a_red_apple-42.png ] && [ -f a/0003-2-a_cat__the_blue_house-8.png ] || fail "names: $(ls a)"
[ "$(wc -l <out.txt)" = 5 ] || fail "standard output: $(cat out.txt)"

# Batch size and neighbours do not matter; nor does being drawn alone by rung itself.
sed -i '/colour/d' list.txt
"$rung" batch list.txt $options --batch-size 1 -o 'b/{line}-{index}-{prompt}-{seed}.png' >/dev/null || fail "batch size 1: exit $?"
same a/0002-1-a_red_apple-42.png b/0002-1-a_red_apple-42.png
same a/0003-2-a_cat__the_blue_house-8.png b/0003-2-a_cat__the_blue_house-8.png
"$rung" $options -s 8 -n "low quality" -o alone.png "a cat, the blue house" >/dev/null
same alone.png b/0003-2-a_cat__the_blue_house-8.png

# A line's guidance rescale is the option's; a picture that was made with other settings is not taken for done.
echo '{"prompt": "a cat", "guidance_rescale": 0.7, "cfg_scale": 9}' >rescale.txt
"$rung" batch rescale.txt $options --steps 3 -o 'rescale/{line}.png' >/dev/null || fail "guidance_rescale: exit $?"
"$rung" $options --steps 3 --cfg-scale 9 --guidance-rescale 0.7 -o alone.png "a cat" >/dev/null
same alone.png rescale/0001.png
for more in '--sigmas 5,2,1,0' '--eta 0' '--type f16'; do
    "$rung" batch rescale.txt $options --steps 3 --sampler euler_a -o 'redo/{line}.png' >/dev/null || fail "redo: exit $?"
    "$rung" batch rescale.txt $options --steps 3 --sampler euler_a $more --resume -o 'redo/{line}.png' >out.txt ||
        fail "redo $more: exit $?"
    grep -q redo out.txt || fail "--resume takes a picture made without $more"
done

# Threads that draw apart, and a sampler whose steps are each picture's own: as if drawn alone
for i in 1 2 3 4 5 6 7; do echo "--prompt picture $i --seed $i"; done >seven.txt
for sampler in euler_a dpm_adaptive; do
    "$rung" batch seven.txt $options --sampler $sampler -t 1 --batch-size 1 -o "one-$sampler/{line}.png" >/dev/null ||
        fail "$sampler, one by one: exit $?"
    "$rung" batch seven.txt $options --sampler $sampler -t 3 --batch-size 7 -o "all-$sampler/{line}.png" >/dev/null ||
        fail "$sampler, together: exit $?"
    check_manifest all-$sampler 7
    for picture in one-$sampler/*.png; do same "$picture" "all-$sampler/$(basename "$picture")"; done
done

# Standard input, JSON events
echo "a cat" | "$rung" batch - $options --json -o 'c/{seed}.png' >out.txt || fail "standard input: exit $?"
grep -q '"event":"picture".*"output":"c/42.png"' out.txt || fail "events: $(cat out.txt)"

# Two pictures of one name, a placeholder in a folder, no file: refused before anything is drawn
"$rung" batch list.txt $options -o 'd/{seed}.png' 2>err.txt && fail "two pictures of one name were taken"
grep -q 'both write' err.txt || fail "one name: $(cat err.txt)"
[ "$(pictures d)" = 0 ] || fail "one name: something was drawn"
"$rung" batch list.txt $options -o '{seed}/x.png' 2>/dev/null
[ $? = 2 ] || fail "a placeholder in a folder was taken"
"$rung" batch nonesuch.txt $options 2>/dev/null
[ $? = 1 ] || fail "a missing file: wrong exit"

# kill -9 at any moment, then --resume: nothing lost, nothing half-written, nothing twice
i=0
while [ $i -lt 30 ]; do
    echo "picture number $i"
    i=$((i + 1))
done >many.txt
"$rung" batch many.txt $options -o 'whole/{line}.png' >/dev/null || fail "many: exit $?"
check_manifest whole 30
for pause in 0.05 0.1 0.15 0.2 0.3; do
    "$rung" batch many.txt $options --resume --batch-size 3 -o 'killed/{line}.png' >/dev/null 2>&1 &
    pid=$!
    sleep $pause
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
done
printf '{"output":"killed/half' >>killed/manifest.jsonl
"$rung" batch many.txt $options --resume -o 'killed/{line}.png' >/dev/null || fail "resume: exit $?"
check_manifest killed 30
for picture in whole/*.png; do same "$picture" "killed/$(basename "$picture")"; done

# Resuming a finished folder draws nothing; a damaged picture is redone
"$rung" batch many.txt $options --resume --json -o 'killed/{line}.png' >out.txt
grep -q '"event":"picture"' out.txt && fail "a finished folder was drawn again"
head -c 100 whole/0007.png >killed/0007.png
"$rung" batch many.txt $options --resume -o 'killed/{line}.png' >/dev/null
same whole/0007.png killed/0007.png

# Two processes share a folder, and no picture is drawn twice
"$rung" batch many.txt $options --batch-size 2 -o 'shared/{line}.png' >one.txt &
pid=$!
"$rung" batch many.txt $options --batch-size 2 -o 'shared/{line}.png' >two.txt || fail "second process: exit $?"
wait $pid || fail "first process: exit $?"
check_manifest shared 30
[ "$(cat one.txt two.txt | sort | uniq | wc -l)" = 30 ] && [ "$(cat one.txt two.txt | wc -l)" = 30 ] ||
    fail "shared: $(wc -l <one.txt) and $(wc -l <two.txt) pictures, $(cat one.txt two.txt | sort | uniq -d)"

echo "$failed failed"
[ $failed = 0 ]
