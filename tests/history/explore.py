"""Several writers on one store, stepped by hand: every order of their remote calls, with lost answers, late arrivals and deaths.

The coroutines of `history.office` run without an event loop: each remote call and each sleep hands itself to the explorer, which
decides whose call happens next and how it ends. One list of choices is one run; `exhaustively` walks over all of them within its bounds
(how often a task that could go on is interrupted, how many faults), `randomly` draws them.
"""
from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from s3cfs.backends.base import ObjectInfo
from s3cfs.doors import Doors
from s3cfs.errors import AlreadyMounted, Exists, NotFound, StoreError, Temporary
from s3cfs.formats import record
from s3cfs.formats.record import Kind, Record
from s3cfs.history.log import Host, Tip, find_tip
from s3cfs.history.office import Takeover, Tier, Writer


class NullSealer:
    """Fencing does not care how records are sealed."""

    def seal(self, plain: Any, aad: bytes) -> bytes:
        return bytes(plain)

    def open(self, sealed: Any, aad: bytes) -> bytes:
        return bytes(sealed)


SEALER = NullSealer()
_decoded: dict[tuple[int, bytes], Record] = {}


@dataclass(frozen=True, slots=True)
class Call:
    """What a coroutine hands to the explorer: a remote call, or a sleep."""

    operation: str
    key: str = ""
    data: bytes = b""
    only_if_absent: bool = False
    seconds: float = 0.0

    def __await__(self) -> Generator[Call, Any, Any]:
        return (yield self)


class Line:
    """`Remote` as far as `history.log` and `history.office` use it."""

    async def get(self, key: str, offset: int = 0, size: int | None = None, *, named: bool = False) -> bytes:
        data = await Call("get", key)
        return bytes(data[offset:] if size is None else data[offset:offset + size])

    async def put(self, key: str, data: bytes, only_if_absent: bool = False) -> None:
        await Call("put", key, data, only_if_absent)

    async def delete(self, key: str) -> None:
        await Call("delete", key)

    async def folders(self, prefix: str) -> list[str]:
        found = await Call("list", prefix)
        return sorted({info.key[len(prefix):].partition("/")[0] for info in found if "/" in info.key[len(prefix):]})

    async def list(self, prefix: str) -> list[ObjectInfo]:
        return await Call("list", prefix)  # type: ignore[no-any-return]


class Store:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def perform(self, call: Call) -> Any:
        if call.operation == "get":
            if call.key not in self.objects:
                raise NotFound("get", call.key)
            return self.objects[call.key]
        if call.operation == "list":
            return [ObjectInfo(key, len(data)) for key, data in self.objects.items() if key.startswith(call.key)]
        if call.operation == "delete":
            self.objects.pop(call.key, None)
        elif call.only_if_absent and call.key in self.objects:
            raise Exists("put", call.key)
        else:
            self.objects[call.key] = call.data
        return None

    def run(self, task: Awaitable[Any]) -> Any:
        """A coroutine with the store to itself."""
        steps = task.__await__()
        try:
            call = next(steps)
        except StopIteration as done:
            return done.value
        while True:
            try:
                try:
                    answer = self.perform(call)
                except StoreError as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(answer)
            except StopIteration as done:
                return done.value

    def history(self) -> list[tuple[str, Record, bytes]]:
        """What anyone finds: the newest record and from there back, newest first. AssertionError when it is no chain."""
        tip: Tip = self.run(find_tip(Line(), SEALER))  # type: ignore[arg-type]
        found = []
        key, n, expected = tip.key, tip.n, tip.hash
        while key:
            data = self.objects[key]
            assert record.record_hash(data) == expected, f"{key} is not what the record after it names"
            entry = _decoded.get((n, data))
            if entry is None:
                entry = _decoded[n, data] = record.decode(data, n, SEALER)
            found.append((key, entry, data))
            key, n, expected = str(entry.info["prev_key"]), n - 1, entry.prev
        assert n == 0, f"the history ends at {n}"
        return found


class Chooser:
    """Answers of the scheduler: first those given, then 0 (or random ones); remembers how many there were to choose from."""

    def __init__(self, given: list[int], rng: random.Random | None = None) -> None:
        self.given, self.rng = given, rng
        self.taken: list[int] = []
        self.widths: list[int] = []

    def __call__(self, width: int) -> int:
        at = len(self.taken)
        choice = self.given[at] if at < len(self.given) else self.rng.randrange(width) if self.rng else 0
        self.taken.append(choice)
        self.widths.append(width)
        return choice


