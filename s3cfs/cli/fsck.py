"""`s3cfs fsck URL`, and `fsck.s3cfs` as fsck(8) calls it. Both answer with the exit codes of fsck(8)."""
from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

from s3cfs.cli import arguments, exitcodes, seam
from s3cfs.cli.progress import Progress
from s3cfs.cli.run import one_line, say
from s3cfs.config import FsckOptions, load
from s3cfs.errors import ConfigError, Damaged, Diverged, Interrupted, ObjectMissing, RolledBack, S3cfsError, UsageError

CORRECTED, UNCORRECTED, OPERATIONAL, USAGE, CANCELLED = 1, 4, 8, 16, 32
EPILOG = """\
examples:
  s3cfs fsck s3c://s3.example.com/my-bucket/home
      Quick: every row of the metadata, every object's name and size.
  s3cfs fsck --full --repair s3c://s3.example.com/my-bucket/home
      Also download and verify every byte; mend what can be mended.
  s3cfs fsck --no-cache s3c://s3.example.com/my-bucket/home
      As if on another machine: from the store alone.

Each problem is a line on stdout (with --json a JSON object); files and ranges that are hit are named.

"""


def parser(prog: str) -> arguments.Parser:
    codes = "".join(f"  {code:>2}  {text}\n" for code, text in exitcodes.FSCK.items())
    made = arguments.Parser(prog=prog, description="Check a filesystem that is not mounted for writing.",
                            epilog=EPILOG + "exit codes (those of fsck(8); added up):\n" + codes)
    made.add_argument("url", metavar="URL", help="where the filesystem is")
    made.add_argument("--repair", action="store_true", help="mend what can be mended (default: look only)")
    depth = made.add_mutually_exclusive_group()
    depth.add_argument("--full", action="store_true", help="read and verify every byte in the store")
    depth.add_argument("--quick", dest="full", action="store_false", help="rows, names and sizes (the default)")
    made.add_argument("--no-cache", action="store_true", help="look at the store alone, not at local state")
    arguments.add_options(made, ("cachedir", "sole-writer"))
    arguments.add_store(made)
    arguments.add_output(made)
    return made


def run(argv: Sequence[str], prog: str) -> int:
    return _check(parser(prog).parse(argv))


def exit_code(error: S3cfsError) -> int:
    """fsck(8)'s code for an error that ended the check."""
    if isinstance(error, (UsageError, ConfigError)):
        return USAGE
    if isinstance(error, Interrupted):
        return CANCELLED
    if isinstance(error, (Damaged, ObjectMissing, Diverged, RolledBack)):
        return UNCORRECTED | OPERATIONAL
    return OPERATIONAL


def run_helper(argv: Sequence[str]) -> int:
    """Turn the options of fsck(8) (-a -p -y -r -n -f -C[fd] -M -T -V ...) into ours; long options are ours already."""
    ours: list[str] = []
    words = iter(argv)
    repair = automatic = False
    for word in words:
        if word == "-o":
            next(words, None)
        elif word in ("-a", "-p", "-y", "-r"):
            repair, automatic = True, word in ("-a", "-p")
        elif word == "-f":
            ours.append("--full")
        elif word == "-n":
            repair = False
        elif word == "-q" or word.startswith("--") or not word.startswith("-"):
            ours.append(word)
        elif word == "-h":
            ours.append("--help")
        elif not (word in ("-M", "-T", "-V", "-v", "-s", "-R", "-P", "-l") or word.startswith("-C")):
            raise UsageError(f"unknown option {word.partition('=')[0]} (see fsck.s3cfs --help)")
    return _check(parser("fsck.s3cfs").parse([*ours, *(["--repair"] if repair else [])]), automatic)


def _check(args: Any, automatic: bool = False) -> int:
    settings, options = load(args.url, arguments.given(args), ask=arguments.asker())
    wanted = FsckOptions(repair=args.repair, full=args.full, cachedir=None if args.no_cache else options.cachedir,
                         sole_writer=options.sole_writer, automatic=automatic)
    with Progress(quiet=args.quiet, as_json=args.json) as progress:
        result = seam.app().fsck(settings, wanted, _reporter(args.json, progress), progress)
    if args.json:
        print(json.dumps({"counts": dict(result.counts), "exit_code": int(result.exit_code)}))
    elif not args.quiet:
        counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in result.counts.items())
        verdict = " and ".join(text for code, text in exitcodes.FSCK.items() if code & result.exit_code) or exitcodes.FSCK[0]
        say(f"{verdict}{f' ({counts})' if counts else ''}")
    return int(result.exit_code)


def _reporter(as_json: bool, progress: Progress) -> Callable[[Any], None]:
    def report(problem: Any) -> None:
        progress.close()
        if as_json:
            shown = dataclasses.asdict(problem) if dataclasses.is_dataclass(problem) and not isinstance(problem, type) else str(problem)
            print(json.dumps({"problem": shown}, default=str), flush=True)
        else:
            print(one_line(str(problem)), flush=True)
    return report
