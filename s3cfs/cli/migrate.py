"""`s3cfs migrate SOURCE TARGET`"""
from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence

from s3cfs.cli import arguments, exitcodes, seam
from s3cfs.cli.import_ import Maker, Reporter
from s3cfs.cli.progress import Progress
from s3cfs.cli.run import one_line, resumable, say
from s3cfs.cli.verify import parallel, reporter
from s3cfs.config import MigrateOptions, MountOptions, Settings, format_size, load_pair
from s3cfs.config.quantities import parse_duration
from s3cfs.errors import ExitCode, UsageError

EPILOG = """\
Every object goes over as it is: nothing is decrypted, no passphrase is needed where the source can be listed, and the target has the same
passphrases, the same id and the same history. The source is only read. Both stores have their own sections in the authentication file.

When it was interrupted or killed, at any moment, the same command goes on where it was. The target can be mounted when it is whole and not
before: its superblock comes last, when nobody has the source mounted any more. So a large filesystem moves like this:

  s3cfs migrate SOURCE TARGET        while it is mounted and used; days, if it must be
  s3cfs umount /mnt/home
  s3cfs migrate SOURCE TARGET        what came meanwhile; minutes
  s3cfs probe TARGET                 finds out what the new store can do, and notes it
  s3cfs mount TARGET /mnt/home

From then on SOURCE must not be mounted for writing: there would be two histories of one filesystem, which nobody can join. Take the right
to write there away from everybody. docs/migration.md says more.

examples:
  s3cfs migrate --dry-run s3c://s3.example.com/old/home storjs3://gateway.example.com/new/home
      How many objects, bytes and requests it would be.
  s3cfs migrate --follow s3c://s3.example.com/old/home local:///srv/store
      Copy, go on copying what comes, and end when the source is unmounted.
  s3cfs migrate --verify data local:///srv/store s3://eu-central-1/my-bucket/home
      Read each object back.
  s3cfs migrate --re-encrypt local:///srv/store s3c://s3.example.com/new/home
      A new filesystem with a new passphrase (that of the target's section) and the same tree.

"""


def parser(prog: str) -> arguments.Parser:
    made = arguments.Parser(
        prog=prog, description="Copy a filesystem into another store, of whatever kind.",
        epilog=EPILOG + exitcodes.epilog((
            ExitCode.WRONG_PASSPHRASE, ExitCode.ACCESS_DENIED, ExitCode.BUCKET_MISSING, ExitCode.STORE_UNREACHABLE, ExitCode.NO_FILESYSTEM,
            ExitCode.FILESYSTEM_EXISTS, ExitCode.DAMAGED, ExitCode.OBJECT_MISSING, ExitCode.ALREADY_MOUNTED, ExitCode.DIVERGED,
            ExitCode.STORE_FULL)))
    made.add_argument("source", metavar="SOURCE", help="URL of the filesystem")
    made.add_argument("target", metavar="TARGET", help="URL of an empty place, or of what an earlier run left there")
    made.add_argument("--dry-run", action="store_true", help="only say how many objects, bytes and requests it would be")
    made.add_argument("--follow", action="store_true", help="go on with what comes until the source is unmounted (or this is interrupted)")
    made.add_argument("--interval", metavar="TIME", type=parse_duration, default=30.0, help="between two looks of --follow (default: 30s)")
    made.add_argument("--unmounted", action="store_true", help="nobody has the source mounted: needed where that cannot be seen, without "
                      "a passphrase or after a machine died")
    made.add_argument("--verify", choices=("head", "data"), default="head", help="head: a last look compares all sizes (the "
                      "default); data: each object is also read back")
    made.add_argument("--no-list", action="store_true", help="go by the filesystem's metadata, without a listing of the source's packs; "
                      "needs the passphrase, and leaves out what no file needs any more")
    made.add_argument("--re-encrypt", action="store_true", help="into a new filesystem with keys, id and history of its own: the tree as "
                      "it is now, not the objects; needs both passphrases")
    made.add_argument("--label", "-L", help="with --re-encrypt: a name for people (default: the source's)")
    made.add_argument("--plain", action="store_true", help="with --re-encrypt: the new filesystem is not encrypted")
    made.add_argument("--source-options", metavar="A=B,C", help="backend options of the source, instead of those in the file")
    made.add_argument("--target-options", metavar="A=B,C", help="backend options of the target")
    made.add_argument("--parallel", metavar="N", type=parallel, default=16,
                      help="requests at once to each store, if it bears them (default: 16)")
    arguments.add_options(made, ("cachedir",))
    group = made.add_argument_group("secrets")
    group.add_argument("--authfile", metavar="FILE", help="authentication file (default: $S3CFS_AUTHFILE, ~/.config/s3cfs/auth.ini, "
                       "/etc/s3cfs/auth.ini, ~/.s3ql/authinfo2)")
    arguments.add_spec(group)
    group.add_argument("--passphrase-fd", metavar="N", help="read the passphrase from this open file descriptor")
    arguments.add_output(made)
    return made


