"""The contract of go-datastore, against a model of it, and the faults of the plugin that are none of ours."""
from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3cfs.backends.ipfs.datastore import Datastore, Entry, Query, by_key, by_size, by_value, clean_root, descending
from s3cfs.backends.ipfs.names import Table
from s3cfs.backends.memory import MemoryBackend
from s3cfs.errors import BucketMissing, ConfigError, NotFound
from tests.backends.ipfs.kit import Bucket, some_bytes
from tests.servers import Server

HELLO = bytes.fromhex("b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9")
KEY = "/CIQLSTJHXGJU2PQIUUXFFV62PWV7VREE57RXUU4A52IIR55M4LX432I"       # of "hello world", as a node has it


# What go-datastore's own NaiveQueryApply does with everything in a map.
def naive(contents: dict[str, bytes], query: Query) -> list[Entry]:
    prefix = "/" + query.prefix.strip("/")
    found = [Entry(key, len(value), None if query.keys_only else value) for key, value in contents.items()
             if prefix == "/" or key.startswith(prefix + "/")]
    for accepts in query.filters:
        found = [entry for entry in found if accepts(entry)]

    def compare(one: Entry, other: Entry) -> int:
        return next((found for order in query.orders if (found := order(one, other))), by_key(one, other))

    if query.orders:
        found.sort(key=functools.cmp_to_key(compare))
    found = found[query.offset:]
    return found[:query.limit] if query.limit else found


parts = st.sampled_from(["a", "b", "ab", "blocks", "CIQ"])
keys = st.lists(parts, min_size=1, max_size=3).map(lambda names: "/" + "/".join(names))
values = st.binary(max_size=3)
operations = st.lists(st.tuples(st.sampled_from(["put", "delete", "batch"]), keys, values), max_size=12)
filters: list[Callable[[Entry], bool]] = [
    lambda entry: entry.key > "/b", lambda entry: entry.size != 2, lambda entry: b"\0" not in (entry.value or b"")]
orders = st.sampled_from([by_key, by_value, by_size, descending(by_size), descending(by_key)])
queries = st.builds(
    Query, prefix=st.one_of(st.sampled_from(["", "/", "a", "/a/", "/blocks"]), keys),
    filters=st.lists(st.sampled_from(filters), max_size=2), orders=st.lists(orders, max_size=2), limit=st.integers(0, 4),
    offset=st.integers(0, 3), keys_only=st.booleans())


@settings(max_examples=60, deadline=None)
@given(operations, queries, st.sampled_from(["", "a", "ab/", "/lead/slash"]))
def test_it_does_what_a_map_does(done: list[tuple[str, str, bytes]], query: Query, root: str) -> None:
    store = MemoryBackend()
    mine, model = Datastore(store, root), dict[str, bytes]()
    neighbour = Datastore(store, f"{clean_root(root) or 'a'}other")            # whose name begins with ours
    if root:
        neighbour.put("/a/b", b"theirs")
    batch = mine.batch()
    for what, key, value in done:
        if what == "delete":
            mine.delete(key)
            model.pop(key, None)
        elif what == "put":
            mine.put(key, value)
            model[key] = value
        elif len(value) == 1:
            batch.delete(key)
        else:
            batch.put(key, value)
    assert list(mine.query(Query())) is not None and dict(contents(mine)) == model, "nothing of a batch is there before its commit"
    for what, key, value in done:
        if what == "batch":
            model.pop(key, None)
            model.update({key: value} if len(value) != 1 else {})
    batch.commit()
    batch.commit()                                                             # it is empty by now
    assert dict(contents(mine)) == model
    found = list(mine.query(query))
    assert len(found) == len(naive(model, query)) and all(entry in naive(model, replace(query, offset=0, limit=0)) for entry in found)
    assert found == naive(model, query) or not query.orders
    for key in [*model, "/not/there"]:
        assert mine.has(key) == (key in model)
        if key in model:
            assert mine.get(key) == model[key] and mine.get_size(key) == len(model[key])
    assert mine.disk_usage() == sum(map(len, model.values()))


def contents(datastore: Datastore) -> Iterator[tuple[str, bytes]]:
    return ((entry.key, entry.value or b"") for entry in datastore.query(Query()))


CONTENTS = {"/a": b"22", "/b": b"1", "/c": b"333", "/d": b"11", "/e/f": b"1", "/e/g": b"4444"}


@pytest.mark.parametrize(("query", "found"), [
    (Query(orders=[by_key]), "a b c d e/f e/g"), (Query(orders=[by_size, descending(by_key)]), "e/f b d a c e/g"),
    (Query(orders=[descending(by_size), by_value]), "e/g c d a b e/f"), (Query(orders=[by_key], offset=2, limit=3), "c d e/f"),
    (Query(orders=[by_key], offset=5, limit=3), "e/g"), (Query(orders=[by_key], limit=1), "a"),
    (Query(prefix="e", orders=[by_key]), "e/f e/g"), (Query(prefix="/e/f", orders=[by_key]), ""),
    (Query(filters=[lambda one: one.size == 2], orders=[by_key], offset=1), "d"),
    (Query(filters=[lambda one: one.value == b"1"], keys_only=True), "")])
