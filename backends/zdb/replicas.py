"""The records in several replicas: what a majority took is what every later read finds, whoever else fails.

    write   read the highest version on a read quorum, put the next one on all replicas, done when a write quorum has it
    read    ask a read quorum; what they do not agree on is put where it is missing, until a write quorum has it, before it is the answer

Versions lie under keys of their own and are written once (record.py), so nothing that arrives late undoes anything, and mending a
replica is harmless at any time. Two calls of this process on one key take turns. Two processes that put different bytes on one key at the
very same time may both write one version: the later of the two wins on every replica where it is mended, and until then a read
may show either.

Which servers are the replicas stands in the roll (members.py), and that may change under way: a write ends with a look at the roll of
those that took it, and is made again where a newer one is found.
"""
from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, repeat

from s3cfs.backends.zdb import commands
from s3cfs.backends.zdb.cluster import Cluster, Member
from s3cfs.backends.zdb.fanout import Round
from s3cfs.backends.zdb.members import ROLL, Roll
from s3cfs.backends.zdb.placing import Quorum
from s3cfs.backends.zdb.record import NOWHERE, OBJECT_ID_BYTES, Placement, Record, Said, Where, name_of, placement_name, understood
from s3cfs.backends.zdb.words import Condition, Trouble
from s3cfs.errors import StoreError, StoreFull, Temporary

CACHED = 10_000                    # records
GAP = 4                            # a version is at most so far above the last that a quorum knows: puts that failed took those between
WINDOWS = (6, 16, 64)              # versions that are asked for at once; each takes two keys of an answer of at most 1023,
WINDOW = 480                       # and so on
MEND_S = 2.0                       # of silence: a reader does not wait longer for mending
_SMALL = 4096                      # bytes, for the delay of a hedge


@dataclass(frozen=True, slots=True)
class Known:
    """What the replicas say of a key. `placement` only when it is of this record's put."""

    record: Record
    placement: Placement | None = None

    @property
    def is_there(self) -> bool:
        return not self.record.is_tombstone

    @property
    def where(self) -> Where:
        return self.record.where if self.placement is None else self.placement.where


