"""What goes and what stays: above all, nothing that somebody else put there, and nothing that any entry names."""
from __future__ import annotations

from dataclasses import replace

import pytest
import trio
import trio.lowlevel
from hypothesis import given, settings
from hypothesis import strategies as st

from s3cfs.backends.base import ObjectInfo
from s3cfs.backends.ipfs.collector import Collected, Collecting, collect
from s3cfs.errors import Damaged, Denied, NotFound, Unsupported
from tests.backends.face import a_call, some_doors
from tests.backends.ipfs.kit import DAY_S, MIB, Bucket, block_names, list_of, opened, some_bytes

KEY = "pack/aa/7-aa"
DATA = some_bytes(2 * MIB + 500)


def test_blocks_of_a_deleted_object_go_after_a_day() -> None:
    bucket = Bucket()
    backend = opened(bucket)
    backend.put(KEY, DATA)
    backend.put("stays", some_bytes(100))
    bucket.put("node/CIQFOREIGN", b"of the node")
    bucket.time += 5 * DAY_S
    backend.delete(KEY)
    assert collect(backend) == Collected(waiting=1) and len(bucket.blocks()) == 6
    bucket.time += DAY_S + 1
    node = bucket.objects[block_names(backend, DATA)[-1]]
    assert collect(backend, dry_run=True) == Collected(burials=1, blocks=4, bytes=len(DATA) + len(node))
    assert len(bucket.blocks()) == 6
    assert collect(backend).blocks == 4
    assert bucket.blocks() == {"node/CIQFOREIGN", *block_names(backend, some_bytes(100))}
    assert collect(backend) == Collected() and not list(bucket.list(backend.table.gone)), "nothing is left of it"


def test_what_was_put_again_stays() -> None:
    """Under another key, in another table, or only just now: its entry is not there yet."""
    def again() -> None:
        one.put("pack/other", DATA)

    def elsewhere() -> None:
        opened(bucket, "second").put(KEY, DATA)

    def under_way() -> None:
        one.blocks.put(list_of(DATA))

    for how in (again, elsewhere, under_way):
        bucket = Bucket()
        one = opened(bucket)
        one.put(KEY, DATA)
        one.delete(KEY)
        bucket.time += 3 * DAY_S
        how()
        found = collect(one)
        assert found.blocks == 0 and len(bucket.blocks()) == 4, how
        if how is under_way:
            assert (found.young, found.waiting) == (4, 1)
            bucket.time += 3 * DAY_S
            assert collect(one).blocks == 4, "nothing came of it"
        else:
            assert (found.named, found.burials) == (4, 1)
            bucket.time += 3 * DAY_S
            assert collect(one) == Collected() and len(bucket.blocks()) == 4


def test_ages_are_by_the_stores_clock() -> None:
    bucket = Bucket()
    backend = opened(bucket)
    backend.put(KEY, DATA)
    backend.delete(KEY)
    late = opened(bucket)
    late._clock = lambda: bucket.time + 10 * DAY_S          # this machine is ten days ahead
    assert collect(late).young == 4 and len(bucket.blocks()) == 4


def test_small_blocks_and_zeros_are_left_since_they_may_be_anybodys() -> None:
    bucket = Bucket()
    backend = opened(bucket)
    for number, data in enumerate((b"", b"one", b"x" * 63, b"x" * 64)):
        backend.put(f"pack/{number}", data)
        backend.delete(f"pack/{number}")
    backend.put("pack/zeros", bytes(MIB) + b"end")
    backend.delete("pack/zeros")
    bucket.time += 3 * DAY_S
    assert collect(backend).blocks == 2, "one of 64 bytes, and the node above the zeros and the end"
    assert sorted(map(len, (bucket.objects[name] for name in bucket.blocks()))) == [0, 3, 3, 63, MIB]
    assert collect(backend) == Collected()


@pytest.mark.parametrize("which", ["entry", "of another table", "burial"])
def test_where_something_cannot_be_read_nothing_goes(which: str) -> None:
    bucket = Bucket()
    backend = opened(bucket)
    backend.put(KEY, DATA)
    backend.delete(KEY)
    backend.put("pack/other", b"x" * 100)
    opened(bucket, "second").put("pack/other", b"x" * 100)
    bucket.time += 3 * DAY_S
    name = {"entry": backend.table.object_of("pack/other"), "of another table": opened(bucket, "second").table.object_of("pack/other"),
            "burial": next(bucket.list(backend.table.gone)).key}[which]
    bucket.objects[name] += b"!"
    before = bucket.blocks()
    with pytest.raises(Damaged, match="cannot be used"):
        collect(backend)
    assert bucket.blocks() == before
    del bucket.objects[name]
    collect(backend)


def test_what_a_probe_left_is_no_reason_to_stop() -> None:
    bucket = Bucket()
    backend = opened(bucket)
    backend.put(KEY, DATA)
    backend.delete(KEY)
    bucket.put(backend.table.object_of("probe/abc"), b"racer 3")
    bucket.time += 3 * DAY_S
    assert collect(backend).blocks == 4


