"""What the second reader looks at in a store beside the tree: every commit, every checkpoint, every pack of the history."""
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.golden.reader import history, packs, superblock, tables
from tests.golden.reader.changeset import changes
from tests.golden.reader.sealed import integer
from tests.golden.reader.store import Store


@dataclass
class Seen:
    """How often there was what: kinds of records, (table, operation) of changes."""

    records: Counter[str] = field(default_factory=Counter)
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)
    checkpoints: int = 0
    left_out: int = 0                  # numbers of records that are in no history
    riders: int = 0
    copied: int = 0                    # chunks that an earlier epoch sealed than that of their pack


def sound(store: Store, **secret: Any) -> Seen:
    """AssertionError, or Wrong.

    From the first record on: the rows at every commit are as the document says, and every checkpoint of the history is the state of its
    commit; at the end every chunk in use is in its pack's index and can be opened.
    """
    keys = superblock.unlock(superblock.current(store), **secret)
    found, seen = history.History(store, keys), Seen()
    checkpoints = {(one.record_key, one.record_hash): one for one in map(found.manifest, found.manifests())}
    state, before = tables.Tables(), dict[int, str]()
    for record in reversed(list(found.back())):
        before[record.n] = record.info["prev_key"]
        first, key = record.info["run"]                               # the hint is true
        assert before[first] == key and set(range(first, record.n)) <= before.keys()
        seen.records[record.kind] += 1
        seen.left_out += record.info.get("skips", 0)
        seen.riders += len(record.riders)
        seen.changes.update((change.table, change.operation) for change in changes(record.changeset))
        state.apply(record.key, record.changeset)
        assert not list(tables.problems(state)), record.key
        if manifest := checkpoints.get((record.key, record.hash)):
            seen.checkpoints += 1
            assert found.load(manifest).rows == state.rows
    assert found.tables().rows == state.rows
    seen.copied = _chunks(packs.Packs(store, keys, found.riding), state)
    return seen


def _chunks(all_packs: packs.Packs, state: tables.Tables) -> int:
    copied = 0
    rows = {row["id"]: row for row in state.named("pack")}
    indexes: dict[str, set[tuple[bytes, int, int, int]]] = {}
    for chunk in state.named("chunk"):
        if chunk["refs"]:
            pack = rows[chunk["pack"]]
            place = chunk["hash"], chunk["off"], chunk["clen"], chunk["len"]
            if pack["name"] not in indexes:
                indexes[pack["name"]] = {(one.chunk, one.offset, one.size, one.length) for one in all_packs.index(pack["name"])}
                assert len(all_packs.whole(pack["name"])) == pack["size"]
            assert place in indexes[pack["name"]]
            all_packs.chunk(pack["name"], *place)
            copied += integer(all_packs.whole(pack["name"]), chunk["off"], 4) < int(pack["name"].partition("-")[0])
    return copied
