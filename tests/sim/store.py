"""The simulated object store: a bucket that outlives machines, and one node's shaky line to it.

The bucket keeps every change in order, so the store as it was at any moment can be looked at afterwards. It also watches
what may never happen whatever the node does: `violations`.
"""
from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from blake3 import blake3

from s3cfs import ids
from s3cfs.backends.base import PROBE_ROUNDS, Backend, Body, Capabilities, ObjectInfo
from s3cfs.backends.pieces import Head
from s3cfs.backends.progress import moved
from s3cfs.errors import Corrupt, Exists, NotFound, Temporary, Throttled, Unsupported

from .crash import Crash, Incarnation
from .runtime import now
from .threads import pause

PIECE_S = 15.0                          # how long a piece of a body takes at most, on a slow line


@dataclass(frozen=True, slots=True)
class Change:
    key: str
    data: bytes | None                  # None: deleted
    torn: bool = False                  # what came of a put that broke off


@dataclass(frozen=True, slots=True)
class Flight:
    """A put that its sender has given up and that may still arrive."""

    key: str
    data: bytes
    only_if_absent: bool


def _moment() -> float:
    """Virtual time, where there is any."""
    try:
        return now()
    except RuntimeError:
        return -math.inf


LARGEST = (4 << 10, 9_000, 70_000)             # bytes of an object, where a store has such a bound: below a chunk, a pack, and some packs


