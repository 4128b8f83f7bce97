"""Does this store answer with what is old? Found out by trying: several readers at once ask for what was done a moment ago.

Each round: nothing is there yet, and is asked for (some remember that); a put; a put of other bytes on the same key; a delete; and a
put once more. After each of these, at once and on connections of their own, two readers each `get`, `stat`, `list` and look at the folder.
Any answer that was true only before is a verdict: this store is not linearizable. No such answer is evidence and no proof: "none was
seen in N rounds". It says nothing about readers elsewhere (another region, another gateway in front of the same store).
"""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from s3cfs.backends.progress import moved
from s3cfs.backends.types import Body, Capabilities, Degraded, ObjectInfo
from s3cfs.errors import Denied, Exists, NotFound, StoreError, Unsupported

READERS_OF_EACH = 2
ATTEMPTS = 5
ONE, TWO, THREE = b"one", b"another one", b"a third, which is longer"


class Store(Protocol):
    """What is needed of a backend."""

    @property
    def capabilities(self) -> Capabilities: ...
    def get(self, key: str, /) -> bytes: ...
    def put(self, key: str, data: Body, /) -> Degraded | None: ...
    def stat(self, key: str, /) -> ObjectInfo: ...
    def delete(self, key: str, /) -> None: ...
    def list(self, prefix: str, /) -> Iterator[ObjectInfo]: ...
    def folders(self, prefix: str, /) -> Iterator[str]: ...


def stale_answers(backend: Store, token: str, rounds: int, on_round: Callable[[int], None] = lambda done: None) -> list[str]:
    """What was seen that was old, in words, of the first round in which there was any; [] when there was none.

    `token` makes the keys (below `probe/`) new; `on_round(rounds done)` follows each. What puts and deletes raise is raised here, what
    may pass after some attempts; to a reader such an error is no answer, and raised when all readers of a step met one.
    """
    kept = f"probe/{token}/kept"       # so that the folder stays: some servers take an empty one away, and what comes into it just then
    try:
        surely(lambda: backend.put(kept, ONE))
        with ThreadPoolExecutor(4 * READERS_OF_EACH, "probe") as pool:
            for number in range(rounds):
                found = _Round(backend, pool, f"probe/{token}/{number}/").run()
                if found:
                    return found
                on_round(number + 1)
    finally:
        with contextlib.suppress(StoreError):                              # a writer that may not delete leaves a few bytes under probe/
            backend.delete(kept)
    return []


def surely(change: Callable[[], object]) -> None:
    """What may pass does, perhaps, the next time; nothing here suffers from being done twice."""
    for left in range(ATTEMPTS - 1, -1, -1):
        try:
            change()
            return
        except StoreError as error:
            if not error.retryable or not left:
                raise


class _Round:
    def __init__(self, backend: Store, pool: ThreadPoolExecutor, prefix: str) -> None:
        self.backend, self.pool, self.prefix, self.key = backend, pool, prefix, f"{prefix}here/key"
        self.stale: list[str] = []

    def run(self) -> list[str]:
        try:
            self._look("before anything was put", None)
            surely(lambda: self.backend.put(self.key, ONE))
            self._look("after a put", ONE)
            with contextlib.suppress(Exists, Denied, Unsupported):         # a store that keeps what it has is none the worse for it
                surely(lambda: self.backend.put(self.key, TWO))
                self._look("after a second put", TWO)
            if self.backend.capabilities.may_delete:
                with contextlib.suppress(Denied, Unsupported):             # nor is a writer that may not
                    surely(lambda: self.backend.delete(self.key))
                    self._look("after a delete", None)
                    surely(lambda: self.backend.put(self.key, THREE))
                    self._look("after a put where one was deleted", THREE)
        finally:
            with contextlib.suppress(StoreError):
                self.backend.delete(self.key)
        return self.stale

    def _look(self, when: str, there: bytes | None) -> None:
        """Ask in every way, at once; keep what is not as it must be."""
        readers = {"get": self._got, "stat": self._statted, "list": self._listed, "folders": self._in_folders}
        asked = [(name, self.pool.submit(reader)) for _ in range(READERS_OF_EACH) for name, reader in readers.items()]
        answers, failure = 0, None
        for name, answer in asked:
            try:
                seen = answer.result()
            except StoreError as error:
                if not error.retryable:
                    raise
                failure = error
                continue
            answers += 1
            moved()
            expected = _expected(name, there)
            if seen != expected:
                self.stale.append(f"{when} `{name}` saw {seen}, not {expected}")
        if failure is not None and not answers:
            raise failure

    def _got(self) -> str:
        try:
            return str(self.backend.get(self.key))
        except NotFound:
            return "nothing"

    def _statted(self) -> str:
        try:
            return f"{self.backend.stat(self.key).size} bytes"
        except NotFound:
            return "nothing"

    def _listed(self) -> str:
        found = [info.size for info in self.backend.list(self.prefix) if info.key == self.key]
        return f"{found[0]} bytes" if found else "nothing"

    def _in_folders(self) -> str:
        return "it" if "here" in set(self.backend.folders(self.prefix)) else "nothing"


def _expected(reader: str, there: bytes | None) -> str:
    if there is None:
        return "nothing"
    return {"get": str(there), "folders": "it"}.get(reader, f"{len(there)} bytes")
