"""`s3cfs probe URL`"""
from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from s3cfs.cli import arguments, exitcodes, seam
from s3cfs.cli.progress import Progress
from s3cfs.config import format_size, load
from s3cfs.errors import ExitCode

EPILOG = """\
A store that can refuse to overwrite (create-only puts) is tier T1; one that cannot, but never answers with what is old, T2; one of neither
tier can be written with --sole-writer only: docs/backends.md. Each filesystem notes what its first mount found, and every machine goes
by that note, since machines that found different things would not notice one another. Mounts only look whether it still holds, and
refuse when it does not. Then, or when a store has learned it, this command tries again and changes the note. For that nobody may have
the filesystem mounted, and nobody may mount it meanwhile.

It writes below probe/ and removes it again: some 1,500 small requests, with --large objects of up to 1 GiB, too.

examples:
  s3cfs probe s3c://s3.example.com/my-bucket/home
  s3cfs probe --takeover local:///srv/store
      Although the last machine that had it mounted did not unmount: it is certainly gone.

"""


def parser(prog: str) -> arguments.Parser:
    made = arguments.Parser(
        prog=prog, description="Try what a store can do, and note it in the filesystem there if it has changed.",
        epilog=EPILOG + exitcodes.epilog((
            ExitCode.WRONG_PASSPHRASE, ExitCode.ACCESS_DENIED, ExitCode.BUCKET_MISSING, ExitCode.WRONG_REGION, ExitCode.STORE_UNREACHABLE,
            ExitCode.CLOCK_SKEW, ExitCode.ALREADY_MOUNTED, ExitCode.DAMAGED)))
    made.add_argument("url", metavar="URL", help="where: a filesystem, or a place for one")
    made.add_argument("--takeover", action="store_true", help="the last machine that had it mounted is certainly gone")
    made.add_argument("--large", action="store_true", help="try objects of 16 MiB to 1 GiB, too")
    arguments.add_store(made)
    arguments.add_output(made)
    return made


def run(argv: Sequence[str], prog: str) -> int:
    args = parser(prog).parse(argv)
    settings, _ = load(args.url, arguments.given(args), ask=arguments.asker())
    with Progress(quiet=args.quiet, as_json=args.json) as progress:
        result = seam.app().probe(settings, takeover=args.takeover, large=args.large, progress=progress)
    found = result.found
    if args.json:
        print(json.dumps({
            "tier": result.tier, "before": result.before, "noted": result.noted, "linearizable": found.linearizable, "rounds": found.rounds,
            "stale": found.stale, "may_delete": found.may_delete, "batch_delete": found.batch_delete, "ranged_reads": found.ranged_reads,
            "delimiters": found.delimiters, "largest_bytes": found.largest_bytes, "wrong": found.wrong}))
        return 0
    for line in _lines(result):
        print(line)
    return 0


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
    if found.largest_bytes is not None:
        yield f"objects of {format_size(found.largest_bytes)} can be stored"
    yield from (f"not as it must be: {text}" for text in found.wrong)
    if result.noted:
        yield f"the filesystem was under {result.before}; from now on it is under {result.tier}"
    elif result.before is not None:
        yield "as the filesystem there says"
