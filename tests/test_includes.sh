#!/bin/sh
# tests/test_includes.sh RUNG SOURCE WORK - data flows one way: no file includes a folder above its own, the four stages
# do not include each other, and only diffusion/main.c prints or exits.
cd "$2" || exit 1
fail=0

# allowed FOLDER: what a file of it may include, as a pattern
allowed() {
    case $1 in
    kernels/base) echo 'kernels/base' ;;
    kernels) echo 'kernels' ;;
    assets) echo 'kernels|assets' ;;
    textenc | unet | vae) echo "kernels|assets|$1" ;;
    samplers) echo 'kernels|assets|samplers' ;;
    diffusion) echo 'kernels|assets|textenc|unet|vae|samplers|diffusion' ;;
    esac
}

check_folder() { # FOLDER FILES...
    folder=$1
    shift
    bad=$(grep -nE '^#include "' "$@" | grep -vE "#include \"($(allowed "$folder"))/" || true)
    [ -z "$bad" ] && return
    printf 'include against the direction (%s may use %s):\n%s\n' "$folder" "$(allowed "$folder")" "$bad"
    fail=1
}

files() { git ls-files "$1/*.c" "$1/*.h" 2>/dev/null || find "$1" -name '*.[ch]'; }

check_folder kernels/base $(files kernels/base)
for folder in kernels assets textenc unet vae samplers; do check_folder $folder $(files $folder); done
check_folder diffusion $(files diffusion | grep -v '^diffusion/main\.c$') # the program itself may measure: bench/

bad=$(for folder in kernels assets textenc unet vae samplers diffusion; do files $folder; done |
    grep -v '^diffusion/main\.c$' |
    xargs grep -nE '(^|[^a-zA-Z_])(printf|puts|putchar|perror|exit|_exit|abort)\(|fprintf\(std(err|out)' | grep -vE ':[0-9]+: \*' || true)
if [ -n "$bad" ]; then
    printf 'prints or exits outside diffusion/main.c:\n%s\n' "$bad"
    fail=1
fi
exit $fail
