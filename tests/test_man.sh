#!/bin/sh
# tests/test_man.sh RUNG SOURCE WORK - the manual page names every command and option of --help, and is valid roff.
rung=$1
page=$2/docs/rung.1
failed=0
checks=0

plain=$(sed -e 's/\\-/-/g' -e 's/\\f.//g' -e 's/"//g' "$page")
for word in $("$rung" --help | grep -oE '^ +(-[a-zA-Z], )?--[a-z-]+' | grep -oE -- '-{1,2}[a-zA-Z-]+'); do
    checks=$((checks + 1))
    printf '%s\n' "$plain" | grep -qE -- "(^|[ ,])$word( |,|\$)" || {
        echo "docs/rung.1 lacks $word"
        failed=1
    }
done
for command in $("$rung" --help | grep -oE '^rung [a-z]+ ' | cut -d ' ' -f 2); do
    checks=$((checks + 1))
    printf '%s\n' "$plain" | grep -q "rung $command" || {
        echo "docs/rung.1 lacks the command $command"
        failed=1
    }
done
[ $checks -gt 30 ] || {
    echo "only $checks words found in --help"
    failed=1
}
version=$("$rung" --version)
grep -q "^\.TH .*\"$version\"" "$page" || {
    echo "docs/rung.1 is not of $version"
    failed=1
}
if command -v groff >/dev/null; then
    complaints=$(groff -man -ww -Tutf8 -z "$page" 2>&1)
    [ -z "$complaints" ] || {
        echo "$complaints"
        failed=1
    }
fi
exit $failed
