"""What the commands ask of the floors below, in types. Imported only when a command runs, since it pulls in trio and the store's SDK."""
from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

from s3cfs.config import FsckOptions, ImportOptions, MigrateOptions, MountOptions, Secret, Settings, VerifyOptions
from s3cfs.errors import ExitCode, NotAMount, S3cfsError

Event = Mapping[str, Any]                 # progress: {"done": n, "total": n or None, "unit": "bytes" or a word, "text": what}
OnProgress = Callable[[Event], None]

SILENCE_S = {"ping": 10.0, "stat": 10.0, "log-level": 10.0, "layer": 10.0, "layers": 10.0, "flush": 60.0, "drop-cache": 60.0}


class MkfsResult(Protocol):
    @property
    def fs_id(self) -> str: ...
    @property
    def recovery_key(self) -> str | None: ...
    @property
    def location(self) -> str: ...


class FsckResult(Protocol):
    @property
    def counts(self) -> Mapping[str, int]: ...
    @property
    def exit_code(self) -> int: ...


class Findings(Protocol):
    """See backends/findings.py."""

    stale: list[str]
    wrong: list[str]
    rounds: int
    may_delete: bool
    batch_delete: int
    ranged_reads: bool
    delimiters: bool
    largest_bytes: int | None

    @property
    def listings(self) -> Any: ...
    @property
    def linearizable(self) -> bool: ...


class ProbeResult(Protocol):
    @property
    def tier(self) -> str: ...
    @property
    def before(self) -> str | None: ...
    @property
    def noted(self) -> bool: ...
    @property
    def found(self) -> Findings: ...


