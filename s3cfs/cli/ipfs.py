"""`s3cfs ipfs ACTION ...`: what concerns a store of IPFS blocks. Each action is a module with `arguments` and `run`."""
from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from s3cfs.cli import arguments, exitcodes
from s3cfs.errors import ExitCode

ACTIONS = {                        # name: (one line, module)
    "spec": ("print what an IPFS node needs to know of the store", "ipfs_store"),
    "roots": ("list the CIDs of all objects of a filesystem, to pin them", "ipfs_store"),
    "export": ("bring a file or a tree into IPFS as any node reads it, and print its CID", "ipfs_export"),
    "gc": ("remove blocks of deleted objects", "ipfs_store"),
}

EPILOG = """\
examples:
  s3cfs ipfs spec ipfs+s3://s3.example.com/bucket/node        Datastore.Spec for a node's config
  s3cfs ipfs spec --on-disk --datastore-spec ~/.ipfs/config ipfs+s3:///
      The node's file datastore_spec, byte for byte.
  s3cfs ipfs roots ipfs+s3://s3.example.com/bucket/node | cut -f1 | xargs ipfs pin add
      Protect everything from the node's own garbage collection.
  s3cfs ipfs gc ipfs+s3://s3.example.com/bucket/node
  s3cfs ipfs export /mnt/home/photos

docs/ipfs.md says more.

"""


def parser(prog: str) -> arguments.Parser:
    made = arguments.Parser(prog=prog, description="What concerns a store of IPFS blocks.", epilog=EPILOG + exitcodes.epilog((
        ExitCode.ACCESS_DENIED, ExitCode.BUCKET_MISSING, ExitCode.STORE_UNREACHABLE, ExitCode.DAMAGED, ExitCode.CONFIG,
        ExitCode.UNSUPPORTED)))
    actions = made.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=arguments.Parser)
    for name, (text, module) in ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        _module(module).arguments(name, action)
    return made


def run(argv: Sequence[str], prog: str) -> int:
    args = parser(prog).parse(argv)
    code: int = _module(ACTIONS[args.action][1]).run(args)
    return code


def _module(name: str) -> Any:
    return importlib.import_module(f"s3cfs.cli.{name}")
