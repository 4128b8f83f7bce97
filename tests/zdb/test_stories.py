"""Random lives of a store from seeds: puts, deletes, servers that die and come back, rot, changed lists, repairs, also beside it all.

What must hold after every step: each object reads as it was put last, none that was deleted is there; and at the end, when all servers are
back and a repair has run, that everything is whole.
"""
from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from s3cfs.errors import ExitCode, Temporary
from tests.zdb.caring import LARGE, SMALL, Store
from tests.zdb.several import Servers

PARITY, LISTED, ALL = 2, 7, 9
KEYS = [f"{kind}/{number}" for kind in ("pack", "log") for number in range(3)]


class Story:
    """`debt`: how many shards of an object may be gone by now."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store, self.chance = store, random.Random(seed)
        self.listed, self.spare = list(range(LISTED)), list(range(LISTED, ALL))
        self.down: set[int] = set()
        self.debt = 0
        self.steps = 0

    def step(self) -> None:
        self.steps += 1
        self.chance.choice([self.put, self.put, self.delete, self.kill, self.kill, self.start, self.rot, self.repair, self.replace])()

    def put(self) -> None:
        key = self.chance.choice(KEYS)
        self.store.put(key, self.chance.choice([SMALL, LARGE]), seed=self.steps)

    def delete(self) -> None:
        key = self.chance.choice(KEYS)
        self.store.backend.delete(key)
        self.store.content.pop(key, None)

    def kill(self) -> None:
        up = [number for number in self.listed if number not in self.down]
        if self.debt < PARITY:
            number = self.chance.choice(up)
            self.store.servers.kill(number)
            self.down.add(number)
            self.debt += 1

    def start(self) -> None:
        for number in self.down:
            self.store.servers.start(number)
        self.down.clear()

    def rot(self) -> None:
        if self.debt < PARITY and not self.down and self.store.content:
            self.debt += 1
            for key in self.store.content:
                self.store.flip(key, self.chance.randrange(len(self.store.where(key).servers)))

    def repair(self) -> None:
        done = self.store.survey(mend=True)
        assert not done.lost
        if done.exit_code is ExitCode.OK:
            self.debt = len(self.down)

    def replace(self) -> None:
        """A server dies for good, and another one takes its place."""
        if self.debt < PARITY and self.spare and not self.down:
            self.kill()
            [gone] = self.down
            self.down.clear()
            self.listed = [number for number in self.listed if number != gone] + [self.spare.pop()]
            self.store.write_list(self.listed)
            self.store.backend.cluster.take_over(self.store.another().cluster.setup)
            self.repair()

    def holds(self) -> bool:
        store = self.store
        return store.reads_right(store.backend) and {info.key for info in store.backend.list("")} == set(store.content)


def store_of(zdb_servers: Callable[[int], Servers], folder: Path) -> Store:
    return Store(zdb_servers(ALL), folder, data=3, parity=PARITY, only=range(LISTED))


@pytest.mark.parametrize("seed", [1, 2, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(3, 40))])
def test_a_life(zdb_servers: Callable[[int], Servers], tmp_path: Path, seed: int):
    with contextlib.closing(store_of(zdb_servers, tmp_path)) as store:
        story = Story(store, seed)
        for _ in range(25):
            story.step()
            assert story.holds(), (seed, story.steps)
        story.start()
        story.repair()
        done = store.survey(mend=False)
        assert (done.exit_code, done.objects, done.deletions) == (ExitCode.OK, len(store.content), 0)
        for key in store.content:
            servers = store.where(key).servers
            assert store.whole(key) == len(servers) == len(set(servers))


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 20))])
def test_repairs_beside_puts_and_deletes(zdb_servers: Callable[[int], Servers], tmp_path: Path, seed: int):
    """Two of them, again and again, while one server is gone for good and shards rot; nothing of it is ever seen."""
    with contextlib.closing(store_of(zdb_servers, tmp_path)) as store:
        story = Story(store, seed)
        for _ in range(4):
            story.put()
        story.replace()
        over = threading.Event()
        errors: list[BaseException] = []

        def repairs() -> None:
            while not over.is_set():
                try:
                    assert not store.survey(mend=True).lost
                except Temporary:
                    pass                           # the roll that it read was not the newest any more
                except BaseException as error:
                    errors.append(error)

        threads = [threading.Thread(target=repairs) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(30):
                story.steps += 1
                story.chance.choice([story.put, story.put, story.delete])()
                assert story.holds(), (seed, story.steps)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert not errors
        story.repair()
        assert store.survey(mend=False).exit_code is ExitCode.OK
