"""Going back: what is left of a history whose newest records, or some before them, are damaged or missing.

The newest whole state is where a chain of whole records ends that begins at something known: the empty filesystem, a whole checkpoint, or
what this machine's database holds. Two kinds of damage do not end a chain: one flipped bit of a small record, since only one of its
bits makes the seal hold again; and a lost SEAL, or the very first record, since they have no changes. A checkpoint then stands in for
the record.

Whoever takes office from there (office.py) puts its first record where any writer's next record would go, so that a writer that still
lives is deposed as ever; but that record names the last *whole* one as the one before, and says how many it leaves out (`skips`).
What is left out stays in its place and is in no history, as is any record that nobody names.

A newest record that was a SEAL and cannot be read names its successor's folder to nobody. Should that successor live and be silent, it is
not deposed: so going back waits for silence in any case but that of a writer known to be dead.
"""
from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import trio

from s3cfs import ids
from s3cfs.doors import Doors
from s3cfs.errors import AlreadyMounted, Damaged, Diverged, NewerFormat, NotFound, ObjectMissing
from s3cfs.formats import envelope, record
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.record import Kind, Record
from s3cfs.formats.seal import Seals
from s3cfs.history.localtip import LocalTip
from s3cfs.history.log import Tip, list_whole_log, newest_key, number_of, read_record
from s3cfs.history.restore import manifests, read_manifest, read_part
from s3cfs.history.way import Read
from s3cfs.ids import ZERO_HASH, ObjectHash, folder_of
from s3cfs.meta import describe
from s3cfs.remote import Remote

READERS = 8
UNFLIP_MAX_BYTES = 8 << 10             # beyond it trying all bits takes long


