"""`s3cfs ctl flush|drop-cache|log-level|layer|consistency|checker MNT`"""
from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from s3cfs.cli import arguments, exitcodes, layers, seam
from s3cfs.cli.progress import Progress
from s3cfs.cli.run import one_line
from s3cfs.config.options import LOG_LEVELS
from s3cfs.errors import ConfigError, ExitCode, UsageError

EPILOG = """\
examples:
  s3cfs ctl flush /mnt/home              returns when all that was written before is in the store
  s3cfs ctl drop-cache /mnt/home         forget everything that can be fetched from the store again
  s3cfs ctl log-level /mnt/home debug    until the next mount
  s3cfs ctl consistency /mnt/home        the protective delay, and what bounds it
  s3cfs ctl consistency /mnt/home lock-delay=40 lock-delay-most=120
  s3cfs ctl checker /mnt/home --last 50  what the store was seen to do, and what was decided for that
  s3cfs ctl layer /mnt/home              what the store's layers can be told, if it has any
  s3cfs ctl layer /mnt/home lock wait=5  tell one of them, until the next mount

sync(1) and syncfs() never reach a FUSE filesystem: `ctl flush` is the barrier.

"""
ACTIONS = {
    "flush": "return when everything written before is in the store",
    "drop-cache": "empty the local cache (what is not yet in the store is kept)",
    "log-level": "change how much is logged: " + ", ".join(LOG_LEVELS),
    "consistency": "show or change delays, thresholds and mode of the consistency lock and the checker",
    "checker": "show what the checker did and saw, and the log of its decisions",
    "layer": "show or change settings of the layers that this kind of store has",
}
LAYERS = {"consistency": ("consistency", "checker"), "checker": ("checker",)}     # whom these actions ask
WITHOUT = {"consistency": "neither consistency lock nor checker: they are backend options, consistency-lock and checker (docs/backends.md)",
           "checker": "no checker: it is a backend option, checker (docs/backends.md)"}
LAST = 20                          # decisions that are shown


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
        if name in ("layer", "consistency"):
            action.add_argument("changes", metavar="SETTING=VALUE", nargs="*", default=[], help="take over at once, for this mount only")
        if name == "checker":
            action.add_argument("--last", metavar="N", type=int, default=LAST, help=f"so many of the last decisions (default: {LAST})")
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
        answer = seam.call(info.socket, "layers" if args.action in LAYERS else args.action, asked, progress)
    if args.action in LAYERS:
        answer = _of_layers(answer, args)
    if args.json:
        print(json.dumps(answer))
    elif not (asked.get("changes") and args.quiet):
        for line in _lines(answer, args):
            print(line)
    return 0


def _asked(args: argparse.Namespace) -> dict[str, Any]:
    """What goes to the mount with the action."""
    if args.action == "log-level":
        return {"level": args.level}
    if args.action == "checker" and args.last < 0:
        raise UsageError("--last is a number of decisions")
    pairs = [change.partition("=") for change in getattr(args, "changes", ())]
    if not all(name and equals for name, equals, _ in pairs):
        raise UsageError("a change is SETTING=VALUE (without any, the settings are shown)")
    changes = {name: value for name, _, value in pairs}
    if args.action == "layer":
        return {"layer": args.layer, "changes": changes}
    return {"names": list(LAYERS[args.action]), "changes": changes} if args.action in LAYERS else {}


def _of_layers(answer: Mapping[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """What is shown of an answer about layers. ConfigError when the mount has none of them."""
    found = answer.get("layers") or {}
    if not found:
        raise ConfigError(f"{args.mountpoint} has {WITHOUT[args.action]}")
    if args.action == "checker":
        decisions = found["checker"]["decisions"]
        return {**found["checker"], "decisions": decisions[max(0, len(decisions) - args.last):]}
    return {"layers": {name: {"status": told["status"], "settings": told["settings"]} for name, told in found.items()}}


def _lines(answer: Mapping[str, Any], args: argparse.Namespace) -> Iterator[str]:
    if args.action == "layer":
        yield from _settings(answer)
    elif args.action == "consistency":
        for name, told in answer["layers"].items():
            yield from layers.table(name, told)
    elif args.action == "checker":
        yield from layers.table("checker", {"status": answer["status"]})
        yield from layers.decisions(answer["decisions"])


def _settings(answer: Mapping[str, Any]) -> Iterator[str]:
    found = answer.get("layers") or {}
    for name, settings in found.items():
        yield one_line(f"{name}: " + (", ".join(f"{setting}={value}" for setting, value in settings.items()) or "no settings"))
    if not found:
        yield "no layer of this store has settings"
