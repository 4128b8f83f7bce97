"""The replicas change while a machine goes by the old roll: it finds out with its next call, whatever that is, and misses nothing."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from s3cfs.backends.registry import open_backend
from s3cfs.backends.zdb.backend import ZdbBackend
from s3cfs.backends.zdb.members import Roll
from s3cfs.backends.zdb.replicas import Known
from s3cfs.backends.zdb.words import Trouble
from s3cfs.errors import NotFound, Temporary
from tests.zdb.server import FakeZdb, running


class Machines:
    def __init__(self, folder, fakes: list[FakeZdb]) -> None:
        self.path, self.fakes = folder / "zdb.toml", fakes
        lines = ["data = 2", "parity = 1"]
        for number, fake in enumerate(fakes):
            lines += ["[[servers]]", f'name = "z{number}"', f'address = "{fake.address}"']
        self.path.write_text("\n".join(lines))
        with closing(self.open()) as first:
            first.create()
            first.put("a/0", b"before")

    def open(self) -> ZdbBackend:
        backend = open_backend(f"zdb://{self.path}")
        assert isinstance(backend, ZdbBackend)
        return backend


@pytest.fixture
def machines(tmp_path) -> Iterator[Machines]:
    with running(6) as fakes:
        yield Machines(tmp_path, fakes)


def change(machine: ZdbBackend, keep: int = 1) -> Roll:
    """Other replicas, filled, of which `keep` are old ones."""
    cluster = machine.cluster
    old = cluster.roll.replicas
    new = (*old[:keep], *[number for number in cluster.servers if number not in old][:len(old) - keep])
    cluster.write_roll(coming=new)
    for name, value in [(name, value) for member in cluster.replicas() for key in ("a/0", "a/1")
                        for name, value in machine.replicas.said_of(member, key, range(1, 7)).values.items()]:
        for number in new:
            cluster.servers[number].call("SET", name, value)
    return cluster.write_roll(replicas=new, coming=())


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_who_goes_by_the_old_roll_reads_what_is_new(machines, keep):
    with closing(machines.open()) as late, closing(machines.open()) as lister, closing(machines.open()) as mover:
        assert late.get("a/0") == b"before" and [info.key for info in lister.list("")] == ["a/0"]
        roll = change(mover, keep)
        mover.put("a/0", b"after")
        mover.put("a/1", b"new")
        assert late.get("a/0") == b"after" and late.cluster.roll == roll
        assert {info.key: info.size for info in lister.list("")} == {"a/0": 5, "a/1": 3} and lister.cluster.roll == roll
        mover.delete("a/1")
        with pytest.raises(NotFound):
            late.get("a/1")


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_what_it_writes_is_on_the_new_ones(machines, keep):
    with closing(machines.open()) as late, closing(machines.open()) as mover:
        assert late.get("a/0") == b"before"
        roll = change(mover, keep)
        late.put("a/0", b"after")
        late.put("a/1", b"new")
        assert late.cluster.roll == roll
        gone = [mover.cluster.servers[number].server.port for number in mover.cluster.servers if number not in roll.replicas]
        for _ in range(5):
            with closing(machines.open()) as machine:
                assert machine.cluster.roll == roll and machine.get("a/0") == b"after" and machine.get("a/1") == b"new"
        assert len(gone) == 3


def test_a_change_in_the_middle_of_a_write(machines, monkeypatch):
    """Between its look at the versions and its record: the record is put once more, on those that are the replicas then."""
    with closing(machines.open()) as late, closing(machines.open()) as mover:
        read, rolls = late.replicas.read, list[Roll]()

        def read_and_change(key: str) -> Known | None:
            found: Known | None = read(key)
            if not rolls:
                rolls.append(change(mover, 0))
            return found

        monkeypatch.setattr(late.replicas, "read", read_and_change)
        late.put("a/1", b"in between")
        assert late.cluster.roll == rolls[0]
        with closing(machines.open()) as machine:
            assert machine.get("a/1") == b"in between"


def test_while_they_change_a_write_needs_both_majorities(machines):
    with closing(machines.open()) as machine:
        old = machine.cluster.roll.replicas
        new = tuple(number for number in machine.cluster.servers if number not in old)
        machine.cluster.write_roll(coming=new)
        machine.put("a/1", b"both")
        assert machine.cluster.roll.joining == new
        for replicas in (old, new):
            said = [machine.replicas.said_of(machine.cluster.servers[number], "a/1", range(1, 3)) for number in replicas]
            assert sum(one.record is not None for one in said) >= 2
        ports = [machine.cluster.servers[number].server.port for number in new[:2]]
        for fake in machines.fakes:
            if fake.port in ports:
                fake.kill()
        with pytest.raises(Temporary, match="replicas of the records answer"):
            machine.put("a/1", b"too few")


def test_a_roll_that_no_majority_takes_is_not_gone_by(machines):
    with closing(machines.open()) as machine:
        before = machine.cluster.roll
        by_port = {fake.port: fake for fake in machines.fakes}
        for number in before.replicas[:2]:
            by_port[machine.cluster.servers[number].server.port].refuse("Cannot write data right now", "SET", 10)
        with pytest.raises(Trouble, match="1 of 3 replicas took the new roll"):
            machine.cluster.write_roll(coming=before.replicas[::-1])
        assert machine.cluster.roll == before


def test_a_roll_without_its_seal_is_no_roll(machines):
    with closing(machines.open()) as machine:
        before = machine.cluster.roll
        for fake in machines.fakes:
            fake.flip("default", b"s3cfs:roll", 5)
        assert machine.get("a/0") == b"before" and machine.cluster.roll == before
