"""`s3cfs debug dump [URL] OBJECT`"""
from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from s3cfs.cli import arguments, exitcodes, seam
from s3cfs.config import load
from s3cfs.errors import ExitCode, UsageError

EPILOG = """\
examples:
  s3cfs debug dump s3c://s3.example.com/my-bucket/home super/1
  s3cfs debug dump s3c://s3.example.com/my-bucket/home/super/1
      The same: URL and key in one word.
  s3cfs debug dump --json local:///srv/store pack/3f/2-3f9c...

Passphrase and other keys are never shown; names of files in log records and checkpoints are.

"""


def parser(prog: str) -> arguments.Parser:
    made = arguments.Parser(prog=prog, description="Look into the objects of a store.", epilog=EPILOG + exitcodes.epilog(
        (ExitCode.WRONG_PASSPHRASE, ExitCode.NO_FILESYSTEM, ExitCode.DAMAGED, ExitCode.OBJECT_MISSING, ExitCode.NEWER_FORMAT)))
    actions = made.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=arguments.Parser)
    dump = actions.add_parser("dump", help="show one object, whatever its kind", description="Show one object, whatever its kind.")
    dump.add_argument("place", nargs="+", metavar="[URL] OBJECT", help="where the filesystem is, and the object's key")
    arguments.add_store(dump)
    dump.add_argument("--rows", action="store_true", help="every row that a log record or a part of a checkpoint changes")
    dump.add_argument("--json", action="store_true", help="as JSON")
    return made


def run(argv: Sequence[str], prog: str) -> int:
    args = parser(prog).parse(argv)
    url, key = locate(args.place)
    settings, _ = load(url, arguments.given(args), ask=arguments.asker())
    shown = seam.app().dump(settings, key, rows=args.rows)
    if args.json:
        print(json.dumps(shown, default=_text, indent=2))
    else:
        for line in render(shown):
            print(line)
    return 0


def locate(place: Sequence[str]) -> tuple[str, str]:
    """(URL, key) of one or two words."""
    if len(place) == 2:
        return place[0], place[1].strip("/")
    if len(place) == 1 and (found := _last_kind(place[0])):
        return found
    raise UsageError("say which object: s3cfs debug dump URL KEY, for example s3c://host/bucket super/1")


def _last_kind(text: str) -> tuple[str, str] | None:
    """The URL ends at the last kind of object: a prefix may be called "log", a key has no second kind in it."""
    scheme, _, rest = text.partition("://")
    matches = list(re.finditer(r"/(?=(?:super|log|claim|checkpoint|pack)/)", rest))
    if not scheme or not matches:
        return None
    at = matches[-1].start()
    return f"{scheme}://{rest[:at]}", rest[at + 1:]


def render(value: Any, indent: int = 0) -> Iterator[str]:
    """Indented `key: value` lines."""
    pad = "  " * indent
    for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
        label = f"{key}:" if isinstance(value, Mapping) else "-"
        if isinstance(inner, (Mapping, list, tuple)) and inner:
            yield f"{pad}{label}"
            yield from render(inner, indent + 1)
        else:
            yield f"{pad}{label} {_text(inner)}"


def _text(value: Any) -> str:
    text = value.hex() if isinstance(value, (bytes, bytearray, memoryview)) else str(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