@dataclass(frozen=True, slots=True)
class Seen:
    """One record in the store, without its changes."""

    key: str
    n: int
    place: tuple[int, str]                 # folder: epoch and writer
    size: int = 0
    epoch: int = 0                         # as its header says; 0: that is damaged, too
    trouble: str = ""                      # why it cannot be read as it is
    hash: ObjectHash = ZERO_HASH
    found: Record | None = None

    @property
    def before(self) -> tuple[str, ObjectHash]:
        """Key and hash of the record before."""
        assert self.found is not None
        return str(self.found.info.get("prev_key", "")), self.found.prev


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A record that is left out."""

    key: str
    n: int
    time_ns: int                           # 0: not known
    text: str


@dataclass(frozen=True, slots=True)
class Retreat:
    base: Tip                              # the newest whole state
    base_ns: int                           # when its record was made; 0: not known
    tip: Tip                               # what office is taken after
    top: str                               # key of the newest record
    damaged: Mapping[str, str] = field(default_factory=dict)      # key -> what is wrong, of those on the way
    given_up: tuple[GivenUp, ...] = ()     # oldest first
    known: Mapping[str, Read] = field(default_factory=dict)       # damaged, and what they held is known all the same

    def newest(self, remote: Remote) -> Callable[[], Awaitable[Tip]]:
        """For the writer: the tip as long as nothing was put since."""
        async def look() -> Tip:
            if await newest_key(remote) != self.top:
                raise AlreadyMounted("this filesystem is mounted elsewhere and being written to")
            return self.tip
        return look


async def find_retreat(doors: Doors, remote: Remote, keyring: KeyRing, local: LocalTip | None) -> Retreat | None:
    """What can be gone back to; None when nothing in the way from the newest record to a known state is damaged.

    `local`: what the database at hand holds, if it may be used.
    """
    folders, sealer = await list_whole_log(remote), keyring.sealer("record", 0)
    if not folders:
        return None
    seen = await _read_all(doors, remote, sealer, folders)
    top = seen[_top(folders)]
    way = _way(seen, top.key)
    _bridge_seals(seen, way)
    anchors = [("", ZERO_HASH)]
    if local is not None and local.n:
        anchors.append((local.key, local.hash))
    if (whole := await _whole_checkpoint(doors, remote, keyring, way)) is not None:
        anchors.append(whole)
    reached = [(at, anchor) for anchor, digest in anchors if (at := _reach(seen, way, anchor, digest)) is not None]
    (key, digest), anchor = max(reached, key=lambda pair: (number_of(pair[0][0]), number_of(pair[1])), default=(("", ZERO_HASH), ""))
    after = way[:way.index(anchor)] if anchor else way
    known = {k: Read(one.found, one.hash, one.size) for k in after if (one := seen.get(k)) and one.trouble and one.found is not None}
    if key == top.key and not known and not top.trouble:
        return None
    base = _tip(seen, key, digest)
    lost = way[:way.index(key)] if key in way else way
    return Retreat(base, _time_ns(seen.get(key)), _resume(seen, folders, top, base), top.key,
                   {k: seen[k].trouble if k in seen else "missing" for k in (*after, top.key) if k not in seen or seen[k].trouble},
                   tuple([await _given_up(remote, sealer, seen, k) for k in reversed(lost)]), known)


def _top(folders: dict[tuple[int, str], dict[int, str]]) -> str:
    records = folders[max(folders)]
    return records[max(records)]


async def _read_all(doors: Doors, remote: Remote, sealer: Seals, folders: dict[tuple[int, str], dict[int, str]]) -> dict[str, Seen]:
    seen: dict[str, Seen] = {}
    queue = [(place, n, key) for place, records in folders.items() for n, key in records.items()]

    async def work() -> None:
        while queue:
            place, n, key = queue.pop()
            try:
                found, data = await read_record(remote, key, sealer)
                bare = Record(found.kind, found.n, found.epoch, found.writer, found.prev, found.time_ns, found.info)
                seen[key] = Seen(key, n, place, len(data), found.epoch, "", record.record_hash(data), bare)
            except ObjectMissing:
                pass                                             # listed, and gone
            except (Damaged, NewerFormat) as error:
                seen[key] = await _damaged(doors, remote, sealer, Seen(key, n, place, trouble=str(error).rpartition(": ")[2]))

    async with trio.open_nursery() as nursery:
        for _ in range(READERS):
            nursery.start_soon(work)
    return seen


async def _damaged(doors: Doors, remote: Remote, sealer: Seals, one: Seen) -> Seen:
    """What it says all the same: everything if only a bit of it is flipped, else its size and its header."""
    try:
        data = await remote.get(one.key)
    except NotFound:
        return one
    try:
        epoch = envelope.read_header(data, envelope.RECORD, one.key)
    except (Damaged, NewerFormat):
        epoch = 0
    found = await doors.threads.run(_unflip, data, one.n, sealer)
    if found is None:
        return replace(one, size=len(data), epoch=epoch)
    bare, digest = found
    return replace(one, size=len(data), epoch=bare.epoch, found=bare, hash=digest)


def _unflip(data: bytes, n: int, sealer: Seals) -> tuple[Record, ObjectHash] | None:
    """The record that one flipped bit made unreadable: its seal says which it was. Some 50 ms for the smallest."""
    tried = bytearray(data)
    head = min(record.head_bytes(data), len(data))
    for at in range(head if head <= UNFLIP_MAX_BYTES else record.SEAL_AT):
        for bit in range(8):
            tried[at] ^= 1 << bit
            with contextlib.suppress(Damaged, NewerFormat):
                return record.decode(bytes(tried), n, sealer), record.record_hash(bytes(tried))
            tried[at] ^= 1 << bit
    return None


def _bridge_seals(seen: dict[str, Seen], way: list[str]) -> None:
    """A record that is lost, and after which the history goes on in another folder without a CLAIM, was a SEAL: it had no changes.

    Neither had the very first, with which a writer took office.
    """
    for above_key, key, below_key in zip(way, way[1:], [*way[2:], ""], strict=False):
        above, here, below = seen.get(above_key), seen.get(key), seen.get(below_key)
        if above is None or above.found is None:
            continue
        if number_of(key) > 1 and (above.found.kind is Kind.CLAIM or folder_of(key) == folder_of(above_key)):
            continue
        if (here is not None and here.found is not None) or (below_key and (below is None or below.found is None)):
            continue
        digest = below.hash if below is not None else ZERO_HASH
        seal = Record(Kind.SEAL, number_of(key), above.place[0], above.place[1], digest, 0,
                      {"prev_key": below_key, "next": folder_of(above_key), "tier": "T1"})
        lost = here or Seen(key, seal.n, ids.parse_log_key(key)[1:3], trouble="missing")
        seen[key] = replace(lost, found=seal, hash=above.before[1])


def _way(seen: dict[str, Seen], top: str) -> list[str]:
    """Keys from the newest record back; where one cannot be read the way goes on with the best guess at the one before it."""
    way = [top]
    while True:
        here, n = seen.get(way[-1]), number_of(way[-1])
        if here is not None and here.found is not None:
            key = here.before[0]
        else:
            key = _guess(seen, n, ids.parse_log_key(way[-1])[1:3])
        if not key or number_of(key) >= n:
            return way
        way.append(key)


def _guess(seen: dict[str, Seen], n: int, place: tuple[int, str]) -> str:
    """The nearest number below, in the same folder or else in that of the latest writer before: late records lie in older ones."""
    below = [one for one in seen.values() if one.n < n and one.place <= place]
    best = max(below, key=lambda one: (one.n, one.place == place, one.place), default=None)
    return best.key if best is not None else ""


def _reach(seen: dict[str, Seen], way: list[str], key: str, digest: ObjectHash) -> tuple[str, ObjectHash] | None:
    """The newest record that whole ones lead to from a known state; None when that state is not on the way."""
    if key and (key not in way or (key in seen and seen[key].found is not None and seen[key].hash != digest)):
        return None
    at = way.index(key) if key else len(way)
    while at:
        above = seen.get(way[at - 1])
        if above is None or above.found is None or above.before != (key, digest):
            break
        key, digest, at = above.key, above.hash, at - 1
    return key, digest


async def _whole_checkpoint(doors: Doors, remote: Remote, keyring: KeyRing, way: list[str]) -> tuple[str, ObjectHash] | None:
    """Key and hash of the record that the newest whole checkpoint of this history was made at."""
    async with aclosing(manifests(remote)) as newest_first:
        async for key, _ in newest_first:
            try:
                manifest = await read_manifest(remote, keyring, key)
                if manifest.record_key in way:
                    for part in manifest.parts:
                        await read_part(doors, remote, keyring, manifest.commit, part)
                    return manifest.record_key, ObjectHash(bytes.fromhex(manifest.record_hash))
            except (Damaged, Diverged, NewerFormat, NotFound, ObjectMissing):
                continue
    return None


def _tip(seen: dict[str, Seen], key: str, digest: ObjectHash) -> Tip:
    if not key:
        return Tip()
    here = seen.get(key)
    if here is None or here.found is None:
        return Tip(number_of(key), key, digest, ids.parse_log_key(key)[1])
    return Tip(here.n, key, digest, here.found.epoch, here.found.kind, here.found.info, here.found.writer, here.found.time_ns)


def _resume(seen: dict[str, Seen], folders: dict[tuple[int, str], dict[int, str]], top: Seen, base: Tip) -> Tip:
    """Where the next record goes is a matter of the newest one, what it names as the one before of the newest whole state."""
    info: dict[str, Any] = {}
    time_ns = 0
    for one in sorted(seen.values(), key=lambda one: one.n):
        if one.found is not None:
            time_ns = one.found.time_ns
            names = ("tier", "by", "every") if one.found.writer == top.place[1] else ("tier",)     # of the writer to be replaced
            info.update({name: one.found.info[name] for name in names if name in one.found.info})
    epoch = max(top.epoch, max(folders)[0])
    if top.found is not None:
        folder = _tip(seen, top.key, top.hash).folder
    else:
        folder, epoch = folder_of(top.key), epoch + 1                         # it may have been the SEAL of a taker
    return Tip(top.n, base.key, base.hash, epoch, None, info, top.place[1], time_ns, folder)


def _time_ns(one: Seen | None) -> int:
    return one.found.time_ns if one is not None and one.found is not None else 0


async def _given_up(remote: Remote, sealer: Seals, seen: dict[str, Seen], key: str) -> GivenUp:
    one = seen.get(key)
    if one is None:
        return GivenUp(key, number_of(key), 0, "missing: what it held is not known")
    if one.found is None:
        return GivenUp(key, one.n, 0, f"damaged ({one.trouble}): what it held is not known; its size is {one.size} bytes")
    if one.found.kind is not Kind.COMMIT:
        return GivenUp(key, one.n, one.found.time_ns, f"a {one.found.kind}: no changes")
    changes = one.found.changeset                        # kept of those that were unflipped only
    if not one.trouble:
        with contextlib.suppress(Damaged, ObjectMissing):
            changes = (await read_record(remote, key, sealer))[0].changeset
    return GivenUp(key, one.n, one.found.time_ns, describe(changes) if changes else "no changes")