def run(argv: Sequence[str], prog: str) -> int:
    args = parser(prog).parse(argv)
    source, target, mounting = load_pair(args.source, args.target, arguments.given(args), args.source_options, args.target_options,
                                         ask=arguments.asker())
    if args.re_encrypt:
        return _reencrypt(args, source, target, mounting)
    if args.label is not None or args.plain:
        raise UsageError("--label and --plain are for a new filesystem: --re-encrypt")
    options = MigrateOptions(mounting.cachedir, args.no_list, args.verify == "data", args.dry_run, args.follow, args.interval,
                             args.unmounted, args.parallel)
    with resumable("migrate"), Progress(quiet=args.quiet, as_json=args.json) as progress:
        def tell(text: str) -> None:
            if not args.quiet:
                progress.close()
                say(one_line(text))

        result = seam.moves().migrate(source, target, options, reporter(args.json, progress), tell, progress)
    if args.json:
        print(json.dumps({
            "state": str(result.state), "fs_id": result.fs_id, "commit": result.commit, "objects": result.objects, "bytes": result.bytes,
            "to_copy": {"objects": result.to_copy[0], "bytes": result.to_copy[1]}, "copied": result.tally.copied,
            "copied_bytes": result.tally.copied_bytes, "compared": result.tally.compared, "mended": result.tally.mended,
            "read_back": result.tally.read_back, "passes": result.passes, "gone_on": result.gone_on, "tier": result.tier,
            "mounted_by": result.who or None, "source_requests": result.source_requests, "target_requests": result.target_requests,
            "missing": result.missing, "damaged": result.damaged, "exit_code": int(result.exit_code)}))
    else:
        for line in _lines(result, source.url, target.url):
            if not args.quiet or result.exit_code:
                say(line)
    return int(result.exit_code)


def _reencrypt(args: argparse.Namespace, source: Settings, target: Settings, mounting: MountOptions) -> int:
    for name in ("follow", "unmounted", "no_list"):
        if getattr(args, name):
            raise UsageError(f"--{name.replace('_', '-')} is for objects as they are, not for --re-encrypt")
    reporter = Reporter(args.json, args.quiet, "copy")
    with resumable("migrate"), reporter.progress:
        result = seam.moves().reencrypt(source, target, mounting, args.dry_run, Maker(args, target, reporter.progress), reporter.found,
                                        reporter.progress)
    reporter.end(result, args.dry_run)
    return int(result.exit_code)


def _lines(result: seam.MigrateResult, source: str, target: str) -> Iterator[str]:
    if result.gone_on:
        yield f"{target} is whole, and was written since: nothing is to be done"
        return
    amount = f"{result.objects:,} objects ({format_size(result.bytes)})"
    if result.state == "planned":
        objects, size = result.to_copy
        who = f"; mounted by {result.who}" if result.who else ""
        yield (f"{amount}, of which {objects:,} ({format_size(size)}) are to be copied: about {result.source_requests:,} requests to the "
               f"source and {result.target_requests:,} to the target{who}")
        return
    done = f"{result.tally.copied:,} objects ({format_size(result.tally.copied_bytes)}) copied"
    if trouble := [f"{len(keys):,} {word}" for keys, word in ((result.missing, "missing"), (result.damaged, "damaged")) if keys]:
        yield f"{' and '.join(trouble)} in the source; the target is as whole as the source was (s3cfs fsck names the files)"
    if result.state == "whole":
        yield f"{done}; {target} is whole: {amount}, up to commit {result.commit}"
        if result.tier == "T1":
            yield "before the first mount: s3cfs probe TARGET finds out whether the new store can refuse to overwrite, as the old one could"
        yield (f"FROM NOW ON MOUNT {target} ONLY. What is written to {source} from now on is another history, which cannot be joined with "
               "this one: take the right to write there away, or delete it when all is well")
    elif result.state == "mounted":
        yield f"{done}, up to commit {result.commit}. Not whole yet: {result.who} has the source mounted. Unmount it and run this again"
    else:
        yield (f"{done}, up to commit {result.commit}. Not whole yet: without a passphrase nobody can say whether the source is mounted. "
               "When it is not, run this again with --unmounted")