class World:
    """One run: actors on one store. Violations are AssertionErrors."""

    def __init__(self, choose: Chooser, *, switches: int, faults: int, kinds: tuple[str,
                 ...] = ("lost", "late", "die", "die-after")) -> None:
        self.store, self.choose = Store(), choose
        self.now = 0.0
        self.switches, self.faults, self.kinds = switches, faults, kinds
        self.flights: list[Call] = []
        self.acknowledged: dict[int, bytes] = {}        # n -> object hash, of every append and claim that returned
        self.trace: list[str] = []
        self.ended: dict[str, str] = {}                 # actor -> how

    # -------------------------------------------------------- doors

    def time_ns(self) -> int:
        return int(self.now * 1e9)

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        await Call("sleep", seconds=seconds)

    def doors(self, name: str) -> Doors:
        world = self

        class Randomness:
            def bytes(self, count: int) -> bytes:
                return name.encode().rjust(count, b"\0")[-count:]

            def uniform(self, low: float, high: float) -> float:
                return high

        return Doors(world, Randomness(), None, None)  # type: ignore[arg-type]

    def writer(self, name: str, tier: Tier, make: type[Writer] = Writer, host: Host | None = None,
               alive: Callable[[Host], bool] = lambda host: True, **options: Any) -> Writer:
        return make(self.doors(name), Line(), tier, lambda epoch: SEALER, host or Host(name=name), alive,  # type: ignore[arg-type]
                    kept_in="/var/lib/it", **options)

    # -------------------------------------------------------- what is true

    def acknowledge(self, who: str, tip: Tip) -> None:
        self.trace.append(f"{who} has {tip.kind} {tip.n} acknowledged")
        assert tip.n not in self.acknowledged, f"record {tip.n} was acknowledged twice"
        self.acknowledged[tip.n] = tip.hash

    def check(self) -> None:
        """F1, and that there is one history."""
        found = {entry.n: record.record_hash(data) for _, entry, data in self.store.history()}
        for n, digest in self.acknowledged.items():
            assert found.get(n) == digest, f"record {n} was acknowledged and is not in the history"

    # -------------------------------------------------------- the run

    def run(self, actors: dict[str, Awaitable[Any]]) -> None:
        steps = {name: task.__await__() for name, task in actors.items()}
        waiting: dict[str, Call] = {}
        wake: dict[str, float] = {}
        for name in list(steps):
            self._resume(name, steps, waiting, wake, None, None)
        last = ""
        while waiting:
            options = self._options(waiting, last)
            kind, name = options[self.choose(len(options))]
            if kind == "land":
                call = self.flights.pop(int(name))
                self.trace.append(f"late: put {call.key}")
                self._land(call)
                self.check()
                continue
            if last in waiting and name != last:
                self.switches -= 1
            last = name
            call = waiting.pop(name)
            self._happen(kind, name, call, steps, waiting, wake)
        while self.flights:
            self._land(self.flights.pop())
            self.check()
        self.check()

    def _options(self, waiting: dict[str, Call], last: str) -> list[tuple[str, str]]:
        names = list(waiting)
        if last in waiting:
            names.remove(last)
            names = [last, *(names if self.switches > 0 else [])]
        options = [("go", name) for name in names]
        if self.faults > 0:
            for name in names:
                call = waiting[name]
                if call.operation == "sleep":
                    continue
                writes = call.operation in ("put", "delete")
                options += [(kind, name) for kind in self.kinds
                            if kind == "die" or (kind in ("lost", "die-after") and writes) or (kind == "late" and call.operation == "put")]
        return options + [("land", str(at)) for at in range(len(self.flights))]

    def _land(self, call: Call) -> None:
        try:
            self.store.perform(call)
        except StoreError:
            pass

    def _happen(self, kind: str, name: str, call: Call, steps: dict[str, Any], waiting: dict[str, Call], wake: dict[str, float]) -> None:
        if call.operation == "sleep":
            self.now = max(self.now, wake.pop(name))
            self._resume(name, steps, waiting, wake, None, None)
            return
        self.trace.append(f"{name}: {call.operation} {call.key}{'' if kind == 'go' else ' (' + kind + ')'}")
        if kind != "go":
            self.faults -= 1
        if kind == "die":
            steps.pop(name).close()
            self.ended[name] = "died"
            return
        answer, error = None, None
        if kind == "late":
            self.flights.append(call)
            error = Temporary(call.operation, call.key, "late")
        else:
            try:
                answer = self.store.perform(call)
            except StoreError as exc:
                error = exc                                # type: ignore[assignment]
            if call.operation == "put":
                self.check()
            if kind == "die-after":
                steps.pop(name).close()
                self.ended[name] = "died"
                return
            if kind == "lost":
                error = Temporary(call.operation, call.key, "lost")
        self._resume(name, steps, waiting, wake, answer, error)

    def _resume(self, name: str, steps: dict[str, Any], waiting: dict[str, Call], wake: dict[str, float], answer: Any,
                error: Exception | None) -> None:
        try:
            call = steps[name].throw(error) if error else steps[name].send(answer)
        except StopIteration:
            self.ended[name] = "done"
        except (AlreadyMounted, StoreError) as exc:
            self.trace.append(f"{name} ends: {exc}")
            self.ended[name] = type(exc).__name__
        else:
            if call.operation == "sleep":
                wake[name] = self.now + call.seconds
            waiting[name] = call


