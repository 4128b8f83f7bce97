"""`s3cfs probe URL`"""
from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from s3cfs.cli import arguments, exitcodes, measured, seam
from s3cfs.cli.progress import Progress
from s3cfs.config import format_size, load, parse_size
from s3cfs.errors import ExitCode, Interrupted, Unsupported, UsageError
from s3cfs.limits import GIB

EPILOG = """\
A store that can refuse to overwrite (create-only puts) is tier T1; one that cannot, but never answers with what is old, T2; one of neither
tier can be written with --sole-writer only: docs/backends.md. Each filesystem notes what its first mount found, and every machine goes
by that note, since machines that found different things would not notice one another. Mounts only look whether it still holds, and
refuse when it does not. Then, or when a store has learned it, this command tries again and changes the note. For that nobody may have
the filesystem mounted, and nobody may mount it meanwhile.

It writes below probe/ and removes it again: some 1,500 small requests, with --large objects of up to 1 GiB, too.

With --hours it goes on for so long, and measures how late the store shows a change, what comes back after it was deleted, how often
it refuses, and how fast it is, by the hour of the day; and suggests delays for the consistency lock. Ctrl-C (or SIGTERM) ends that
early: what was measured is told, and the exit code is 8. With --report it is in a file, too, renewed each half minute; the same command
goes on where an interrupted one was.

examples:
  s3cfs probe s3c://s3.example.com/my-bucket/home
  s3cfs probe --takeover local:///srv/store
      Although the last machine that had it mounted did not unmount: it is certainly gone.
  s3cfs probe --hours 24 --report day.json s3c://s3.example.com/my-bucket/probe
      A day: 86,400 requests and up to 12 GiB of traffic. --rate and --traffic make that less.

"""

HOURS_MAX = 24 * 365
HOUR_S = 3600.0
RATES = (1.0, 60_000.0)
OBJECT_MAX = GIB


def parser(prog: str) -> arguments.Parser:
    made = arguments.Parser(
        prog=prog, description="Try what a store can do, and note it in the filesystem there if it has changed; measure what it is like.",
        epilog=EPILOG + exitcodes.epilog((
            ExitCode.WRONG_PASSPHRASE, ExitCode.ACCESS_DENIED, ExitCode.BUCKET_MISSING, ExitCode.WRONG_REGION, ExitCode.STORE_UNREACHABLE,
            ExitCode.CLOCK_SKEW, ExitCode.ALREADY_MOUNTED, ExitCode.DAMAGED, ExitCode.UNSUPPORTED)))
    made.add_argument("url", metavar="URL", help="where: a filesystem, or a place for one")
    made.add_argument("--takeover", action="store_true", help="the last machine that had it mounted is certainly gone")
    made.add_argument("--large", action="store_true", help="try objects of 16 MiB to 1 GiB, too")
    long = made.add_argument_group("the long measurement")
    long.add_argument("--hours", metavar="N", help="measure for so many hours (0.5 is half of one)")
    long.add_argument("--rate", metavar="N", help="requests a minute, on average (default: 60)")
    long.add_argument("--traffic", metavar="SIZE", help="bytes an hour, up and down, to measure throughput; 0: none (default: 512MiB)")
    long.add_argument("--object", metavar="SIZE", help="size of the objects that are put and got for that (default: 8MiB)")
    long.add_argument("--report", metavar="FILE", help="keep the report in this file (JSON), too; one that is there is gone on with")
    arguments.add_store(made)
    arguments.add_output(made)
    return made


def run(argv: Sequence[str], prog: str) -> int:
    args = parser(prog).parse(argv)
    plan = _plan(args)
    settings, _ = load(args.url, arguments.given(args), ask=arguments.asker())
    with Progress(quiet=args.quiet, as_json=args.json) as progress:
        result = seam.app().probe(settings, takeover=args.takeover, large=args.large, progress=progress)
    about = _about(result)
    if plan is None:
        _say(args.json, about, [*_lines(result)])
        return 0
    if not result.found.may_delete:
        _say(args.json, about, [*_lines(result)])
        raise Unsupported("probe", "", "nothing can be deleted there, and a measurement of hours would leave all that it writes")
    if not args.json:
        _say(False, about, [*_lines(result)])
    report_file = os.path.abspath(args.report) if args.report else None
    with Progress(quiet=args.quiet, as_json=args.json) as progress:
        long = seam.app().measure(settings, about=about, report_file=report_file, progress=progress, **plan)
    _say(args.json, {**about, "complete": long.complete, "measured": long.measured}, ["", *measured.lines(long.measured)])
    if long.unwritten is not None:
        raise long.unwritten
    if not long.complete:
        raise Interrupted("ended early: the report is about the time until then")
    return 0


