"""mount: a daemon that serves one filesystem at one mount point until it is unmounted, then brings the rest to the store.

Order of a start: what can be said on the terminal first (mount point, FUSE, store, passphrase), then the fork, then local state,
log, office, kernel. Order of an end: the kernel lets go, everything is staged, committed and put, the log gets a final RELEASE.
"""
from __future__ import annotations

import logging
import logging.handlers
import os
import resource
import sys
from pathlib import Path

import trio

from s3cfs import limits
from s3cfs.config import MountOptions, Settings
from s3cfs.control import scrape
from s3cfs.errors import ConfigError, Diverged, ExitCode
from s3cfs.formats.chunker import SLOW
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.superblock import Superblock
from s3cfs.fuse import mountpoint as mountpoints
from s3cfs.fuse.lifecycle import Report, daemonise
from s3cfs.remote import Remote

from .daemon import Daemon
from .local import LocalDisk, folder_name, locked, open_folder, set_aside
from .memory import bound_the_allocator
from .moved import refuse_moved
from .store import first_look, unlock
from .superblocks import heal, read_copies

log = logging.getLogger(__name__)

OPEN_FILES_MAX = 65536
LOG_MAX_BYTES, LOG_FILES = 10 * limits.MIB, 3


def mount(settings: Settings, mountpoint: str, options: MountOptions) -> int:
    """Mount and return when the mount answers (in the foreground: when it has ended, and everything is in the store). Errors are raised."""
    bound_the_allocator()                      # before there is a second thread: glibc decides then how many arenas there may ever be
    mountpoints.check_fuse()
    path = mountpoints.prepare(mountpoint, nonempty=options.nonempty)
    _refuse_below(path, settings, options)
    listeners = scrape.bind(options.metrics_address) if options.metrics_address else []
    if scrape.everybodys(listeners):
        _say(f"metrics are served to all who reach {options.metrics_address}, not to this machine only")

    async def look(remote: Remote) -> tuple[Superblock, KeyRing]:
        await remote.check()
        copies = await read_copies(remote)
        if not options.read_only:
            refuse_moved(options.cachedir, copies.superblock, settings.url)
        keyring = unlock(copies.superblock, settings)
        if not options.read_only and await heal(remote, copies) and copies.damaged:
            _say(f"superblock {copies.damaged[0]} is damaged; a further copy was written")
        return copies.superblock, keyring

    found, keyring = first_look(settings, look)
    if SLOW:
        _say(SLOW)
    disk = open_folder(options.cachedir, folder_name(found, settings.url))
    log_path = Path(options.log_file) if options.log_file else Path(disk.root, "log")

    def run(report: Report) -> None:
        _set_up_logging(options, None if options.foreground else log_path)
        if SLOW:
            log.warning("%s", SLOW)
        _allow_many_files()
        say = report.progress if not options.foreground else _say

        def serve(disk: LocalDisk) -> None:
            with locked(disk, "mounted", say) as lock:
                try:
                    trio.run(Daemon(settings, path, options, found, keyring, disk, lock, report, listeners).run)
                except Diverged as error:
                    if not options.set_aside:
                        raise Diverged(f"{error}. It is all kept in {disk.root}. With --set-aside that folder is renamed, nothing in it is "
                                       "deleted, and what the store has is mounted") from None
                    kept = set_aside(disk)              # while its lock is held
                    say(f"{error}; it is kept in {kept}")
                    raise _Again from None

        try:
            serve(disk)
        except _Again:
            afresh = open_folder(options.cachedir, folder_name(found, settings.url))
            _set_up_logging(options, None if options.foreground else log_path)
            log.warning("the former local state was set aside; this one begins with what the store has")
            serve(afresh)

    daemonise(run, foreground=options.foreground, log_path=log_path, on_progress=_say)
    return ExitCode.OK


def _refuse_below(path: str, settings: Settings, options: MountOptions) -> None:
    """What the process needs must not lie below its own mount point: it would wait for itself."""
    store = settings.url.removeprefix("local://") if settings.url.startswith("local://") else None
    for what, place in (("the cache folder", options.cachedir), ("the log file", options.log_file), ("the store", store)):
        if place is not None and Path(os.path.realpath(place)).is_relative_to(path):
            raise ConfigError(f"{what} {place} lies below the mount point {path}")


class _Again(Exception):
    """The local state was set aside: begin with a new one."""


def _say(text: str) -> None:
    sys.stderr.write(f"s3cfs: {text}\n")
    sys.stderr.flush()


def _allow_many_files() -> None:
    """Unsent packs stay open. The usual soft limit of 1024 is for programs that use select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _set_up_logging(options: MountOptions, path: Path | None) -> None:
    """To a rotating file, or to stderr in the foreground (where the journal collects it); key=value lines."""
    handler: logging.Handler
    if path is None:
        handler = logging.StreamHandler()
    else:
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
            handler = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_MAX_BYTES, backupCount=LOG_FILES,
                                                           encoding="utf-8", errors="backslashreplace")
        except OSError as exc:
            raise ConfigError(f"log file {path}: {exc.strerror}") from None
    stamp = "" if path is None and os.environ.get("JOURNAL_STREAM") else "%(asctime)s "
    handler.setFormatter(logging.Formatter(f"{stamp}%(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(options.log_level.upper())
    for chatty in ("boto3", "botocore", "urllib3", "s3transfer"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
