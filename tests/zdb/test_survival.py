"""Whatever happens to `parity` of the servers (killed, lost answers, rot, refusals), what two machines put and delete is what they read.

Compared with a dictionary, after random work from seeds. With more servers down calls may fail, and nothing acknowledged is lost then.
"""
from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress

import pytest

from s3cfs.backends.base import Backend
from s3cfs.backends.registry import open_backend
from s3cfs.errors import Corrupt, NotFound, StoreError, StoreFull, Temporary
from tests.zdb.server import FakeZdb, running

DATA, PARITY, SERVERS = 3, 2, 6
KEYS = [f"pack/{folder}/{number}" for folder in "ab" for number in range(3)]
SIZES = (0, 1, 500, 10_000, DATA * 10_240, DATA * 10_240 + 1, 100_001)


class World:
    """Servers, two machines, and what must be there. Only the servers of `bad` have troubles; all of them may at once."""

    def __init__(self, folder, seed: int, stack: ExitStack) -> None:
        self.chance = random.Random(seed)
        self.zdbs: list[FakeZdb] = stack.enter_context(running(SERVERS))
        lines = [f"data = {DATA}", f"parity = {PARITY}"]
        for number, zdb in enumerate(self.zdbs):
            lines += ["[[servers]]", f'name = "z{number}"', f'address = "{zdb.address}"', f'domain = "d{number % 3}"']
        path = folder / "zdb.toml"
        path.write_text("\n".join(lines))
        self.machines: list[Backend] = [stack.enter_context(closing(open_backend(f"zdb://{path}"))) for _ in range(2)]
        self.machines[0].create()
        self.bad = self.chance.sample(self.zdbs, PARITY)
        self.dead: set[FakeZdb] = set()
        self.there: dict[str, bytes] = {}
        self.keys = KEYS

    def machine(self) -> Backend:
        return self.chance.choice(self.machines)

    # ------------------------------------------------------------ work

    def put(self) -> None:
        key, data = self.chance.choice(self.keys), self.chance.randbytes(self.chance.choice(SIZES))
        self.machine().put(key, data)
        self.there[key] = data

    def delete(self) -> None:
        key = self.chance.choice(self.keys)
        self.machine().delete(key)
        self.there.pop(key, None)

    def read(self) -> None:
        self.compare(self.chance.choice(self.keys), self.machine())

    def compare(self, key: str, machine: Backend) -> None:
        if (data := self.there.get(key)) is None:
            with pytest.raises(NotFound):
                machine.get(key)
            return
        assert machine.get(key) == data
        begin, size = self.chance.randrange(len(data) + 1), self.chance.randrange(len(data) + 1)
        assert machine.get(key, begin, size) == data[begin:begin + size]
        assert machine.stat(key).size == len(data)

    def list(self) -> None:
        machine = self.machine()
        assert {info.key: info.size for info in machine.list("")} == {key: len(data) for key, data in self.there.items()}
        assert set(machine.folders("pack/")) == {key.split("/")[1] for key in self.there}

    # ------------------------------------------------------------ trouble

    def kill(self) -> None:
        zdb = self.chance.choice(self.bad)
        zdb.kill()
        self.dead.add(zdb)

    def start(self) -> None:
        for zdb in self.dead:
            zdb.start()
        self.dead.clear()

    def rot(self) -> None:
        """One bit of one value, anywhere in it, of whatever kind."""
        zdb = self.chance.choice(self.bad)
        keys = [key for key in zdb.keys("default") if not key.startswith(b"s3cfs:")]
        if keys:
            with suppress(KeyError):                   # another thread has deleted it meanwhile
                zdb.flip("default", self.chance.choice(keys), self.chance.randrange(-20, 50))

    def forget(self) -> None:
        """A key is not there any more, as after a torn index."""
        zdb = self.chance.choice(self.bad)
        keys = [key for key in zdb.keys("default") if not key.startswith(b"s3cfs:")]
        if keys:
            zdb.forget("default", self.chance.choice(keys))

    def hang(self) -> None:
        self.chance.choice(self.bad).silent = True

    def wake(self) -> None:
        for zdb in self.bad:
            zdb.silent = False

    def tear(self) -> None:
        """An answer breaks off: it is done, and nobody knows."""
        self.chance.choice(self.bad).tear_after = self.chance.randrange(6)

    def refuse(self) -> None:
        words = self.chance.choice(["Cannot write data right now", "No space left on this namespace", "Internal Error",
                                    "Namespace is temporarily frozen (read-write disabled)"])
        self.chance.choice(self.bad).refuse(words, self.chance.choice(["SET", "GET", "MGET", "SCAN", ""]), self.chance.randint(1, 4))


