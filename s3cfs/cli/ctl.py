"""`s3cfs ctl flush|drop-cache|log-level|layer MNT`"""
from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from s3cfs.cli import arguments, exitcodes, seam
from s3cfs.cli.progress import Progress
from s3cfs.cli.run import one_line
from s3cfs.config.options import LOG_LEVELS
from s3cfs.errors import ExitCode, UsageError

EPILOG = """\
examples:
  s3cfs ctl flush /mnt/home              returns when all that was written before is in the store
  s3cfs ctl drop-cache /mnt/home         forget everything that can be fetched from the store again
  s3cfs ctl log-level /mnt/home debug    until the next mount
  s3cfs ctl layer /mnt/home              what the store's layers can be told, if it has any
  s3cfs ctl layer /mnt/home lock wait=5  tell one of them, until the next mount

sync(1) and syncfs() never reach a FUSE filesystem: `ctl flush` is the barrier.

"""
ACTIONS = {
    "flush": "return when everything written before is in the store",
    "drop-cache": "empty the local cache (what is not yet in the store is kept)",
    "log-level": "change how much is logged: " + ", ".join(LOG_LEVELS),
    "layer": "show or change settings of the layers that this kind of store has",
}


def parser(prog: str) -> arguments.Parser:
    made = arguments.Parser(prog=prog, description="Control a mounted filesystem.",
                            epilog=EPILOG + exitcodes.epilog((
                                ExitCode.NOT_A_MOUNT, ExitCode.STORE_UNREACHABLE, ExitCode.CONFIG, ExitCode.NO_ANSWER)))
    actions = made.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=arguments.Parser)
    for name, text in ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        action.add_argument("mountpoint", metavar="MOUNTPOINT")
        if name == "log-level":
            action.add_argument("level", metavar="LEVEL", choices=LOG_LEVELS, help=", ".join(LOG_LEVELS))
        if name == "layer":
            action.add_argument("layer", metavar="NAME", nargs="?", help="of a layer (default: all)")
            action.add_argument("changes", metavar="SETTING=VALUE", nargs="*", default=[], help="take over at once, for this mount only")
        arguments.add_output(action)
    return made


def run(argv: Sequence[str], prog: str) -> int:
    args = parser(prog).parse(argv)
    asked = _asked(args)
    info = seam.served(args.mountpoint)
    if args.action == "flush":
        seam.alive(info)
        seam.write_back(info.mountpoint)
    with Progress(quiet=args.quiet, as_json=args.json) as progress:
        answer = seam.call(info.socket, args.action, asked, progress)
    if args.json:
        print(json.dumps(answer))
    elif args.action == "layer" and not (asked["changes"] and args.quiet):
        for line in _layers(answer):
            print(line)
    return 0


def _asked(args: argparse.Namespace) -> dict[str, Any]:
    """What goes to the mount with the action."""
    if args.action == "log-level":
        return {"level": args.level}
    if args.action != "layer":
        return {}
    pairs = [change.partition("=") for change in args.changes]
    if not all(name and equals for name, equals, _ in pairs):
        raise UsageError("a change is SETTING=VALUE (s3cfs ctl layer MOUNTPOINT NAME shows the settings)")
    return {"layer": args.layer, "changes": {name: value for name, _, value in pairs}}


def _layers(answer: Mapping[str, Any]) -> Iterator[str]:
    layers = answer.get("layers") or {}
    for name, settings in layers.items():
        yield one_line(f"{name}: " + (", ".join(f"{setting}={value}" for setting, value in settings.items()) or "no settings"))
    if not layers:
        yield "no layer of this store has settings"