def test_two_collectors_at_once_and_more_than_fits_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket()
    backend = opened(bucket)
    for number in range(150):
        backend.put(f"pack/{number}", some_bytes(100, number))
        backend.delete(f"pack/{number}")
    bucket.time += 3 * DAY_S
    bucket.fails["get", ".gone/"] = NotFound("get", "", "the other one was quicker")
    monkeypatch.setattr("s3cfs.backends.ipfs.collector.CANDIDATES_MAX", 70)
    found = collect(backend)
    assert (found.burials, found.blocks, found.waiting) == (127, 127, 22), "by 64 burials"
    assert collect(backend).blocks == 23 and not bucket.blocks()


def test_a_store_without_times_keeps_everything() -> None:
    class Timeless(Bucket):
        def stat(self, key: str) -> ObjectInfo:
            return ObjectInfo(key, super().stat(key).size)

    bucket = Timeless()
    backend = opened(bucket)
    backend.put(KEY, DATA)
    backend.delete(KEY)
    bucket.time += 3 * DAY_S
    with pytest.raises(Unsupported, match="does not say when"):
        collect(backend)
    assert len(bucket.blocks()) == 4 and not [name for name in bucket.objects if "/now-" in name]


def test_after_an_error_in_the_middle_it_goes_on() -> None:
    bucket = Bucket()
    backend = opened(bucket)
    backend.put(KEY, some_bytes(100 * 1000, 1))
    backend.put("pack/2", some_bytes(100 * 1000, 2))
    backend.delete(KEY)
    backend.delete("pack/2")
    bucket.time += 3 * DAY_S
    bucket.fails["stat", "CIQ"] = Denied("stat", "", "no")
    with pytest.raises(Denied):
        collect(backend)
    assert len(list(bucket.list(backend.table.gone))) == 2
    assert collect(backend).blocks == 2 and not bucket.blocks()


keys = st.sampled_from(["a", "b", "c"])
steps = st.lists(st.one_of(
    st.tuples(st.just("put"), st.sampled_from([0, 1]), keys, st.integers(0, 3)),
    st.tuples(st.just("delete"), st.sampled_from([0, 1]), keys, st.just(0)),
    st.tuples(st.just("wait"), st.just(0), keys, st.integers(1, 40)),
    st.tuples(st.just("collect"), st.sampled_from([0, 1]), keys, st.just(0)),
    st.tuples(st.just("foreign"), st.just(0), keys, st.integers(0, 3))), max_size=25)


@settings(max_examples=40, deadline=None)
@given(steps)
def test_whatever_is_done_what_is_there_can_be_read(done: list[tuple[str, int, str, int]]) -> None:
    """Two tables and a node that puts the same blocks now and then, of four contents that share some."""
    contents = [some_bytes(size, 1)[:size] for size in (100, 200)] + [b"x" * MIB + some_bytes(size, 2) for size in (300, 400)]
    bucket = Bucket()
    tables = [opened(bucket), opened(bucket, "second")]
    model: list[dict[str, bytes]] = [{}, {}]
    for what, which, key, number in done:
        if what == "put":
            if key not in model[which]:                                     # I6: keys are written once
                tables[which].put(key, contents[number])
                model[which][key] = contents[number]
        elif what == "delete":
            tables[which].delete(key)
            model[which].pop(key, None)
        elif what == "collect":
            collect(tables[which])
        elif what == "wait":
            bucket.time += number * 3600
        else:
            bucket.put(f"node/THEIRS{number}", b"x")
    for backend, expected in zip(tables, model, strict=True):
        fresh = opened(bucket, backend.table.entries.split("/")[-2])
        assert {info.key: fresh.get(info.key) for info in fresh.list("")} == expected
    theirs = {f"node/THEIRS{number}" for what, _, _, number in done if what == "foreign"}
    assert theirs <= bucket.blocks()
    bucket.time += 10 * DAY_S
    collect(tables[0])
    needed = {name for expected in model for data in expected.values() for name in block_names(tables[0], data)}
    assert bucket.blocks() == needed | theirs, "and nothing is left over"


async def _layered(bucket: Bucket, touched: bool) -> Collecting:
    backend = opened(bucket)
    backend.put(KEY, DATA)
    backend.delete(KEY)
    bucket.time += 3 * DAY_S
    layer = Collecting(backend, 24.0)
    slept: list[float] = []

    class Clock:
        async def sleep(self, seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 2:
                await trio.sleep_forever()

    class Below:
        async def put(self, *_: object) -> None:
            return None

    layer.stand_on(Below(), replace(some_doors(), clock=Clock()), "")  # type: ignore[arg-type]
    if touched:
        await layer.put("super/0", b"x", False, a_call())
    with trio.move_on_after(10) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(layer.run)
            while len(slept) < 2:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert not scope.cancelled_caught and slept == [24 * 3600.0] * 2
    return layer


def test_the_layer_looks_where_this_process_changed_something() -> None:
    for touched, left in ((False, 4), (True, 0)):
        bucket = Bucket()
        layer = trio.run(_layered, bucket, touched)
        assert len(bucket.blocks()) == left
        assert (layer.status().get("last", {}).get("blocks") == 4) is touched


def test_the_layer_says_what_went_wrong() -> None:
    bucket = Bucket()
    bucket.put("s3cfs.names/node/second/super/0", b"no entry")
    layer = trio.run(_layered, bucket, True)
    assert "cannot be used" in layer.status()["last"]["error"] and len(bucket.blocks()) == 4
