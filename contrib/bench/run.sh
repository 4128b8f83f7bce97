#!/bin/sh
# contrib/bench/fsbench.py on a fresh mount and on a plain folder beside it, one after the other, in one run. Results: .bench/*.json
# Environment: SCALE (1), ONLY (groups), STORE (a storage URL; default: a folder), MOUNT_ARGS, BENCH_DIR (where both folders are)
set -eu
cd "$(dirname "$0")/../.."
S3CFS="$PWD/.venv/bin/s3cfs"
PYTHON="$PWD/.venv/bin/python"
FSBENCH=${FSBENCH:-contrib/bench/fsbench.py}
[ -e "$FSBENCH" ] || { echo "bench: $FSBENCH is missing (set FSBENCH)" >&2; exit 1; }
work=$(mktemp -d "${BENCH_DIR:-${TMPDIR:-/tmp}}/s3cfs-bench.XXXXXX")
out=$PWD/.bench
mkdir -p "$out" "$work/store" "$work/mnt" "$work/plain"
url=${STORE:-local://$work/store}
export S3CFS_CACHEDIR="$work/cache" S3CFS_PASSPHRASE="${S3CFS_PASSPHRASE:-benchmark}"
mount_cmd="'$S3CFS' mount ${MOUNT_ARGS:-} '$url' '$work/mnt'"

cleanup() {
    code=$?
    trap - EXIT INT TERM
    if [ -n "${mounted:-}" ] && ! "$S3CFS" umount --quiet "$work/mnt"; then
        echo "bench: $work/mnt is still mounted; nothing was removed" >&2
        exit 1
    fi
    rm -rf "$work"
    exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$S3CFS" mkfs --quiet --label bench "$url" >/dev/null
eval "$mount_cmd"
mounted=1
set -- --scale "${SCALE:-1}"
[ -z "${ONLY:-}" ] || set -- "$@" --only "$ONLY"
failed=0
echo "== s3cfs on $url"
"$PYTHON" "$FSBENCH" "$work/mnt" "$@" --json "$out/s3cfs.json" --store-dir "${STORE_DIR:-$work/store}" \
    --settle-cmd "'$S3CFS' ctl flush '$work/mnt'" \
    --remount-cmd "'$S3CFS' umount --quiet '$work/mnt' && rm -rf '$work/cache' && $mount_cmd" \
    --pid-cmd "'$S3CFS' stat --json '$work/mnt' | '$PYTHON' -c 'import json, sys; print(json.load(sys.stdin)[\"pid\"])'" || failed=$?
echo "== a plain folder"
"$PYTHON" "$FSBENCH" "$work/plain" "$@" --json "$out/plain.json" || failed=$?
exit "$failed"
