"""The one table of everything a user can set for a mount, and the types it becomes.

Each option has one name. It is `--name` on the command line, `name=value` in `-o` (an underscore will do for a dash),
`name:` in a section of the authentication file and S3CFS_NAME in the environment.
"""
from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from s3cfs import limits

from .quantities import parse_duration, parse_size


@dataclass(frozen=True, slots=True)
class Option:
    name: str
    field: str                           # of MountOptions
    parse: Callable[[str], Any] | None   # None: yes or no
    metavar: str
    help: str                            # one line; the default is added
    default: Any = None
    shown: str = ""                      # the default in words
    aliases: tuple[str, ...] = ()
    bare: str = ""                       # what the name alone says, where it may stand without a value

    @property
    def flag(self) -> bool:
        """May stand without a value."""
        return self.parse is None or bool(self.bare)

    @property
    def variable(self) -> str:
        return "S3CFS_" + self.name.upper().replace("-", "_")

    @property
    def opposite(self) -> str:
        """The command-line name that switches a flag off, over what file or environment say."""
        return self.name[3:] if self.name.startswith("no-") else f"no-{self.name}"


@dataclass(frozen=True)
class MountOptions:
    """How one mount behaves. `compress` is zstd's level or None; times in seconds, sizes in bytes."""

    cachedir: str
    cache_size: int = limits.DEFAULTS.cache_bytes
    compress: int | None = 3
    sync: str = "local"
    commit_interval: float = limits.DEFAULTS.commit_interval_s
    max_lag: float | None = None
    journal_size: int = limits.DEFAULTS.journal_max_bytes
    allow_other: bool = False
    foreground: bool = False
    read_only: bool = False
    no_writeback: bool = False
    sole_writer: bool = False
    takeover: str = "no"
    set_aside: bool = False
    expect_commit: str | None = None
    log_file: str | None = None
    log_level: str = "info"
    metrics_address: str | None = None   # HOST:PORT, an IPv6 address in []
    loop: str = "hybrid"
    nonempty: bool = False
    fuse_options: tuple[str, ...] = ()   # for the kernel, as fstab spells them: "nosuid", "context=..."


@dataclass(frozen=True)
class FsckOptions:
    repair: bool = False
    full: bool = False                   # read and verify every byte; else names, sizes and every row
    cachedir: str | None = None          # where local state may be; None: the store alone
    sole_writer: bool = False            # the owner's word, where a repair needs it
    automatic: bool = False              # nobody looks on (fsck -a at boot): no repair that gives anything up


@dataclass(frozen=True)
class VerifyOptions:
    cachedir: str                        # what an interrupted run has looked at is kept there
    data: bool = False                   # read every byte; else ask whether it is there, and for its size
    keyless: bool = False                # without a passphrase: what the store lists
    restart: bool = False                # forget what an interrupted run has looked at
    sample: float | None = None          # the share of objects that is looked at, 0 to 1; None: all
    at_once: int = 16                    # calls of the store; fewer where it bears no more
    missing_file: str | None = None      # for lists of keys
    corrupt_file: str | None = None


@dataclass(frozen=True)
class MigrateOptions:
    cachedir: str                        # the journal of what was copied is kept there
    no_list: bool = False                # go by metadata, not by listings of the source
    verify_data: bool = False            # read each object back from the target; else its size is looked at
    dry_run: bool = False
    follow: bool = False                 # go on copying what comes until the source is unmounted
    interval: float = 30.0               # seconds between two passes of that
    unmounted: bool = False              # the owner's word that nobody has the source mounted
    at_once: int = 16                    # calls to each store; fewer where it bears no more


@dataclass(frozen=True)
class ImportOptions:
    into: str = ""                       # a folder of the target, made if need be; "": its root
    s3ql_cache: str | None = None        # S3QL's cache folder
    listing: str = "auto"                # how the names of its metadata are found: auto, folder (moves/s3ql/stores.py)
    probe_depth: int | None = None       # or without a listing: so many older versions of each block are asked for
    last_snapshot: bool = False          # of one that is mounted or crashed: what the store has of it will do
    dry_run: bool = False


def parse_compress(text: str) -> int | None:
    """Level of zstd, or None. "zstd" is level 3."""
    text = text.strip().lower()
    if text == "none":
        return None
    found = re.fullmatch(r"zstd(?:-(\d+))?", text)
    if not found or not 1 <= int(found[1] or 3) <= 19:
        raise ValueError(f"'{text}' is not zstd, zstd-1 to zstd-19 or none")
    return int(found[1] or 3)


def one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.strip().lower() not in words:
            raise ValueError(f"'{text}' is not {' or '.join(words)}")
        return text.strip().lower()
    return parse


def parse_commit(text: str) -> str:
    """NUMBER or NUMBER:HASH (at least 8 hex digits of it), as `s3cfs stat` prints it."""
    if not re.fullmatch(r"\d{1,18}(:[0-9a-f]{8,64})?", text.strip().lower()):
        raise ValueError(f"'{text}' is not a commit like 1234 or 1234:89abcdef, as `s3cfs stat` prints it")
    return text.strip().lower()


def parse_path(text: str) -> str:
    if not text:
        raise ValueError("a path is missing")
    return os.path.abspath(os.path.expanduser(text))


