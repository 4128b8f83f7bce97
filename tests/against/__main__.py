"""Try everything on a store that somebody has.

    python -m tests.against URL [--authfile FILE] [--options A,B=C] [--only suite,crash,trip] [--rounds N] [--seed N] [--short] [--json]

Every test makes an empty place of its own below URL, and what was made is removed at the end where the store lets us: nothing else there
is touched. Ends with a table; 1 when something failed, else the exit code of what kept it from beginning.
"""
from __future__ import annotations

import contextlib
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from s3cfs.backends.findings import Examination, Findings
from s3cfs.backends.url import parse_options
from s3cfs.cli.arguments import Parser
from s3cfs.config import load
from s3cfs.errors import ExitCode, S3cfsError
from tests.backends.ipfs.kubo import KuboServer
from tests.gateway import storj_server
from tests.places import Place, use
from tests.servers import moto_server, rclone_server
from tests.zdb.store import zdb_server

REPOSITORY = Path(__file__).resolve().parents[2]
HERE = "tests/against"
CRASHES = "tests/e2e/test_crashes.py"
# Mounted ones are of the store's fixture: tests/e2e/conftest.py. Those of two machines mostly wait.
PARTS = {
    "suite": [f"{HERE}/part_suite.py"],
    "crash": [f"{HERE}/part_crash.py", f"{HERE}/part_writers.py", f"{HERE}/part_sender.py"],
    "trip": [f"{HERE}/part_trip.py"],
}
MOUNTED = {"crash": [f"{CRASHES}::test_kill_in_the_middle_of_work[400]", f"{CRASHES}::test_kill_while_cp_copies[in the large file]",
                     f"{CRASHES}::test_what_was_acknowledged_survives", f"{CRASHES}::test_two_crashes_in_a_row_and_a_crash_at_mount",
                     "tests/e2e/test_two_machines.py::test_two_machines_on_one_store"]}
SERVERS: dict[str, Callable[[], AbstractContextManager[Any]]] = {"rclone": rclone_server, "moto": moto_server, "storj": storj_server,
                                                                 "ipfs": moto_server, "ipfs-rclone": rclone_server, "ipfs-rpc": KuboServer,
                                                                 "zdb": zdb_server}
GIVEN = {"storj": "consistency-lock=off,checker=off"}      # nothing of it is old when it is started here


@dataclass
class Part:
    """A line of the table."""

    part: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    requests: int = 0
    failures: list[str] = field(default_factory=list)


class Tally:
    """A plugin of pytest that counts."""
    def __init__(self, part: Part) -> None:
        self.part = part

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.part.failed += 1
            self.part.failures.append(report.nodeid)
        elif report.skipped:
            self.part.skipped += 1
        elif report.when == "call":
            self.part.passed += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.part.failed += 1
            self.part.failures.append(report.nodeid)


def run(part: Part, place: Place, scratch: Path, arguments: Sequence[str]) -> None:
    mounted = [] if place.short or place.sole or not place.has_processes else MOUNTED.get(part.part, [])
    tests = [f"{REPOSITORY}/{test}" for test in PARTS[part.part] + mounted]
    before, begun = place.requests, time.monotonic()
    code = pytest.main([*tests, "--rootdir", str(REPOSITORY), "-c", f"{REPOSITORY}/pyproject.toml", "-p", "no:cacheprovider", "-q",
                        "--basetemp", str(scratch / part.part), *arguments], plugins=[Tally(part)])
    part.seconds, part.requests = round(time.monotonic() - begun, 1), place.requests - before
    if code == pytest.ExitCode.INTERRUPTED and not part.failed:
        raise KeyboardInterrupt
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or not (part.passed or part.failed):
        part.failed += 1
        part.failures.append(f"pytest ended with {int(code)}")


