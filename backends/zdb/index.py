"""What there is: a tree of all keys in memory, for listings, which 0-db has none of. It follows the replicas by scanning them.

A scan goes on where the last one ended: versions are written once, under keys of their own, so all that is new lies behind the cursor. A
listing scans a read quorum, which has one of the replicas of each acknowledged write. What only some of them have is looked at as any
read does that, and mended on the way. Tombstones are seen by their keys; sizes are read when they are asked for.
"""
from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import NamedTuple

from s3cfs.backends.types import ObjectInfo
from s3cfs.backends.zdb import commands
from s3cfs.backends.zdb.cluster import Cluster, Member
from s3cfs.backends.zdb.fanout import Round
from s3cfs.backends.zdb.members import ROLL
from s3cfs.backends.zdb.placing import Quorum
from s3cfs.backends.zdb.record import Name, decode_record, name_of, parse_name
from s3cfs.backends.zdb.replicas import Replicas, too_few
from s3cfs.backends.zdb.words import Condition, Trouble

SILENCE_S = 2.0                    # of a replica that is scanned: then another one is scanned as well
AT_ONCE = 16                       # keys that are looked at
SIZES_AT_ONCE = 500                # whose records are fetched in one request


class Entry(NamedTuple):
    """The highest version that is known. `size`: None where it was not asked for."""

    version: int
    is_tombstone: bool
    size: int | None = None

    @property
    def rank(self) -> tuple[int, bool]:
        return self.version, self.is_tombstone


@dataclass(slots=True)
class _Folder:
    folders: dict[str, _Folder] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)

    def walk(self, prefix: str) -> Iterator[tuple[str, Entry]]:
        for name, entry in self.entries.items():
            yield prefix + name, entry
        for name, folder in self.folders.items():
            yield from folder.walk(f"{prefix}{name}/")

    @property
    def has_objects(self) -> bool:
        return any(not entry.is_tombstone for entry in self.entries.values()) or any(folder.has_objects for folder in self.folders.values())


