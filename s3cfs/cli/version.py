"""`s3cfs version`"""
from __future__ import annotations

import json
import platform
from collections.abc import Sequence

from s3cfs import __version__
from s3cfs.cli.arguments import Parser
from s3cfs.cli.run import say
from s3cfs.ids import FORMAT_VERSION


def parser(prog: str) -> Parser:
    made = Parser(prog=prog, description="Print the version of s3cfs and of the newest format it reads.")
    made.add_argument("--json", action="store_true", help="as JSON")
    return made


def warnings() -> list[str]:
    """What is wrong with this installation, a line each."""
    from s3cfs.formats import chunker
    return [chunker.SLOW] if chunker.SLOW else []


def run(argv: Sequence[str], prog: str) -> int:
    args = parser(prog).parse(argv)
    if args.json:
        print(json.dumps({"version": __version__, "format": FORMAT_VERSION, "python": platform.python_version(), "warnings": warnings()}))
    else:
        print(f"s3cfs {__version__} (format {FORMAT_VERSION})")
        for text in warnings():
            say(f"s3cfs: {text}")
    return 0
