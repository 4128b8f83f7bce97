"""Answers that are old are found, whatever kind they are of; and what is no such answer is no verdict."""
from __future__ import annotations

from collections.abc import Iterator

import pytest

from s3cfs.backends.base import Backend, Body, Capabilities, Degraded, ObjectInfo
from s3cfs.backends.faulty import FaultyBackend, Rates
from s3cfs.backends.memory import MemoryBackend
from s3cfs.backends.stale import stale_answers
from s3cfs.backends.wrapper import Wrapper
from s3cfs.errors import Denied, Exists, NotFound, Temporary, Unsupported


class Late(Wrapper):
    """One operation answers from what was there before the last change."""

    def __init__(self, late: str) -> None:
        super().__init__(MemoryBackend())
        self.late, self.before, self.now = late, dict[str, bytes](), dict[str, bytes]()

    def _changed(self, key: str, data: bytes | None) -> None:
        self.before = dict(self.now)
        if data is None:
            self.now.pop(key, None)
        else:
            self.now[key] = data

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> Degraded | None:
        self._changed(key, bytes(data))
        return self.inner.put(key, data, only_if_absent)

    def delete(self, key: str) -> None:
        self._changed(key, None)
        self.inner.delete(key)

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        return self._old(key) if self.late == "get" else self.inner.get(key, offset, size)

    def stat(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, len(self._old(key))) if self.late == "stat" else self.inner.stat(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter([ObjectInfo(key, len(data)) for key, data in self.before.items()]) if self.late == "list" else self.inner.list(prefix)

    def folders(self, prefix: str) -> Iterator[str]:
        if self.late != "folders":
            return self.inner.folders(prefix)
        return iter({key[len(prefix):].partition("/")[0] for key in self.before if key.startswith(prefix)})

    def _old(self, key: str) -> bytes:
        if key not in self.before:
            raise NotFound("get", key, "not yet")
        return self.before[key]

    def probe_linearizable(self, rounds: int = 20) -> bool:
        return Backend.probe_linearizable(self, rounds)


@pytest.mark.parametrize("late", ["get", "stat", "list", "folders"])
def test_an_old_answer_is_a_verdict(late: str) -> None:
    backend = Late(late)
    found = stale_answers(backend, "token", 20)
    assert found and all(f"`{late}` saw" in text for text in found), found
    assert any("after a put `" in text for text in found) and any("after a delete" in text for text in found)
    assert (late in ("folders",)) or any("after a second put" in text for text in found)
    assert not backend.probe_linearizable(1)
    assert list(backend.inner.list("")) == []


def test_one_in_some_hundred_answers_is_enough() -> None:
    backend = FaultyBackend(MemoryBackend(), 3, Rates(stale=0.02))
    assert stale_answers(backend, "token", 20)


def test_the_rounds_are_told() -> None:
    told: list[int] = []
    assert stale_answers(MemoryBackend(), "token", 4, told.append) == []
    assert told == [1, 2, 3, 4]


def test_an_error_that_may_pass_is_no_answer() -> None:
    backend = FaultyBackend(MemoryBackend(), 3, Rates(before=0.2, after=0.1))
    assert stale_answers(backend, "token", 5) == []
    assert backend.injected


def test_a_store_that_says_nothing_gives_no_verdict() -> None:
    backend = FaultyBackend(MemoryBackend(), 3, Rates(before=1.0), operations=("get", "stat", "list", "put"))
    with pytest.raises(Temporary):
        stale_answers(backend, "token", 5)


class Keeps(Wrapper):
    """Takes no second put, and deletes nothing."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(create_only=True, may_delete=False)

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> Degraded | None:
        try:
            self.inner.stat(key)
        except NotFound:
            return self.inner.put(key, data, only_if_absent)
        raise self.error("put", key, "it is kept")

    def delete(self, key: str) -> None:
        raise Unsupported("delete", key, "it is kept")

    error: type[Exists] | type[Denied] = Exists


@pytest.mark.parametrize("error", [Exists, Denied])
def test_a_store_that_keeps_what_it_has(error: type[Exists] | type[Denied]) -> None:
    backend = Keeps(MemoryBackend())
    backend.error = error
    assert stale_answers(backend, "token", 3) == []
