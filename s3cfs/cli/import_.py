"""`s3cfs import s3ql SOURCE TARGET`"""
from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from s3cfs.cli import arguments, exitcodes, seam, streams, version
from s3cfs.cli.mkfs import LABEL_MAX_BYTES, check_label
from s3cfs.cli.progress import Progress
from s3cfs.cli.run import one_line, resumable, say
from s3cfs.config import ImportOptions, Secret, Settings, format_size, load
from s3cfs.config.settings import PLACES, parse_backend_options, read_passphrase_fd
from s3cfs.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from s3cfs.moves.source import Finding

SHOWN_OF_A_KIND = 20                       # lines of features that are dropped; --json has them all
LISTINGS = ("auto", "folder", "probe")
PROBE_DEPTH = 10_000
FIRST = ("files", "folders")
OPTIONS = ("cachedir", "cachesize", "compress", "commit-interval", "journal-size", "takeover", "sole-writer")
EPILOG = """\
examples:
  s3cfs import s3ql storjs3://gateway.storjshare.io/bucket/old/ s3c://s3.example.com/bucket/new
      From the Storj fork's filesystem, whose login and passphrase are in ~/.s3ql/authinfo2, into a filesystem that is made.
  s3cfs import s3ql --dry-run local:///srv/s3ql s3c://s3.example.com/bucket/new
      What would come: counts, bytes, and what is wrong with the metadata.
  s3cfs import s3ql --s3ql-cache ~/.s3ql --into old/home s3c://old.example.com/bucket s3c://s3.example.com/bucket/new
      After a crash of mount.s3ql: with the metadata and blocks that never reached the store; below a folder.

SOURCE is the storage URL as S3QL has it: local://, s3c://, s3c4://, s3:// or storjs3://; S3QL 2.27 to 6, not mounted. Nothing is written
there. All names, hard links, owners, modes, times (ctime too), extended attributes, devices and holes come as they are.

It may be interrupted and killed at any time: the same command goes on where it was, on another machine too. What an object that is
missing or damaged holds is named with its files and ranges, and read as zeros; all else comes. Such files are tried again when the
command is run again. docs/s3ql.md has the way over from S3QL step by step.

"""


def parser(prog: str) -> arguments.Parser:
    made = arguments.Parser(
        prog=prog, description="Bring all of a filesystem of S3QL (or of its Storj fork) into a new or existing one of s3cfs.",
        epilog=EPILOG + exitcodes.epilog((
            ExitCode.WRONG_PASSPHRASE, ExitCode.ACCESS_DENIED, ExitCode.BUCKET_MISSING, ExitCode.STORE_UNREACHABLE,
            ExitCode.NO_FILESYSTEM, ExitCode.NEWER_FORMAT, ExitCode.ALREADY_MOUNTED, ExitCode.DAMAGED, ExitCode.OBJECT_MISSING,
            ExitCode.UNSUPPORTED)) +
        "  19, 20 and 31 after an import: something damaged, missing, or not to be held was named, and all else is there.\n")
    made.add_argument("kind", metavar="s3ql", choices=("s3ql",), help="what kind of filesystem it is")
    made.add_argument("source", metavar="SOURCE", help="its storage URL, as S3QL has it")
    made.add_argument("target", metavar="TARGET", help="storage URL of the s3cfs; it is made when there is none")
    made.add_argument("--into", metavar="FOLDER", default="", help="a folder of the target, made when there is none (default: its root)")
    made.add_argument("--dry-run", action="store_true", help="read the metadata, say what would come, make nothing")
    group = made.add_argument_group("source")
    group.add_argument("--s3ql-authfile", metavar="FILE", help="S3QL's own authentication file (default: ~/.s3ql/authinfo2)")
    group.add_argument("--s3ql-passphrase-fd", metavar="N", help="read the passphrase of SOURCE from this open file descriptor")
    group.add_argument("--s3ql-options", metavar="A=B,C", help="S3QL's backend options, instead of those in its file")
    group.add_argument("--s3ql-cache", metavar="DIR", help="S3QL's cache folder (~/.s3ql there): for what is newer than in the store")
    group.add_argument("--last-snapshot", action="store_true", help="of a filesystem that crashed (or is mounted): take what the store "
                       "has, when there is no cache folder")
    group.add_argument("--find-metadata", metavar="HOW", choices=LISTINGS, default="auto",
                       help="auto: list the metadata's names; folder: list by the prefix up to its last '/', for a bucket that refuses "
                       "others; probe: no listing at all, ask for one name after the other (may take long)")
    group.add_argument("--probe-depth", metavar="N", type=_depth, default=PROBE_DEPTH,
                       help=f"with probe: how many older versions of each block are asked for (default: {PROBE_DEPTH})")
    new = made.add_argument_group("a target that is made")
    new.add_argument("--label", "-L", help="a name for people (default: the source's)")
    new.add_argument("--plain", action="store_true", help="no encryption")
    arguments.add_options(made, OPTIONS)
    arguments.add_store(made)
    arguments.add_output(made)
    return made


