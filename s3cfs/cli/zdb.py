"""`s3cfs zdb ACTION URL|MOUNTPOINT`: the care of a set of 0-dbs. What each action does is `moves/zdb.py`'s matter, and the backend's."""
from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from s3cfs.cli import arguments, exitcodes, seam
from s3cfs.cli.progress import Progress
from s3cfs.cli.run import one_line, resumable, say
from s3cfs.cli.verify import parallel
from s3cfs.config import Settings, format_duration, format_size, load, parse_size
from s3cfs.errors import ExitCode, Temporary, UsageError

EPILOG = """\
examples:
  s3cfs zdb status /mnt/home
      How each server is, as the mount sees it.
  s3cfs zdb status zdb:///etc/s3cfs/zdb.toml
      The same without a mount: each server is asked.
  s3cfs zdb check --data zdb:///etc/s3cfs/zdb.toml
      Do all replicas say the same, is every shard there and whole?
  s3cfs zdb repair --rate 20MiB zdb:///etc/s3cfs/zdb.toml
      Build anew what is missing, rotten, or on servers that drain or are gone; at 20 MiB a second at most.
  s3cfs zdb reclaim --dry-run zdb:///etc/s3cfs/zdb.toml
      How much space of deleted objects could be got back on each server.
  s3cfs zdb restore --replicas-lost zdb:///etc/s3cfs/zdb.toml
      Every replica of the records is lost: others get them, from the last backup and from the shards of what was put since.

Servers are added, drained and replaced by editing the list that the URL names; a mount that runs takes it over by itself
(docs/zdb.md). Repairs may run beside mounts, and beside one another.

"""
HANDS = 4                          # objects at once, by default


class Action(NamedTuple):
    """One word after `s3cfs zdb`. `arguments` adds its own to those of all; `run(args)` gives the exit code."""

    text: str
    arguments: Callable[[arguments.Parser], None]
    run: Callable[[argparse.Namespace], int]


def parser(prog: str) -> arguments.Parser:
    made = arguments.Parser(prog=prog, description="Look after a set of 0-dbs.", epilog=EPILOG + exitcodes.epilog((
        ExitCode.ACCESS_DENIED, ExitCode.BUCKET_MISSING, ExitCode.STORE_UNREACHABLE, ExitCode.DAMAGED, ExitCode.OBJECT_MISSING,
        ExitCode.NOT_A_MOUNT, ExitCode.STORE_FULL, ExitCode.UNSUPPORTED, ExitCode.NO_ANSWER)))
    words = made.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=arguments.Parser)
    for name, action in ACTIONS.items():
        word = words.add_parser(name, help=action.text, description=action.text[0].upper() + action.text[1:] + ".")
        word.add_argument("place", metavar="URL|MOUNTPOINT", help="the set of servers, or where a filesystem on it is mounted")
        action.arguments(word)
        arguments.add_store(word)
        arguments.add_output(word)
    return made


def run(argv: Sequence[str], prog: str) -> int:
    args = parser(prog).parse(argv)
    return ACTIONS[args.action].run(args)


def settings_of(args: argparse.Namespace) -> tuple[Settings, str]:
    """How to get at the servers, and the folder of local state. No passphrase is needed for any of this."""
    url = args.place if "://" in args.place else seam.served(args.place).url
    settings, mounting = load(url, arguments.given(args), ask=None)
    return settings, mounting.cachedir


# ---------------------------------------------------------------- status

def _status(args: argparse.Namespace) -> int:
    if "://" in args.place:
        told = seam.zdb().status(settings_of(args)[0])
    else:
        layers = seam.call(seam.served(args.place).socket, "layers", {"names": ["zdb"], "changes": {}}).get("layers") or {}
        if "zdb" not in layers:
            raise UsageError(f"{args.place} is not on a set of 0-dbs")
        told = layers["zdb"]["status"]
        if "servers" not in told:
            raise Temporary("status", "", str(told["summary"]))
    if args.json:
        print(json.dumps(told))
    else:
        for line in status_lines(told):
            print(one_line(line))
    return int(ExitCode.STORE_UNREACHABLE if told.get("degraded") else ExitCode.OK)