def test_queries_by_hand(query: Query, found: str) -> None:
    datastore = Datastore(MemoryBackend(), "pfx")
    for key, value in CONTENTS.items():
        datastore.put(key, value)
    assert " ".join(entry.key[1:] for entry in datastore.query(query)) == found


def test_of_several_on_one_key_the_last_one_counts() -> None:
    datastore = Datastore(MemoryBackend(), "pfx")
    datastore.put("/there", b"x")
    batch = datastore.batch()
    batch.put("/a", b"1")
    batch.delete("/a")
    batch.delete("/b")
    batch.put("/b", b"2")
    batch.put("/there", b"3")
    batch.delete("/there")
    batch.commit()
    assert dict(contents(datastore)) == {"/b": b"2"}


@pytest.mark.parametrize(("root", "mountpoint", "name"), [
    ("", "/blocks", KEY[1:]), ("", "/", f"blocks{KEY}"), ("pfx", "/blocks", f"pfx{KEY}"), ("pfx/", "/", f"pfx/blocks{KEY}"),
    ("/lead/slash", "/blocks", f"lead/slash{KEY}"), ("a/../b//c/.", "/blocks", f"b/c{KEY}")])
def test_where_a_block_lies(root: str, mountpoint: str, name: str) -> None:
    """Seen with the plugin: docs/ipfs.md."""
    store = MemoryBackend()
    datastore = Datastore(store, root, mountpoint)
    datastore.put(datastore.block(HELLO), b"hello world")
    assert [info.key for info in store.list("")] == [name]
    assert datastore.blocks_folder == name.rpartition("/")[0]
    assert [entry.key for entry in datastore.query(Query(keys_only=True))] == [datastore.block(HELLO)], "no rootDirectory in it"


def test_a_batch_of_deletions_only_ends_and_deletes() -> None:
    store = Bucket()
    datastore = Datastore(store, "pfx")
    for number in range(5):
        datastore.put(f"/k{number}", b"x")
    batch = datastore.batch()
    for number in range(4):
        batch.delete(f"/k{number}")
    batch.commit()
    assert list(store.objects) == ["pfx/k4"]


@pytest.mark.parametrize("key", ["", "/", "a", "/a/", "//a", "/a//b", "/a/../b", "/./a"])
def test_what_is_no_key_is_refused(key: str) -> None:
    datastore = Datastore(MemoryBackend())
    for use in (datastore.get, datastore.delete, datastore.has, lambda key: datastore.put(key, b""), datastore.batch().delete):
        with pytest.raises(ValueError, match="not a key"):
            use(key)


def test_what_no_key_can_name_is_not_found() -> None:
    """Marks of folders that other tools leave, and name tables."""
    store = Bucket()
    datastore = Datastore(store)
    for name in ("CIQX", "blocks/", "pins/a//b", Table("").object_of("pack/aa/1")):
        store.put(name, b"x")
    assert [entry.key for entry in datastore.query(Query())] == ["/CIQX"] and datastore.disk_usage() == 1


def test_other_mountpoints_hold_no_blocks() -> None:
    with pytest.raises(ConfigError, match="/pins"):
        Datastore(MemoryBackend(), "", "/pins")


def test_a_value_that_goes_during_a_query_is_left_out() -> None:
    store = Bucket()
    datastore = Datastore(store, "pfx")
    datastore.put("/a", b"x")
    datastore.put("/b", b"y")
    store.fails["get", "pfx/a"] = NotFound("get", "pfx/a", "gone")
    assert [entry.key for entry in datastore.query(Query())] == ["/b"]


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["moto_s3", "rclone_s3"])
def test_the_second_page_and_the_third(kind: str, request: pytest.FixtureRequest) -> None:
    """The plugin finds the first thousand of them below a rootDirectory."""
    server: Server = request.getfixturevalue(kind)
    store = server.open(server.url())
    for root in ("pages", "pages/deep/er"):
        datastore = Datastore(store, root)
        batch, names = datastore.batch(), {f"/CIQ{number}" for number in range(2504)}
        for name in names:
            batch.put(name, b"x")
        batch.commit()
        found = [entry.key for entry in datastore.query(Query(keys_only=True)) if entry.key.startswith("/CIQ")]
        assert len(found) == len(names) and set(found) == names
        for name in names:
            batch.delete(name)
        batch.commit()
        assert not list(datastore.query(Query(keys_only=True)))
    store.close()


def test_a_missing_bucket_is_no_absence(moto_s3: Server) -> None:
    store: Any = moto_s3.open(moto_s3.url().replace(moto_s3.bucket, "no-such-bucket"))
    datastore = Datastore(store, "pfx")
    for ask in (datastore.has, datastore.get, datastore.get_size, lambda key: list(datastore.query(Query(key)))):
        with pytest.raises(BucketMissing):
            ask("/a")
    store.close()


def test_on_a_server(moto_s3: Server) -> None:
    store = moto_s3.open()
    datastore = Datastore(store, "a/b")
    value = some_bytes(100_000)
    datastore.put(KEY, value)
    assert datastore.get(KEY) == value and datastore.get_size(KEY) == 100_000 and datastore.has(KEY) and not datastore.has(KEY + "A")
    assert [(entry.key, entry.size) for entry in datastore.query(Query(keys_only=True))] == [(KEY, 100_000)]
    datastore.delete(KEY)
    datastore.delete(KEY)
    datastore.sync()
    assert not list(datastore.query(Query()))
    store.close()