class Replicas:
    """See the module's text. For several threads."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._lock = threading.Lock()
        self._turns: dict[str, tuple[threading.Lock, int]] = {}        # key -> whose turn it is, how many want it
        self._cache: OrderedDict[str, Known] = OrderedDict()
        self._tried: OrderedDict[str, int] = OrderedDict()             # the highest version that was tried here, acknowledged or not

    # ------------------------------------------------------------ reading

    def cached(self, key: str) -> Known | None:
        """What was known last; it may have changed since."""
        return self._cache.get(key)

    def read(self, key: str) -> Known | None:
        """What is true now; None: there never was such an object. Temporary: too few replicas answer."""
        cached = self.cached(key)
        start = cached.record.version if cached else 1
        found, said = self._search(key, start)
        if found is None and start > 1:                # what was known was acknowledged by no quorum, and is gone
            self.forget(key)
            found, said = self._search(key, 1)
        if found is not None:
            self._mend(found.record, said)
            self._remember(key, found)
        return found

    def _search(self, key: str, start: int) -> tuple[Known | None, Mapping[Member, Said]]:
        """The highest version from `start` on, and who said what of the last that were asked for."""
        best: Known | None = None
        for count in chain(WINDOWS, repeat(WINDOW)):
            versions = range(start, start + count)
            said = self._ask(key, versions)
            best = known_of(said.values()) or best
            if best is None or best.record.version < versions[-GAP]:
                return best, said
            start = best.record.version
        raise AssertionError("unreachable")

    def _ask(self, key: str, versions: range) -> dict[Member, Said]:
        """A read quorum, each whole; and what else has answered."""
        while True:
            roll = self.cluster.roll
            needed = Quorum.of(len(roll.replicas)).read
            outcome = self.cluster.fanout.first(needed, self.cluster.replicas(), lambda member: self._asked(member, key, versions),
                                                self.cluster.latencies.delay_s(_SMALL), lambda answer: not answer[0].rotten)
            if self.cluster.heed(value for _, value in outcome.good.values()):
                continue                               # other replicas hold the newest by now
            if len(outcome.good) < needed:
                raise too_few("get", key, len(outcome.good), needed, outcome.bad.values())
            for member in outcome.poor:
                self.cluster.degraded.note(key, f"its record on {member.server} is damaged")
            return {member: said for member, (said, _) in (outcome.good | outcome.poor).items()}

    def _asked(self, member: Member, key: str, versions: range) -> tuple[Said, bytes | None]:
        """What a replica says, and the roll that it has. Trouble."""
        names = [*names_of(key, versions), ROLL]
        *values, roll = commands.get_many(member, names)
        return understood(dict(zip(names, values, strict=False)), self.cluster.signer), roll

    def _mend(self, record: Record, said: Mapping[Member, Said]) -> None:
        """Put the record where it is missing, until a write quorum has it. Where that cannot be, the reader has its answer all the same:
        only what was never acknowledged can then come and go."""
        value = record.encode(self.cluster.signer)
        having = {member.id for member, what in said.items() if what.values.get(record.name) == value}
        if len(having) < len(said):
            with contextlib.suppress(StoreError):
                self._put(record.key, record.name, value, having, MEND_S)

    # ------------------------------------------------------------ writing

    @contextlib.contextmanager
    def turn(self, key: str) -> Iterator[None]:
        """One call of this process at a time, for each key."""
        with self._lock:
            lock, count = self._turns.get(key, (threading.Lock(), 0))
            self._turns[key] = lock, count + 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, count = self._turns.pop(key)
                if count > 1:
                    self._turns[key] = lock, count - 1

    def write(self, key: str, size: int, where: Where, time_ns: int) -> Known | None:
        """The object has been put. What was there before. Temporary: it may have happened."""
        with self.turn(key):
            before = self.read(key)
            self._write(before, Record(key, 0, False, size, where, time_ns, self.cluster.writer))
            return before

    def bury(self, key: str, time_ns: int) -> Known | None:
        """The object is deleted. What was there before; None or a tombstone: nothing was. Then nothing is written, unless a put of ours
        failed: what it may have left on some replica is not to come back."""
        with self.turn(key):
            before = self.read(key)
            last = before.record if before else Record(key, 0, True, 0, Where(bytes(OBJECT_ID_BYTES), 1, 0, (NOWHERE,)))
            if not last.is_tombstone or self._tried.get(key, 0) > last.version:
                self._write(before, replace(last, is_tombstone=True, time_ns=time_ns, writer=self.cluster.writer))
            return before

    def _write(self, before: Known | None, record: Record) -> None:
        with self._lock:
            known = before.record.version if before else 0
            version = min(max(known, self._tried.get(record.key, 0)) + 1, known + GAP)
            self._tried[record.key] = version
            self._tried.move_to_end(record.key)
            if len(self._tried) > CACHED:
                self._tried.popitem(last=False)
            self._cache.pop(record.key, None)
        record = replace(record, version=version)
        self._put(record.key, record.name, record.encode(self.cluster.signer))
        self._remember(record.key, Known(record))

    def place(self, placement: Placement) -> None:
        """Where the shards of a put have gone; a repair's. Temporary: it may have happened."""
        self._put(placement.key, placement.name, placement.encode(self.cluster.signer))
        with self._lock:
            self._cache.pop(placement.key, None)

    def _put(self, key: str, name: bytes, value: bytes, having: Iterable[int] = (), silence_s: float | None = None) -> None:
        """On all replicas but those (by id) that have it; done when a write quorum has. Temporary."""
        having = set(having)
        while True:
            roll = self.cluster.roll
            if not self.cluster.heed(self._put_once(key, name, value, roll, having, silence_s)):
                return

    def _put_once(self, key: str, name: bytes, value: bytes, roll: Roll, having: set[int], silence_s: float | None) -> list[bytes | None]:
        """Adds to `having`. The rolls of those that took it, looked at after they had."""
        def one(member: Member) -> bytes | None:
            commands.put(member, name, value)
            return commands.get(member, ROLL)

        made: Round[Member, bytes | None] = self.cluster.fanout.round()
        for member in self.cluster.voters():
            if member.id not in having:
                made.start(member, partial(one, member))
        rolls: list[bytes | None] = []
        bad: list[Trouble] = []
        while not has_quorum(having, roll) and (done := made.next(silence_s)) is not None:
            if done.trouble is not None:
                bad.append(done.trouble)
            else:
                having.add(done.name.id)
                rolls.append(done.value)
        if not has_quorum(having, roll):
            raise too_few("put", key, len(having), Quorum.of(len(roll.replicas)).write, bad)
        return rolls

    # ------------------------------------------------------------ the rest

    def said_of(self, member: Member, key: str, versions: range) -> Said:
        """What one replica says, nothing mended. Trouble."""
        return self._asked(member, key, versions)[0]

    def forget(self, key: str) -> None:
        with self._lock:
            self._cache.pop(key, None)

    def _remember(self, key: str, known: Known) -> None:
        with self._lock:
            before = self._cache.get(key)
            if before is None or before.record.rank <= known.record.rank:
                self._cache[key] = known
                self._cache.move_to_end(key)
                if len(self._cache) > CACHED:
                    self._cache.popitem(last=False)


def names_of(key: str, versions: range) -> list[bytes]:
    """In a 0-db: of the records and tombstones of a key, and of its placement."""
    return [name_of(key, version, is_tombstone=gone) for version in versions for gone in (False, True)] + [placement_name(key)]


def has_quorum(having: Collection[int], roll: Roll) -> bool:
    """Whether these are enough for a write."""
    return all(sum(number in having for number in voters) >= Quorum.of(len(voters)).write for voters in roll.voters)


def too_few(operation: str, key: str, count: int, needed: int, troubles: Iterable[Trouble]) -> StoreError:
    """In the words of the one that is likeliest the cause."""
    worst = sorted(troubles, key=lambda trouble: trouble.condition.passes)
    why = f": {worst[0]}" if worst else ""
    text = f"{count} replicas of the records answer, and it takes {needed}{why}"
    if worst and all(trouble.condition in (Condition.LOW_SPACE, Condition.DISK_FULL) for trouble in worst):
        return StoreFull(operation, key, text)
    return Temporary(operation, key, text)


def known_of(said: Iterable[Said]) -> Known | None:
    """What counts of what several replicas say of a key."""
    said = list(said)
    records = [one.record for one in said if one.record is not None]
    if not records:
        return None
    record = max(records, key=lambda record: record.rank)
    placements = [one.placement for one in said if one.placement is not None and one.placement.of == record.where.object_id]
    return Known(record, max(placements, key=lambda placement: placement.rank, default=None))


