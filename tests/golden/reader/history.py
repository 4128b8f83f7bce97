"""Records and checkpoints: from the store and the keys to the rows of the newest commit."""
from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from .sealed import HEADER, LARGEST, Keys, bounded, fields, from_hex, header, integer, parse, unpack
from .store import Store, Wrong
from .tables import Tables

BRANCH = "main"


@dataclass(frozen=True)
class Rider:
    """A pack that lies in a record's object."""

    pack: int                      # its row
    name: str
    key: str                       # of the record
    offset: int
    size: int


@dataclass(frozen=True)
class Record:
    key: str
    hash: str                      # of its head
    kind: str
    n: int
    epoch: int
    writer: str
    prev: str
    info: dict[str, Any]
    changeset: bytes
    riders: list[Rider]


@dataclass(frozen=True)
class Manifest:
    key: str
    commit: int
    record_key: str
    record_hash: str
    counters: dict[str, int]
    parts: list[dict[str, Any]]
    riding: list[tuple[int, str, int]]


class History:
    """The newest record, and the chain back from it."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store, self._keys = store, keys
        self.riding: dict[str, tuple[str, int, int]] = {}      # by name: object, first byte, size; of packs in records, once `tables` ran
        self.tip = self._find_tip()

    def _find_tip(self) -> Record | None:
        """None: nobody ever wrote."""
        places = [(place, key) for key in self._store.keys(f"log/{BRANCH}/") if (place := parse_key(key))]
        return self.record(max(places)[1]) if places else None

    def record(self, key: str) -> Record:
        place = parse_key(key)
        if place is None:
            raise Wrong(key, "no key of a record")
        epoch_there, writer_there, n = place
        data = self._store.get(key)
        epoch = header(key, data, "L")
        head = HEADER + 4 + integer(data, HEADER, 4)
        if head > len(data):
            raise Wrong(key, "it is cut off")
        inner = self._keys.open(key, "record", data[HEADER + 4:head], data[:HEADER] + b"record" + n.to_bytes(8, "little"))
        text_end = 8 + integer(inner, 0, 4)
        end = text_end + integer(inner, 4, 4)
        if len(inner) < 8 or end > len(inner) or any(inner[end:]):
            raise Wrong(key, "its lengths contradict each other")
        found = fields(key, parse(key, inner[8:text_end]), kind=str, n=int, epoch=int, writer=str, prev=str, time_ns=int, changeset=int,
                       info=dict, riders=list)
        length = bounded(key, found["changeset"], 0, LARGEST)
        from_hex(key, found["writer"], 8)
        from_hex(key, found["prev"], 32)
        if found["kind"] not in ("commit", "claim", "release", "seal") or (found["n"], found["epoch"]) != (n, epoch):
            raise Wrong(key, "it says it is another record")
        if found["kind"] != "seal" and (epoch, found["writer"]) != (epoch_there, writer_there):
            raise Wrong(key, "it was written for another place")
        if (length > 0) != (end > text_end) or (length and found["kind"] != "commit"):
            raise Wrong(key, "changes where none can be")
        riders = list(_riders(key, head, found["riders"]))
        if len(data) > sum((rider.size for rider in riders), head) or (riders and found["kind"] != "commit") or len(riders) > 1024:
            raise Wrong(key, "there is more in it than can be")
        return Record(key, blake3(data[:head]).hexdigest(), found["kind"], n, epoch, found["writer"], found["prev"], found["info"],
                      unpack(key, inner[text_end:end], length) if length else b"", riders)

    def back(self) -> Iterator[Record]:
        """All records of the history, the newest first. Ends at the first, or with Wrong where one is missing or is not the one that the
        record after it names."""
        here = self.tip
        while here is not None:
            yield here
            here = self._follow(here)

    def _before(self, record: Record) -> tuple[int, str, str]:
        """(n, key, hash) of the record before; n = 0: there is none."""
        key, skips = record.info.get("prev_key"), record.info.get("skips", 0)
        n = record.n - 1 - skips if type(skips) is int and skips >= 0 else -1
        if type(key) is not str or n < 0 or (key == "") != (n == 0) or (n == 0 and record.prev != "0" * 64):
            raise Wrong(record.key, "what it says of the record before it contradicts itself")
        return n, key, record.prev

    def _follow(self, record: Record) -> Record | None:
        """The record before; None: this is the first."""
        n, key, hash = self._before(record)
        if not n:
            return None
        before = self.record(key)
        if before.hash != hash:
            raise Wrong(key, "it is not the record that the one after it names")
        if before.n != n or before.epoch > record.epoch:
            raise Wrong(record.key, "its number or epoch is not that of the next record")
        return before

    # ---------------------------------------------------------------- checkpoints

    def manifests(self) -> list[str]:
        """Keys, newest first."""
        found = [(commit, key) for key in self._store.keys(f"checkpoint/{BRANCH}/") if (commit := parse_manifest_key(key)) is not None]
        return [key for _, key in sorted(found, reverse=True)]

    def manifest(self, key: str) -> Manifest:
        data = self._store.get(key)
        header(key, data, "M")
        inner = self._keys.open(key, "checkpoint", data[HEADER:], data[:HEADER] + b"checkpoint manifest")
        end = 4 + integer(inner, 0, 4)
        if len(inner) < 4 or end > len(inner) or any(inner[end:]):
            raise Wrong(key, "its lengths contradict each other")
        found = fields(key, parse(key, inner[4:end]), commit=int, epoch=int, record_hash=str, record_key=str, time_ns=int, counters=dict,
                       parts=list, riding=list)
        if parse_manifest_key(key) != found["commit"]:
            raise Wrong(key, "it says it is of another commit")
        for part in found["parts"]:
            fields(key, part, key=str, size=int, hash=str)
        for one in found["riding"]:
            if type(one) is not list or [type(value) for value in one] != [int, str, int]:
                raise Wrong(key, "a rider is not described as it must be")
        return Manifest(key, found["commit"], found["record_key"], found["record_hash"], found["counters"], found["parts"],
                        [(pack, place, base) for pack, place, base in found["riding"]])

    def load(self, manifest: Manifest) -> Tables:
        """The rows at its commit."""
        tables = Tables()
        for part in manifest.parts:
            for changeset in self.part(manifest, part):
                tables.apply(part["key"], changeset)
        if any(manifest.counters.get(name) not in (None, value) for name, value in tables.rows["counter"].values()):
            raise Wrong(manifest.key, "its counters are not those of its parts")
        rows = {row["id"]: row for row in tables.named("pack")}
        for pack, key, base in manifest.riding:
            if pack not in rows or parse_key(key) is None:
                raise Wrong(manifest.key, f"pack {pack} cannot ride in {key!r}")
            self.riding[rows[pack]["name"]] = (key, base, rows[pack]["size"])
        return tables

    def part(self, manifest: Manifest, part: dict[str, Any]) -> Iterator[bytes]:
        key, data = part["key"], self._store.get(part["key"])
        if len(data) != part["size"] or blake3(data).hexdigest() != part["hash"]:
            raise Wrong(key, "it is not the part that the manifest names")
        header(key, data, "C")
        inner = self._keys.open(key, "checkpoint", data[HEADER:],
                                data[:HEADER] + b"checkpoint part" + manifest.commit.to_bytes(8, "little"))
        end = 8 + integer(inner, 0, 4)
        if len(inner) < 8 or end > len(inner) or any(inner[end:]):
            raise Wrong(key, "its lengths contradict each other")
        raw, at = unpack(key, inner[8:end], bounded(key, integer(inner, 4, 4), 0, LARGEST)), 0
        while at < len(raw):
            start, at = at + 4, at + 4 + integer(raw, at, 4)
            if at > len(raw):
                raise Wrong(key, "a changeset is cut off")
            yield raw[start:at]

    # ---------------------------------------------------------------- the rows

    def tables(self, *, checkpoints: bool = True) -> Tables:
        """The rows at the tip, from the newest whole checkpoint that lies on the chain and the records after it, or from all records.

        A checkpoint stands in for its record: that one need not be read.
        """
        manifests = self.manifests() if checkpoints else []
        tables, after = Tables(), []
        here = self.tip
        while here is not None:
            if (found := self._checkpoint(manifests, here.n, here.key, here.hash)) is not None:
                tables = found
                break
            after.append(here)
            n, key, hash = self._before(here)
            if (found := self._checkpoint(manifests, n, key, hash)) is not None:
                tables = found
                break
            here = self._follow(here)
        for record in reversed(after):
            tables.apply(record.key, record.changeset)
            self.riding.update((rider.name, (rider.key, rider.offset, rider.size)) for rider in record.riders)
        return tables

    def _checkpoint(self, manifests: list[str], n: int, key: str, hash: str) -> Tables | None:
        """The rows at record n, from a checkpoint that is whole and one of this record."""
        for one in manifests:
            if parse_manifest_key(one) == n:
                try:
                    manifest = self.manifest(one)
                    if (manifest.record_key, manifest.record_hash) == (key, hash):
                        return self.load(manifest)
                except Wrong:
                    continue
        return None


_NUMBER = r"(0|[1-9]\d{0,19})"
_RECORD = re.compile(rf"log/{BRANCH}/{_NUMBER}/{_NUMBER}-([0-9a-f]{{16}})/{_NUMBER}/{_NUMBER}/{_NUMBER}")
_MANIFEST = re.compile(rf"checkpoint/{BRANCH}/{_NUMBER}/{_NUMBER}/{_NUMBER}/manifest-[0-9a-f]{{16}}")


def parse_key(key: str) -> tuple[int, str, int] | None:
    """(epoch, writer, n) of the place that a record's key names; None: it is no record's."""
    found = _RECORD.fullmatch(key)
    if found is None:
        return None
    thousand, epoch, million, thousands, n = [int(found[at]) for at in (1, 2, 4, 5, 6)]
    return (epoch, found[3], n) if (thousand, million, thousands) == (epoch // 1000, n // 10**6, n // 1000) else None


def parse_manifest_key(key: str) -> int | None:
    """The commit; None: it is no manifest's."""
    found = _MANIFEST.fullmatch(key)
    if found is None:
        return None
    million, thousand, commit = [int(found[at]) for at in (1, 2, 3)]
    return commit if (million, thousand) == (commit // 10**6, commit // 1000) else None


def _riders(key: str, at: int, listed: list[Any]) -> Iterator[Rider]:
    """`at`: where the head ends."""
    for one in listed:
        if type(one) is not list or [type(value) for value in one] != [int, str, int]:
            raise Wrong(key, "a rider is not described as it must be")
        pack, name, size = one
        bounded(key, pack, 1)
        bounded(key, size, 1, 2**32 - 1)
        yield Rider(pack, name, key, at, size)
        at += size