@dataclass(slots=True)
class Result:
    runs: int = 0
    endings: set[tuple[tuple[str, str], ...]] = field(default_factory=set)


Story = Callable[[World], None]


def play(story: Story, choose: Chooser, bounds: dict[str, Any]) -> World:
    world = World(choose, **bounds)
    try:
        story(world)
    except AssertionError as error:
        raise AssertionError(f"{error}\nchoices {choose.taken}\n" + "\n".join(world.trace)) from error
    return world


def _successors(choose: Chooser) -> Iterator[list[int]]:
    at = len(choose.taken) - 1
    while at >= 0:
        if choose.taken[at] + 1 < choose.widths[at]:
            yield [*choose.taken[:at], choose.taken[at] + 1]
            return
        at -= 1


def exhaustively(story: Story, *, limit: int = 200_000, **bounds: Any) -> Result:
    """Every run within the bounds, in order; more than `limit` of them is an error of the test."""
    result = Result()
    following: list[int] | None = []
    while following is not None:
        choose = Chooser(following)
        world = play(story, choose, bounds)
        result.runs += 1
        result.endings.add(tuple(sorted(world.ended.items())))
        assert result.runs <= limit, "more runs than the test may take"
        following = next(_successors(choose), None)
    return result


def randomly(story: Story, seed: int, runs: int, **bounds: Any) -> Result:
    result = Result()
    rng = random.Random(seed)
    for _ in range(runs):
        world = play(story, Chooser([], rng), bounds)
        result.runs += 1
        result.endings.add(tuple(sorted(world.ended.items())))
    return result


# ---------------------------------------------------------------- what the actors do

async def career(world: World, name: str, writer: Writer, appends: int, *, takeover: Takeover = Takeover.YES,
                 last: Kind = Kind.COMMIT) -> None:
    """Take over, append, and go on appending for good."""
    tip = await writer.claim(await find_tip(Line(), SEALER), takeover=takeover)  # type: ignore[arg-type]
    known = {entry.n: record.record_hash(data) for _, entry, data in world.store.history()}
    world.acknowledge(name, tip)
    for n, digest in world.acknowledged.items():
        assert n > tip.n or known.get(n) == digest, f"{name} took over without record {n}, which was acknowledged"
    await work(world, name, writer, appends, last=last)


async def work(world: World, name: str, writer: Writer, appends: int, *, last: Kind = Kind.COMMIT, final: bool = True) -> None:
    for number in range(appends):
        kept: list[bytes] = []

        async def keep(n: int, data: bytes, kept: list[bytes] = kept) -> None:
            kept.append(data)

        kind = last if number == appends - 1 else Kind.COMMIT
        changes = b"changes of " + name.encode() if kind is Kind.COMMIT else b""
        tip = await writer.append(kind, {"of": name, "final": final}, changes, keep=keep)
        assert record.record_hash(kept[0]) == tip.hash
        world.acknowledge(name, tip)


def in_office(world: World, name: str, tier: Tier, appends: int = 1, make: type[Writer] = Writer, host: Host | None = None,
              **options: Any) -> Writer:
    """A writer that took office and worked before anything else happens."""
    writer = world.writer(name, tier, make, host, **options)
    world.store.run(career(world, name, writer, appends))
    return writer
