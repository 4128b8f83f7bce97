"""Getting an object, or a range of it: the data shards that hold it, or any k where one of these is missing, rotten or slow.

Each value says itself whether it is whole (shard.py), so no wrong byte comes from here. Work goes part by part (4 MiB of each shard), and
what has come is put where it belongs at once: beside the answer there are no more than the values that are just coming.
"""
from __future__ import annotations

import io
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial

from s3cfs.backends.types import Body
from s3cfs.backends.zdb import commands
from s3cfs.backends.zdb.cluster import Cluster, Member
from s3cfs.backends.zdb.coder import Coder
from s3cfs.backends.zdb.fanout import Round
from s3cfs.backends.zdb.record import Where
from s3cfs.backends.zdb.shard import PART_BYTES, Piece, decode_value, name_of, pieces
from s3cfs.backends.zdb.words import Condition, Trouble
from s3cfs.errors import Corrupt, StoreError, Temporary

FIND_S = 2.0                       # of silence: nobody looks for shards on a server longer than that


@dataclass(eq=False)
class Shortage(Exception):
    """Too few shards could be had."""

    key: str
    had: int
    needed: int
    absent: int = 0
    rotten: int = 0
    troubles: list[Trouble] = field(default_factory=list)

    def as_error(self) -> StoreError:
        """Temporary, as long as a server that does not answer may have what is missing."""
        said = [f"{self.had} of the {self.needed} shards that it takes can be read"]
        said += [f"{count} are {what}" for count, what in ((self.absent, "missing"), (self.rotten, "damaged")) if count]
        if self.troubles:
            said.append(str(self.troubles[0]))
        return (Temporary if self.troubles else Corrupt)("get", self.key, "; ".join(said))


@dataclass(frozen=True, slots=True)
class Stored:
    """An object and where it is."""

    key: str
    size: int
    where: Where


def read(cluster: Cluster, stored: Stored, offset: int, length: int | None) -> bytes:
    """The bytes of the range, which may end past the object. Shortage."""
    wanted = pieces(stored.size, stored.where.data, offset, length)
    total = sum(piece.end - piece.begin for piece in wanted)
    if not total:
        return b""
    out = io.BytesIO(bytes(total))
    with out.getbuffer() as view:
        for part, here in _by_part(wanted):
            _Part(cluster, stored, part, {piece.shard: (piece, view[at:at + piece.end - piece.begin]) for piece, at in here}).run()
    return out.getvalue()              # the very bytes that were filled, no copy


def _by_part(wanted: Iterable[Piece]) -> list[tuple[int, list[tuple[Piece, int]]]]:
    """Pieces of values, with where they belong in the answer. `begin` and `end` count from the value's beginning."""
    found: dict[int, list[tuple[Piece, int]]] = {}
    at = 0
    for shard, begin, end in wanted:
        while begin < end:
            part = begin // PART_BYTES
            stop = min(end, (part + 1) * PART_BYTES)
            found.setdefault(part, []).append((Piece(shard, begin - part * PART_BYTES, stop - part * PART_BYTES), at))
            at += stop - begin
            begin = stop
    return sorted(found.items())


def get_value(member: Member, stored: Stored, index: int, part: int) -> Body | None:
    """The payload of one value; None: it is not there. Trouble; DAMAGED, if it is not what it should be."""
    name = name_of(stored.where.object_id, index, part)
    value = commands.get(member, name)
    if value is None:
        return None
    try:
        head, payload = decode_value(value, name)
    except ValueError as error:
        raise Trouble(Condition.DAMAGED, f"shard {index} {error}", str(member.server)) from None
    if (head.size, head.key, *head.code) != (stored.size, stored.key, stored.where.data, stored.where.parity):
        raise Trouble(Condition.DAMAGED, f"shard {index} is of another object", str(member.server))
    return payload


def find(cluster: Cluster, stored: Stored) -> Where:
    """Where the shards are by what the servers themselves say: their keys do not depend on who has them."""
    names = [name_of(stored.where.object_id, index) for index in range(stored.where.data + stored.where.parity)]
    made: Round[Member, list[bool]] = cluster.fanout.round()
    for member in cluster:
        made.start(member, partial(_which, member, names))
    servers, found = list(stored.where.servers), dict[int, list[int]]()
    while (done := made.next(FIND_S)) is not None:
        for index, is_there in enumerate(done.value or ()):
            if is_there:
                found.setdefault(index, []).append(done.name.id)
    for index, having in found.items():
        if servers[index] not in having:
            servers[index] = having[0]
    return replace(stored.where, servers=tuple(servers))


