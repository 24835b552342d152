# tools/setup.sh - sourced by ./rung and ./check: Debian packages, configure, build. POSIX shell.

RUNG_PACKAGES="gcc libc6-dev cmake ninja-build pkg-config libpng-dev libcjson-dev libutf8proc-dev"

# Installs what is missing when this user may; says what is missing and stops when not.
rung_packages() {
    missing=""
    command -v dpkg-query >/dev/null 2>&1 || return 0 # not Debian: CMake will name what it does not find
    for package in $RUNG_PACKAGES; do
        case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) in
        *" installed") ;;
        *) missing="$missing $package" ;;
        esac
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" = 0 ]; then as_root=""; elif sudo -n true 2>/dev/null; then as_root="sudo"; else
        echo "rung: these packages are missing; install them with: sudo apt-get install$missing" >&2
        exit 1
    fi
    echo "rung: installing$missing" >&2
    { $as_root apt-get update -q && DEBIAN_FRONTEND=noninteractive $as_root apt-get install -q -y \
        --no-install-recommends $missing; } >&2
}

# rung_build SOURCE PRESET [TARGET]: quiet unless something fails, and quick when there is nothing to do.
rung_build() {
    rung_packages
    folder="$1/build"
    [ "$2" = release ] || folder="$1/build-$2"
    # MPI may have come since the folder was configured
    if command -v mpicc >/dev/null 2>&1 && grep -q 'MPI_C_COMPILER:.*NOTFOUND' "$folder/CMakeCache.txt" 2>/dev/null; then
        rm -f "$folder/build.ninja"
    fi
    if ! { [ -f "$folder/build.ninja" ] || (cd "$1" && cmake --preset "$2"); } >/tmp/rung-build.$$ 2>&1 ||
        ! cmake --build "$folder" --target "${3:-all}" >>/tmp/rung-build.$$ 2>&1; then
        cat /tmp/rung-build.$$ >&2
        rm -f /tmp/rung-build.$$
        exit 1
    fi
    rm -f /tmp/rung-build.$$
}
