"""Objects made whole again: what is missing, rotten, on servers that are gone or drain, of too narrow a code, or deleted."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from s3cfs.backends.zdb import commands, shard, writing
from s3cfs.backends.zdb.backend import ZdbBackend
from s3cfs.backends.zdb.repair import Mended, Repair
from s3cfs.backends.zdb.survey import Finding
from s3cfs.errors import Temporary
from tests.zdb.caring import LARGE, SMALL, Store
from tests.zdb.several import Servers


@pytest.fixture
def store(zdb_servers: Callable[[int], Servers], tmp_path: Path) -> Iterator[Store]:
    """Eight servers, six of which are in the list: 4 + 2."""
    made = Store(zdb_servers(8), tmp_path, only=range(6))
    yield made
    made.close()


@pytest.mark.parametrize("key, shards", [("pack/large0", 6), ("log/small0", 3)])
@pytest.mark.parametrize("deep", [True, False])
def test_a_missing_shard_is_built_anew_where_it_was(store: Store, key: str, shards: int, deep: bool):
    store.fill(1)
    assert store.whole(key) == shards and store.mend(key, deep=deep).trouble is None
    before = store.where(key)
    number = store.lose(key, 1)
    done = store.mend(key, deep=deep)
    assert (done.trouble, done.left, done.shards) == (f"of {shards} shards 1 missing (z{number:02})", None, 1)
    assert store.whole(key) == shards and store.where(key) == before and store.mend(key).trouble is None and store.reads_right()


@pytest.mark.parametrize("key, shards", [("pack/large0", 6), ("log/small0", 3)])
def test_rot_is_noticed_by_reading_only_and_mended_in_place(store: Store, key: str, shards: int):
    store.fill(1)
    number = store.flip(key, 0)
    assert store.backend.examine(key) == f"of {shards} shards 1 damaged (z{number:02})" and store.reads_right()
    assert store.mend(key, deep=False).trouble is None
    done = store.mend(key)
    assert (done.trouble, done.left, done.shards) == (f"of {shards} shards 1 damaged (z{number:02})", None, 1)
    assert store.backend.examine(key) is None and store.mend(key).trouble is None and store.reads_right()


def test_too_few_shards_are_lost_and_nothing_is_written(store: Store):
    store.fill(1)
    for index in (0, 2, 5):
        store.flip("pack/large0", index)
    done = store.mend("pack/large0")
    assert done.lost and done.left == done.trouble and done.left is not None and done.left.endswith("; 4 are needed") and not done.shards


def test_what_servers_that_are_gone_had_comes_to_others(store: Store):
    store.fill()
    for number in (0, 3):
        store.servers.kill(number)
    store.write_list([1, 2, 4, 5, 6, 7])
    done = store.survey(mend=True)
    assert (done.weak, done.lost, done.records, int(done.exit_code)) == (0, 0, 0, 0) and done.shards >= 4
    for key, data in store.content.items():
        assert store.whole(key) == (6 if len(data) == LARGE else 3)
        assert {number for _, number, _ in store.shards(key)} <= {1, 2, 4, 5, 6, 7}
    assert store.reads_right()
    for number in (1, 2):                          # as many as may be lost, once more
        store.servers.kill(number)
    assert store.reads_right()


def test_a_server_that_does_not_answer_is_waited_for_or_replaced(store: Store):
    store.fill(1)
    store.servers.kill(2)
    done = store.mend("pack/large0", replace_away=False)
    assert done.left == done.trouble == "of 6 shards 1 on a server that does not answer (z02)" and not done.shards and not done.lost
    done = store.mend("pack/large0")
    assert done.left == done.trouble and not done.shards       # no other server has room for it
    store.write_list(range(7))
    store.another().cluster.admit()
    done = store.mend("pack/large0")
    assert (done.left, done.shards) == (None, 1) and 6 in {number for _, number, _ in store.shards("pack/large0")}


def test_a_server_that_hangs_is_waited_for_as_long_as_a_call_may_be_silent(store: Store):
    store.fill(1)
    store.write_list(range(7))
    backend = store.another(timeout_s=0.3)
    backend.check()
    backend.cluster.admit()
    assert len(list(backend.cluster)) == 7 and Repair(backend.replicas, deep=True, replace_away=True).mend("pack/large0").trouble is None
    [hanging] = [number for index, number, _ in store.shards("pack/large0") if index == 2]
    store.servers.hang(hanging, True)
    try:
        done = Repair(backend.replicas, deep=True, replace_away=True).mend("pack/large0")
    finally:
        store.servers.hang(hanging, False)
    assert done.trouble == f"of 6 shards 1 on a server that does not answer (z{hanging:02})" and (done.left, done.shards) == (None, 1)
    assert store.whole("pack/large0") == 6 and hanging not in {number for _, number, _ in store.shards("pack/large0")}


def test_servers_that_drain_are_emptied_and_nothing_new_goes_there(store: Store):
    store.fill()
    store.write_list(range(8), drain=[0, 1])
    done = store.survey(mend=True)
    assert int(done.exit_code) == 0 and done.mended
    for key in store.content:
        assert {number for _, number, _ in store.shards(key)}.isdisjoint({0, 1})
    assert {0, 1}.isdisjoint(store.number(server) for server in store.another().cluster.roll.replicas)
    for number in (0, 1):
        store.servers.kill(number)
    store.write_list(range(2, 8))
    assert store.reads_right() and store.survey(mend=False).exit_code == 0


def test_what_only_has_to_move_is_all_that_is_read(store: Store):
    """By a quick repair; and where that is rotten, it is built from others after all."""
    store.fill(1)
    moving = next(number for index, number, _ in store.shards("pack/large0") if index == 3)
    store.write_list(range(8), drain=[moving])
    read: list[int] = []

    def drained(backend: ZdbBackend) -> Mended:
        backend.check()
        backend.cluster.admit()
        return Repair(backend.replicas, deep=False, replace_away=True, spend=read.append).mend("pack/large0")

    store.flip("pack/large0", 3)
    done = drained(store.another())
    assert (done.left, done.shards, store.whole("pack/large0")) == (None, 1, 6)
    assert sum(map(bool, read)) == 5               # four, and the one that was written
    store.write_list(range(8), drain=[])
    again = next(number for index, number, _ in store.shards("pack/large0") if index == 4)
    store.write_list(range(8), drain=[again])
    read.clear()
    assert drained(store.another()).shards == 1 and sum(map(bool, read)) == 2 and store.reads_right()
    assert store.mend("pack/large0").trouble is None


def test_an_object_of_a_narrower_code_gets_the_one_of_the_list(store: Store):
    store.servers.kill(0)
    store.put("pack/narrow", LARGE)
    where = store.where("pack/narrow")
    assert (where.data, where.parity) == (3, 2)
    assert store.mend("pack/narrow").shards == 0               # five servers do not bear more
    store.servers.start(0)
    done = store.mend("pack/narrow")
    assert (done.trouble, done.left, done.shards) == ("in 3 + 2 shards, not 4 + 2", None, 6)
    where = store.where("pack/narrow")
    assert (where.data, where.parity, store.whole("pack/narrow")) == (4, 2, 6) and store.reads_right()


def test_what_is_left_behind_goes_after_an_hour_and_not_before(store: Store, monkeypatch: pytest.MonkeyPatch):
    store.put("pack/moved", LARGE)
    store.write_list(range(8), drain=[0])
    left = [names for _, number, names in store.shards("pack/moved") if number == 0]
    store.survey(mend=True)
    store.mend("pack/moved")
    assert left and set(left[0]) <= set(store.servers.keys(0))
    monkeypatch.setattr("s3cfs.backends.zdb.repair.GRACE_S", -1.0)
    store.mend("pack/moved")
    assert set(left[0]).isdisjoint(store.servers.keys(0)) and store.whole("pack/moved") == 6


def test_a_deletion_is_finished(store: Store):
    store.fill(1)
    shards = {key: list(store.shards(key)) for key in store.content}
    store.servers.kill(1)
    for key in shards:
        store.backend.delete(key)
    assert store.mend("pack/large0").left == "shards may be left on z01"
    store.servers.start(1)
    found: list[Finding] = []
    left = store.survey(mend=False, found=found).deletions
    assert [one.text for one in found if one.what == "deletion"] == ["shards are left on z01"] * left and left
    done = store.survey(mend=True)
    assert (done.objects, done.deletions, int(done.exit_code)) == (0, 0, 0) and done.mended >= left
    for places in shards.values():
        assert all(set(names).isdisjoint(store.servers.keys(number)) for _, number, names in places)
    assert store.mend("pack/large0").what == "nothing"         # it is known to be over
    store.put("pack/large0", SMALL, seed=2)
    assert store.mend("pack/large0").trouble is None and store.backend.get("pack/large0") == store.content["pack/large0"]


def test_an_ordinary_deletion_leaves_nothing_to_tell(store: Store):
    store.fill(1)
    store.backend.delete("pack/large0")
    found: list[Finding] = []
    for mend in (False, True, False):
        done = store.survey(mend=mend, found=found)
        assert (done.objects, done.deletions, done.mended, found) == (1, 0, 0, [])


def test_shards_that_no_record_names_go_after_a_day(store: Store, monkeypatch: pytest.MonkeyPatch):
    """Of a put that failed between its shards and its record, or a repair that lost to another one."""
    store.fill(1)
    monkeypatch.setattr(store.backend.replicas, "write", _fails)
    with pytest.raises(Temporary):
        store.backend.put("pack/never", bytes(LARGE))
    keys = {number: set(store.servers.keys(number)) for number in range(6)}
    done = store.survey(mend=True)
    assert (done.orphans, done.orphan_bytes) == (0, 0)         # it may be under way
    assert {number: set(store.servers.keys(number)) for number in range(6)} == keys
    monkeypatch.setattr("s3cfs.backends.zdb.orphans.GRACE_S", -10)
    assert store.survey(mend=False).orphans == 6 and store.survey(mend=False).exit_code == 0
    assert store.survey(mend=True, deep=False).orphans == 0    # a quick one does not look
    done = store.survey(mend=True)
    assert done.orphans == 6 and done.orphan_bytes > LARGE and store.survey(mend=True).orphans == 0
    assert store.reads_right() and store.survey(mend=False).exit_code == 0


def test_what_is_no_object_is_left_alone(store: Store, monkeypatch: pytest.MonkeyPatch):
    """Backups of the records lie in shards, too, under a key that no object has."""
    monkeypatch.setattr("s3cfs.backends.zdb.orphans.GRACE_S", -10)
    where = writing.write(store.backend.cluster, "s3cfs:backup", bytes(LARGE), 1).where
    store.servers.flip(store.number(where.servers[0]), shard.name_of(where.object_id, 0))
    assert store.survey(mend=True).orphans == 0
    keys = [store.servers.keys(number) for number in range(6)]
    assert all(any(shard.name_of(where.object_id, index) in found for found in keys) for index in range(6))


def test_nothing_is_an_orphan_while_a_replica_is_away(store: Store, monkeypatch: pytest.MonkeyPatch):
    store.fill(1)
    monkeypatch.setattr("s3cfs.backends.zdb.orphans.GRACE_S", -10)
    monkeypatch.setattr(store.backend.replicas, "write", _fails)
    with pytest.raises(Temporary):
        store.backend.put("pack/never", bytes(LARGE))
    away = store.number(store.backend.cluster.roll.replicas[0])
    store.servers.kill(away)
    assert store.survey(mend=True).orphans == 0
    store.servers.start(away)
    assert store.survey(mend=True).orphans == 6


def _fails(*arguments: object) -> None:
    raise Temporary("put", "pack/never", "too few replicas answer")


def test_a_put_beside_a_repair_counts(store: Store):
    """The placement of a repair that ends after a put of the same key is of the object before, and says nothing of the new one."""
    store.fill(1)
    backend = store.another()
    backend.check()
    store.lose("pack/large0", 0)
    place = backend.replicas.place

    def late(placement):
        store.put("pack/large0", LARGE, seed=2)
        place(placement)

    backend.replicas.place = late                  # type: ignore[method-assign]
    store.servers.kill(1)
    store.write_list([0, 2, 3, 4, 5, 6])
    backend.cluster.take_over(store.another().cluster.setup)
    backend.cluster.admit()
    store.backend = store.another()
    store.mend("pack/large0", backend=backend)
    assert store.reads_right()


def test_a_delete_beside_a_repair_counts(store: Store):
    store.fill(1)
    backend = store.another()
    backend.check()
    store.lose("pack/large0", 0)
    put = backend.cluster.fanout.all

    def late(names, work):
        found = put(names, work)
        if "pack/large0" in store.content:
            store.backend.delete("pack/large0")
            del store.content["pack/large0"]
        return found

    backend.cluster.fanout.all = late              # type: ignore[method-assign]
    assert store.mend("pack/large0", backend=backend).left is None
    assert "pack/large0" not in {info.key for info in store.another().list("")} and store.reads_right()


def test_an_object_that_goes_while_it_is_looked_at_is_not_lost(store: Store):
    store.fill(1)
    backend = store.another()
    backend.check()
    read = backend.replicas.read

    def then_deleted(key: str) -> object:
        found = read(key)
        if key in store.content:
            store.backend.delete(key)
            del store.content[key]
        return found

    backend.replicas.read = then_deleted           # type: ignore[assignment, method-assign]
    done = store.mend("pack/large0", backend=backend)
    assert not done.lost and done.left is None and done.what == "deletion"


def test_a_later_placement_counts_before_an_earlier_one(store: Store):
    store.put("pack/a", LARGE)
    for away, listed in ((0, [1, 2, 3, 4, 5, 6]), (1, [2, 3, 4, 5, 6, 7])):
        store.servers.kill(away)
        store.write_list(listed)
        store.survey(mend=True)
    known = store.looker.replicas.read("pack/a")
    assert known is not None and known.placement is not None and known.placement.revision == 2
    assert store.whole("pack/a") == len(set(known.where.servers)) == 6


def test_a_shard_of_something_else_is_as_good_as_none(store: Store):
    """Whole in itself, and under the right key of the server."""
    store.fill(1)
    [(number, [name])] = [(number, names) for index, number, names in store.shards("pack/large0") if index == 3]
    member = next(member for member in store.looker.cluster if member.server.name == f"z{number:02}")
    value = commands.get(member, name)
    assert value is not None
    head, payload = shard.decode_value(value)
    [(_, other)] = shard.encode_values(replace(head, key="pack/large1"), payload)
    commands.put(member, name, other)
    assert store.mend("pack/large0").trouble == f"of 6 shards 1 damaged (z{number:02})" and commands.get(member, name) == value


def test_what_nobody_acknowledged_is_known_when_it_was_seen(store: Store):
    cluster = store.backend.cluster
    written = writing.write(cluster, "pack/a", bytes(LARGE), 1)
    store.backend.replicas.write("pack/a", LARGE, replace(written.where, unsure=frozenset((1, 4))), 1)
    store.content["pack/a"] = bytes(LARGE)
    assert store.mend("pack/a").trouble is None and store.where("pack/a") == written.where and store.reads_right()


def test_a_repair_that_slept_says_nothing_of_where_shards_are(store: Store):
    store.fill(1)
    store.servers.kill(0)
    store.write_list(range(1, 7))
    backend = store.another()
    backend.check()
    backend.cluster.admit()
    times = iter([0, 3600 * 10**9])
    with pytest.raises(Temporary, match="too much time"):
        Repair(backend.replicas, deep=True, replace_away=True, time_ns=lambda: next(times)).mend("pack/large0")
    known = backend.replicas.read("pack/large0")
    assert known is not None and known.placement is None and store.reads_right() and store.mend("pack/large0").left is None


def test_two_repairs_at_once(store: Store):
    store.fill(1)
    first, second = store.another(), store.another()
    for backend in (first, second):
        backend.check()
    store.servers.kill(0)
    store.write_list([1, 2, 3, 4, 5, 6, 7])
    for backend in (first, second):
        backend.cluster.take_over(store.another().cluster.setup)
    first.cluster.admit()
    place = first.replicas.place

    def late(placement):
        store.mend("pack/large0", backend=second)
        place(placement)

    first.replicas.place = late                    # type: ignore[method-assign]
    store.mend("pack/large0", backend=first)
    assert store.reads_right() and store.mend("pack/large0").left is None and store.whole("pack/large0") == 6
