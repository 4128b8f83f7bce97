"""`s3cfs ipfs export PATH`"""
from __future__ import annotations

import argparse
import json
import os
import re

from s3cfs.cli import exitcodes, seam
from s3cfs.cli.arguments import add_output, add_store, given
from s3cfs.cli.progress import Progress
from s3cfs.cli.run import one_line, say
from s3cfs.config import Settings, format_size, load
from s3cfs.errors import ConfigError, ExitCode, NotAMount, UsageError

CHUNK_BYTES, LINKS, FILE_LINKS_MAX = 1 << 20, 174, 1 << 13
CHUNK_MAX_BYTES = (2 << 20) - 256      # more no node takes
EPILOG = """\
The CID is the one that `ipfs add -r --cid-version=1 --raw-leaves --chunker=size-1048576` prints. Other forms are made with the options that
`ipfs add` has for them; `--cid-version=0 --chunker=size-262144` is what it does when nobody says anything.

What anybody may read who knows the CID is neither encrypted nor compressed. Names, content and where symlinks lead are kept; owners,
modes, times, extended attributes and hard links are not, since IPFS has no place for them. As with `ipfs add`, names in folders that begin
with '.' are left out (--hidden), and an empty folder is one. A device, fifo or socket is left out and named.

Nothing removes an export from a datastore on S3; a Kubo node on the same bucket does with `ipfs repo gc`, unless it is pinned there.
Into a running node (ipfs+rpc://) it is pinned. docs/ipfs.md says more.

examples:
  s3cfs ipfs export /mnt/home/photos
      Into the datastore in which the filesystem mounted there lies itself.
  s3cfs ipfs export --to ipfs+s3://s3.example.com/my-bucket/blocks /mnt/home/photos
  s3cfs ipfs export --only-hash movie.mkv
  s3cfs ipfs export --car photos.car /mnt/home/photos && ipfs dag import photos.car

"""


def arguments(name: str, made: argparse.ArgumentParser) -> None:
    made.epilog = EPILOG + exitcodes.epilog((
        ExitCode.ACCESS_DENIED, ExitCode.BUCKET_MISSING, ExitCode.STORE_UNREACHABLE, ExitCode.STORE_FULL, ExitCode.NO_ANSWER,
        ExitCode.DAMAGED, ExitCode.OBJECT_MISSING, ExitCode.UNSUPPORTED)) + (
        "  19, 20 and 31 after an export: files that changed while they were read, had vanished, or are none for IPFS were named, and\n"
        "  all else is there.\n")
    made.add_argument("path", metavar="PATH", help="a file or a folder, in a mount or elsewhere")
    where = made.add_argument_group("where to")
    where.add_argument("--to", metavar="URL", help="an IPFS datastore or node, ipfs+s3:// or ipfs+rpc:// (default: the store of the mount)")
    where.add_argument("--car", metavar="FILE", help="write an archive (CARv1), for `ipfs dag import`; without --to nothing else")
    where.add_argument("--only-hash", "-n", action="store_true", help="print the CID, store nothing")
    how = made.add_argument_group("how, as `ipfs add` has it")
    how.add_argument("--hidden", "-H", action="store_true", help="names that begin with '.', too")
    how.add_argument("--cid-version", metavar="N", type=int, choices=(0, 1), default=1, help="0 or 1 (default: 1)")
    how.add_argument("--raw-leaves", action=argparse.BooleanOptionalAction, default=None,
                     help="leaves are the bytes themselves (default: with version 1)")
    how.add_argument("--chunker", metavar="size-N", type=_chunker, default=CHUNK_BYTES,
                     help=f"bytes in a leaf (default: size-{CHUNK_BYTES})")
    how.add_argument("--max-file-links", metavar="N", type=_links, default=LINKS,
                     help=f"links in a node of a file (default: {LINKS}; 1024 is the profile unixfs-v1-2025)")
    add_store(made)
    add_output(made)


def _chunker(text: str) -> int:
    found = re.fullmatch(r"size-(\d{1,9})", text)
    if found is None or not 0 < int(found[1]) <= CHUNK_MAX_BYTES:
        raise argparse.ArgumentTypeError(f"'{text}' is not size-N, with N from 1 to {CHUNK_MAX_BYTES}")
    return int(found[1])


def _links(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text) or not 2 <= int(text) <= FILE_LINKS_MAX:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 2 to {FILE_LINKS_MAX}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    if args.only_hash and (args.to or args.car):
        raise UsageError("--only-hash stores nothing: it goes with neither --to nor --car")
    from s3cfs.backends.ipfs.dag import Form
    from s3cfs.moves.ipfs.export import ExportOptions
    raw_leaves = args.cid_version == 1 if args.raw_leaves is None else args.raw_leaves
    options = ExportOptions(Form(args.cid_version, raw_leaves, args.chunker, args.max_file_links),
                            os.path.abspath(args.car) if args.car else None, args.hidden)
    target = _target(args)
    with Progress(quiet=args.quiet, as_json=args.json) as progress:
        def report(path: str, text: str) -> None:
            progress.close()
            if not args.json:
                say(one_line(f"{path}: {text}"))

        result = seam.moves().export(args.path, target, options, report, progress)
    if args.json:
        print(json.dumps({"cid": result.cid, "files": result.files, "folders": result.folders, "symlinks": result.symlinks,
                          "bytes": result.bytes, "block_bytes": result.block_bytes, "hidden": result.hidden, "changed": result.changed,
                          "gone": result.gone, "special": result.special, "exit_code": int(result.exit_code)}))
    else:
        print(result.cid)
        if not args.quiet:
            say(_verdict(result))
    return int(result.exit_code)


def _target(args: argparse.Namespace) -> Settings | None:
    """None: no store is wanted."""
    if args.only_hash or (args.car and not args.to):
        return None
    url = args.to or ("ipfs+s3:///" if args.datastore_spec else None)
    if url is None:
        try:
            info = seam.serving(args.path)
        except NotAMount:
            raise ConfigError(f"{args.path} lies in no mount of s3cfs: say where to (--to URL, --car FILE), or --only-hash") from None
        seam.alive(info)
        url = info.url
    return load(url, given(args))[0]


def _verdict(result: seam.ExportResult) -> str:
    parts = [f"{count:,} {name if count != 1 else name.removesuffix('s')}" for count, name in (
        (result.files, "files"), (result.folders, "folders"), (result.symlinks, "symlinks")) if count]
    hidden = f"; {result.hidden:,} hidden name{'s' if result.hidden != 1 else ''} left out (--hidden)" if result.hidden else ""
    return f"{', '.join(parts)}, {format_size(result.bytes)}{hidden}"
