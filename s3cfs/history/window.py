"""Objects fetched in order by several tasks at once, ahead of whoever takes them, and bounded in number and in bytes."""
from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Generic, TypeVar

import trio

from s3cfs.history.signal import Signal

T = TypeVar("T")


class Window(Generic[T]):
    """Made by `fetched_in_order`."""

    def __init__(self, keys: Iterable[str], fetch: Callable[[str], Awaitable[T]], size: Callable[[T], int], ahead: int,
                 ahead_bytes: int) -> None:
        self._keys, self._fetch, self._size, self._ahead, self._ahead_bytes = iter(keys), fetch, size, ahead, ahead_bytes
        self._begun = self._taken = 0                    # how many were asked for, and handed out
        self._there: dict[int, tuple[str, T | Exception]] = {}
        self._bytes = 0                                  # of those that are there
        self._ended = False                              # no more keys
        self._moved = Signal()

    async def work(self) -> None:
        while True:
            while self._begun - self._taken >= self._ahead or self._bytes >= self._ahead_bytes:
                await self._moved.wait()
            key = next(self._keys, None)
            if key is None:
                self._ended = True
                self._moved.pulse()
                return
            number, self._begun = self._begun, self._begun + 1
            answer: T | Exception
            try:
                answer = await self._fetch(key)
                self._bytes += self._size(answer)
            except Exception as error:
                answer = error                           # raised when its turn comes
            self._there[number] = key, answer
            self._moved.pulse()

    async def take(self, most: int, most_bytes: int) -> list[tuple[str, T]]:
        """The next ones with their keys: at least one, and of what is there at most so many, and so many bytes. [] at the end.

        Raises what fetching the next one raised.
        """
        while self._taken not in self._there:
            if self._ended and self._taken == self._begun:
                return []
            await self._moved.wait()
        found: list[tuple[str, T]] = []
        total = 0
        while len(found) < most and self._taken in self._there and (not found or total < most_bytes):
            key, answer = self._there[self._taken]
            if isinstance(answer, Exception):
                if found:
                    break                                # those before it first
                raise answer
            del self._there[self._taken]
            self._taken += 1
            total += self._size(answer)
            found.append((key, answer))
        self._bytes -= total
        self._moved.pulse()
        return found


@contextlib.asynccontextmanager
async def fetched_in_order(keys: Iterable[str], fetch: Callable[[str], Awaitable[T]], size: Callable[[T], int], *, at_once: int, ahead: int,
                           ahead_bytes: int) -> AsyncIterator[Window[T]]:
    """Beyond `ahead_bytes` at most those that are on their way come in. Errors of the block come out of it as they are."""
    window = Window(keys, fetch, size, max(ahead, 1), ahead_bytes)
    error: Exception | None = None
    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(window.work)
        try:
            yield window
        except Exception as raised:                      # else the nursery would wrap it
            error = raised
        nursery.cancel_scope.cancel()
    if error is not None:
        raise error
