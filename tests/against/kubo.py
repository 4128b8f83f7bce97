"""Try what s3cfs does with IPFS on a real Kubo that somebody has built, with the plugin go-ds-s3 in it. No net is used.

    python -m tests.against.kubo PROGRAM [--minio PROGRAM] [--only store,rpc,bucket] [--short] [--rounds N]

    store    everything that can be tried on any store (tests.against), on ipfs+rpc://
    rpc      what ipfs+rpc:// relies on in particular: pins, collections, large folders, damage, its death
    bucket   the node on buckets that ipfs+s3:// wrote, in MinIO where there is one, else moto

Everything is made in temporary folders and goes at the end. Ends with 1 when something failed.
"""
from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from s3cfs.cli.arguments import Parser
from s3cfs.errors import ExitCode, S3cfsError
from tests.against.__main__ import HERE, REPOSITORY
from tests.against.__main__ import main as try_store
from tests.against.kubo_node import KuboNode, version_of

PARTS = ("store", "rpc", "bucket")


def main(argv: Sequence[str]) -> int:
    parser = Parser(prog="python -m tests.against.kubo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("program", metavar="PROGRAM", help="`ipfs`, with the S3 plugin compiled in (for the part `bucket`)")
    parser.add_argument("--minio", metavar="PROGRAM", help="the server for buckets (default: moto)")
    parser.add_argument("--only", metavar="PARTS", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--rounds", default="3", help="how often a filesystem is killed in each test of the part `store`")
    parser.add_argument("--short", action="store_true", help="small bounds, and no mounts but one")
    args = parser.parse(argv)
    wanted = [part for part in args.only.split(",") if part]
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"no part {min(unknown)!r}: it is one of {', '.join(PARTS)}")
    print(f"Kubo {version_of(args.program)}", flush=True)
    os.environ["S3CFS_TEST_KUBO"] = os.path.abspath(args.program)
    os.environ.update({"S3CFS_TEST_MINIO": os.path.abspath(args.minio)} if args.minio else {})
    failed = []
    for part in wanted:
        with tempfile.TemporaryDirectory(prefix="s3cfs-kubo-", ignore_cleanup_errors=True) as scratch:
            short = ["--short"] if args.short else []
            code = _store(args.program, Path(scratch), [*short, "--rounds", args.rounds]) if part == "store" else _part(part, scratch)
        failed += [part] if code else []
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return 1 if failed else 0


def _part(part: str, scratch: str) -> int:
    return int(pytest.main([f"{REPOSITORY}/{HERE}/part_kubo_{part}.py", "--rootdir", str(REPOSITORY), "-c", f"{REPOSITORY}/pyproject.toml",
                            "-p", "no:cacheprovider", "-q", "--basetemp", f"{scratch}/{part}"]))


def _store(program: str, folder: Path, arguments: Sequence[str]) -> int:
    node = KuboNode(program, folder / "node")
    node.init()
    node.require_token()
    authfile = folder / "auth.ini"
    authfile.touch(0o600)
    url = f"ipfs+rpc://127.0.0.1:{node.port}/"
    authfile.write_text(f"[node]\nstorage-url: {url}\nbackend-login: bearer\nbackend-password: {node.token}\n")
    with node.daemon():
        return try_store([url + "against", "--authfile", str(authfile), *arguments])


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (RuntimeError, S3cfsError) as error:
        print(error, file=sys.stderr)
        sys.exit(ExitCode.USAGE)
