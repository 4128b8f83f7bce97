"""Whether the replicas of the records agree, and how they come to: filled, mended, and changed while somebody writes."""
from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from s3cfs.backends.zdb import agree, survey
from s3cfs.backends.zdb.cluster import Cluster
from s3cfs.backends.zdb.record import parse_name
from s3cfs.backends.zdb.survey import Finding
from s3cfs.errors import ExitCode, Temporary
from tests.zdb.caring import SMALL, Store
from tests.zdb.several import Servers


@pytest.fixture
def store(zdb_servers: Callable[[int], Servers], tmp_path: Path) -> Iterator[Store]:
    """1 + 2 on seven servers, five of them in the list: all of these are replicas."""
    made = Store(zdb_servers(7), tmp_path, data=1, parity=2, only=range(5))
    yield made
    made.close()


def records_on(store: Store, number: int) -> dict[str, bytes]:
    """By key of the object."""
    return {name.key: key for key in store.servers.keys(number) if (name := parse_name(key)) is not None}


def test_replicas_that_agree(store: Store):
    store.fill()
    found: list[Finding] = []
    done = store.survey(mend=False, found=found)
    assert (done.objects, done.exit_code, found) == (4, ExitCode.OK, [])
    assert agree.keys_of(store.backend.cluster) == dict.fromkeys(store.content, 1)


def test_a_replica_that_was_away_is_named_and_filled(store: Store):
    store.put("log/before", SMALL)
    store.servers.kill(4)
    store.put("log/missed", SMALL)
    store.backend.delete("log/before")
    del store.content["log/before"]
    found: list[Finding] = []
    done = store.survey(mend=False, found=found)
    assert done.exit_code is ExitCode.DAMAGED and done.replicas_away == 1
    assert [(one.key, one.what) for one in found if one.what == "records"] == [("z04", "records")]
    store.servers.start(4)
    found.clear()
    done = store.survey(mend=False, found=found)
    assert done.records == 2 and {(one.key, one.text) for one in found if one.what == "records"} == {
        (key, "not all on z04") for key in ("log/before", "log/missed")}
    store.survey(mend=True)
    assert "log/missed" in records_on(store, 4) and store.survey(mend=False).exit_code is ExitCode.OK


def test_a_record_that_is_rotten_is_named_and_mended(store: Store):
    store.fill(1)
    store.servers.flip(2, records_on(store, 2)["pack/large0"])
    found: list[Finding] = []
    assert store.survey(mend=False, found=found).records == 1 and found[0].text.endswith("damaged on z02")
    store.servers.flip(2, records_on(store, 2)["log/small0"])
    found.clear()
    done = store.survey(mend=True, found=found)
    assert not done.records and ("log/small0", True) in [(one.key, one.mended) for one in found]   # the other one a read may have mended
    assert store.survey(mend=False).exit_code is ExitCode.OK


def test_too_few_replicas_are_an_error_and_no_verdict(store: Store):
    store.fill(1)
    for number in range(3):
        store.servers.kill(number)
    with pytest.raises(Temporary, match="replicas of the records answer, and it takes 3"):
        agree.keys_of(store.backend.cluster)
    with pytest.raises(Temporary, match="2 replicas of the records answer"):
        agree.views(store.backend.cluster, {"pack/large0": 1})


def test_replicas_that_are_gone_are_replaced_and_the_new_ones_know_all(store: Store):
    store.fill()
    store.backend.delete("log/small1")
    del store.content["log/small1"]
    for number in (0, 1):
        store.servers.kill(number)
    store.write_list(range(2, 7))
    done = store.survey(mend=True)
    assert (done.replicas, done.exit_code) == (2, ExitCode.OK)
    roll = store.another().cluster.roll
    assert {store.number(server) for server in roll.replicas} == {2, 3, 4, 5, 6} and not roll.coming
    for number in (5, 6):
        assert records_on(store, number).keys() >= set(store.content)
    for number in (2, 3):                          # of the old ones one is left
        store.servers.kill(number)
    backend = store.another()
    assert store.reads_right(backend) and {info.key for info in backend.list("")} == set(store.content)


def test_new_replicas_get_every_version(store: Store):
    """Whoever looks for the highest goes up from the first, and believes a few gaps only."""
    for seed in range(12):
        store.put("super/1", SMALL, seed=seed)
        if seed % 4 == 3:
            store.backend.delete("super/1")
    store.put("super/1", SMALL, seed=99)
    for number in (0, 1):
        store.servers.kill(number)
    store.write_list(range(2, 7))
    assert store.survey(mend=True).replicas == 2
    slots = [{key for key in store.servers.keys(number) if parse_name(key) is not None} for number in range(2, 7)]
    assert len(slots[4]) > 12 and all(found == slots[0] for found in slots)
    for number in (2, 3):
        store.servers.kill(number)
    backend = store.another()
    assert store.reads_right(backend)
    backend.put("super/1", b"newer")
    assert store.another().get("super/1") == b"newer"


