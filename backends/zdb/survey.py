"""All objects of a store, one after the other: whether the replicas of the records agree, whether each object is whole; and making it so.

It goes through the keys in their order, on several threads, with a bound on the bytes in memory and on the bytes a second, and knows
how far it came: what was interrupted goes on there. It may run beside mounts, and beside others of its kind.
"""
from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from s3cfs.backends.zdb import agree, orphans
from s3cfs.backends.zdb.orphans import Alive
from s3cfs.backends.zdb.repair import Mended, Repair
from s3cfs.backends.zdb.replicas import Replicas
from s3cfs.backends.zdb.words import Trouble
from s3cfs.errors import ExitCode, Interrupted
from s3cfs.limits import MIB

MEMORY_BYTES = 128 * MIB           # of objects that are being built anew, all of them together
BATCH = 32                         # keys whose records are compared at once; one thread has them
SAVE_S = 5.0                       # how often it is noted how far it is
TELL_S = 0.2
NOTE_VERSION = 1


class Finding(NamedTuple):
    """`what`: "weak" (an object that is not whole), "lost", "deletion" (not finished) or "records" (replicas that do not agree)."""

    key: str
    what: str
    text: str
    mended: bool

    def __str__(self) -> str:
        return f"{self.key}: {self.what}: {self.text}{'; mended' if self.mended else ''}"


@dataclass(slots=True)
class Tally:
    """`weak`, `lost`, `deletions`, `records`: keys that are so in the end; `mended`: what was not as it must be, and is now."""

    objects: int = 0
    bytes: int = 0
    mended: int = 0
    weak: int = 0
    lost: int = 0
    deletions: int = 0
    records: int = 0
    shards: int = 0                # that were written
    moved_bytes: int = 0           # read and written
    before: int = 0                # keys that an interrupted run has done
    replicas: int = 0              # new replicas of the records, which were filled
    unfilled: int = 0              # keys that a replica to be could not be given: then it becomes none
    replicas_away: int = 0         # that do not answer
    orphans: int = 0               # values of shards that no record names, and that are a day old; a deep repair removes them
    orphan_bytes: int = 0

    def add(self, other: Tally) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def exit_code(self) -> ExitCode:
        if self.lost:
            return ExitCode.OBJECT_MISSING
        return ExitCode.DAMAGED if self.weak or self.records or self.unfilled or self.replicas_away else ExitCode.OK

    def as_json(self) -> Mapping[str, Any]:
        return dataclasses.asdict(self)

    def verdict(self) -> str:
        wrong = [(self.lost, "lost"), (self.weak, "not whole"), (self.records, "whose replicas do not agree"),
                 (self.unfilled, "that a new replica lacks"), (self.deletions, "not wholly deleted"),
                 (self.replicas_away, "replicas of the records that do not answer")]
        done = [(self.mended, "mended"), (self.shards, "shards written"), (self.replicas, "new replicas filled"),
                (self.before, "by an earlier run"), (self.orphans, "values that belong to nothing")]
        told = [", ".join(f"{count:,} {word}" for count, word in counts if count) for counts in (wrong, done)]
        return f"{self.objects:,} objects: {told[0] or 'all well'}{f' ({told[1]})' if told[1] else ''}"