def parse_max_lag(text: str) -> float | None:
    if text.strip().lower() == "none":
        return None
    lag = parse_duration(text)
    if lag < 1:
        raise ValueError(f"'{text}' is less than 1s, the least that works")
    return lag


def at_least(parse: Callable[[str], Any], lowest: Any, words: str) -> Callable[[str], Any]:
    def parse_bounded(text: str) -> Any:
        found = parse(text)
        if found < lowest:
            raise ValueError(f"'{text}' is less than {words}, the least that works")
        return found
    return parse_bounded


def parse_bool(text: str) -> bool:
    word = text.strip().lower()
    if word in ("yes", "true", "on", "1"):
        return True
    if word in ("no", "false", "off", "0"):
        return False
    raise ValueError(f"'{text}' is not yes or no")


def parse_takeover(text: str) -> str:
    if text.strip().lower() == "idle":
        return "idle"
    try:
        return "yes" if parse_bool(text) else "no"
    except ValueError:
        raise ValueError(f"'{text}' is not yes, no or idle") from None


def parse_address(text: str) -> str:
    """PORT or HOST:PORT -> HOST:PORT; this machine only, where there is no host."""
    found = re.fullmatch(r"(?:(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+)?:)?(\d{1,5})", text.strip())
    if not found or not 0 < int(found[2]) < 65536:
        raise ValueError(f"'{text}' is not PORT or HOST:PORT, like 9095, 127.0.0.1:9095 or [::1]:9095")
    return f"{found[1] or '127.0.0.1'}:{int(found[2])}"


LOG_LEVELS = ("debug", "info", "warning", "error")

OPTIONS: tuple[Option, ...] = (
    Option("cachedir", "cachedir", parse_path, "DIR",
           "folder for local state: journal, cache and metadata of each filesystem",
           shown="/var/cache/s3cfs for root, else $XDG_CACHE_HOME/s3cfs", aliases=("cache-dir",)),
    Option("cachesize", "cache_size", at_least(parse_size, 64 * limits.MIB, "64MiB"), "SIZE",
           "how much data from the store is kept on the local disk", limits.DEFAULTS.cache_bytes, "10G", ("cache-size",)),
    Option("compress", "compress", parse_compress, "HOW",
           "zstd, zstd-LEVEL (1 to 19) or none; what does not compress is stored as it is", 3, "zstd-3"),
    Option("sync", "sync", one_of("local", "remote"), "WHERE",
           "what fsync() waits for: the local disk, or the store", "local", "local"),
    Option("commit-interval", "commit_interval", at_least(parse_duration, 0.1, "100ms"), "TIME",
           "how often changes go to the store while there are any", limits.DEFAULTS.commit_interval_s, "5s"),
    Option("max-lag", "max_lag", parse_max_lag, "TIME",
           "writers wait when the store is behind by more than this; none: the journal's size is the only bound", None, "none"),
    Option("journal-size", "journal_size", at_least(parse_size, 64 * limits.MIB, "64MiB"), "SIZE",
           "how much data may wait on the local disk for the store; beyond it writers wait",
           limits.DEFAULTS.journal_max_bytes, "10G"),
    Option("allow-other", "allow_other", None, "",
           "let other users into the mount (the permissions of files apply)", False, "no"),
    Option("fg", "foreground", None, "",
           "stay in the foreground and log to stderr (systemd: Type=notify)", False, "no", ("foreground",)),
    Option("read-only", "read_only", None, "",
           "mount without the right to change anything; -o ro is the same", False, "no", ("ro",)),
    Option("no-writeback", "no_writeback", None, "",
           "every write() reaches s3cfs at once, not when the kernel's cache lets go of it; slower", False, "no"),
    Option("sole-writer", "sole_writer", None, "",
           "a promise that nobody else writes: only for stores that can neither refuse a second writer nor order two of them",
           False, "no"),
    Option("takeover", "takeover", parse_takeover, "yes, no, idle",
           "take over from a machine that has not unmounted; what it has not sent stays there. idle: only from one that had "
           "nothing to say, for nodes that may vanish and are made again by a program", "no", "no", ("force",), bare="yes"),
    Option("set-aside", "set_aside", None, "",
           "move a local state that contradicts the store aside (nothing in it is deleted) and mount what the store has", False, "no"),
    Option("expect-commit", "expect_commit", parse_commit, "N[:HASH]",
           "refuse a store that is older than this commit", None, "what this machine saw last"),
    Option("log-file", "log_file", parse_path, "FILE",
           "log to this file", None, "the journal under systemd, else `log` in the local state"),
    Option("log-level", "log_level", one_of(*LOG_LEVELS), "LEVEL",
           "debug, info, warning or error; names of files appear at debug only, but for those that damage hits", "info", "info"),
    Option("metrics-address", "metrics_address", parse_address, "[HOST:]PORT",
           "serve figures for Prometheus there, at /metrics; without HOST to this machine only", None, "none"),
    Option("loop", "loop", one_of("hybrid", "stock"), "WHICH",
           "the request loop: hybrid is faster, stock is pyfuse3's own", "hybrid", "hybrid"),
    Option("nonempty", "nonempty", None, "",
           "allow a mount point with files in it (they are hidden while mounted)", False, "no"),
)

BY_NAME: dict[str, Option] = {name: option for option in OPTIONS for name in (option.name, *option.aliases)}
