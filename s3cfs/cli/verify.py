"""`s3cfs verify URL|MOUNTPOINT`"""
from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from s3cfs.cli import arguments, exitcodes, seam
from s3cfs.cli.progress import Progress
from s3cfs.cli.run import one_line, resumable, say
from s3cfs.config import VerifyOptions, format_size, load
from s3cfs.errors import ExitCode

EPILOG = """\
Each object that the filesystem must have (its metadata, log and checkpoints say which) is asked for by name: whether it is there, and its
size. With --data it is read, and its bytes are compared with the hash that it is named by, or opened with the keys. A store that keeps
shards or copies of its own looks at all of these, too: an object that can be read and is less safe than it should be is "weak".

It only reads, takes no office and mends nothing, so it may run beside a mount, here or elsewhere. When it was interrupted or killed, the
same command goes on where it was. fsck looks at more (each row, each file, the order of the log) and mends it; it believes listings where
verify asks for each object, and cannot go on.

examples:
  s3cfs verify s3c://s3.example.com/my-bucket/home
  s3cfs verify --data --corrupt-file damaged.txt /mnt/home
      What is mounted at /mnt/home, byte by byte.
  s3cfs verify --sample 5 s3c://s3.example.com/my-bucket/home
      A twentieth of all objects, others each time.

"""


def parser(prog: str) -> arguments.Parser:
    made = arguments.Parser(
        prog=prog, description="Ask the store for every object of a filesystem, or read them all.",
        epilog=EPILOG + exitcodes.epilog((
            ExitCode.WRONG_PASSPHRASE, ExitCode.ACCESS_DENIED, ExitCode.BUCKET_MISSING, ExitCode.STORE_UNREACHABLE, ExitCode.NO_FILESYSTEM,
            ExitCode.DAMAGED, ExitCode.OBJECT_MISSING, ExitCode.ALREADY_MOUNTED, ExitCode.NOT_A_MOUNT)))
    made.add_argument("place", metavar="URL|MOUNTPOINT", help="where the filesystem is, or is mounted")
    made.add_argument("--data", action="store_true", help="read every object (default: ask whether it is there, and for its size)")
    made.add_argument("--keyless", action="store_true",
                      help="without a passphrase: look at what the store lists; what is missing is not found")
    made.add_argument("--sample", metavar="PERCENT", type=_percent, help="only a part of the objects, drawn anew each time")
    made.add_argument("--restart", action="store_true", help="begin anew, though an earlier run was interrupted")
    made.add_argument("--missing-file", metavar="FILE", help="write the keys of objects that are missing to this file")
    made.add_argument("--corrupt-file", metavar="FILE", help="write the keys of objects that are damaged to this file")
    made.add_argument("--parallel", metavar="N", type=parallel, default=16, help="requests at once, if the store bears them (default: 16)")
    arguments.add_options(made, ("cachedir",))
    arguments.add_store(made)
    arguments.add_output(made)
    return made


def parallel(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 to 256")
    return int(text)


def _percent(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no percentage above 0 and up to 100")
    return share


def run(argv: Sequence[str], prog: str) -> int:
    args = parser(prog).parse(argv)
    url = args.place if "://" in args.place else seam.served(args.place).url
    settings, mounting = load(url, arguments.given(args), ask=None if args.keyless else arguments.asker())
    options = VerifyOptions(mounting.cachedir, args.data, args.keyless, args.restart, args.sample, args.parallel,
                            *(os.path.abspath(path) if path else None for path in (args.missing_file, args.corrupt_file)))
    with resumable("verify"), Progress(quiet=args.quiet, as_json=args.json) as progress:
        result = seam.moves().verify(settings, options, reporter(args.json, progress), progress)
    if args.json:
        print(json.dumps({"objects": result.objects, "bytes": result.bytes, "before": result.before, "read_bytes": result.read_bytes,
                          "missing": result.missing, "damaged": result.damaged, "weak": result.weak, "exit_code": int(result.exit_code)}))
    elif not args.quiet:
        say(_verdict(result, args.data))
    return int(result.exit_code)


def _verdict(result: seam.VerifyResult, data: bool) -> str:
    found = ((result.missing, "missing"), (result.damaged, "damaged"), (result.weak, "weak"))
    trouble = [f"{len(keys):,} {word}" for keys, word in found if keys]
    before = f", {result.before:,} of them by an earlier run" if result.before else ""
    looked = f"{result.objects:,} objects ({format_size(result.bytes)}) {'read' if data else 'looked for'}{before}"
    return f"{looked}: {' and '.join(trouble) if trouble else 'all well'}"


def reporter(as_json: bool, progress: Progress) -> Callable[[Any], None]:
    """Of problems (check.Line): a line each on stdout."""
    def report(problem: Any) -> None:
        progress.close()
        if as_json:
            print(json.dumps({"problem": {"severity": problem.severity, "object": problem.object, "text": problem.text}}), flush=True)
        else:
            print(one_line(str(problem)), flush=True)
    return report
