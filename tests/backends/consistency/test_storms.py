"""The same keys are overwritten, deleted and read by many at once, on a store that shows old answers: no wrong byte is ever returned."""
from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import trio

from .kit import Moves, StaleBackend, mounted, play
from .load import Load

FIRST = int(os.environ.get("S3CFS_LOCK_SEED", "1"))


def storm(seed: int, steps: int, *, patient: bool = False) -> Load:
    """One world and one load, drawn from the seed."""
    rng = random.Random(seed)
    delay_s = rng.choice([0.0, 1.0, 5.0, 30.0])
    store = StaleBackend(random.Random(seed), stale_s=rng.choice([0.0, 3.0, 20.0, 60.0]), exact=rng.random() < 0.3)
    if not patient:
        store.fails = rng.choice([0.0, 0.0, 0.1, 0.3])

    async def test(clock: Moves) -> Load:
        async with mounted(store, clock, seed, longest_s=rng.choice([0.01, 1.0, 15.0]), lock_delay=delay_s,
                           lock_memory=rng.choice([600.0, 3000.0]), young=rng.random() < 0.3) as world:
            if not patient and rng.random() < 0.3:
                world.line.hang_s = lambda: rng.uniform(0.0, 300.0) if rng.random() < 0.05 else 0.0
            load = Load(world, rng, patient)
            await load.run(rng.randint(2, 12), steps, rng.choice([0.5, 10.0, 60.0]))
            assert not load.judge.faults, "\n".join(load.judge.faults[:3])
            return load

    return play(test, seed)


@pytest.mark.parametrize("batch", range(3))
def test_no_wrong_byte(batch: int) -> None:
    for seed in range(FIRST + 8 * batch, FIRST + 8 * batch + 8):
        storm(seed, 12)


def test_who_waits_has_an_answer() -> None:
    """Where the store fails nobody and is older than its word by less than a promise, every question has its true answer."""
    for seed in range(1000, 1006):
        load = storm(seed, 12, patient=True)
        assert load.errors == 0 and load.answers > 20


def killed_in_the_middle(seed: int, folder: Path, steps: int) -> None:
    """A process dies in the middle of it, and the next one goes on where that had been, while its last writes are on their way."""
    rng = random.Random(seed)
    store = StaleBackend(random.Random(seed), stale_s=rng.choice([3.0, 20.0, 60.0]), exact=rng.random() < 0.3, fails=rng.choice([0.0, 0.1]))
    how: dict[str, Any] = {"longest_s": rng.choice([0.01, 1.0, 5.0]), "lock_delay": rng.choice([0.0, 5.0, 30.0]), "lock_memory": 3000.0}

    async def test(clock: Moves) -> None:
        async with mounted(store, clock, seed, str(folder / "0"), **how) as world:
            load = Load(world, rng, False)
            with trio.move_on_after(rng.uniform(0.0, 20.0 * steps)):
                await load.run(5, steps, 10.0)
            shutil.copytree(folder / "0", folder / "1")
            async with mounted(store, clock, seed + 1, str(folder / "1"), **how) as load.world:
                await load.run(5, steps, 10.0)
        assert not load.judge.faults, "\n".join(load.judge.faults[:3])

    play(test, seed)


def test_no_wrong_byte_after_a_kill(tmp_path: Path) -> None:
    for seed in range(FIRST, FIRST + 6):
        killed_in_the_middle(seed, tmp_path / str(seed), 10)


@pytest.mark.soak
def test_no_wrong_byte_for_long(tmp_path: Path) -> None:
    first = int(os.environ.get("S3CFS_LOCK_SEED", str(random.randrange(10**9))))
    for seed in range(first, first + 300):
        try:
            storm(seed, 60)
            killed_in_the_middle(seed, tmp_path / str(seed), 40)
        except BaseException:
            print(f"again: S3CFS_LOCK_SEED={seed}")
            raise
