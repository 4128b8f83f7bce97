"""The records outlive every replica of them: by a backup on all servers, and by what shards say of themselves."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from s3cfs.backends.zdb import backup, commands, restore, writing
from s3cfs.backends.zdb.backup import NAME, back_up, backups
from s3cfs.backends.zdb.record import PLACEMENT, RECORD, TOMBSTONE, Placement, Where
from s3cfs.backends.zdb.restore import Restored
from s3cfs.backends.zdb.setup import read as read_list
from s3cfs.backends.zdb.shard import names_of
from s3cfs.backends.zdb.words import Condition, Trouble
from s3cfs.errors import ConfigError, Corrupt, NotFound, StoreError, Temporary
from tests.zdb.caring import LARGE, SMALL, Store
from tests.zdb.several import ADMIN, NAMESPACE, PASSWORD, Servers

DATA_SERVERS, OLD, NEW = range(7), range(7, 10), range(10, 13)


class Kept(Store):
    """The records lie on three servers of their own; three more wait."""

    meta: Sequence[int] = OLD

    def write_list(self, only=None, drain=()) -> None:
        more = []
        for number in self.meta:
            more += ["[[meta]]", f'name = "z{number:02}"', f'address = "{self.servers.addresses[number]}"', f'namespace = "{NAMESPACE}"',
                     f'password = "{PASSWORD}"', f'admin-password = "{ADMIN}"']
        self.servers.write_list(self.path, only or DATA_SERVERS, data=4, parity=2, more="\n".join(more))

    def lose_the_records(self) -> None:
        """And put new servers in the list."""
        for number in OLD:
            self.servers.kill(number)
        self.meta = NEW
        self.write_list()

    def back_up(self) -> backup.Backup:
        self.time_ns = getattr(self, "time_ns", 0) + 1
        return back_up(self.another().cluster, lambda *said: None, lambda: self.time_ns)

    def restore(self, **options) -> Restored:
        self._looker = None
        return restore.restore(self.another().cluster, lambda *said: None, **options)

    def shard_elsewhere(self, where: Where) -> int:
        """The id of a server that answers and has none of it."""
        return next(member.id for member in self.another().cluster.holders() if member.id not in where.servers)

    def keys(self) -> set[str]:
        return {info.key for info in self.another().list("")}


@pytest.fixture
def store(zdb_servers: Callable[[int], Servers], tmp_path: Path) -> Iterator[Kept]:
    made = Kept(zdb_servers(13), tmp_path)
    yield made
    made.close()


def slots_of(store: Store, number: int) -> dict[bytes, bytes]:
    links = store.backend.cluster._open(store.servers.server(number))
    names = [key for key in store.servers.keys(number) if key[:1] in (RECORD, TOMBSTONE, PLACEMENT)]
    values = {name: value for name, value in zip(names, commands.get_many(links, names), strict=True) if value is not None}
    links.close()
    return values


def test_every_replica_lost_and_all_is_back(store: Kept):
    store.fill(3)
    store.put("log/later", SMALL)
    store.backend.delete("log/small2")
    del store.content["log/small2"]
    made = store.back_up()
    assert made.slots == len(slots_of(store, OLD[0])) == 8
    store.put("pack/large0", LARGE, 2)                 # after the backup: overwritten, put, deleted
    store.put("pack/after", LARGE)
    store.put("log/after", SMALL)
    store.backend.delete("pack/large1")
    store.backend.delete("log/small1")
    del store.content["pack/large1"], store.content["log/small1"]
    store.lose_the_records()
    with pytest.raises(StoreError, match="not those that have the records: .*zdb restore"):
        store.another().get("log/later")
    with pytest.raises(Temporary, match="--replicas-lost"):
        store.restore()
    done = store.restore(replicas_lost=True)
    assert (done.slots > 8, done.made, done.buried, done.broken, done.replicas) == (True, 3, 2, 0, 3) and done.backup == made
    assert store.keys() == store.content.keys() and store.reads_right()
    with pytest.raises(NotFound):
        store.another().get("pack/large1")
    assert int(store.survey(mend=False, deep=True).exit_code) == 0
    store.backend = store.another()
    store.put("pack/large1", LARGE, 3)
    again = store.restore(scan=True)
    assert (again.slots, again.made, again.buried) == (0, 0, 0) and store.reads_right()


def test_without_any_backup_the_shards_say_enough(store: Kept):
    store.fill(2)
    store.put("pack/large1", LARGE, 2)
    store.put("super/empty", 0)
    store.backend.delete("log/small0")
    del store.content["log/small0"]
    store.servers.kill(3)
    store.put("log/narrow", SMALL, 2)
    store.lose_the_records()
    done = store.restore(replicas_lost=True)
    assert (done.made, done.broken, done.backup) == (5, 0, None)
    assert store.keys() == store.content.keys() and store.reads_right()


def test_objects_that_cannot_be_put_together_are_counted(store: Kept):
    store.fill(2)
    for index in range(3):
        store.lose("pack/large0", index)
    store.lose_the_records()
    done = store.restore(replicas_lost=True)
    assert (done.made, done.broken) == (3, 1)
    del store.content["pack/large0"]
    assert store.keys() == store.content.keys() and store.reads_right()


def test_a_backup_whose_name_is_lost_is_found_by_its_shards(store: Kept):
    store.fill(2)
    store.back_up()
    made = store.back_up()
    for number in (*DATA_SERVERS, *OLD):
        links = store.backend.cluster._open(store.servers.server(number))
        commands.delete(links, NAME)
        links.close()
    store.backend.delete("log/small1")
    del store.content["log/small1"]
    store.lose_the_records()
    done = store.restore(replicas_lost=True)
    assert done.backup is not None and (done.backup.time_ns, done.made, done.buried) == (made.time_ns, 0, 1)
    assert store.keys() == store.content.keys() and store.reads_right()


def test_an_older_one_serves_where_the_newest_cannot_be_read(store: Kept, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backup, "SHEET_BYTES", 300)
    store.fill(4)
    older = store.back_up()
    assert len(older.sheets) > 2
    newest = store.back_up()
    for index, number in enumerate(newest.sheets[1].where.servers):
        member = store.backend.cluster.member(number)
        assert member is not None
        commands.delete(member, names_of(newest.sheets[1].where.object_id, index, newest.sheets[1].size)[0])
    store.lose_the_records()
    done = store.restore(replicas_lost=True, scan=False)
    assert done.backup == older and len(done.why_not) == 1 and "shards" in done.why_not[0] and done.made == 0
    assert store.reads_right()


def test_a_backup_without_its_end_is_none(store: Kept, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backup, "SHEET_BYTES", 300)
    store.fill(4)
    made = store.back_up()
    cluster = store.another().cluster
    assert len(list(backup.slots(cluster, made.sheets))) == made.slots == 8
    for sheets in (made.sheets[:-1], made.sheets[1:], (*made.sheets, made.sheets[-1]), made.sheets[::-1], ()):
        with pytest.raises(Corrupt):
            list(backup.slots(cluster, sheets))


def test_a_replica_that_is_left_is_asked_first(store: Kept):
    store.fill(1)
    store.back_up()
    store.put("log/after", SMALL)
    store.backend.delete("log/small0")
    del store.content["log/small0"]
    for number in OLD[1:]:
        store.servers.kill(number)
    store.meta = [OLD[0], *NEW]
    store.write_list()
    done = store.restore(replicas_lost=True, scan=False)
    assert (done.replicas, done.made, done.buried) == (3, 0, 0)
    assert store.keys() == store.content.keys() and store.reads_right()


def test_damaged_records_and_older_placements_are_replaced(store: Kept):
    store.fill(1)
    store.back_up()
    name, value = next((name, value) for name, value in slots_of(store, OLD[1]).items() if name.startswith(RECORD + b"log/"))
    store.servers.flip(OLD[1], name)
    member = next(member for member in store.backend.cluster if member.server.name == f"z{OLD[1]:02}")
    where = store.where("pack/large0")
    placements = [Placement("pack/large0", where.object_id, revision, where) for revision in (1, 2, 3)]
    older, middle, newer = ((one.name, one.encode(store.backend.cluster.signer)) for one in placements)
    commands.put(member, *middle)
    assert store.restore().slots >= 1 and slots_of(store, OLD[1])[name] == value
    signer = store.backend.cluster.signer
    assert [restore._fill(member, [slot], signer) for slot in (older, middle, newer, middle)] == [0, 0, 1, 0]
    assert slots_of(store, OLD[1])[newer[0]] == newer[1]


def test_shards_that_were_left_behind_bring_nothing_back(store: Kept):
    keys = [f"log/small{number}" for number in range(8)]
    for key in keys:
        store.put(key, SMALL)
    members = {int(member.server.name[1:]): member for member in store.backend.cluster}
    values = {(number, name): commands.get(members[number], name)
              for key in keys for _, number, names in store.shards(key) for name in names}
    for key in keys:
        store.put(key, SMALL, 2)

    def left_behind() -> None:
        for (number, name), value in values.items():
            assert value is not None
            commands.put(members[number], name, value)

    left_behind()
    assert store.restore(scan=True).made == 0 and store.reads_right()
    store.backend.delete("log/small0")
    del store.content["log/small0"]
    left_behind()
    assert store.restore(scan=True).made == 0 and store.keys() == store.content.keys()
    for (number, name), value in values.items():       # and with nothing to go by but the shards: the newest of each
        if value is not None and b"log/small0" in value:
            commands.delete(members[number], name)
    store.lose_the_records()
    assert store.restore(replicas_lost=True).made >= 7 and store.keys() == store.content.keys() and store.reads_right()


def test_a_restore_that_finds_a_put_under_way_does_it_no_harm(store: Kept, monkeypatch: pytest.MonkeyPatch):
    original = writing.write

    def write(*arguments) -> writing.Written:
        written = original(*arguments)
        assert store.restore(scan=True).made == 1
        return written

    with monkeypatch.context() as patch:
        patch.setattr(writing, "write", write)
        store.put("pack/a", LARGE)
    assert store.reads_right() and store.whole("pack/a") == 6
    store.backend.delete("pack/a")
    assert store.keys() == set()


def test_nothing_is_taken_for_deleted_while_its_servers_may_be_away(store: Kept):
    store.fill(1)
    store.back_up()
    where = store.where("log/small0")
    for _, number, _ in store.shards("log/small0"):
        store.servers.kill(number)
    store.lose_the_records()
    done = store.restore(replicas_lost=True)
    assert done.buried == 0
    found = restore._Shards(list(store.another().cluster), lambda *said: None)
    assert not found.is_gone(where) and found.missing(where) == 3
    assert found.is_gone(replace(where, servers=(*where.servers[:2], store.shard_elsewhere(where))))


def test_two_backups_are_kept_and_the_shards_of_others_removed(store: Kept):
    store.fill(1)
    made = [store.back_up() for _ in range(4)]
    assert backups(store.another().cluster) == made[:1:-1]
    on_servers = {key[1:17] for number in DATA_SERVERS for key in store.servers.keys(number) if key[:1] == b"d"}
    assert [one.sheets[0].where.object_id in on_servers for one in made] == [False, False, True, True]


def test_what_one_replica_alone_knows_and_what_only_the_backup_knows(store: Kept):
    store.fill(2)
    store.back_up()
    before = {number: slots_of(store, number) for number in OLD}
    names = sorted(before[OLD[0]])
    for number in OLD:
        links = store.backend.cluster._open(store.servers.server(number))
        for name in names[:1] if number == OLD[0] else names[:3]:
            commands.delete(links, name)
        links.close()
    done = store.restore()
    assert done.slots >= 3 and done.made == done.replicas == 0
    assert {number: slots_of(store, number) for number in OLD} == before and store.reads_right()


def test_a_placement_that_was_lost_is_made_from_the_shards_of_what_was_cut_anew(store: Kept):
    for number in (0, 1):
        store.servers.kill(number)
    store.put("pack/narrow", LARGE)
    assert store.where("pack/narrow").data == 3
    store.back_up()
    for number in (0, 1):
        store.servers.start(number)
    store.survey(mend=True)
    assert store.where("pack/narrow").data == 4
    record = store.another().replicas.read("pack/narrow")
    assert record is not None
    for index, number in enumerate(record.record.where.servers):
        member = store.another().cluster.member(number)
        assert member is not None
        commands.delete(member, names_of(record.record.where.object_id, index, LARGE)[0])      # as a repair does, later
    store.lose_the_records()
    done = store.restore(replicas_lost=True)
    assert (done.made, done.buried, done.broken) == (1, 0, 0)
    assert store.where("pack/narrow").data == 4 and store.reads_right()


def test_damaged_names_of_backups_are_passed_over(store: Kept):
    store.fill(1)
    made = store.back_up()
    store.servers.flip(2, NAME)
    assert backups(store.another().cluster) == [made]


def test_a_backup_that_few_servers_could_name_is_none(store: Kept, monkeypatch: pytest.MonkeyPatch):
    store.fill(1)
    made = store.back_up()
    cluster = store.another().cluster
    original = commands.put

    def put(links, key, value, **options) -> None:
        if key == NAME and links.server.name > "z03":
            raise Trouble(Condition.DISK_FULL, "Cannot write data right now", "z")
        original(links, key, value, **options)

    with monkeypatch.context() as patch:
        patch.setattr(commands, "put", put)
        with pytest.raises(Temporary, match="only 4 of 10 servers"):
            back_up(cluster, lambda *said: None)
    done = restore.restore(store.another().cluster, lambda *said: None)
    assert done.backup == made


def test_replicas_have_no_place_to_go(store: Kept):
    store.fill(1)
    store.lose_the_records()
    for number in NEW:
        store.servers.kill(number)
    with pytest.raises(ConfigError, match="none of its \\[\\[meta\\]\\] servers answers"):
        store.restore(replicas_lost=True)
    assert read_list(str(store.path)).meta