def arguments(argv: Sequence[str]) -> Any:
    parser = Parser(prog="python -m tests.against", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url", metavar="URL", help=f"the store; or one of {', '.join(SERVERS)}: a server of that name is started")
    parser.add_argument("--authfile", metavar="FILE", help="authentication file (default: the usual ones)")
    parser.add_argument("--options", metavar="A,B=C", dest="backend_options", help="backend options, instead of those of the file")
    parser.add_argument("--only", metavar="PARTS", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=5, help="how often a filesystem is killed in each test without a kernel")
    parser.add_argument("--seed", type=int, default=1, help="of everything random but the moments")
    parser.add_argument("--short", action="store_true", help="small bounds, and no mounts but one")
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout; the tests' output goes to stderr")
    parser.add_argument("--pytest", metavar="ARGS", default="", help="further arguments of pytest, as a shell would split them")
    args = parser.parse(argv)
    args.only = [part for part in args.only.split(",") if part]
    for part in args.only:
        if part not in PARTS:
            parser.error(f"no part {part!r}: it is one of {', '.join(PARTS)}")
    return args


@contextlib.contextmanager
def reached(args: Any) -> Iterator[Place]:
    """The place, once it has been seen to answer."""
    if args.url in SERVERS:
        with SERVERS[args.url]() as server:
            options = {**server.options, **parse_options(args.backend_options or GIVEN.get(args.url, ""))}
            url = server.url().replace("s3c://", "ipfs+s3://") if args.url.startswith("ipfs") else server.url()
            yield Place(url, options, server.login, server.password)
        return
    url = "memory://store" if args.url == "memory://" else args.url
    settings, _ = load(url, {"authfile": args.authfile, "backend-options": args.backend_options or None})
    yield Place.of(settings)


def main(argv: Sequence[str]) -> int:
    args = arguments(argv)
    with reached(args) as place, tempfile.TemporaryDirectory(prefix="s3cfs-", ignore_cleanup_errors=True) as scratch:
        place.rounds, place.seed, place.short = args.rounds, args.seed, args.short
        try:
            with contextlib.redirect_stdout(sys.stderr if args.json else sys.stdout):
                found, parts = _all(args, place, Path(scratch))
        finally:
            left = place.remove(Path(scratch) / "of removals")
    for text in left:
        print(f"left in the store: {text}", file=sys.stderr)
    if args.json:
        print(json.dumps({"url": place.url, "found": asdict(found), "parts": [asdict(part) for part in parts], "left": left}))
    else:
        print(table(place.url, found, parts))
    return 1 if any(part.failed for part in parts) else 0


def _all(args: Any, place: Place, scratch: Path) -> tuple[Findings, list[Part]]:
    with contextlib.closing(place.open(place.url)) as backend:
        backend.create()                   # a folder; nothing is asked of what is there
    with contextlib.closing(place.seen(scratch / "state")) as backend:
        backend.create()
        backend.check()
        print(f"{backend.location}: looking what it can do", flush=True)
        found = Examination(backend).run()
    place.create_only, place.sole = found.create_only, not (found.create_only or found.linearizable)
    use(place)
    parts = [Part(name) for name in args.only]
    for part in parts:
        run(part, place, scratch, shlex.split(args.pytest))
    return found, parts


def table(url: str, found: Findings, parts: Sequence[Part]) -> str:
    tier = "tier T1" if found.create_only else "tier T2" if found.linearizable else "neither tier"
    said = [f"{url}: {tier}",
            f"stale answers ({'; '.join(found.stale)})" if found.stale else f"no stale answer in {found.rounds} rounds",
            f"deletes {found.batch_delete} keys a request" if found.may_delete else "does not delete",
            *([] if found.ranged_reads else ["ignores ranges"]), *([] if found.delimiters else ["hides folders"]), *found.wrong]
    lines = [", ".join(said), f"{'part':8}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}{'requests':>10}"]
    for part in parts:
        lines.append(f"{part.part:8}{part.passed:8}{part.failed:8}{part.skipped:9}{part.seconds:9.1f}{part.requests:10}")
    lines += [f"failed: {test}" for part in parts for test in part.failures]
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(int(ExitCode.INTERRUPTED))
    except S3cfsError as error:
        print(f"make backends: {error}", file=sys.stderr)
        sys.exit(int(error.exit_code))