class VerifyResult(Protocol):
    @property
    def objects(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def before(self) -> int: ...
    @property
    def read_bytes(self) -> int: ...
    @property
    def missing(self) -> list[str]: ...
    @property
    def damaged(self) -> list[str]: ...
    @property
    def weak(self) -> list[str]: ...
    @property
    def exit_code(self) -> ExitCode: ...


class MigrateResult(Protocol):
    """See moves/migrate.py."""

    state: Any
    fs_id: str
    commit: int
    objects: int
    bytes: int
    to_copy: tuple[int, int]
    gone_on: bool
    passes: int
    tally: Any
    source_requests: int
    target_requests: int
    missing: list[str]
    damaged: list[str]
    who: str
    tier: str | None

    @property
    def exit_code(self) -> ExitCode: ...


class MeasureResult(Protocol):
    """See app/measure.py."""

    @property
    def measured(self) -> Mapping[str, Any]: ...
    @property
    def complete(self) -> bool: ...
    @property
    def unwritten(self) -> S3cfsError | None: ...


class ImportResult(Protocol):
    """See moves/s3ql/importing.py."""

    origin: str
    there: dict[str, int]
    came: dict[str, int]
    requests: int

    @property
    def exit_code(self) -> ExitCode: ...
    def as_json(self) -> Mapping[str, Any]: ...


class ExportResult(Protocol):
    """See moves/ipfs/export.py."""

    cid: str
    files: int
    folders: int
    symlinks: int
    bytes: int
    block_bytes: int
    hidden: int
    changed: list[str]
    gone: list[str]
    special: list[str]

    @property
    def exit_code(self) -> ExitCode: ...


class App(Protocol):
    def mkfs(self, settings: Settings, *, label: str, plain: bool, passphrase: Secret | None,
             show: Callable[[MkfsResult], None]) -> MkfsResult: ...
    def mount(self, settings: Settings, mountpoint: str, options: MountOptions) -> int: ...
    def fsck(self, settings: Settings, options: FsckOptions, report: Callable[[Any], None], progress: OnProgress) -> FsckResult: ...
    def probe(self, settings: Settings, *, takeover: bool, large: bool, progress: OnProgress) -> ProbeResult: ...
    def measure(self, settings: Settings, *, about: Mapping[str, Any], report_file: str | None, progress: OnProgress,
                **plan: float) -> MeasureResult: ...
    def dump(self, settings: Settings, key: str, *, rows: bool = False) -> Mapping[str, Any]: ...


class MountInfo(Protocol):
    """A running mount, found by its mount point."""

    @property
    def pid(self) -> int: ...
    @property
    def here(self) -> bool: ...
    @property
    def socket(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def mountpoint(self) -> str: ...


def app() -> App:
    return cast(App, importlib.import_module("s3cfs.app"))


class Moves(Protocol):
    """What whole filesystems on their way need: the floor above `App`."""

    def verify(self, settings: Settings, options: VerifyOptions, report: Callable[[Any], None], progress: OnProgress) -> VerifyResult: ...
    def migrate(self, source: Settings, target: Settings, options: MigrateOptions, report: Callable[[Any], None],
                say: Callable[[str], None], progress: OnProgress) -> MigrateResult: ...
    def reencrypt(self, source: Settings, target: Settings, mounting: MountOptions, dry_run: bool, maker: Any,
                  report: Callable[[Any], None], progress: OnProgress) -> ImportResult: ...
    def import_s3ql(self, source: str, secrets: Any, target: Settings, mounting: MountOptions, options: ImportOptions, maker: Any,
                    report: Callable[[Any], None], progress: OnProgress) -> ImportResult: ...

    def export(self, path: str, target: Settings | None, options: Any, report: Callable[[str, str], None],
               progress: OnProgress) -> ExportResult: ...


def moves() -> Moves:
    return cast(Moves, importlib.import_module("s3cfs.moves"))


class IpfsStore(Protocol):
    """See moves/ipfs_store.py."""

    @property
    def spec(self) -> Any: ...
    def roots(self, prefix: str) -> Iterator[tuple[str, Any]]: ...
    def gc(self, grace_s: float, dry_run: bool, progress: OnProgress) -> Any: ...


def ipfs_store(settings: Settings) -> IpfsStore:
    """A store of IPFS blocks as such."""
    store: IpfsStore = importlib.import_module("s3cfs.moves.ipfs_store").IpfsStore(settings)
    return store


class SurveyResult(Protocol):
    """See backends/zdb/survey.py."""

    @property
    def exit_code(self) -> ExitCode: ...
    def as_json(self) -> Mapping[str, Any]: ...
    def verdict(self) -> str: ...


class Zdb(Protocol):
    """What concerns a set of 0-dbs only: moves/zdb.py."""

    def status(self, settings: Settings) -> Mapping[str, Any]: ...
    def survey(self, settings: Settings, cachedir: str, *, mend: bool, deep: bool, rate: int | None, hands: int, restart: bool,
               report: Callable[[Any], None], progress: OnProgress) -> SurveyResult: ...
    def reclaim(self, settings: Settings, names: Sequence[str], *, least: float, data_file_bytes: int, dry_run: bool,
                report: Callable[[Any], None], progress: OnProgress) -> ExitCode: ...
    def back_up(self, settings: Settings, progress: OnProgress) -> Any: ...
    def restore(self, settings: Settings, *, replicas_lost: bool, scan: bool | None, progress: OnProgress) -> Any: ...


def zdb() -> Zdb:
    return cast(Zdb, importlib.import_module("s3cfs.moves.zdb"))


def served(mountpoint: str) -> MountInfo:
    """Who serves a mount; found without touching it, so it works while one hangs. NotAMount when nobody does."""
    from s3cfs import control
    from s3cfs.fuse import mounttable
    here = mounttable.resolve(mountpoint)
    entry = mounttable.entry_at(here)
    return control.find(here, entry.device if entry else None)


def serving(path: str) -> MountInfo:
    """Who serves the mount in which `path` lies, found without touching that. NotAMount when it lies in none of ours."""
    from s3cfs.fuse import mounttable

    def innermost(whole: str) -> str:
        points = [entry.mountpoint for entry in mounttable.entries()]
        return max((point for point in points if os.path.commonpath((point, whole)) == point), default="/")

    try:
        return served(innermost(os.path.abspath(path)))
    except NotAMount:                                  # a link may lead into one
        return served(innermost(os.path.realpath(path)))


def alive(info: MountInfo) -> None:
    """NoAnswer when the process behind a mount is there and says nothing: then whoever touches the mount would hang, unkillable."""
    call(info.socket, "ping", {})


@contextlib.contextmanager
def asked(socket: str, op: str) -> Iterator[Callable[[OnProgress], Any]]:
    """Ask before doing what ends the process: inside, the question is there, and the function waits for the answer."""
    from s3cfs import control
    with control.asked(socket, op) as answer:
        yield answer


def killed(info: MountInfo) -> bool:
    """Of a process that has ended: whether it did so before everything was in the store."""
    from s3cfs import control
    return isinstance(info, control.Registration) and control.unfinished(info)


def write_back(mountpoint: str) -> None:
    """Have the kernel send what it holds back of written data: syncfs, twice, since on FUSE the first only starts it."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(2):
            libc.syncfs(fd)
    finally:
        os.close(fd)


def call(socket: str, op: str, args: Mapping[str, Any], on_progress: OnProgress = lambda event: None) -> dict[str, Any]:
    """Ask the process behind a mount and wait for the answer: however long that takes, as long as it says now and then how far it is."""
    from s3cfs import control
    answer = control.call(socket, op, args, on_progress=on_progress, timeout_s=SILENCE_S.get(op))
    return answer if isinstance(answer, dict) else {}
