"""Many at one thing."""
from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import trio

T = TypeVar("T")


async def each(work: Callable[[T], Awaitable[None]], items: Iterable[T], at_once: int, errors: list[Exception] | None = None) -> None:
    """`work` on each of `items`, which are taken one by one as there are hands. After an error nothing new is begun, what was begun ends,
    and the first error is raised as it is. `errors`: shared by several that end together."""
    left, errors = iter(items), [] if errors is None else errors

    async def hand() -> None:
        for item in left:
            if errors:
                return
            try:
                await work(item)
            except Exception as error:             # by hand past the nursery, which would make a group of it
                errors.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(hand)
    if errors:
        raise errors[0]
