#!/bin/sh
# A whole life in a minute: make a filesystem in a folder, put real files on it, unmount, lose everything local, mount again
# as another machine would, compare every file. Nothing is left behind; only the process started here is ever ended.
set -eu
cd "$(dirname "$0")/.."
S3CFS="$PWD/.venv/bin/s3cfs"
PYTHON="$PWD/.venv/bin/python"
work=$(mktemp -d "${TMPDIR:-/tmp}/s3cfs-demo.XXXXXX")
store=$work/store mnt=$work/mnt cache=$work/cache
url=local://$store
pid=
mkdir "$store" "$mnt"

step() { printf '\n== %s\n' "$*"; }
show() { printf '$ s3cfs %s\n' "$*"; "$S3CFS" "$@"; }
mounted() { "$PYTHON" -c 'import sys; sys.exit(not any(l.split()[4] == sys.argv[1] for l in open("/proc/self/mountinfo")))' "$mnt"; }
ours() { [ -n "$pid" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q "$work"; }

cleanup() {
    code=$?
    trap - EXIT INT TERM
    if mounted; then "$S3CFS" umount --quiet --lazy "$mnt" 2>/dev/null || umount -l "$mnt" 2>/dev/null || fusermount3 -u -z "$mnt" || :; fi
    if ours; then kill "$pid" 2>/dev/null || :; fi
    for _ in 1 2 3 4 5 6 7 8 9 10; do ours || break; sleep 1; done
    if ours; then kill -9 "$pid" 2>/dev/null || :; fi
    mounted || rm -rf "$work"
    exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The passphrase comes from a file of mode 600, as in real life; never from the command line.
auth=$work/auth.ini
(umask 077; printf '[demo]\nstorage-url: %s\nfs-passphrase: %s\n' "$url" "correct horse battery staple" >"$auth")
export S3CFS_AUTHFILE="$auth" S3CFS_CACHEDIR="$cache"

mount_it() {
    show mount "$url" "$mnt"
    pid=$("$S3CFS" stat --json "$mnt" | "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["pid"])')
}

# hash, mode, ns mtime, link target and path of everything below a folder
listing() {
    "$PYTHON" - "$1" <<'EOF'
import hashlib, os, sys
for folder, folders, files in os.walk(sys.argv[1]):
    folders.sort()
    for name in sorted(files + folders):
        path = os.path.join(folder, name)
        info = os.lstat(path)
        kind = "link " + os.readlink(path) if os.path.islink(path) else "folder" if os.path.isdir(path) else \
            hashlib.blake2b(open(path, "rb").read()).hexdigest()[:32]
        print(kind, oct(info.st_mode), info.st_mtime_ns, os.path.relpath(path, sys.argv[1]))
EOF
}

step "Make a filesystem in $url"
show mkfs --label demo "$url"

step "Mount it and copy a source tree onto it, twice"
mount_it
source=$("$PYTHON" -c 'import email, os; print(os.path.dirname(email.__file__))')
cp -a "$source" "$mnt/first"
cp -a "$source" "$mnt/second"
ln -s first/__init__.py "$mnt/link"
head -c 20000000 /dev/urandom >"$mnt/random"
listing "$mnt" >"$work/before"
printf '%s entries\n' "$(wc -l <"$work/before")"
show ctl flush "$mnt"
show stat "$mnt"

step "Unmount: returns when everything is in the store"
show umount "$mnt"
pid=
printf 'in the store: %s objects, %s\n' "$(find "$store" -type f | wc -l)" "$(du -sh "$store" | cut -f1)"

step "Lose the machine: everything local is deleted"
rm -rf "$cache"

step "Mount again from URL and passphrase alone, and compare every file"
mount_it
listing "$mnt" >"$work/after"
cmp "$work/before" "$work/after"
printf 'all %s entries are the same: content, mode, time, link\n' "$(wc -l <"$work/after")"
show umount "$mnt"
pid=

step "Check it"
show fsck --full "$url"
printf '\ndemo: all well\n'