def test_a_change_that_was_interrupted_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch):
    store.fill()
    store.servers.kill(0)
    store.write_list(range(1, 7))
    with monkeypatch.context() as context:
        context.setattr(agree, "end_change", lambda cluster, epoch: 0)
        store.survey(mend=True)
    assert store.another().cluster.roll.coming
    store.put("log/between", SMALL)
    assert store.survey(mend=True).replicas == 1
    roll = store.another().cluster.roll
    assert len(roll.replicas) == 5 and not roll.coming and store.reads_right()


def test_who_cannot_be_filled_becomes_no_replica(store: Store, monkeypatch: pytest.MonkeyPatch):
    store.fill(1)
    store.servers.kill(0)
    store.write_list(range(1, 6))
    kept = agree.mend
    monkeypatch.setattr(agree, "mend", lambda cluster, one: {**kept(cluster, one), **dict.fromkeys(cluster.voters(), None)})
    assert store.survey(mend=True).replicas == 0
    assert store.another().cluster.roll.coming


def test_one_repair_at_a_time_changes_the_replicas(store: Store, monkeypatch: pytest.MonkeyPatch):
    store.fill(1)
    store.servers.kill(0)
    store.write_list(range(1, 7))
    other = agree.Lease(store.looker.cluster, threading.Event())
    assert other.take() and other.is_mine()
    done = store.survey(mend=True)
    assert done.replicas == 0 and not store.another().cluster.roll.coming and store.another().cluster.roll.epoch == 1
    assert not agree.Lease(store.another().cluster, threading.Event()).take() and other.is_mine()
    with monkeypatch.context() as context:
        context.setattr(agree, "LEASE_S", -1)      # its holder has died
        assert store.survey(mend=True).replicas == 1 and not other.is_mine()
    lease = agree.Lease(store.another().cluster, threading.Event())
    assert lease.take()                            # it was given back
    lease.give_back()
    other.give_back()                              # what is not his stays, and is no error


def test_of_those_who_want_the_lease_at_once_one_has_it_at_most(store: Store):
    leases = [agree.Lease(store.another().cluster, threading.Event()) for _ in range(4)]
    threads = [threading.Thread(target=lease.renew) for lease in leases]       # they looked at the same moment, and nobody had it
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(lease.is_mine() for lease in leases) <= 1


def test_replicas_are_not_changed_when_the_roll_was_meanwhile(store: Store, monkeypatch: pytest.MonkeyPatch):
    """Somebody else's change: what was filled in was for another one."""
    store.fill(1)
    store.servers.kill(0)
    store.write_list(range(1, 7))
    end = agree.end_change

    def late(cluster: Cluster, epoch: int) -> int:
        store.another().cluster.write_roll(coming=cluster.roll.coming)
        return end(cluster, epoch)

    with monkeypatch.context() as context:
        context.setattr(agree, "end_change", late)
        assert store.survey(mend=True).replicas == 0
    assert store.another().cluster.roll.coming and store.reads_right()
    assert store.survey(mend=True).replicas == 1


def test_what_an_interrupted_run_could_not_fill_in_is_not_forgotten(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store.fill()
    store.servers.kill(0)
    store.write_list(range(1, 6))
    monkeypatch.setattr(survey, "BATCH", 1)
    notes = survey.Notes(str(tmp_path / "notes"))

    def run() -> survey.Tally:
        backend = store.another()
        backend.check()
        return survey.Survey(backend.replicas, mend=True, deep=False, hands=1, notes=notes).run()

    seen: list[str] = []
    note = survey.Survey._note

    def without_the_new_one(self: survey.Survey, key: str, *rest: object) -> None:
        seen.append(key)
        if len(seen) == 1:
            store.servers.kill(5)                  # the second key cannot be put there
        if len(seen) == 3:
            store.servers.start(5)
            raise KeyboardInterrupt
        note(self, key, *rest)                     # type: ignore[arg-type]

    with monkeypatch.context() as context:
        context.setattr(survey.Survey, "_note", without_the_new_one)
        with pytest.raises(KeyboardInterrupt):
            run()
    done = run()
    assert done.before == 2 and done.unfilled and not done.replicas and store.another().cluster.roll.coming
    done = run()
    assert done.before == 0 and done.replicas == 1 and records_on(store, 5).keys() >= set(store.content)


def test_there_are_never_fewer_replicas_than_there_were(store: Store):
    store.fill(1)
    store.servers.kill(0)
    assert store.survey(mend=True).replicas == 0
    assert len(store.another().cluster.roll.replicas) == 5
    store.servers.start(0)
    assert store.survey(mend=True).exit_code is ExitCode.OK
