"""What a store can do is found out by trying: every lie is noticed, and nothing is left behind."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from s3cfs.backends.base import Backend, Body, Capabilities, Degraded, ObjectInfo
from s3cfs.backends.findings import LARGE_BYTES, Examination, Findings
from s3cfs.backends.listing_rules import REFUSED, WORKS, WRONG, ListingRules
from s3cfs.backends.local import LocalBackend
from s3cfs.backends.memory import MemoryBackend
from s3cfs.backends.wrapper import Wrapper
from s3cfs.errors import Denied, NotFound, StoreError, StoreFull, Temporary, Unsupported
from tests.servers import Server

MIB = 1 << 20


def look(backend: Backend, **how: Any) -> Findings:
    return Examination(backend, rounds=2, **how).run()


def test_good_stores(rclone_s3: Server, moto_s3: Server, tmp_path: Path) -> None:
    local = LocalBackend(str(tmp_path))
    by_pages = ListingRules(WORKS, True)
    for backend, create_only, batch, rules in ((MemoryBackend(), True, 1000, None), (local, True, 1, None),
                                               (rclone_s3.open(), False, 1000, by_pages), (moto_s3.open(), True, 1000, by_pages)):
        assert look(backend) == Findings(create_only, rounds=2, batch_delete=batch, listings=rules)
        assert list(backend.list("")) == []
        backend.close()


def test_every_step_is_told() -> None:
    for large in (False, True):
        told: list[Mapping[str, Any]] = []
        look(Small(MemoryBackend()), large=large, progress=told.append)
        assert [event["done"] for event in told] == list(range(1, told[-1]["total"] + 1))


class Small(Wrapper):
    """Takes no object of more than 20 MiB, says so or not, and may be full."""

    says: int | None = None
    error: type[StoreError] = Unsupported

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(create_only=True, largest_object_bytes=self.says)

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> Degraded | None:
        if len(data) > 20 * MIB:
            raise self.error("put", key, "too large")
        return self.inner.put(key, data, only_if_absent)


@pytest.mark.parametrize("error", [Unsupported, StoreFull, Denied])
def test_the_largest_object(error: type[StoreError]) -> None:
    backend = Small(MemoryBackend())
    backend.error = error
    assert look(backend).largest_bytes is None
    assert look(backend, large=True).largest_bytes == LARGE_BYTES[0]
    backend.says = 10 * MIB
    assert look(backend, large=True).largest_bytes is None
    assert list(backend.inner.list("")) == []


class Lies(Wrapper):
    def __init__(self, inner: Backend, **lies: Callable[..., Any]) -> None:
        super().__init__(inner)
        for name, lie in lies.items():
            setattr(self, name, lie)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(create_only=True)


class Paged(Wrapper):
    """Lists by pages as Storj does, or worse."""

    lies = late = 0

    def list_page(self, prefix: str, token: str | None) -> Any:
        if not prefix.endswith("/") and not self.lies:
            raise Unsupported("list", prefix, "501")
        if self.late:
            self.late -= 1
            raise Temporary("list", prefix, "silent")
        whole = [info for info in self.inner.list("") if info.key.startswith(prefix)]
        found = sorted(whole, key=lambda info: info.key[::-1])
        return SimpleNamespace(objects=found if prefix.endswith("/") else found[1:])


def test_how_a_store_lists() -> None:
    backend = Paged(MemoryBackend())
    backend.late = 2
    assert look(Wrapper(backend)).listings == ListingRules(REFUSED, False), "below all wrappers"
    backend.lies = 1
    assert look(backend).listings == ListingRules(WRONG, False)
    assert list(backend.inner.list("")) == []


def _forbidden(key: str) -> None:
    raise Denied("delete", key, "no")


def test_a_writer_that_may_not_delete() -> None:
    found = look(Lies(MemoryBackend(), delete=_forbidden))
    assert (found.may_delete, found.batch_delete, found.wrong) == (False, 0, [])


def test_lies_are_noticed() -> None:
    store = MemoryBackend()

    def forgetful(keys: Sequence[str]) -> None:
        store.delete(keys[0])

    def beginning(key: str, offset: int = 0, size: int | None = None) -> bytes:
        return store.get(key, 0, size)

    def flat(prefix: str) -> Iterator[str]:
        return iter(["a"])

    def twice(prefix: str) -> Iterator[str]:
        return iter(sorted(store.folders(prefix)) * 2)

    for lies, words in (({"delete_many": forgetful}, "of several keys"), ({"get": beginning}, "of an object are others"),
                        ({"folders": twice}, "folders of keys are not listed")):
        wrong = look(Lies(store, **lies)).wrong
        assert wrong and all(words in text for text in wrong), (words, wrong)
    assert len(look(Lies(store, folders=flat)).wrong) == 2


def test_an_answer_that_may_pass_is_no_verdict() -> None:
    def away(key: str) -> ObjectInfo:
        raise Temporary("stat", key, "away")

    with pytest.raises(Temporary):
        look(Lies(MemoryBackend(), stat=away, get=away, list=away, folders=away))


def test_absence_is_no_error() -> None:
    store = MemoryBackend()
    look(store)
    with pytest.raises(NotFound):
        store.get("probe/anything")
