"""`s3cfs ctl flush|drop-cache|log-level MNT`"""
from __future__ import annotations

import json
from collections.abc import Sequence

from s3cfs.cli import arguments, exitcodes, seam
from s3cfs.cli.progress import Progress
from s3cfs.config.options import LOG_LEVELS
from s3cfs.errors import ExitCode

EPILOG = """\
examples:
  s3cfs ctl flush /mnt/home              returns when all that was written before is in the store
  s3cfs ctl drop-cache /mnt/home         forget everything that can be fetched from the store again
  s3cfs ctl log-level /mnt/home debug    until the next mount

sync(1) and syncfs() never reach a FUSE filesystem: `ctl flush` is the barrier.

"""
ACTIONS = {
    "flush": "return when everything written before is in the store",
    "drop-cache": "empty the local cache (what is not yet in the store is kept)",
    "log-level": "change how much is logged: " + ", ".join(LOG_LEVELS),
}


def parser(prog: str) -> arguments.Parser:
    made = arguments.Parser(prog=prog, description="Control a mounted filesystem.",
                            epilog=EPILOG + exitcodes.epilog((ExitCode.NOT_A_MOUNT, ExitCode.STORE_UNREACHABLE, ExitCode.NO_ANSWER)))
    actions = made.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=arguments.Parser)
    for name, text in ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        action.add_argument("mountpoint", metavar="MOUNTPOINT")
        if name == "log-level":
            action.add_argument("level", metavar="LEVEL", choices=LOG_LEVELS, help=", ".join(LOG_LEVELS))
        arguments.add_output(action)
    return made


def run(argv: Sequence[str], prog: str) -> int:
    args = parser(prog).parse(argv)
    info = seam.served(args.mountpoint)
    if args.action == "flush":
        seam.alive(info)
        seam.write_back(info.mountpoint)
    with Progress(quiet=args.quiet, as_json=args.json) as progress:
        answer = seam.call(info.socket, args.action, {"level": args.level} if args.action == "log-level" else {}, progress)
    if args.json:
        print(json.dumps(answer))
    return 0
