#!/bin/sh
# tests/test_compare.sh RUNG SOURCE WORK - rung compare as a user meets it: what is refused, events, Ctrl-C, prompts from
# a file; and its page in a real browser, where there is one. The figures are test_compare_figures.c's.
rung=$1
golden=$2/tests/golden/pipelines
work=$3
failed=0
rm -rf "$work"
mkdir -p "$work"
cd "$work" || exit 1
options="-m $golden/sd1 -W 32 -H 32 --reference dpm++2m:6"

fail() {
    echo "FAIL: $*"
    failed=$((failed + 1))
}

# refused STATUS PATTERN ARGS...: one line on standard error that matches, and no folder
refused() {
    want=$1
    pattern=$2
    shift 2
    "$rung" compare $options -q -o no "$@" >out.txt 2>err.txt </dev/null
    got=$?
    [ $got = "$want" ] || fail "compare $*: exit $got, wanted $want: $(cat err.txt)"
    grep -qE -- "$pattern" err.txt && [ "$(wc -l <err.txt)" = 1 ] || fail "compare $*: no '$pattern' in: $(cat err.txt)"
    [ ! -e no ] && [ ! -s out.txt ] || fail "compare $*: left $(ls -R no) $(cat out.txt)"
}

refused 2 'no prompt'
refused 2 'nonesuch.*is none' --sampler euler,nonesuch x
refused 2 'is none' --sampler euler, x
refused 2 'is none' --sampler '' x
refused 2 'euler twice' --sampler 'euler,Euler' x
refused 2 'karras twice' --scheduler karras,karras x
refused 2 'nonesuch.*is none' --scheduler nonesuch x
refused 2 'whole number' --steps 4,x x
refused 2 'whole number' --steps 4, x
refused 2 'whole number' --steps 2.5 x
refused 2 '1 to 10000' --steps 0 x
refused 2 '4 twice' --steps 4,8,4 x
refused 2 '1 twice' --cfg-scale 0,1 x
refused 2 '0 to 1000' --cfg-scale 1,nan x
refused 2 'SAMPLER:STEPS' --reference euler x
refused 2 'SAMPLER:STEPS' --reference euler:1 x
refused 2 'SAMPLER:STEPS' --reference nonesuch:20 x
refused 2 'adds noise' --reference euler_a:20 x
refused 2 'not converge' --reference euler_cfg_pp:20 x
refused 2 'up to 10000' -b 100000 x
refused 2 'one picture' --noise x.npy x
refused 2 'one picture' --sigmas 3,2,1 x
refused 2 'more than 10000' -b 1000 x
refused 2 'rung batch' --resume x
refused 2 'UTF-8' "$(printf 'caf\351')"
refused 2 'nothing to compare' --sampler ddim --scheduler karras x
refused 2 'multiples' -W 33 x
refused 1 'nonesuch' --prompts nonesuch
refused 1 'nonesuch' -m nonesuch x
printf 'a cat\n--prompt a dog --steps 4\n' >list.txt
refused 2 'line 2 sets' --prompts list.txt
printf 'a cat\ncaf\351\n' >list.txt
refused 1 'list.txt:2: not valid UTF-8' --prompts list.txt
: >list.txt
refused 2 'no prompt' --prompts list.txt
for misplaced in '--steps 2,3 x' '--cfg-scale 2,3 x' '--default x' '--reference euler:9 x' '--prompts list.txt x'; do
    "$rung" $options --reference '' -q $misplaced 2>err.txt && fail "taken without compare: $misplaced"
    grep -q 'compare' err.txt || fail "$misplaced: $(cat err.txt)"
done
"$rung" compare $options -q -o list.txt/x --steps 2 x 2>err.txt
[ $? = 1 ] && grep -q 'list.txt' err.txt || fail "a file as folder: $(cat err.txt)"

