"""`s3cfs help [COMMAND]`"""
from __future__ import annotations

from collections.abc import Sequence

from s3cfs.cli import commands
from s3cfs.cli.arguments import Parser


def parser(prog: str) -> Parser:
    made = Parser(prog=prog, description="Explain a command, or list them all.")
    made.add_argument("command", nargs="?", metavar="COMMAND")
    return made


def run(argv: Sequence[str], prog: str) -> int:
    args = parser(prog).parse(argv)
    if args.command is None:
        print(commands.overview(), end="")
    else:
        commands.command(args.command).parser(f"s3cfs {args.command}").print_help()
    return 0