def _depth(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 10**9:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of versions")
    return int(text)


def run(argv: Sequence[str], prog: str) -> int:
    args = parser(prog).parse(argv)
    from s3cfs.moves.s3ql.place import Secrets
    given = read_passphrase_fd(args.s3ql_passphrase_fd, "--s3ql-passphrase-fd") if args.s3ql_passphrase_fd is not None else None
    secrets = Secrets(args.s3ql_authfile, given,
                      parse_backend_options(args.s3ql_options, "--s3ql-options") if args.s3ql_options is not None else None,
                      arguments.asker("Passphrase of the filesystem of S3QL: "))
    settings, mounting = load(args.target, arguments.given(args), ask=arguments.asker("Passphrase of the target: "))
    options = ImportOptions(
        args.into, os.path.expanduser(args.s3ql_cache) if args.s3ql_cache else None,
        "folder" if args.find_metadata == "folder" else "auto", args.probe_depth if args.find_metadata == "probe" else None,
        args.last_snapshot, args.dry_run)
    for text in version.warnings():
        say(f"s3cfs: {text}")
    reporter = Reporter(args.json, args.quiet)
    with resumable("import"), reporter.progress:
        result = seam.moves().import_s3ql(args.source, secrets, settings, mounting, options, Maker(args, settings, reporter.progress),
                                          reporter.found, reporter.progress)
    reporter.end(result, args.dry_run)
    return int(result.exit_code)


class Maker:
    """Of the target, when there is none."""

    def __init__(self, args: argparse.Namespace, settings: Settings, progress: Progress) -> None:
        self._args, self._settings, self._progress = args, settings, progress
        self._passphrase: Secret | None = None

    def ask(self) -> None:
        self._passphrase = None if self._args.plain else self._settings.passphrase or arguments.ask_twice()
        if self._passphrase is None and not self._args.plain:
            raise ConfigError(f"a passphrase is needed for the new filesystem: {PLACES} (or --plain for no encryption)")

    def make(self, label: str) -> None:
        if self._args.label is not None:
            label = check_label(self._args.label)
        elif len(label.encode("utf-8", "surrogateescape")) > LABEL_MAX_BYTES or not label.isprintable():
            label = ""
        seam.app().mkfs(self._settings, label=label, plain=self._args.plain, passphrase=self._passphrase, show=self._show)

    def _show(self, coming: seam.MkfsResult) -> None:
        self._progress.close()
        if self._args.json:
            made = {"fs_id": coming.fs_id, "location": coming.location, "recovery_key": coming.recovery_key}
            print(json.dumps({"made": made}), flush=True)
        elif coming.recovery_key:
            if not self._args.quiet:
                say("Recovery key of the new filesystem, shown this once and kept nowhere. Write it down:")
            print(coming.recovery_key)
        streams.keep_stdout()


class Reporter:
    """Findings as they come, on stdout; the end."""

    def __init__(self, as_json: bool, quiet: bool, verb: str = "import") -> None:
        self.progress = Progress(quiet=quiet, as_json=as_json)
        self._json, self._quiet, self._verb = as_json, quiet, verb
        self._dropped = Counter[str]()

    def found(self, finding: Finding) -> None:
        self.progress.close()
        if self._json:
            shown = {"kind": str(finding.kind), "path": os.fsdecode(finding.path), "text": finding.text, "ranges": finding.ranges}
            print(json.dumps({"finding": shown}), flush=True)
            return
        if str(finding.kind) == "dropped":
            self._dropped[finding.text] += 1
            if self._dropped[finding.text] > SHOWN_OF_A_KIND:
                return
        print(one_line(str(finding)), flush=True)

    def end(self, result: seam.ImportResult, dry_run: bool) -> None:
        for text, count in self._dropped.items():
            if count > SHOWN_OF_A_KIND:
                print(one_line(f"dropped: {count - SHOWN_OF_A_KIND} more: {text}"))
        if self._json:
            print(json.dumps({"result": result.as_json()}))
            return
        if self._quiet and not dry_run:
            return
        counts = result.there if dry_run else result.came
        listed = ", ".join(_amount(name, counts[name]) for name in sorted(counts, key=lambda name: (name not in FIRST, name))
                           if counts[name] and name != "bytes")
        past = {"import": "imported", "copy": "copied"}
        text = f"{f'would {self._verb}' if dry_run else past[self._verb]} {listed or 'nothing'} from {result.origin}"
        if dry_run:
            print(text)
        else:
            say(f"{text}, {format_size(result.came.get('bytes', 0))} of data, {result.requests:,} requests")
            if result.exit_code:
                say("not everything came: see above; the same command tries again what is missing or damaged")


def _amount(name: str, count: int) -> str:
    if name.endswith("_bytes"):
        return f"{format_size(count)} in {name.removesuffix('_bytes')}s"
    return f"{count:,} {(name.removesuffix('s') if count == 1 else name).replace('_', ' ')}"
