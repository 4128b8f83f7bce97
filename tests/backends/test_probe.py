"""The probe of create-only puts on stores that are busy, lose answers and show late what was put: none of that is a verdict."""
from __future__ import annotations

import random
import threading

import pytest

from s3cfs.backends import probe as module
from s3cfs.backends.probe import probe
from s3cfs.backends.types import Body
from s3cfs.errors import Exists, NotFound, Temporary, Throttled


class Trying:
    """`kind`: keeps the promise, ignores the header, refuses and overwrites all the same, or looks first and writes then."""

    def __init__(self, kind: str, *, late: int = 0, trouble: float = 0.0) -> None:
        self.kind, self.late, self.trouble = kind, late, trouble
        self.objects: dict[str, bytes] = {}
        self.looks: dict[str, int] = {}
        self.lock, self.dice = threading.Lock(), random.Random(1)

    def put(self, key: str, data: Body) -> None:
        with self.lock:
            dice = self.dice.random()
            if dice < self.trouble / 2:
                raise Throttled("put", key, "429", retry_after=1.0, refused=True)
            there = key in self.objects
            if not there or self.kind in ("ignores", "overwrites"):
                self.objects[key] = bytes(data)
            elif self.kind == "looks first" and "twice" not in key and self.dice.random() < 0.2:
                there = False
            if dice < self.trouble:
                raise Temporary("put", key, "the answer was lost")
        if there and self.kind != "ignores":
            raise Exists("put", key, "taken")

    def get(self, key: str) -> bytes:
        with self.lock:
            if self.dice.random() < self.trouble:
                raise Temporary("get", key, "no answer")
            self.looks[key] = self.looks.get(key, 0) + 1
            if self.looks[key] <= self.late:
                raise NotFound("get", key, "not yet")
            return self.objects[key]

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(module, "pause", slept.append)
    return slept


@pytest.mark.parametrize(("kind", "holds"), [("keeps", True), ("ignores", False), ("overwrites", False), ("looks first", False)])
@pytest.mark.parametrize(("late", "trouble"), [(0, 0.0), (5, 0.0), (0, 0.2), (7, 0.2)])
def test_a_verdict_of_a_store_in_trouble(kind: str, holds: bool, late: int, trouble: float) -> None:
    store = Trying(kind, late=late, trouble=trouble)
    assert probe(store.put, store.get, store.delete, "token", 20) is holds
    assert not store.objects, "it has cleaned up"


def test_retry_after_is_kept(at_once: list[float]) -> None:
    store = Trying("keeps", trouble=0.4)
    assert probe(store.put, store.get, store.delete, "token", 3)
    assert any(pause >= 1.25 for pause in at_once)


def test_what_never_shows_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHOWN_WITHIN_S", 0.0)
    store = Trying("keeps", late=10**9)
    with pytest.raises(Temporary, match="does not show"):
        probe(store.put, store.get, store.delete, "token", 3)
