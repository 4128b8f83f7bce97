#!/bin/sh
# Makes .venv with s3cfs (editable) and the tools of `make check` and `make test`.
#
# Nothing is done, and no network is touched, when the stamp says that this pyproject.toml is installed already. Missing
# system packages are looked for by what they provide, not by name, so other systems and Pythons work too.
set -eu
cd "$(dirname "$0")/.."
say() { printf '%s\n' "setup: $*" >&2; }
die() { say "$*"; exit 1; }

PYTHON=${PYTHON:-python3}
command -v "$PYTHON" >/dev/null 2>&1 || die "no $PYTHON found: install Python 3.11 or later, or set PYTHON=/path/to/it"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || die "$PYTHON is $("$PYTHON" -V 2>&1): Python 3.11 or later is needed (set PYTHON=/path/to/it)"

want="$(cat pyproject.toml contrib/setup.sh | sha256sum | cut -d' ' -f1) $PWD"
stamp=.venv/.stamp
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && [ -x .venv/bin/s3cfs ] && .venv/bin/python -c '' 2>/dev/null && exit 0

missing=
need() { missing="$missing $1"; }
command -v fusermount3 >/dev/null 2>&1 || need fuse3
command -v gcc >/dev/null 2>&1 || command -v cc >/dev/null 2>&1 || need gcc
[ -e /usr/include/stdio.h ] || need libc6-dev
if command -v pkg-config >/dev/null 2>&1; then
    pkg-config --exists fuse3 || need libfuse3-dev
else
    need pkg-config; need libfuse3-dev
fi
"$PYTHON" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_paths()["include"] + "/Python.h"))' || need python3-dev
"$PYTHON" -c 'import venv, ensurepip' 2>/dev/null || need python3-venv

if [ -n "$missing" ]; then
    sudo=
    if [ "$(id -u)" != 0 ]; then
        sudo=sudo
        command -v sudo >/dev/null 2>&1 || die "missing:$missing. Install these as root and run this again (no sudo here)"
    fi
    command -v apt-get >/dev/null 2>&1 || die "missing:$missing (names of Debian). Install what your system calls them and run this again"
    say "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 - a list of words
    { $sudo apt-get -qq update && $sudo apt-get -qq -y install --no-install-recommends $missing; } >/dev/null \
        || die "apt-get could not install$missing: see above"
fi

if ! .venv/bin/python -c 'import sys; sys.exit(sys.prefix == sys.base_prefix)' 2>/dev/null; then
    say "making .venv"
    rm -rf .venv
    "$PYTHON" -m venv .venv
fi
rm -f "$stamp"
say "installing s3cfs and its tools into .venv"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test,dev]'
printf '%s\n' "$want" >"$stamp"
say "done: .venv/bin/s3cfs"