def status_lines(told: Mapping[str, Any]) -> Iterator[str]:
    yield (f"{told['list']}: objects in {told['data']} + {told['parity']} shards, done with {told['acknowledgements']} of them; "
           f"{len(told['servers'])} servers")
    rows = [("server", "domain", "is", "for", "used", "room", "keys", "answers in")]
    for one in told["servers"]:
        marks = [word for word in ("drain", "replica", "joining") if one[word]]
        space = one["space"] or {}
        since = "" if one["since"] is None else format_duration(max(0.0, time.time() - one["since"]))
        rows.append((str(one["name"]), str(one["domain"]), ", ".join([str(one["condition"]), *marks]), since, _size(space.get("used")),
                     _size(space.get("room")), f"{space['entries']:,}" if space else "",
                     f"{1000 * one['latency_s']:,.1f} ms" if one["latency_s"] else ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    yield from ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    yield from (f"{one['name']}: {one['words']}" for one in told["servers"] if one["words"])
    records = told["records"]
    yield (f"records: {records['up']} of {records['replicas']} replicas answer; reading needs {records['read']}, writing {records['write']}"
           + (f"; {records['joining']} more are to be filled by a repair" if records["joining"] else ""))
    if told.get("waiting"):
        yield f"{told['waiting']:,} objects wait for servers to be whole"
    if told.get("degraded"):
        yield f"degraded: {told['degraded']}"


def _size(value: int | None) -> str:
    return "" if value is None else format_size(value)


# ---------------------------------------------------------------- check and repair

def _look_arguments(made: arguments.Parser) -> None:
    made.add_argument("--rate", metavar="SIZE", help="bytes a second at most, read and written (default: as fast as it goes)")
    made.add_argument("--parallel", metavar="N", type=parallel, default=HANDS, help=f"objects at once (default: {HANDS})")
    made.add_argument("--restart", action="store_true", help="begin anew, though an earlier run was interrupted")
    arguments.add_options(made, ("cachedir",))


def _check_arguments(made: arguments.Parser) -> None:
    made.add_argument("--data", action="store_true", help="read every shard (default: ask whether it is there)")
    _look_arguments(made)


def _repair_arguments(made: arguments.Parser) -> None:
    made.add_argument("--quick", action="store_true", help="ask whether shards are there, without reading them: rot is not noticed")
    _look_arguments(made)


def _check(args: argparse.Namespace) -> int:
    return _survey(args, mend=False, deep=args.data)


def _repair(args: argparse.Namespace) -> int:
    return _survey(args, mend=True, deep=not args.quick)


def _survey(args: argparse.Namespace, *, mend: bool, deep: bool) -> int:
    rate = None
    if args.rate is not None:
        try:
            rate = parse_size(args.rate)
        except ValueError as error:
            raise UsageError(f"--rate: {error}") from None
        if not rate:
            raise UsageError("--rate 0 would never end")
    settings, cachedir = settings_of(args)
    with resumable("command"), Progress(quiet=args.quiet, as_json=args.json) as progress:
        found = seam.zdb().survey(settings, cachedir, mend=mend, deep=deep, rate=rate, hands=args.parallel, restart=args.restart,
                                  report=_reporter(args.json, progress), progress=progress)
    if args.json:
        print(json.dumps({**found.as_json(), "exit_code": int(found.exit_code)}))
    elif not args.quiet:
        say(found.verdict())
    return int(found.exit_code)


def _reporter(as_json: bool, progress: Progress) -> Callable[[Any], None]:
    """Of what is found: a line each on stdout."""
    def report(finding: Any) -> None:
        progress.close()
        if as_json:
            print(json.dumps({"finding": {"object": finding.key, "what": finding.what, "text": finding.text, "mended": finding.mended}}),
                  flush=True)
        else:
            print(one_line(str(finding)), flush=True)
    return report


# ---------------------------------------------------------------- space

def _reclaim_arguments(made: arguments.Parser) -> None:
    made.add_argument("--server", metavar="NAME", action="append", help="only this one of the list (may be repeated; default: all)")
    made.add_argument("--min-garbage", metavar="PERCENT", type=_percent, default="30",
                      help="leave a server alone when less of what is written there is garbage (default: 30)")
    made.add_argument("--data-file-size", metavar="SIZE", help="what the servers have as --datasize (default: 256MiB, as zdb has)")
    made.add_argument("--dry-run", action="store_true", help="only say how much there is to get")


def _percent(text: str) -> float:
    number = text.removesuffix("%")
    if not number.isdigit() or int(number) > 100:
        raise argparse.ArgumentTypeError(f"'{text}' is no percentage from 0 to 100")
    return int(number) / 100


def _reclaim(args: argparse.Namespace) -> int:
    try:
        file_bytes = parse_size(args.data_file_size or "256MiB")
    except ValueError as error:
        raise UsageError(f"--data-file-size: {error}") from None
    settings = settings_of(args)[0]

    def report(one: Any) -> None:
        progress.close()
        if args.json:
            print(json.dumps({"server": one.as_json()}), flush=True)
        elif not args.quiet or one.trouble:
            print(one_line(str(one)), flush=True)

    with resumable("command"), Progress(quiet=args.quiet, as_json=args.json) as progress:
        code = seam.zdb().reclaim(settings, args.server or (), least=args.min_garbage, data_file_bytes=file_bytes, dry_run=args.dry_run,
                                  report=report, progress=progress)
    return int(code)


# ---------------------------------------------------------------- the records

def _backup(args: argparse.Namespace) -> int:
    settings = settings_of(args)[0]
    with resumable("command"), Progress(quiet=args.quiet, as_json=args.json) as progress:
        made = seam.zdb().back_up(settings, progress)
    if args.json:
        print(json.dumps(made.as_json()))
    elif not args.quiet:
        say(f"{made.slots:,} records in {len(made.sheets)} objects of {format_size(made.size)} in all")
    return int(ExitCode.OK)


def _restore_arguments(made: arguments.Parser) -> None:
    made.add_argument("--replicas-lost", action="store_true",
                      help="replicas that do not answer will never come back: choose others from the list, and fill them")
    made.add_argument("--scan", action=argparse.BooleanOptionalAction, default=None,
                      help="find objects that no record knows by their shards, which takes long (default: with --replicas-lost)")


def _restore(args: argparse.Namespace) -> int:
    settings = settings_of(args)[0]
    with resumable("command"), Progress(quiet=args.quiet, as_json=args.json) as progress:
        done = seam.zdb().restore(settings, replicas_lost=args.replicas_lost, scan=args.scan, progress=progress)
    if args.json:
        print(json.dumps({"slots": done.slots, "made": done.made, "buried": done.buried, "broken": done.broken, "replicas": done.replicas,
                          "backup_ns": done.backup.time_ns if done.backup else None, "unreadable_backups": list(done.why_not)}))
    elif not args.quiet:
        for line in restore_lines(done):
            say(line)
    return int(ExitCode.OBJECT_MISSING if done.broken else ExitCode.OK)


def restore_lines(done: Any) -> Iterator[str]:
    yield from (f"a backup cannot be read: {one_line(why)}" for why in done.why_not)
    yield ("there is no backup that can be read" if done.backup is None else
           f"the backup of {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(done.backup.time_ns / 1e9))} was read")
    yield (f"{done.slots:,} records were missing and are back, {done.made:,} were made from shards, "
           f"{done.buried:,} objects were deleted since"
           + (f"; {done.replicas:,} servers are replicas that were none" if done.replicas else ""))
    if done.broken:
        yield f"{done.broken:,} objects that no record knows have too few shards left"


ACTIONS: dict[str, Action] = {
    "status": Action("how each server is, and what that means for reading and writing", lambda made: None, _status),
    "check": Action("look whether the replicas of the records agree, and every object has all of its shards", _check_arguments, _check),
    "repair": Action("build anew what is missing or damaged, move what is on servers that drain, finish deletions",
                     _repair_arguments, _repair),
    "reclaim": Action("get back the space that deletions have left behind in the servers, one after the other",
                      _reclaim_arguments, _reclaim),
    "backup": Action("put a copy of all records, in shards, on the servers (a mount does so once a day)", lambda made: None, _backup),
    "restore": Action("put records back that replicas have lost: from the last backup, and from the shards themselves",
                      _restore_arguments, _restore),
}
