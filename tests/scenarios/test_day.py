"""A day of a gateway whose answers are as they should be, then older and older, up to a minute, and then as they should be again.

Virtual time, the whole of s3cfs above a store in this process. Two loads at once: files, which are written, removed, and read with an empty
cache; and objects that are overwritten and deleted under the same keys, through the same layers, as programs do that do not write once.
"""
from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import trio

from s3cfs.app.node import Node, NodeOptions
from s3cfs.backends.consistency.bounds import Bounds
from s3cfs.backends.consistency.conditions import Conditions
from s3cfs.backends.consistency.guard import Guarded
from s3cfs.backends.recorder import RecorderBackend
from s3cfs.errors import NotFound, Temporary
from s3cfs.remote import Remote
from tests.history.kit import OBJECTS, Life, Site, write_file
from tests.sim import runtime
from tests.sim.store import StoreFaults

HOUR_S = 3600.0
LATENCY_S = 0.05
WORST_S = 60.0
EVENING = 20.5
BOUNDS = Bounds(lock_delay=1.0, lock_delay_most=120.0)


def staleness(hour: float) -> float:
    """Of answers, in seconds: fine until four, worse until eight, bad until ten, better until noon, fine after that."""
    return WORST_S * max(0.0, min(1.0, (hour - 4) / 4, (12 - hour) / 2))


class Even(random.Random):
    """Every call takes the same time."""

    def expovariate(self, lambd: float = 1.0) -> float:
        return 1.0 / lambd


@dataclass
class Day:
    every_s: float                                 # between two rounds of each load
    guarded: bool
    first_hour: float = 0.0
    seed: int = 1
    delays: dict[int, float] = field(default_factory=dict)     # by hour
    evening: list[float] = field(default_factory=list)         # what a round of files took, in the last hours
    rounds = reads = overwritten = refused = 0

    def pass_it(self) -> Day:
        site = Site(limits=replace(OBJECTS, ride_max_bytes=0))
        site.live(self._main, faults=StoreFaults(stale_s=0.0, latency_s=LATENCY_S, rng=Even(self.seed)), seed=self.seed)
        return self

    async def _main(self, life: Life) -> None:
        self.life, self.conditions = life, Conditions(BOUNDS)
        self.began = trio.current_time()
        if self.guarded:
            life.backend = RecorderBackend(Guarded(life.store, self.conditions, lock=True, checker=True))
        async with life.node(NodeOptions(cache_bytes=0)) as node, trio.open_nursery() as nursery:
            nursery.start_soon(self._weather)
            nursery.start_soon(self._objects, node.remote, nursery.cancel_scope.cancel)
            await self._files(node)
            nursery.cancel_scope.cancel()

    @property
    def hour(self) -> float:
        return self.first_hour + (trio.current_time() - self.began) / HOUR_S

    async def _weather(self) -> None:
        while True:
            self.life.store.faults.stale_s = staleness(self.hour)
            self.delays[int(self.hour)] = self.conditions.delay_s
            await trio.sleep(60)

    async def _files(self, node: Node) -> None:
        """What was written is read, from the store, whatever the store shows."""
        dice, files = random.Random(self.seed), dict[bytes, bytes]()
        while self.hour < 24:
            began = trio.current_time()
            name, is_evening = str(self.rounds).encode(), self.hour > EVENING
            files[name] = dice.randbytes(5_000 if is_evening else dice.choice((700, 5_000, 40_000)))
            await write_file(node, name, files[name])
            if len(files) > 12:
                gone = next(iter(files))
                await node.vfs.unlink(1, gone)
                del files[gone]
            await node.flush()
            await node.drop_cache()
            for name in list(files)[-3:] if is_evening else dice.sample(sorted(files), min(3, len(files))):
                found = await node.vfs.lookup(1, name)
                assert found is not None and await node.vfs.read(found.ino, 0, 1 << 20) == files[name], f"wrong bytes at {self.hour:.1f}"
                self.reads += 1
            self.rounds += 1
            if self.hour > EVENING + 1.5:
                self.evening.append(trio.current_time() - began)
            await trio.sleep(self.every_s)

    async def _objects(self, remote: Remote, stop: Callable[[], None]) -> None:
        """Every answer is what was written last, or no answer."""
        dice, known = random.Random(self.seed + 1), dict[str, bytes | None]()
        while self.guarded:
            key = f"probe/again/{dice.randrange(3)}"
            now = known[key] = None if dice.random() < 0.3 else dice.randbytes(dice.randrange(1, 2000))
            await (remote.delete(key) if now is None else remote.put(key, now))
            for _ in range(2):
                key = dice.choice(sorted(known))
                await self._look(remote, key, known[key])
            self.overwritten += 1
            await trio.sleep(self.every_s)

    async def _look(self, remote: Remote, key: str, expected: bytes | None) -> None:
        try:
            assert await remote.get(key) == expected, f"wrong bytes of {key} at {self.hour:.1f}"
            assert (await remote.stat(key)).size == len(expected or b"")
        except NotFound:
            assert expected is None, f"{key} is said to be gone at {self.hour:.1f}"
        except Temporary:
            self.refused += 1
            return
        listed = {info.key for info in await remote.list("probe/")}
        assert (key in listed) == (expected is not None), f"{key} in a listing at {self.hour:.1f}"


def pass_a_day(every_s: float) -> None:
    day, plain = Day(every_s, guarded=True).pass_it(), Day(every_s, guarded=False, first_hour=EVENING).pass_it()
    print(f"{day.rounds} rounds, {day.reads} reads, {day.overwritten} objects overwritten or deleted, {day.refused} without an answer; "
          "delays by hour: " + " ".join(f"{delay:.3g}" for _, delay in sorted(day.delays.items())))
    mean, without = sum(day.evening) / len(day.evening), sum(plain.evening) / len(plain.evening)
    print(f"a round of files in the evening: {mean:.3f} s, without the lock {without:.3f} s")
    assert day.overwritten > 80_000 / every_s / 2 < day.rounds and day.refused < day.overwritten / 10
    assert min(day.delays[hour] for hour in (8, 9, 10)) >= WORST_S, "the delays did not follow"
    assert day.delays[3] <= BOUNDS.lock_delay >= day.delays[22], "the delays did not go back"
    assert mean < 1.05 * without


def test_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "STEPS_MAX", 10**8)
    pass_a_day(1200.0)


@pytest.mark.soak
def test_a_busy_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "STEPS_MAX", 10**8)
    pass_a_day(60.0)
