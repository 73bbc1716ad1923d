#!/bin/sh
# Make .venv ready: the project itself (editable) and the extras named as
# arguments, at the versions in constraints.txt.
#
#   sh tools/venv.sh demo          # by hand; the Makefile does the same
#   PYTHON=python3.12 sh tools/venv.sh test lint
#
# A second call costs nothing: a stamp in .venv remembers, for each extra, what
# pyproject.toml and constraints.txt said when it was installed.
set -eu
cd "$(dirname "$0")/.."

OLDEST=3.11
say() { printf '%s\n' "$*" >&2; }
die() { for line in "$@"; do say "$line"; done; exit 1; }

version() { # X.Y.Z of a Python; fails where there is none that runs
    "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null </dev/null
}
new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null </dev/null
}
has_venv() { # Debian and Ubuntu split ensurepip off; a bare "import venv" works without it
    "$1" -c 'import venv, ensurepip' 2>/dev/null </dev/null
}

find_python() { # prints the one to use: new enough, better with venv than without
    candidates="python3 python3.13 python3.12 python3.11 python3.14 python"
    without_venv=
    for candidate in $candidates; do
        new_enough "$candidate" || continue
        if has_venv "$candidate"; then
            echo "$candidate"
            return
        fi
        without_venv=${without_venv:-$candidate}
    done
    if [ -n "$without_venv" ]; then
        echo "$without_venv"
        return
    fi
    seen=$(version python3) || seen=none
    die "hpcml needs Python >= $OLDEST; none was found on PATH (python3 here: $seen)." \
        "Install one (on Debian 12, Ubuntu 24.04 or newer: apt install python3 python3-venv;" \
        "elsewhere: uv, pyenv, conda, or 'module load' on a cluster), or name it:" \
        "    make PYTHON=/path/to/python3.12 ..."
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        DEBIAN_FRONTEND=noninteractive "$@" </dev/null
    elif ! command -v sudo >/dev/null 2>&1; then
        say "This takes root, and there is no sudo here."
        return 1
    elif [ -t 0 ]; then
        sudo DEBIAN_FRONTEND=noninteractive "$@"
    else
        sudo -n DEBIAN_FRONTEND=noninteractive "$@" </dev/null
    fi
}

install_venv() { # for the Python in $1, by apt, saying so
    package=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    where=$("$1" -c 'import sys; print(sys.executable)')
    case $where in
        /usr/bin/*) ;;
        *) die "$where has no venv and ensurepip modules." \
               "Use a complete Python >= $OLDEST: make PYTHON=/path/to/python3 ..." ;;
    esac
    command -v apt-get >/dev/null 2>&1 ||
        die "$where has no venv module: install your system's package for it, then try again."
    say "$where has no venv module: installing $package with apt-get."
    # The package lists may be old or missing (containers), so a failure is
    # answered by one update.
    as_root apt-get install -y -q "$package" >&2 ||
        { as_root apt-get update -q >&2 && as_root apt-get install -y -q "$package" >&2; } ||
        die "$package could not be installed. Install it, then try again:" \
            "    apt-get install $package    (as root)"
    has_venv "$1" || die "$where still has no venv module after installing $package."
}

usable() { # is .venv one that we can go on with?
    new_enough .venv/bin/python && .venv/bin/python -m pip --version >/dev/null 2>&1 </dev/null ||
        { say ".venv is incomplete or too old: making it anew."; return 1; }
    if [ -f .venv/made-for ] && [ "$(cat .venv/made-for)" != "$PWD" ]; then
        say ".venv was made for another folder: making it anew."
        return 1
    fi
    if [ -n "${PYTHON:-}" ] && [ "$(version "$PYTHON")" != "$(version .venv/bin/python)" ]; then
        say ".venv is Python $(version .venv/bin/python), wanted $PYTHON: making it anew."
        return 1
    fi
}

make_venv() {
    if [ -n "${PYTHON:-}" ]; then
        found=$(version "$PYTHON") || die "PYTHON=$PYTHON does not run."
        new_enough "$PYTHON" ||
            die "PYTHON=$PYTHON is Python $found; hpcml needs >= $OLDEST." \
                "Leave PYTHON out to search PATH, or name a newer one."
        python=$PYTHON
    else
        python=$(find_python)
    fi
    has_venv "$python" || install_venv "$python"
    say "Making .venv with $python ($(version "$python"))."
    "$python" -m venv --clear .venv </dev/null
    pwd >.venv/made-for
}

pip_install() {
    .venv/bin/python -m pip install --disable-pip-version-check --no-input -q \
        -c constraints.txt "$@" </dev/null
}

[ -e .venv ] && usable || make_venv

wanted=$(cat pyproject.toml constraints.txt | cksum)
missing=
for extra in "$@"; do
    stamp=.venv/installed-$extra
    if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
        missing=${missing:+$missing,}$extra
    fi
done
[ -n "$missing" ] || exit 0

say "Installing hpcml with [$missing] into .venv; the first time this downloads and takes minutes."
pip_install hatchling # the build backend, so that its version is constrained too
pip_install --no-build-isolation -e ".[$missing]"
for extra in "$@"; do
    echo "$wanted" >".venv/installed-$extra"
done