class Bucket:
    """What is in the store, and everything that ever happened to it. It takes no object above `largest` bytes (None: any). `tears`: of a
    pack whose put breaks off it keeps what came, as some servers do of large bodies that nothing vouches for."""

    def __init__(self, *, create_only: bool = True, largest: int | None = None, tears: bool = False) -> None:
        self.create_only, self.largest, self.tears = create_only, largest, tears
        self.objects: dict[str, bytes] = {}
        self.history: list[Change] = []
        self.flights: list[Flight] = []
        self.violations: list[str] = []
        self._ever: dict[str, bytes] = {}
        self._former: list[tuple[float, str, bytes | None]] = []       # when something changed, and what it was

    @classmethod
    def draw(cls, rng: random.Random, seed: int) -> Bucket:
        odd = random.Random(f"store of {seed}")              # not of `rng`: so the same seeds stay the same stories otherwise
        return cls(create_only=rng.random() < 0.7, largest=odd.choice(LARGEST) if odd.random() < 0.25 else None, tears=odd.random() < 0.3)

    def __str__(self) -> str:
        return f"tier {1 if self.create_only else 2}" + (f", objects up to {self.largest} bytes" if self.largest else "") + (
            ", keeps parts" if self.tears else "")

    def put(self, key: str, data: bytes, only_if_absent: bool) -> bool:
        """False: the key is taken."""
        if only_if_absent and key in self.objects:
            return False
        if not key.startswith("probe/"):
            self._watch(key, data)
        self._former.append((_moment(), key, self.objects.get(key)))
        self.objects[key] = data
        self.history.append(Change(key, data))
        return True

    def as_of(self, ago_s: float | None) -> Mapping[str, bytes]:
        """What was in it so many seconds ago."""
        if not ago_s:
            return self.objects
        since, seen = _moment() - ago_s, dict[str, bytes | None](self.objects)
        for at, key, former in reversed(self._former):
            if at <= since:
                break
            seen[key] = former
        return {key: data for key, data in seen.items() if data is not None}

    def tear(self, flight: Flight) -> None:
        """Its put breaks off in the middle. Nobody who looks there may take it for the pack. (What is there already stays: an attempt
        that was given up long ago could halve what a record names, and no client can help that.)"""
        if self.tears and flight.key.startswith("pack/") and flight.key not in self.objects:
            self._former.append((_moment(), flight.key, None))
            self.objects[flight.key] = flight.data[:len(flight.data) // 2]
            self.history.append(Change(flight.key, self.objects[flight.key], torn=True))

    def _content(self, key: str, data: bytes) -> bytes:
        """Of an object in pieces: theirs. When its head arrives all of them are there (S1)."""
        head = None if self.largest is None else Head.decode(data)
        if head is None:
            return data
        pieces = [self.objects.get(head.key(number), b"") for number in range(head.count)]
        content = b"".join(pieces)
        if len(content) != head.size:
            self.violations.append(f"S1: the head of {key} came before its pieces")
        return content

    def _watch(self, key: str, data: bytes) -> None:
        """INVARIANTS I6 (one key, one content, for ever) and I7 (a pack's name is the hash of its bytes)."""
        data = self._content(key, data)
        if self._ever.setdefault(key, data) != data:
            self.violations.append(f"I6: {key} was written with other bytes")
        if key.startswith("pack/"):
            try:
                _, digest = ids.parse_pack_key(key)
            except ValueError as error:
                self.violations.append(f"I7: {error}")
                return
            if digest != blake3(data).digest():
                self.violations.append(f"I7: {key} is not the hash of its bytes")

    def delete(self, key: str) -> None:
        if (former := self.objects.pop(key, None)) is not None:
            self._former.append((_moment(), key, former))
            self.history.append(Change(key, None))

    def land(self, index: int) -> None:
        flight = self.flights.pop(index)
        self.put(flight.key, flight.data, flight.only_if_absent)

    def at(self, moment: int) -> Bucket:
        """The bucket as it was after the first `moment` changes, without anything in flight."""
        old = Bucket(create_only=self.create_only, largest=self.largest, tears=self.tears)
        for change in self.history[:moment]:
            if change.data is None:
                old.objects.pop(change.key, None)
            else:
                old.objects[change.key] = change.data
                if not change.torn:
                    old._ever[change.key] = old._content(change.key, change.data)
        old.history = self.history[:moment]
        return old

    def copy(self) -> Bucket:
        return self.at(len(self.history))


@dataclass
class StoreFaults:
    """Chances a call; `away` is an outage: every call fails, at once or after `hang_s`."""

    temporary: float = 0.0              # refused, without effect
    lost_reply: float = 0.0             # done, and the answer is lost
    late: float = 0.0                   # a put that fails and arrives later, perhaps after the sender's death
    corrupt: float = 0.0                # a get whose transfer fails
    away: bool = False
    calm: int = 0                       # somebody looks: no outage for him
    latency_s: float = 0.0              # of a call, on average; half of it before the effect
    bytes_per_s: float = math.inf
    hang_s: float = 0.0                 # what a call takes that fails because the store is away
    stuck: float = 0.0                  # a call that hangs for minutes, and then is carried out
    stale_s: float | None = None        # gets, stats and listings answer as of so long ago (what refuses to overwrite knows better); 0: now
    rng: random.Random = field(default_factory=lambda: random.Random(0))

    @property
    def healthy(self) -> bool:
        return not any((self.temporary, self.lost_reply, self.late, self.corrupt, self.stuck, self.away))

    def is_slow(self, bucket: Bucket) -> bool:
        """The line is, or each few bytes cost a round trip of their own."""
        return self.bytes_per_s < 1e6 or (bucket.largest is not None and bucket.largest < 1e6 * self.latency_s)

    def __str__(self) -> str:
        speed = f", {self.bytes_per_s / 1000:.0f} kB/s" if self.bytes_per_s < math.inf else ""
        return f"{'good' if self.healthy else 'bad'} line ({self.latency_s * 1000:.0f} ms{speed})"

    @classmethod
    def draw(cls, rng: random.Random) -> StoreFaults:
        """Mostly a good line, sometimes a bad one."""
        own = random.Random(rng.getrandbits(64))
        made = cls(rng=own, latency_s=rng.choice([0.0, 0.01, 0.05, 0.3]), hang_s=rng.choice([0.0, 5.0, 20.0, 500.0]))
        if rng.random() < 0.15:
            made.bytes_per_s = rng.choice([2_000.0, 20_000.0])
        if rng.random() < 0.5:
            return made
        level = rng.choice([0.02, 0.1, 0.25])
        made.temporary, made.lost_reply, made.late, made.corrupt = [rng.choice([0.0, level]) for _ in range(4)]
        made.stuck = rng.choice([0.0, 0.0, level / 10])
        return made


class SimStore(Backend):
    """`Backend` for one life. Each call may be its last moment: before the effect, or after it and before the answer."""

    def __init__(self, incarnation: Incarnation, bucket: Bucket, faults: StoreFaults | None = None) -> None:
        self.incarnation, self.bucket = incarnation, bucket
        self.faults = faults or StoreFaults()
        self.calls: list[tuple[str, str]] = []
        self.last_log_s = -math.inf         # virtual time of the last record put
        self._create_only: bool | None = None

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(create_only=self._create_only, linearizable=self.faults.stale_s is None,
                            largest_object_bytes=self.bucket.largest)

    @property
    def location(self) -> str:
        return "sim://bucket"

    # ------------------------------------------------------------ a call: begin, effect, end

    def _take_time(self, size: int = 0) -> None:
        faults = self.faults
        seconds = faults.latency_s * faults.rng.expovariate(2.0) if faults.latency_s else 0.0
        seconds += size / faults.bytes_per_s
        while seconds > 0:
            assert pause(min(seconds, PIECE_S)), "a call of the store on the event loop"
            seconds -= PIECE_S
            self.incarnation.alive()
            moved()
        self.incarnation.alive()

    def _begin(self, operation: str, key: str, size: int = 0) -> None:
        self._take_time(size)
        self.incarnation.point("store", f"before {operation} {key}")
        self.calls.append((operation, key))
        faults, rng = self.faults, self.faults.rng
        while self.bucket.flights and rng.random() < 0.3:
            self.bucket.land(rng.randrange(len(self.bucket.flights)))
        if faults.away and not faults.calm:
            pause(faults.hang_s)
            raise Temporary(operation, key, "the simulated store is away")
        if faults.stuck and not faults.calm and rng.random() < faults.stuck:
            pause(rng.uniform(10.0, 400.0))
            self.incarnation.alive()
        if faults.temporary and rng.random() < faults.temporary:
            if rng.random() < 0.3:
                raise Throttled(operation, key, "simulated 503", retry_after=rng.choice([None, 0.5]))
            raise Temporary(operation, key, "simulated refusal")

    def _end(self, operation: str, key: str, size: int = 0) -> None:
        self._take_time(size)
        self.incarnation.point("store", f"after {operation} {key}")
        if self.faults.lost_reply and self.faults.rng.random() < self.faults.lost_reply:
            raise Temporary(operation, key, "simulated loss of the answer")

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        self._begin("get", key)
        found = self.bucket.as_of(self.faults.stale_s).get(key)
        self._end("get", key, 0 if found is None else min(len(found), size or len(found)))
        if found is None:
            raise NotFound("get", key)
        if self.faults.corrupt and self.faults.rng.random() < self.faults.corrupt:
            raise Corrupt("get", key, "simulated short transfer")
        return found[offset:] if size is None else found[offset:offset + size]

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        if only_if_absent and not self.bucket.create_only:
            self.incarnation.alive()
            raise Unsupported("put", key, "no create-only put here")
        if self.bucket.largest is not None and len(data) > self.bucket.largest:
            raise AssertionError(f"{key} has {len(data)} bytes, more than this store takes")
        flight = Flight(key, bytes(data), only_if_absent)
        rng = self.faults.rng
        try:
            self._begin("put", key, len(flight.data))
        except Crash:
            if rng.random() < 0.3:
                self.bucket.flights.append(flight)
            else:
                self.bucket.tear(flight)
            raise
        except Temporary:
            self.bucket.tear(flight)
            raise
        if self.faults.late and rng.random() < self.faults.late:
            self.bucket.flights.append(flight)
            raise Temporary("put", key, "simulated time-out of a put still on its way")
        done = self.bucket.put(key, flight.data, only_if_absent)
        if done and key.startswith("log/"):
            self.last_log_s = now()
        self._end("put", key)
        if not done:
            raise Exists("put", key, "the key is taken")

    def stat(self, key: str) -> ObjectInfo:
        self._begin("stat", key)
        found = self.bucket.as_of(self.faults.stale_s).get(key)
        self._end("stat", key)
        if found is None:
            raise NotFound("stat", key)
        return ObjectInfo(key, len(found))

    def delete(self, key: str) -> None:
        self._begin("delete", key)
        self.bucket.delete(key)
        self._end("delete", key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        if prefix and not prefix.endswith("/"):
            raise ValueError(f"a prefix ends in '/': {prefix}")
        self._begin("list", prefix)
        seen = self.bucket.as_of(self.faults.stale_s)
        found = [ObjectInfo(key, len(data)) for key, data in sorted(seen.items()) if key.startswith(prefix)]
        self._end("list", prefix)
        self.faults.rng.shuffle(found)                        # no order is promised (S3)
        return iter(found)

    def assume_create_only(self, holds: bool) -> None:
        self._create_only = holds

    def probe_create_only(self, rounds: int = PROBE_ROUNDS) -> bool:
        self._begin("probe", "probe/")
        self._create_only = self.bucket.create_only
        return self._create_only