# Prompts from a file, two guidances, a sampler that does not go with a schedule, one that chooses its steps; events
cat >list.txt <<'LIST'
# two prompts, three pictures
--prompt a red apple --negative_prompt low quality --seed 9 --batch_size 2
{"prompt": "a \"cat\", </b>", "width": 48}
LIST
"$rung" compare $options --prompts list.txt --sampler euler,ddim,euler_cfg_pp,dpm_adaptive --scheduler default,karras \
    --steps 2,3 --cfg-scale 1,4 --json -o all >out.txt 2>err.txt || fail "prompts: exit $?: $(cat err.txt)"
# 3 subjects x 2 guidances x (2 references + euler 2x2 + ddim 2 + cfg_pp 2x2 + adaptive 1)
[ "$(grep -c '"event":"picture"' out.txt)" = 78 ] || fail "$(grep -c '"event":"picture"' out.txt) events, wanted 78"
grep -q '"done":78,"total":78' out.txt || fail "the last event: $(tail -2 out.txt | head -1)"
[ "$(tail -1 out.txt)" = '{"event":"finished","page":"all/compare.html","sheet":"all/compare.png","csv":"all/compare.csv","json":"all/compare.json"}' ] ||
    fail "the end: $(tail -1 out.txt)"
grep -q '"event":"skipped"' out.txt && grep -q '^skipped: ddim karras.*cannot take' err.txt || fail "skipped: $(cat err.txt)"
grep -q 'dpm_adaptive default, 3 steps: .*drawn once' err.txt || fail "adaptive: $(cat err.txt)"
[ "$(find all -type f | wc -l)" = 82 ] || fail "files: $(find all -type f | wc -l)"
[ -z "$(find all -name '*.tmp')" ] || fail "left $(find all -name '*.tmp')"
grep -q '"a ""cat"", </b>","",42,euler,karras,3,4,0,1,3,' all/compare.csv || fail "CSV: $(grep karras all/compare.csv | head -3)"

# A second comparison in the folder replaces the first one; without --json the names are told, -q says nothing else
touch all/pictures/mine.png
"$rung" compare $options --sampler euler --scheduler default --steps 2 -q -o all x >out.txt 2>err.txt || fail "again: exit $?"
printf 'all/compare.html\nall/compare.png\nall/compare.csv\nall/compare.json\n' | cmp -s - out.txt || fail "names: $(cat out.txt)"
[ ! -s err.txt ] || fail "-q said: $(cat err.txt)"
[ "$(ls all/pictures | tr '\n' ' ')" = 'compare-0001.png compare-0002.png compare-0003.png mine.png ' ] ||
    fail "pictures: $(ls all/pictures)"

