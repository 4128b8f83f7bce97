"""Several requests of one call at once: the blocks of an object, the entries of a page. In daemon threads: nobody who ends waits."""
from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from s3cfs.backends.progress import moved, relay

HELPERS = 16                       # threads of one store, beside those of its callers

A = TypeVar("A")
B = TypeVar("B")


class Crowd:
    """Thread-safe. The caller's own thread works too, so each call goes on however busy the helpers are."""

    def __init__(self, helpers: int = HELPERS) -> None:
        self._free = threading.Semaphore(helpers)

    def each(self, work: Callable[[A], B], items: Sequence[A]) -> list[B]:
        """`work` of each, in their order. After an error nothing new is begun, what was begun ends, and one error is raised: one that
        trying again does not help before others."""
        answers: dict[int, B] = {}
        errors: list[BaseException] = []
        numbers, inside = itertools.count(), relay()

        def hand() -> None:
            while not errors and (number := next(numbers)) < len(items):       # `next` of a count is one step of the interpreter
                try:
                    answers[number] = work(items[number])
                    moved()
                except BaseException as error:
                    errors.append(error)

        def helper() -> None:
            try:
                with inside():
                    hand()
            finally:
                self._free.release()

        helpers: list[threading.Thread] = []
        while len(helpers) < len(items) - 1 and self._free.acquire(blocking=False):
            helpers.append(threading.Thread(target=helper, daemon=True, name="s3cfs ipfs"))
            helpers[-1].start()
        hand()
        for one in helpers:
            one.join()
        if errors:
            raise min(errors, key=lambda error: bool(getattr(error, "retryable", False)))
        return [answers[number] for number in range(len(items))]
