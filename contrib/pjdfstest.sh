#!/bin/sh
# The POSIX tests of pjdfstest (github.com/pjd/pjdfstest; its sources are not part of this project) on a fresh mount, as root.
# Environment: PJDFSTEST (the folder of its sources), ONLY (folders of its tests, commas between), MOUNT_ARGS
set -eu
cd "$(dirname "$0")/.."
S3CFS="$PWD/.venv/bin/s3cfs"
[ -e "${PJDFSTEST:-}/pjdfstest.c" ] || { echo "pjdfstest: say where its sources are: make pjdfstest PJDFSTEST=folder" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "pjdfstest: its tests take on other users' rights, so they run as root" >&2; exit 2; }
command -v prove >/dev/null || { echo "pjdfstest: prove is missing (Debian: perl)" >&2; exit 2; }
work=$(mktemp -d "${TMPDIR:-/tmp}/s3cfs-pjdfstest.XXXXXX")
chmod 755 "$work"
mkdir "$work/store" "$work/mnt" "$work/suite"
export S3CFS_CACHEDIR="$work/cache" S3CFS_PASSPHRASE=pjdfstest

cleanup() {
    code=$?
    trap - EXIT INT TERM
    if [ -n "${mounted:-}" ] && ! "$S3CFS" umount --quiet "$work/mnt"; then
        echo "pjdfstest: $work/mnt is still mounted; nothing was removed" >&2
        exit 1
    fi
    rm -rf "$work"
    exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Its tests look for the program above themselves. What its configure would find out is known of Linux with glibc.
cp -R "$PJDFSTEST/tests" "$work/suite"
{
    echo '#define _GNU_SOURCE 1'
    for name in SYS_SYSMACROS_H FACCESSAT FCHMODAT FCHOWNAT FSTATAT LINKAT MKDIRAT MKFIFOAT MKNODAT OPENAT POSIX_FALLOCATE READLINKAT \
        RENAMEAT SYMLINKAT UTIMENSAT STRUCT_STAT_ST_ATIM STRUCT_STAT_ST_CTIM STRUCT_STAT_ST_MTIM; do
        echo "#define HAVE_$name 1"
    done
} >"$work/config.h"
gcc -w -O1 -I"$work" -DHAVE_CONFIG_H -o "$work/suite/pjdfstest" "$PJDFSTEST/pjdfstest.c"

"$S3CFS" mkfs --quiet "local://$work/store"
# shellcheck disable=SC2086                               # MOUNT_ARGS are several words
"$S3CFS" mount ${MOUNT_ARGS:-} -o allow_other "local://$work/store" "$work/mnt"
mounted=1
folders=$work/suite/tests
[ -z "${ONLY:-}" ] || folders=$(printf '%s' "$ONLY" | tr , '\n' | sed "s#^#$work/suite/tests/#")
# shellcheck disable=SC2086                               # one word for each folder
(cd "$work/mnt" && prove --recurse --exec sh $folders)
