"""What a 0-db keeps: a namespace as its two files, the one of values and the one of keys, of which nothing is ever taken out again.

Written from the server's sources (v2.0.7): an entry of the index file stays where it was when its key is overwritten or deleted, and only
gets a mark. From that follow the order of scans, which cursors stay good, and that the disk fills with what nobody can read any more.
"""
from __future__ import annotations

import struct
import time
import zlib
from dataclasses import dataclass, field

INDEX_HEADER, INDEX_ENTRY = 29, 34     # bytes of the file's header, and of an entry without its key
DATA_HEADER, DATA_ENTRY = 28, 18
MEMORY_ENTRY = 64                      # of an entry in memory, without its key: what index_size_bytes counts
SEQUENCE = struct.Struct("<Q")
CURSOR = struct.Struct("<BIIII")


class DiskFull(Exception):
    pass


@dataclass(slots=True, eq=False)
class Entry:
    """Of the index file. `value` None: the data file does not hold it any more (truncated, missing)."""

    key: bytes
    value: bytes | None
    size: int
    crc: int
    time: int
    number: int                        # of the write that made it
    file: int
    offset: int
    place: int = 0                     # in the log
    dead_since: int | None = None      # the write that overwrote or deleted it

    @property
    def cursor(self) -> bytes:
        return CURSOR.pack(len(self.key), self.file, self.size, self.offset, self.crc)


@dataclass(slots=True, eq=False)
class Namespace:
    """`sequential`: keys are made by the server. `disk` is shared by all of a server."""

    name: str
    disk: Disk
    sequential: bool = False
    password: str = ""
    public: bool = True
    worm: bool = False
    maxsize: int = 0
    locked: str = ""                   # "", "lock", "freeze": not kept over a restart
    log: list[Entry] = field(default_factory=list)
    keys: dict[bytes, Entry] = field(default_factory=dict)
    at: dict[tuple[int, int], Entry] = field(default_factory=dict)
    used: int = 0                      # bytes of values that can be read
    number: int = 0                    # of writes
    durable: int = 0                   # of them: those that a power cut does not take
    file: int = 0
    index_end: int = INDEX_HEADER
    data_end: int = DATA_HEADER
    files_bytes: int = 0               # on the disk, of closed files
    slots: int = 0                     # entries ever made: the next key of a sequential one

    def __post_init__(self) -> None:
        self.disk.namespaces.append(self)

    # ------------------------------------------------------------ what commands do

    def get(self, key: bytes) -> Entry | None:
        return self.keys.get(key)

    def put(self, key: bytes, value: bytes, when: int | None = None) -> bytes | None:
        """The key, or None when that is what is there. Raises DiskFull."""
        crc, old = zlib.crc32(value), self.keys.get(key)
        if old is not None and (old.crc, old.value) == (crc, value):
            return None
        self.disk.check()
        if self.sequential and old is None:
            key = SEQUENCE.pack(self.slots)
        if self.data_end + len(value) > self.disk.datasize:
            self.jump()
        self._write(DATA_ENTRY + len(key) + len(value))
        now = int(time.time()) if when is None else when
        if old is not None and self.sequential:            # rewritten where it is; a dead copy of the old one takes the next slot
            self._append(Entry(key, old.value, old.size, old.crc, old.time, self.number, 0, 0, dead_since=self.number))
            self.used += len(value) - old.size
            old.value, old.size, old.crc, old.time = value, len(value), crc, now
            return key
        if old is not None:
            self._bury(old)
        entry = Entry(key, value, len(value), crc, now, self.number, 0, 0)
        self._append(entry)
        self.keys[key] = entry
        self.used += len(value)
        return key

    def delete(self, key: bytes) -> bool:
        """Whether it was there. Raises DiskFull: a deletion is written too."""
        entry = self.keys.get(key)
        if entry is None:
            return False
        self.disk.check()
        self._write(DATA_ENTRY + len(key))
        self._bury(entry)
        del self.keys[key]
        return True

    def page(self, cursor: bytes | None, most: int, *, backwards: bool = False) -> list[Entry]:
        """What can be read after the cursor, `most` at once. KeyError: that is no cursor of ours."""
        step = -1 if backwards else 1
        place = len(self.log) if backwards else -1
        if cursor is not None:
            size, file, length, offset, crc = CURSOR.unpack(cursor)
            entry = self.at[file, offset]
            if (len(entry.key), entry.size, entry.crc) != (size, length, crc):
                raise KeyError(cursor)
            place = entry.place
        found: list[Entry] = []
        while len(found) < most and 0 <= (place := place + step) < len(self.log):
            if self.log[place].dead_since is None:
                found.append(self.log[place])
        return found

    def jump(self) -> None:
        """The files are closed, and the next ones begun."""
        self.disk.check()
        self.files_bytes += max(self.data_end, self.disk.datasize) + self.index_end
        self.file += 1
        self.index_end, self.data_end = INDEX_HEADER, DATA_HEADER

    # ------------------------------------------------------------ what is below

    def _append(self, entry: Entry) -> None:
        entry.file, entry.offset, entry.place = self.file, self.index_end, len(self.log)
        self.log.append(entry)
        self.at[entry.file, entry.offset] = entry
        self.index_end += INDEX_ENTRY + len(entry.key)
        self.slots += 1

    def _write(self, size: int) -> None:
        self.data_end += size
        self.number += 1

    def _bury(self, entry: Entry) -> None:
        entry.dead_since = self.number
        self.used -= entry.size

    @property
    def on_disk(self) -> int:
        """Bytes: a data file takes all its room at once."""
        return self.files_bytes + max(self.data_end, self.disk.datasize) + self.index_end

    def flush(self) -> None:
        """All that was written survives a power cut."""
        self.durable = self.number
        for entry in self.log:
            if entry.dead_since is not None:
                entry.value = None

    def power_cut(self) -> None:
        """What was not flushed is lost; what it overwrote or deleted is back."""
        kept = [entry for entry in self.log if entry.number <= self.durable]
        for entry in self.log[len(kept):]:
            del self.at[entry.file, entry.offset]
        self.log, self.keys, self.used = kept, {}, 0
        for entry in kept:
            if entry.dead_since is not None and entry.dead_since > self.durable:
                entry.dead_since = None
            if entry.dead_since is None:
                self.keys[entry.key] = entry
                self.used += entry.size
        self.number = self.durable

    @property
    def is_fresh(self) -> bool:
        return not self.log and not self.file


@dataclass(slots=True, eq=False)
class Disk:
    """Of one server. `full`: whatever the figures say."""

    size: int = 1 << 40
    datasize: int = 4 << 20
    full: bool = False
    namespaces: list[Namespace] = field(default_factory=list)

    @property
    def free(self) -> int:
        return 0 if self.full else max(0, self.size - sum(namespace.on_disk for namespace in self.namespaces))

    def check(self) -> None:
        if not self.free:
            raise DiskFull