# Ctrl-C: exit 130, whole pictures only, and none of the four files
"$rung" compare $options --sampler euler --scheduler default --steps 500,501,502 -o stopped x >out.txt 2>err.txt &
pid=$!
tries=0
while [ ! -e stopped/pictures/compare-0002.png ] && [ $tries -lt 300 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
kill -INT $pid
wait $pid
[ $? = 130 ] || fail "Ctrl-C: exit $?"
grep -q 'cancelled after' err.txt || fail "Ctrl-C: $(cat err.txt)"
[ -z "$(find stopped -name '*.tmp' -o -name 'compare.*')" ] || fail "Ctrl-C left $(find stopped)"

# ---- the page in a browser ----

browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
if [ -z "$browser" ]; then
    echo "SKIP: no browser: the page was not opened"
    echo "$failed failed"
    [ $failed = 0 ] && exit 0
    exit 1
fi
"$rung" compare $options --sampler euler,ddpm,heun --scheduler default,karras --steps 2,3 --cfg-scale 2,3 -q -o page \
    "</script><script>throw 'owned'</script>" "$(printf 'two\nlines "quoted"')" >out.txt || fail "page: exit $?"

# The page as it is, with a script behind it that acts as a user would and writes what it finds into the document.
cat >user.js <<'JS'
<script>
addEventListener('load', () => {
    const found = [], want = (what, ok) => { if (!ok) found.push(what); };
    const visible = (s) => [...document.querySelectorAll(s)].filter((e) => e.offsetParent);
    const box = (key, value) => document.querySelector(`input[data-key=${key}][value='${value}']`);
    const pictures = () => visible('button.shot').length;
    const large = document.getElementById('large');
    try {
        want('pictures: ' + pictures(), pictures() === 2 * 2 * (2 + 5 * 2));
        want('broken pictures', [...document.querySelectorAll('.shot img')].every((i) => i.naturalWidth === 32));
        want('points', document.querySelectorAll('circle').length === 2 * 5 * 2);
        want('skipped: ' + document.querySelector('details').textContent,
             document.querySelectorAll('details li').length === 1 && /ddpm.*karras/.test(document.querySelector('details').textContent));
        want('title: ' + document.querySelector('h2').textContent,
             document.querySelector('h2').textContent.startsWith("<\/script><script>throw 'owned'<\/script>"));
        box('s', 0).click();
        want('without euler: ' + pictures(), pictures() === 2 * 2 * (2 + 3 * 2));
        want('euler in the plot', getComputedStyle(document.querySelector('svg g[data-s="0"]')).display === 'none');
        box('n', 3).click();
        want('two steps only: ' + pictures(), pictures() === 2 * 2 * (2 + 3));
        want('a line over hidden points',
             document.querySelector('svg g[data-s="2"] polyline').getAttribute('points').split(' ').length === 1);
        box('g', 1).click();
        want('one guidance: ' + pictures(), pictures() === 2 * (2 + 3));
        box('k', 1).click();
        want('one schedule: ' + pictures(), pictures() === 2 * (2 + 2));
        box('p', 0).click();
        want('one prompt: ' + pictures(), pictures() === 2 + 2);
        for (const b of document.querySelectorAll('input[data-key]')) if (!b.checked) b.click();
        want('all again: ' + pictures(), pictures() === 2 * 2 * (2 + 5 * 2));
        want('closed', !large.open);
        const button = visible('td button.shot')[3];
        button.click();
        want('open', large.open);
        want('large picture', large.querySelector('img').src === button.firstElementChild.src);
        want('its reference', large.querySelectorAll('img')[1].src ===
             document.getElementById(button.dataset.reference).querySelector('img').src);
        want('command: ' + large.querySelector('code').textContent,
             large.querySelector('code').textContent === button.dataset.command && /^rung /.test(button.dataset.command));
        const first = large.querySelector('code').textContent;
        document.getElementById('after').click();
        want('next picture', large.querySelector('code').textContent !== first);
        want('dialog within the window', large.getBoundingClientRect().right <= innerWidth);
        document.getElementById('close').click();
        want('closed again', !large.open);
        want('width ' + document.documentElement.scrollWidth + ' of ' + innerWidth,
             document.documentElement.scrollWidth <= innerWidth);
    } catch (e) {
        found.push(String(e));
    }
    parent.postMessage(`${found.join('; ')}. window ${innerWidth}`, '*');
});
</script>
JS
cat page/compare.html user.js >driven.html
# A window narrower than 500 pixels is not to be had: the page stands in a frame of the width asked for.
for width in 360 1280; do
    cat >frame.html <<HTML
<!doctype html><body style="margin:0"><iframe src="driven.html" style="border:0;width:${width}px;height:800px"></iframe>
<script>addEventListener('message', (e) => document.body.setAttribute('data-found', e.data))</script>
HTML
    "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$work/profile" --enable-logging=stderr \
        --host-resolver-rules='MAP * ~NOTFOUND' --virtual-time-budget=10000 --window-size=1400,900 --dump-dom \
        "file://$work/frame.html" >dom.txt 2>console.txt
    grep -q "data-found=\"\. window $width\"" dom.txt ||
        fail "browser, $width wide: $(grep -o 'data-found="[^"]*"' dom.txt) $(tail -3 console.txt)"
    grep 'CONSOLE' console.txt && fail "browser, $width wide: messages in the console"
done
rm -rf profile

echo "$failed failed"
[ $failed = 0 ]