class Rate:
    """Bytes a second, over all threads. `take` waits for its turn."""

    def __init__(self, per_second: int | None, stop: threading.Event | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_second, self._clock = per_second, clock
        self._stop = stop or threading.Event()
        self._lock = threading.Lock()
        self._free_at = clock()
        self.total = 0

    def take(self, size: int) -> None:
        with self._lock:
            self.total += size
            if not (self.per_second and size):
                return
            self._free_at = max(self._free_at, self._clock()) + size / self.per_second
            wait = self._free_at - self._clock()
        self._stop.wait(wait)


class Room:
    """Bytes in memory. What is larger than all of it has it alone."""

    def __init__(self, total: int) -> None:
        self._total = self._left = total
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def of(self, size: int) -> Iterator[None]:
        size = min(size, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= size)
            self._left -= size
        try:
            yield
        finally:
            with self._changed:
                self._left += size
                self._changed.notify_all()


class Notes:
    """How far a run came, in a file; None: nowhere, since another run has it."""

    def __init__(self, path: str | None) -> None:
        self._path = path

    def load(self, what: str) -> tuple[str, Tally]:
        """The last key that is done, and the figures up to it."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            if self._path is not None:
                with open(self._path, encoding="utf-8") as file:
                    said = json.load(file)
                if (said["version"], said["what"]) == (NOTE_VERSION, what):
                    return str(said["after"]), Tally(**said["tally"])
        return "", Tally()

    def save(self, what: str, after: str, tally: Tally) -> None:
        if self._path is None:
            return
        said = {"version": NOTE_VERSION, "what": what, "after": after, "tally": dataclasses.asdict(tally)}
        with contextlib.suppress(OSError):                     # it is a convenience
            with open(f"{self._path}.new", "w", encoding="utf-8") as file:
                json.dump(said, file)
            os.replace(f"{self._path}.new", self._path)

    def remove(self) -> None:
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)


class Survey:
    """See the module's text. `run` once."""

    def __init__(self, replicas: Replicas, *, mend: bool, deep: bool, replace_away: bool = True, hands: int = 4, rate: Rate | None = None,
                 notes: Notes | None = None, memory_bytes: int = MEMORY_BYTES, report: Callable[[Finding], None] = lambda finding: None,
                 progress: Callable[[Mapping[str, Any]], None] = lambda event: None, stop: threading.Event | None = None) -> None:
        """`deep`: read every shard; else ask whether it is there. `replace_away`: what is on servers that do not answer is built anew
        elsewhere. `report` is called by several threads, one at a time."""
        self._replicas, self._cluster, self._mend, self._hands, self._replace_away = replicas, replicas.cluster, mend, hands, replace_away
        self._stop = stop or threading.Event()
        self._rate = rate or Rate(None, self._stop)
        self._notes, self._tell_of, self._progress = notes or Notes(None), report, progress
        self._repair = Repair(replicas, deep=deep, replace_away=replace_away, spend=self._rate.take, room=Room(memory_bytes).of)
        self._what = f"{'repair' if mend else 'check'} {'deep' if deep else 'quick'}"
        self._lock = threading.Lock()
        self._epoch = 0                            # of the roll, since which all keys are filled in
        self._versions: dict[str, int] = {}        # the highest of each key
        self._away: dict[str, str] = {}            # names of replicas that did not answer, and why
        self._alive: Alive | None = Alive()        # None: not all that is alive was seen
        self._deep = deep

    def run(self) -> Tally:
        """Raises what keeps it from going on (too few replicas answer, say); it may be run again, and goes on where it was."""
        lease = self._begin_change() if self._mend else None
        self._what = f"{self._what} {self._cluster.roll.epoch}"    # what new replicas lack is to be filled in from the first key on
        try:
            return self._run(lease)
        finally:
            if lease is not None:
                lease.give_back()

    def _run(self, lease: agree.Lease | None) -> Tally:
        after, tally = self._notes.load(self._what)
        if after:
            self._alive = None
        self._versions = agree.keys_of(self._cluster)
        keys = sorted(self._versions)
        left = [key for key in keys if key > after]
        tally.before = len(keys) - len(left)
        crew = _Crew(self._one_batch, [left[at:at + BATCH] for at in range(0, len(left), BATCH)], self._hands, self._stop, tally)
        saved = renewed = time.monotonic()
        try:
            while crew.wait(TELL_S):
                now = time.monotonic()
                self._tell(tally.before + crew.done, len(keys))
                if now - saved > SAVE_S:
                    saved = now
                    self._save(crew)
                if lease is not None and now - renewed > agree.RENEW_S:
                    renewed = now
                    lease.renew()
        except BaseException:
            self._stop.set()
            crew.join()
            self._save(crew)
            raise
        if crew.errors or self._stop.is_set():
            self._save(crew)
            raise crew.errors[0] if crew.errors else Interrupted("interrupted")
        self._end(tally, lease)
        return tally

    def _save(self, crew: _Crew) -> None:
        if crew.after:
            self._notes.save(self._what, crew.after, crew.tally)

    def _end(self, tally: Tally, lease: agree.Lease | None) -> None:
        for name, words in sorted(self._away.items()):
            self._report(Finding(name, "records", f"this replica of the records does not answer: {words}", False))
        tally.replicas_away = len(self._away)
        there = all(self._cluster.member(number) is not None for number in self._cluster.roll.joining)
        if lease is not None and there and not tally.unfilled and lease.is_mine():
            with _as_errors():
                tally.replicas = agree.end_change(self._cluster, self._epoch)
        if self._alive is not None and not self._away and (self._deep or not self._mend):
            self._progress({"done": 0, "total": None, "unit": "objects", "text": "looking for what belongs to nothing"})
            tally.orphans, tally.orphan_bytes = orphans.sweep(self._replicas, self._alive, remove=self._mend, stop=self._stop)
        self._notes.remove()
        tally.moved_bytes += self._rate.total

    def _begin_change(self) -> agree.Lease | None:
        """Admit new servers, and say who the replicas shall be. None: there is nothing to change, or another repair is at it."""
        if not agree.wants_change(self._cluster, replace_away=self._replace_away):
            return None
        lease = agree.Lease(self._cluster, self._stop)
        with _as_errors():
            if not lease.take():
                return None
            agree.is_in_force(self._cluster, 0)            # go by the newest
            self._cluster.admit()
            agree.begin_change(self._cluster, replace_away=self._replace_away)
        self._epoch = self._cluster.roll.epoch
        return lease

    # ------------------------------------------------------------ objects

    def _one_batch(self, keys: Sequence[str]) -> Tally:
        tally = Tally()
        self._agree(keys, tally)
        for key in keys:
            if self._stop.is_set():
                raise _Stopped
            self._note(key, self._repair.mend(key) if self._mend else self._repair.seen(key), tally)
        return tally

    def _agree(self, keys: Sequence[str], tally: Tally) -> None:
        found = agree.views(self._cluster, {key: self._versions[key] for key in keys})
        joining = {member for member in self._cluster.voters() if member.id in self._cluster.roll.joining}
        for member, trouble in found.away.items():
            if member in joining:
                tally.unfilled += len(keys)
            else:
                self._away[member.server.name] = trouble.words
        for key in keys:
            one = agree.opinion(found.said[key], self._cluster.signer)
            if self._alive is not None and one.record is not None and not one.record.is_tombstone:
                for where in (one.record.where, *([one.placement.where] if one.placement is not None else [])):
                    self._alive.add(where.object_id)
            if one.agrees:
                continue
            bad = agree.mend(self._cluster, one) if self._mend else {}
            tally.unfilled += not joining.isdisjoint(bad)
            lacking = [member.server.name for member in one.lacking if member not in joining]
            rotten = [member.server.name for member in one.rotten if member not in joining]
            if lacking or rotten:
                mended = self._mend and not bad
                tally.records += not mended
                tally.mended += mended
                told = ((lacking, "not all on"), (rotten, "damaged on"))
                text = "; ".join(f"{text} {', '.join(sorted(names))}" for names, text in told if names)
                self._report(Finding(key, "records", text, mended))

    def _note(self, key: str, one: Mended, tally: Tally) -> None:
        tally.shards += one.shards
        if one.what == "object":
            tally.objects += 1
            tally.bytes += one.size
            tally.lost += one.lost
            tally.weak += one.left is not None and not one.lost
        elif one.what == "deletion":
            tally.deletions += one.left is not None
        if one.trouble is not None or one.left is not None:
            what = "lost" if one.lost else "deletion" if one.what == "deletion" else "weak"
            tally.mended += one.left is None
            self._report(Finding(key, what, one.left or one.trouble or "", one.left is None))

    def _report(self, finding: Finding) -> None:
        with self._lock:
            self._tell_of(finding)

    def _tell(self, done: int, total: int) -> None:
        self._progress({"done": done, "total": total, "unit": "objects", "text": "repairing" if self._mend else "checking"})


@contextlib.contextmanager
def _as_errors() -> Iterator[None]:
    try:
        yield
    except Trouble as trouble:
        raise trouble.as_error("repair", "") from trouble


class _Stopped(Exception):
    pass


class _Crew:
    """Threads that take batches in their order. `done`: keys. `after`: the last up to which all are done; `tally`: what came of these."""

    def __init__(self, work: Callable[[Sequence[str]], Tally], batches: Sequence[Sequence[str]], hands: int, stop: threading.Event,
                 tally: Tally) -> None:
        self._work, self._batches, self._stop, self.tally = work, batches, stop, tally
        self._lock = threading.Lock()
        self._next = self._whole = 0               # numbers of batches: what is taken next; below it all are done
        self._ended: dict[int, Tally] = {}         # of those above it
        self.done, self.after = 0, ""
        self.errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._hand, daemon=True, name="s3cfs zdb survey") for _ in range(hands)]
        for thread in self._threads:
            thread.start()

    def _hand(self) -> None:
        while (number := self._take()) is not None:
            try:
                tally = self._work(self._batches[number])
            except _Stopped:
                return
            except BaseException as error:         # raised by whoever waits
                self.errors.append(error)
                return
            with self._lock:
                self._ended[number] = tally
                self.done += len(self._batches[number])
                while self._whole in self._ended:
                    self.tally.add(self._ended.pop(self._whole))
                    self.after = self._batches[self._whole][-1]
                    self._whole += 1

    def _take(self) -> int | None:
        with self._lock:
            if self._next >= len(self._batches) or self.errors or self._stop.is_set():
                return None
            self._next += 1
            return self._next - 1

    def wait(self, seconds: float) -> bool:
        """Whether any of them is still at work, after so many seconds at most."""
        alive = next((thread for thread in self._threads if thread.is_alive()), None)
        if alive is None:
            return False
        alive.join(seconds)
        return True

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
