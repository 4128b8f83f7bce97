"""Entries and burials: what is damaged or of another key is refused; where tables lie."""
from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3cfs.backends.ipfs.dag import LEAF_BYTES, Tree
from s3cfs.backends.ipfs.datastore import Datastore
from s3cfs.backends.ipfs.names import (
    Entry,
    Table,
    burial_name,
    buried_at,
    decode_burial,
    encode_burial,
    shelf,
    tables,
)
from s3cfs.backends.memory import MemoryBackend
from s3cfs.errors import ConfigError

SIZES = st.sampled_from([0, 1, LEAF_BYTES, LEAF_BYTES + 1, 3 * LEAF_BYTES])
KEY = "pack/aa/7-aabb"


def entry_of(size: int, seed: bytes = b"x") -> Entry:
    count = max(1, -(-size // LEAF_BYTES))
    return Entry.of(size, [number.to_bytes(31) + seed for number in range(count)])


@settings(deadline=None)
@given(SIZES, st.integers(0), st.integers(1, 255))
def test_any_byte_that_is_another_is_noticed(size: int, at: int, change: int) -> None:
    entry = entry_of(size)
    data = bytearray(entry.encode(KEY))
    assert Entry.decode(KEY, data) == entry
    data[at % len(data)] ^= change
    with pytest.raises(ValueError, match=r"damaged|known"):
        Entry.decode(KEY, data)


@settings(deadline=None)
@given(SIZES, st.integers(1, 60))
def test_one_that_is_cut_or_longer_is_noticed(size: int, by: int) -> None:
    data = entry_of(size).encode(KEY)
    for wrong in (data[:-by], data + bytes(by), b"", data[by:]):
        with pytest.raises(ValueError, match="damaged"):
            Entry.decode(KEY, wrong)


def test_none_passes_for_that_of_another_key() -> None:
    data = entry_of(5).encode(KEY)
    for key in (KEY + "0", "", "log/main/1"):
        with pytest.raises(ValueError, match="damaged"):
            Entry.decode(key, data)
    name = burial_name(1, "0" * 16)
    for wrong, decode in ((data, decode_burial), (encode_burial(KEY, [bytes(32)] * 2), Entry.decode)):
        with pytest.raises(ValueError, match=r"no kind|damaged"):
            decode(KEY, wrong)
    with pytest.raises(ValueError, match="damaged"):
        decode_burial(name + "0", encode_burial(name, [bytes(32)]))


def test_one_that_does_not_fit_its_size_is_refused() -> None:
    with pytest.raises(ValueError, match="not as many as 5 bytes have"):
        Entry.decode(KEY, Entry(5, bytes(64)).encode(KEY))


def test_a_newer_version_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3cfs.backends.ipfs.names.VERSION", 2)
    later = entry_of(5).encode(KEY)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="version 2"):
        Entry.decode(KEY, later)


def test_its_blocks_are_leaves_and_nodes() -> None:
    entry = entry_of(1500 * LEAF_BYTES)
    tree = Tree.of(entry.size, entry.digests)
    assert list(entry.blocks) == [*entry.digests, *(node.digest for node in tree.nodes)] and len(tree.nodes) == 3
    assert [*entry_of(5).blocks] == entry_of(5).digests
    assert decode_burial("1-x", encode_burial("1-x", entry.blocks)) == list(entry.blocks)


ROOTS = ["", "a", "a/b", "a~b", "a~1b", "~", "-", "s", "s3cfs", "s3cfs.names", "s3cfs.names/x", "n", "names.s3cfs", "blocks", "main",
         "a/main"]


def test_no_two_places_share_a_table_and_none_lies_in_what_the_plugin_lists() -> None:
    """The plugin lists by the beginning of a name, so neither may be the beginning of the other."""
    seen: dict[str, str] = {}
    for root in ROOTS:
        for mountpoint in ("/blocks", "/"):
            folder = Datastore(MemoryBackend(), root, mountpoint).blocks_folder
            table = Table(folder)
            assert seen.setdefault(table.shelf, folder) == folder
            assert not root or not (table.shelf.startswith(root) or root.startswith(table.shelf.partition("/")[0])), root
            assert table.entries.startswith(table.shelf) and table.gone.startswith(table.shelf) and not table.gone.startswith(table.entries)
    shelves = sorted(seen)
    assert len(shelves) > len(ROOTS)
    assert not [(one, other) for one in shelves for other in shelves if one != other and other.startswith(one)]
    assert shelf("pfx/blocks") == Table(Datastore(MemoryBackend(), "pfx/blocks").blocks_folder).shelf, "the same blocks, the same tables"


def test_no_name_can_be_a_blocks() -> None:
    """A node deletes what is base32 in capitals and not wanted; what else lies there it leaves alone."""
    table = Table("")
    for name in (table.object_of("super/0"), table.object_of("A"), table.gone + burial_name(7, "0" * 16)):
        assert not re.fullmatch(r"[A-Z2-7]+", name) and name.startswith("s3cfs.names/")


@pytest.mark.parametrize("name", ["", "A", "a/b", "a.gone", "..", "a b", "x" * 65])
def test_names_of_tables(name: str) -> None:
    with pytest.raises(ConfigError, match="name of a table"):
        Table("pfx", name)


def test_tables_are_found_by_entries_and_by_burials() -> None:
    store = MemoryBackend()
    store.put(Table("pfx", "one").object_of("log/1"), b"")
    store.put(Table("pfx", "two").gone + "1-x", b"")
    store.put(Table("pfx/blocks", "three").object_of("log/1"), b"")
    assert tables(store, "pfx") == ["one", "two"]


@pytest.mark.parametrize(("name", "at"), [("12-0123456789abcdef", 12), ("now-0123456789abcdef", None), ("12", None), ("12-x", None)])
def test_when_something_was_buried(name: str, at: int | None) -> None:
    assert buried_at(name) == at