def _which(member: Member, names: list[bytes]) -> list[bool]:
    return [commands.exists(member, name) for name in names]


class _Part:
    """One part of the shards. `wanted`: of each data shard that is asked for the piece, and where it goes."""

    def __init__(self, cluster: Cluster, stored: Stored, part: int, wanted: dict[int, tuple[Piece, memoryview]]) -> None:
        self.cluster, self.stored, self.part, self.wanted = cluster, stored, part, wanted
        where = stored.where
        self.coder = Coder(where.data, where.parity)
        self.bytes = min(PART_BYTES, self.coder.shard_bytes(stored.size) - part * PART_BYTES)
        self.members = {index: member for index, number in enumerate(where.servers) if (member := cluster.member(number)) is not None}
        self.got: dict[int, Body] = {}
        self.missing = set(wanted)
        self.shortage = Shortage(stored.key, 0, where.data, absent=len(where.servers) - len(self.members))
        self.round: Round[int, Body | None] = cluster.fanout.round()
        self.left = self._order()

    def _order(self) -> list[int]:
        """All shards that can be asked for: those wanted first, but not before others when their server fails, or owes an answer."""
        unsure, late_s = self.stored.where.unsure, self.cluster.latencies.delay_s(self.bytes)
        places = {member: place for place, member in enumerate(self.cluster.in_order(self.members.values()))}
        ranks = {index: (not member.may_read or member.node.links.silent_s > late_s, index in unsure,
                         self.coder.k > 1 and index not in self.missing, places[member]) for index, member in self.members.items()}
        return sorted(ranks, key=lambda index: ranks[index])

    def run(self) -> None:
        first = self.left[:len(self.missing)]
        if self.coder.k > 1 and set(first) != self.missing:
            first = self.left[:self.coder.k]
        self._ask(first)
        until: float | None = time.monotonic() + self.cluster.latencies.delay_s(self.bytes)
        late: set[int] = set()
        while self.missing and len(self.got) < self.coder.k:
            hopeful = len(self.got) + len(self.round.pending - late)
            if not self.missing <= self.round.pending - late and hopeful < self.coder.k:
                self._ask(self.left[:self.coder.k - hopeful])
            done = self.round.next(until=until if self.left else None)
            if done is None:
                if not self.round.pending:
                    self.shortage.had = len(self.got)
                    raise self.shortage
                late |= self.round.pending
                until = time.monotonic() + self.cluster.latencies.delay_s(self.bytes)
                continue
            if done.trouble is not None:
                self._failed(done.name, done.trouble)
            elif done.value is None:
                self.shortage.absent += 1
                self._weak(done.name, "is missing")
            else:
                self._came(done.name, done.value)
        self.round.abandon()
        if self.missing:
            self._rebuild()

    def _ask(self, indices: list[int]) -> None:
        for index in indices:
            self.left.remove(index)
            self.round.start(index, partial(get_value, self.members[index], self.stored, index, self.part))

    def _failed(self, index: int, trouble: Trouble) -> None:
        if trouble.condition is Condition.DAMAGED:
            self.shortage.rotten += 1
            self._weak(index, "is damaged")
        else:
            self.shortage.troubles.append(trouble)

    def _weak(self, index: int, what: str) -> None:
        self.cluster.degraded.note(self.stored.key, f"shard {index} on {self.members[index].server} {what}")

    def _came(self, index: int, payload: Body) -> None:
        wanted = index if self.coder.k > 1 else 0      # with k = 1 every shard is the object
        if wanted in self.missing:
            piece, room = self.wanted[wanted]
            room[:] = memoryview(payload)[piece.begin:piece.end]
            self.missing.discard(wanted)
            if piece.begin == 0 and piece.end == len(payload):
                payload = room                         # what is there is as good, and the value can go
        self.got[index] = payload

    def _rebuild(self) -> None:
        rebuilt = self.coder.rebuild(self.got, sorted(self.missing), self.bytes)
        for index, payload in rebuilt.items():
            piece, room = self.wanted[index]
            room[:] = memoryview(payload)[piece.begin:piece.end]
