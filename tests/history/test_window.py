"""Objects fetched in order, ahead and bounded."""
from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from s3cfs.history.window import fetched_in_order

KEYS = [str(number) for number in range(200)]


@pytest.mark.parametrize("seed", range(5))
def test_they_come_in_order_and_not_too_many_at_once(seed: int) -> None:
    rng = random.Random(seed)
    sizes = {key: rng.choice([1, 10, 300]) for key in KEYS}
    away = held = taken = 0

    async def fetch(key: str) -> bytes:
        nonlocal away, held
        away += 1
        assert away <= 4
        await trio.sleep(rng.random())
        away -= 1
        held += sizes[key]
        assert held <= 500 + 4 * 300, "beyond the bound only what was on its way comes in"
        return bytes(sizes[key])

    async def main() -> None:
        nonlocal held, taken
        found: list[str] = []
        async with fetched_in_order(KEYS, fetch, len, at_once=4, ahead=16, ahead_bytes=500) as window:
            while some := await window.take(7, 600):
                assert len(some) <= 7 and (len(some) == 1 or sum(len(data) for _, data in some[:-1]) < 600)
                held -= sum(len(data) for _, data in some)
                await trio.sleep(rng.choice([0, 0.1, 3]))
                found += [key for key, _ in some]
        assert found == KEYS

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_an_error_comes_in_its_turn_and_as_it_is() -> None:
    async def fetch(key: str) -> bytes:
        if int(key) >= 30:
            raise KeyError(key)
        await trio.sleep(1)
        return b"x"

    async def main() -> list[str]:
        found: list[str] = []
        with pytest.raises(KeyError, match="30"):
            async with fetched_in_order(KEYS, fetch, len, at_once=4, ahead=16, ahead_bytes=500) as window:
                while some := await window.take(7, 600):
                    found += [key for key, _ in some]
        return found

    assert trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0)) == KEYS[:30]


def test_whoever_takes_no_more_leaves_nothing_running() -> None:
    async def fetch(key: str) -> bytes:
        await trio.sleep(1)
        return b"x"

    async def main() -> None:
        with pytest.raises(ValueError, match="enough"):
            async with fetched_in_order(KEYS, fetch, len, at_once=4, ahead=16, ahead_bytes=500) as window:
                await window.take(1, 1)
                raise ValueError("enough")
        async with fetched_in_order([], fetch, len, at_once=4, ahead=16, ahead_bytes=500) as window:
            assert await window.take(1, 1) == []

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
