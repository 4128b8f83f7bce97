"""`s3cfs ipfs spec`, `roots` and `gc`."""
from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from s3cfs.cli import arguments as args_of
from s3cfs.cli import seam
from s3cfs.cli.progress import Progress
from s3cfs.cli.run import say
from s3cfs.config import format_size, load, parse_duration
from s3cfs.errors import UsageError


def arguments(action: str, parser: args_of.Parser) -> None:
    parser.add_argument("url", metavar="URL", help="ipfs+s3://...")
    if action == "spec":
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--child", action="store_true", help="only the plugin's own object (default: a whole Datastore.Spec)")
        what.add_argument("--on-disk", action="store_true", help="the node's file datastore_spec, byte for byte")
    if action == "roots":
        parser.add_argument("prefix", metavar="PREFIX", nargs="?", default="", help="only objects below this key, like pack/")
    if action == "gc":
        parser.add_argument("--grace", metavar="TIME", type=_grace, default="1d",
                            help="how old a deletion and its blocks must be (default: 1d); below some minutes only while nobody writes")
        parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    args_of.add_store(parser)
    args_of.add_output(parser)


def _grace(text: str) -> float:
    try:
        return float(parse_duration(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(args: argparse.Namespace) -> int:
    settings, _ = load(args.url, args_of.given(args))
    store = seam.ipfs_store(settings)
    if args.action == "spec":
        print(store.spec.on_disk() if args.on_disk else json.dumps(store.spec.child() if args.child else store.spec.datastore(), indent=2),
              end="" if args.on_disk else "\n")
        return 0
    if args.action == "roots":
        if args.prefix and not args.prefix.endswith("/"):
            raise UsageError(f"PREFIX is a folder of keys, like pack/ (not {args.prefix!r})")
        for key, root in store.roots(args.prefix):
            told = {"key": key, "cid": str(root.cid), "size": root.size}
            print(json.dumps(told) if args.json else f"{told['cid']}\t{root.size}\t{key}")
        return 0
    with Progress(quiet=args.quiet, as_json=args.json) as progress:
        found = store.gc(args.grace, args.dry_run, progress)
    if args.json:
        print(json.dumps(asdict(found)))
    elif not args.quiet:
        gone = "would be removed" if args.dry_run else "were removed"
        say(f"{found.blocks:,} blocks ({format_size(found.bytes)}) {gone}; {found.named:,} are in use again, {found.young:,} were put "
            f"lately, {found.waiting:,} deletions wait")
    return 0