def _plan(args: argparse.Namespace) -> dict[str, float] | None:
    """What `app.measure` takes. None: no long measurement."""
    if args.hours is None:
        for name in ("rate", "traffic", "object", "report"):
            if getattr(args, name) is not None:
                raise UsageError(f"--{name} is for the long measurement: give --hours, too")
        return None
    hours = _number("--hours", args.hours, 0.0, HOURS_MAX)
    if not hours:
        raise UsageError("--hours 0 leaves no time to measure")
    given = {"seconds": hours * HOUR_S}
    if args.rate is not None:
        given["rate"] = _number("--rate", args.rate, *RATES)
    for name, field in (("traffic", "traffic"), ("object", "object_bytes")):
        if getattr(args, name) is not None:
            try:
                given[field] = parse_size(getattr(args, name))
            except ValueError as error:
                raise UsageError(f"--{name}: {error}") from None
    if not 0 < given.get("object_bytes", 1) <= OBJECT_MAX:
        raise UsageError(f"--object: '{args.object}' is not between 1B and {format_size(OBJECT_MAX)}")
    return given


def _number(name: str, text: str, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise UsageError(f"{name}: '{text}' is not a number between {least:g} and {most:g}")
    return value


def _say(as_json: bool, data: Mapping[str, Any], lines: Sequence[str]) -> None:
    print(json.dumps(data) if as_json else "\n".join(lines), flush=True)         # it may end with an error


def _about(result: seam.ProbeResult) -> dict[str, Any]:
    found = result.found
    listings = found.listings and {"part_of_name": found.listings.part_of_name, "in_order": found.listings.in_order}
    return {"tier": result.tier, "before": result.before, "noted": result.noted, "linearizable": found.linearizable, "rounds": found.rounds,
            "stale": found.stale, "may_delete": found.may_delete, "batch_delete": found.batch_delete, "ranged_reads": found.ranged_reads,
            "delimiters": found.delimiters, "listings": listings, "largest_bytes": found.largest_bytes, "wrong": found.wrong}


def _lines(result: seam.ProbeResult) -> Iterator[str]:
    found = result.found
    tier = f"tier {result.tier}" if result.tier != "sole" else "neither tier: --sole-writer only"
    yield f"create-only puts {'hold: of each race one won' if result.tier == 'T1' else 'do not hold'} ({tier})"
    yield from (f"stale answer: {text}" for text in found.stale)
    if not found.stale:
        yield f"no stale answer in {found.rounds} rounds"
    if not found.may_delete:
        yield "nothing can be deleted"
    else:
        yield "deletes " + (f"up to {found.batch_delete:,} keys a request" if found.batch_delete > 1 else "one key a request")
    if not found.ranged_reads:
        yield "sends all of an object for a part of it: reads will be slow, and dear where traffic costs"
    if not found.delimiters:
        yield "does not list folders (delimiters): each look for one lists everything below"
    if found.listings is not None:
        by_part = {"works": "can be listed by a part of a name", "refused": "refuses a listing whose prefix does not end in '/'",
                   "wrong": "lists wrongly when a prefix does not end in '/'"}[found.listings.part_of_name]
        yield f"{by_part}; keys come {'in order' if found.listings.in_order else 'in no order of their names'}"
    if found.largest_bytes is not None:
        yield f"objects of {format_size(found.largest_bytes)} can be stored"
    yield from (f"not as it must be: {text}" for text in found.wrong)
    if result.noted:
        yield f"the filesystem was under {result.before}; from now on it is under {result.tier}"
    elif result.before is not None:
        yield "as the filesystem there says"