class Index:
    """See the module's text. For several threads, one after the other."""

    def __init__(self, cluster: Cluster, replicas: Replicas) -> None:
        self._cluster, self._replicas = cluster, replicas
        self._lock = threading.Lock()
        self._root = _Folder()
        self._cursors: dict[int, tuple[str, bytes | None]] = {}        # by replica
        self._doubtful: dict[str, Name] = {}           # what some replicas have, and no read has found or settled so far

    def objects(self, prefix: str) -> list[ObjectInfo]:
        """All objects below `prefix`, which is "" or ends in '/'. Temporary: too few replicas answer."""
        with self._lock:
            self._refresh()
            folder = self._folder(prefix)
            if folder is None:
                return []
            found = {key: entry for key, entry in folder.walk(prefix) if not entry.is_tombstone}
            self._find_sizes({key: entry for key, entry in found.items() if entry.size is None}, found)
            return [ObjectInfo(key, entry.size) for key, entry in found.items() if entry.size is not None]

    def folders(self, prefix: str) -> list[str]:
        with self._lock:
            self._refresh()
            folder = self._folder(prefix)
            return [name for name, below in folder.folders.items() if below.has_objects] if folder else []

    def keys(self) -> list[str]:
        """All that there are, and those of tombstones."""
        with self._lock:
            self._refresh()
            return [key for key, _ in self._root.walk("")]

    # ------------------------------------------------------------ following

    def _refresh(self) -> None:
        scanned = self._scan()
        votes: Counter[Name] = Counter()
        for names in scanned:
            votes.update(name for name in names if self._is_news(name))
        newest: dict[str, Name] = {}
        for name in votes:
            if name.key not in newest or newest[name.key][1:] < name[1:]:
                newest[name.key] = name
        for key, name in newest.items():
            if votes[name] == len(scanned):
                self._set(key, Entry(name.version, name.is_tombstone))
            else:
                self._doubtful[key] = name
        self._look_at(list(self._doubtful))

    def _is_news(self, name: Name) -> bool:
        entry = self._entry(name.key)
        return entry is None or entry.rank < (name.version, name.is_tombstone)

    def _scan(self) -> list[list[Name]]:
        """What is new on each of a read quorum. Cursors are moved when nothing can fail any more."""
        while True:
            needed = Quorum.of(len(self._cluster.roll.replicas)).read
            done = self._scan_some(needed)
            if not self._cluster.heed(scanned.roll for scanned in done.values()):
                break                                  # else others hold the newest by now
        for member, scanned in done.items():
            self._cursors[member.id] = scanned.cursor
        return [scanned.names for scanned in done.values()]

    def _scan_some(self, needed: int) -> dict[Member, _Scanned]:
        members = sorted(self._cluster.replicas(), key=lambda member: (not member.may_read, member.id not in self._cursors))
        made: Round[Member, _Scanned] = self._cluster.fanout.round()
        done: dict[Member, _Scanned] = {}
        bad: list[Trouble] = []
        late: set[Member] = set()
        while len(done) < needed:
            while members and len(done) + len(made.pending - late) < needed:
                member = members.pop(0)
                made.start(member, partial(_scanned, member, self._cursors.get(member.id)))
            if not made.pending:
                raise too_few("list", "", len(done), needed, bad)
            ended = made.next(SILENCE_S if members else None)
            if ended is None:
                late |= made.pending
            elif ended.trouble is not None:
                bad.append(ended.trouble)
            elif ended.value is not None:
                done[ended.name] = ended.value
        made.abandon()
        return done

    def _look_at(self, keys: list[str]) -> None:
        """A quorum read of each. What was seen on one replica and is not found then is looked at again next time: it may be being put."""
        made: Round[str, Entry | None] = self._cluster.fanout.round()
        left = iter(keys)

        def one(key: str) -> Entry | None:
            known = self._replicas.read(key)
            return None if known is None else Entry(known.record.version, known.record.is_tombstone, known.record.size)

        for key in islice(left, AT_ONCE):
            made.start(key, partial(one, key))
        while (done := made.next()) is not None:
            if done.trouble is not None:
                raise done.trouble.as_error("list", done.name)
            if done.value is not None:
                self._set(done.name, done.value)
                if done.name in self._doubtful and done.value.rank >= self._doubtful[done.name][1:]:
                    del self._doubtful[done.name]
            for key in islice(left, 1):
                made.start(key, partial(one, key))

    # ------------------------------------------------------------ sizes

    def _find_sizes(self, wanted: dict[str, Entry], found: dict[str, Entry]) -> None:
        """Into `found`, from the tree, where they stay."""
        for key, entry in list(wanted.items()):
            cached = self._replicas.cached(key)
            if cached is not None and cached.record.version == entry.version:
                found[key] = self._set(key, entry._replace(size=cached.record.size))
                del wanted[key]
        for at in range(0, len(wanted), SIZES_AT_ONCE):
            some = dict(islice(wanted.items(), at, at + SIZES_AT_ONCE))
            for key, size in self._sizes_of(some).items():
                found[key] = self._set(key, some[key]._replace(size=size))
        wanted = {key: entry for key, entry in wanted.items() if found[key].size is None}
        self._look_at(list(wanted))
        for key in wanted:
            found[key] = self._entry(key) or found[key]

    def _sizes_of(self, wanted: dict[str, Entry]) -> dict[str, int]:
        """By the first replica that has them all; where none has, by all of them together."""
        names = {key: name_of(key, entry.version) for key, entry in wanted.items()}
        outcome = self._cluster.fanout.first(1, self._cluster.replicas(), lambda member: self._sizes_on(member, names),
                                             self._cluster.latencies.delay_s(1 << 16), lambda sizes: len(sizes) == len(wanted))
        return {key: size for sizes in (*outcome.good.values(), *outcome.poor.values()) for key, size in sizes.items()}

    def _sizes_on(self, member: Member, names: dict[str, bytes]) -> dict[str, int]:
        sizes = {}
        for (key, name), value in zip(names.items(), commands.get_many(member, [*names.values()]), strict=True):
            with suppress(ValueError):                 # damaged: another replica has it
                if value is not None:
                    sizes[key] = decode_record(name, value, self._cluster.signer).size
        return sizes

    # ------------------------------------------------------------ the tree

    def _folder(self, prefix: str) -> _Folder | None:
        folder: _Folder | None = self._root
        for part in prefix.split("/")[:-1]:
            folder = folder.folders.get(part) if folder else None
        return folder

    def _entry(self, key: str) -> Entry | None:
        folder = self._folder(key)
        return folder.entries.get(key.rpartition("/")[2]) if folder else None

    def _set(self, key: str, entry: Entry) -> Entry:
        *parts, name = key.split("/")
        folder = self._root
        for part in parts:
            folder = folder.folders.setdefault(part, _Folder())
        folder.entries[name] = entry
        return entry


class _Scanned(NamedTuple):
    names: list[Name]
    cursor: tuple[str, bytes | None]       # in which namespace, and how far it is known
    roll: bytes | None                     # as it was afterwards


def _scanned(member: Member, begin: tuple[str, bytes | None] | None) -> _Scanned:
    """What a replica has behind the cursor."""
    namespace = member.namespace
    cursor = begin[1] if begin is not None and begin[0] == namespace else None
    found: list[Name] = []
    while True:
        try:
            page = commands.scan(member, cursor)
        except Trouble as trouble:
            if cursor is None or trouble.condition is not Condition.OK:
                raise
            cursor, found = None, []                   # none of this namespace: it has been made anew
            continue
        if page is None:
            return _Scanned(found, (namespace, cursor), commands.get(member, ROLL))
        cursor = page.cursor
        found += [name for entry in page.entries if (name := parse_name(entry.key)) is not None]