class Beyond(World):
    """More servers than `parity` may be down at once, so calls may fail: then either is true, until a read has said which."""

    def __init__(self, folder, seed: int, stack: ExitStack) -> None:
        super().__init__(folder, seed, stack)
        self.bad = self.zdbs
        self.maybe: dict[str, list[bytes | None]] = {key: [None] for key in KEYS}

    def put(self) -> None:
        key, data = self.chance.choice(self.keys), self.chance.randbytes(self.chance.choice(SIZES))
        self.change(key, data, lambda: self.machine().put(key, data))

    def delete(self) -> None:
        key = self.chance.choice(self.keys)
        self.change(key, None, lambda: self.machine().delete(key))

    def change(self, key: str, value: bytes | None, call: Callable[[], object]) -> None:
        try:
            call()
            self.maybe[key] = [value]
        except StoreError as error:
            assert isinstance(error, Temporary | StoreFull), error
            self.maybe[key].append(value)

    def compare(self, key: str, machine: Backend) -> None:
        try:
            found: bytes | None = machine.get(key)
        except NotFound:
            found = None
        except (Temporary, Corrupt):
            assert self.dead
            return
        assert found in self.maybe[key]
        if not self.dead:
            self.maybe[key] = [found]                  # what a quorum has seen stays

    def list(self) -> None:
        try:
            found = {info.key: info.size for info in self.machine().list("")}
        except Temporary:
            assert self.dead
            return
        for key, values in self.maybe.items():
            assert found.get(key) in {None if value is None else len(value) for value in values}
            if not self.dead:
                self.maybe[key] = [value for value in values if (None if value is None else len(value)) == found.get(key)]

    def kill(self) -> None:
        for _ in range(self.chance.randint(1, 3)):
            super().kill()


def story(folder, seed: int, steps: int) -> None:
    with ExitStack() as stack:
        world = World(folder, seed, stack)
        work(world, steps, [(world.put, 6), (world.delete, 2), (world.read, 6), (world.list, 1), (world.kill, 1), (world.start, 1),
                            (world.rot, 2), (world.forget, 1), (world.tear, 2), (world.refuse, 1)])
        for zdb in world.bad:
            zdb.kill()
        end(world)


def story_beyond(folder, seed: int, steps: int) -> None:
    with ExitStack() as stack:
        world = Beyond(folder, seed, stack)
        work(world, steps, [(world.put, 6), (world.delete, 2), (world.read, 6), (world.list, 1), (world.kill, 1), (world.start, 1),
                            (world.tear, 1)])
        world.start()
        end(world)


def story_at_once(folder, seed: int, steps: int) -> None:
    """Several threads, each with keys of its own on either machine, while the servers of `bad` have their troubles."""
    with ExitStack() as stack:
        world = World(folder, seed, stack)
        over = threading.Event()

        def worker(number: int) -> None:
            own = Worker(world, number)
            work(own, steps, [(own.put, 6), (own.delete, 2), (own.read, 8), (own.look, 1)])

        def mischief() -> None:
            while not over.is_set():
                work(world, 1, [(world.kill, 1), (world.start, 2), (world.rot, 2), (world.tear, 2), (world.hang, 1), (world.wake, 3)])
                over.wait(0.02)

        with ThreadPoolExecutor(5) as pool:
            troubling = pool.submit(mischief)
            try:
                for each in [pool.submit(worker, number) for number in range(4)]:
                    each.result()
            finally:
                over.set()
            troubling.result()
            world.wake()


class Worker(World):
    """With the servers and machines of another, and keys of its own."""

    def __init__(self, world: World, number: int) -> None:
        self.chance, self.machines, self.there, self.number = random.Random(number), world.machines, {}, number
        self.keys = [f"own/{number}/{name}" for name in "abc"]

    def look(self) -> None:
        found = {info.key: info.size for info in self.machine().list(f"own/{self.number}/")}
        assert found == {key: len(data) for key, data in self.there.items()}


def work(world: World, steps: int, doings: list[tuple[Callable[[], None], int]]) -> None:
    for doing in world.chance.choices([doing for doing, _ in doings], [weight for _, weight in doings], k=steps):
        doing()


def end(world: World) -> None:
    for key in KEYS:
        for machine in world.machines:
            world.compare(key, machine)
    world.list()


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("tell", [story, story_beyond])
def test_nothing_is_lost_and_nothing_is_wrong(tmp_path, seed, tell, number):
    tell(tmp_path, 1000 * seed + number, 60)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(60))
@pytest.mark.parametrize("tell", [story, story_beyond])
def test_nothing_is_lost_and_nothing_is_wrong_for_long(tmp_path, seed, tell, number):
    tell(tmp_path, 1000 * seed + 100 + number, 150)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(15))
def test_nothing_is_lost_and_nothing_is_wrong_when_many_work(tmp_path, seed, number):
    story_at_once(tmp_path, 1000 * seed + 500 + number, 60)
