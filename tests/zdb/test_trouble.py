"""Servers that are slow, silent, full or gone: what a put and a get do then, and how long nobody waits."""
from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from s3cfs.backends.registry import open_backend
from s3cfs.backends.types import Degraded
from s3cfs.backends.zdb import health, writing
from s3cfs.backends.zdb.backend import ZdbBackend
from s3cfs.backends.zdb.record import Record, Where
from s3cfs.errors import NotFound, StoreFull, Temporary
from tests.zdb.server import FakeZdb, running

DATA, PARITY = 4, 2
LARGE = bytes(range(256)) * 400            # 100 KiB: cut in shards
SMALL = b"small"
NEVER_S = 15.0                             # nobody waits for a silent server that long: `tcp-timeout` is longer still


class Set:
    """A store on fakes."""

    def __init__(self, folder, count: int, fakes: list[FakeZdb], more: str = "") -> None:
        self.fakes, self.path = fakes, folder / "zdb.toml"
        lines = [f"data = {DATA}", f"parity = {PARITY}", more]
        for number, fake in enumerate(fakes):
            lines += ["[[servers]]" if number < count else "[[meta]]", f'name = "z{number}"', f'address = "{fake.address}"',
                      f'domain = "d{number}"']
        self.path.write_text("\n".join(lines))
        with closing(self.open()) as backend:
            backend.create()

    def open(self) -> ZdbBackend:
        backend = open_backend(f"zdb://{self.path}", {"tcp-timeout": "60"})
        assert isinstance(backend, ZdbBackend)
        return backend

    def shards(self) -> dict[FakeZdb, list[bytes]]:
        return {fake: [key for key in fake.keys("default") if key.startswith(b"d")] for fake in self.fakes}


@pytest.fixture
def six(tmp_path) -> Iterator[Set]:
    with running(6) as fakes:
        yield Set(tmp_path, 6, fakes)


@pytest.fixture
def eight(tmp_path) -> Iterator[Set]:
    with running(8) as fakes:
        yield Set(tmp_path, 8, fakes)


@pytest.fixture
def six_and_records(tmp_path) -> Iterator[Set]:
    """The records on four servers of their own."""
    with running(10) as fakes:
        yield Set(tmp_path, 6, fakes)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(health, "SILENT_S", 0.5)
    monkeypatch.setattr(writing, "SILENCE_S", 0.5)
    monkeypatch.setattr(writing, "TAIL_S", 0.5)


def within(seconds: float, call):
    """Its answer, which has to come before anybody could have given up on a server."""
    began = time.monotonic()
    answer = call()
    assert time.monotonic() - began < seconds
    return answer


def in_time(is_so) -> bool:
    """Whether it becomes so, of what nobody waits for."""
    until = time.monotonic() + 5
    while not is_so():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def test_each_server_has_one_shard_and_each_object_is_whole(six):
    with closing(six.open()) as backend:
        assert backend.put("a/large", LARGE) is None and backend.put("a/small", SMALL) is None
        assert sorted(len(keys) for keys in six.shards().values()) == [1, 1, 1, 2, 2, 2], "six shards, and three copies"
        assert backend.get("a/large") == LARGE and backend.get("a/small") == SMALL


@pytest.mark.parametrize("data", [LARGE, pytest.param(SMALL, marks=pytest.mark.soak)])
def test_a_silent_server_costs_no_read_its_patience(six, data):
    with closing(six.open()) as backend:
        backend.put("a/1", data)
        for fake in six.fakes[::2]:
            fake.silent = True
            assert within(NEVER_S, lambda: backend.get("a/1")) == data
            fake.silent = False


def test_a_silent_server_costs_one_write_a_short_wait_and_is_left_out_then(six):
    six.path.write_text(f"acknowledgements = 5\n{six.path.read_text()}")
    with closing(six.open()) as backend:
        assert backend.put("a/0", LARGE) is None
        six.fakes[2].silent = True
        answer = within(NEVER_S, lambda: backend.put("a/1", LARGE))
        assert answer == Degraded("1 of 6 shards are missing")
        assert backend.cluster.degraded.all() == {"a/1": "1 of 6 shards are missing"}
        assert within(NEVER_S, lambda: backend.get("a/1")) == LARGE
        member = next(member for member in backend.cluster if member.server.name == "z2")
        assert backend.cluster.member(member.id) is member
        assert in_time(lambda: not member.may_write), "its silence is longer than that of a busy one"
        answer = within(0.15 * NEVER_S, lambda: backend.put("a/2", LARGE))
        assert answer == Degraded("it is cut 3 + 2 and not 4 + 2, for want of servers")
        six.fakes[2].silent = False
        for fake in (six.fakes[0], six.fakes[5]):
            fake.kill()
        for key in ("a/0", "a/1", "a/2"):
            assert within(NEVER_S, lambda key=key: backend.get(key)) == LARGE


def test_a_spare_takes_what_another_does_not(eight):
    with closing(eight.open()) as backend:
        for fake in eight.fakes[:2]:
            fake.refuse("Cannot write data right now", "SET", 100)
        for number in range(5):
            assert backend.put(f"a/{number}", LARGE) is None, "there are six others"
            assert backend.get(f"a/{number}") == LARGE
        assert [len(keys) for keys in list(eight.shards().values())[:2]] == [0, 0]


def test_a_late_shard_goes_to_a_spare(eight):
    with closing(eight.open()) as backend:
        backend.check()
        for fake in eight.fakes[:2]:
            fake.silent = True
        for number in range(4):
            assert within(NEVER_S, lambda number=number: backend.put(f"a/{number}", LARGE)) is None
            assert within(NEVER_S, lambda number=number: backend.get(f"a/{number}")) == LARGE
        for fake in eight.fakes[:2]:
            fake.silent = False
        assert in_time(lambda: not any(member.node.links.silent_s for member in backend.cluster))
        assert in_time(lambda: sum(map(len, eight.shards().values())) == 4 * 6), "what came late after all is removed"


@pytest.mark.parametrize("words", ["Cannot write data right now", "No space left on this namespace"])
def test_full_servers(six_and_records, words):
    six = six_and_records
    with closing(six.open()) as backend:
        backend.put("a/0", LARGE)
        for fake in six.fakes[:3]:
            fake.refuse(words, "SET", 1000)
        answer = backend.put("a/1", LARGE)
        assert isinstance(answer, Degraded) and "cut 1 + 2" in answer.reason
        for fake in six.fakes[3:6]:
            fake.refuse(words, "SET", 1000)
        with pytest.raises(StoreFull, match="0 of 6 servers take new objects, and it takes 3 at least"):
            backend.put("a/2", LARGE)
        assert backend.get("a/0") == LARGE and backend.get("a/1") == LARGE, "full servers are read as ever"


def test_fewer_servers_make_narrower_codes_and_too_few_an_error(six_and_records):
    six = six_and_records
    with closing(six.open()) as backend:
        for left, code in ((5, "3 + 2"), (4, "2 + 2"), (3, "1 + 2")):
            six.fakes[left].kill()
            answer = backend.put(f"a/{left}", LARGE)
            assert isinstance(answer, Degraded) and f"cut {code}" in answer.reason
            assert backend.get(f"a/{left}") == LARGE
        assert backend.put("a/small", SMALL) is None, "three copies are three copies"
        six.fakes[2].kill()
        with pytest.raises(Temporary, match="2 of 6 servers take new objects, and it takes 3 at least"):
            backend.put("a/2", LARGE)
        for fake in six.fakes[2:6]:
            fake.start()
        answer = backend.put("a/2", LARGE)
        assert answer is None or "cut 3 + 2" in answer.reason, "they are asked again at once"
        assert backend.get("a/2") == LARGE


def test_records_of_four_are_read_while_two_are_down_and_written_while_one_is(six_and_records):
    records = six_and_records.fakes[6:]
    with closing(six_and_records.open()) as backend:
        for down in (0, 1):
            backend.put("a/0", b"%d" % down)
            assert {info.key for info in backend.list("")} == {"a/0"}
            records[down].kill()
            assert backend.get("a/0") == b"%d" % down
        with pytest.raises(Temporary, match="2 replicas of the records answer, and it takes 3"):
            backend.put("a/0", b"2")
        assert {info.key for info in backend.list("")} == {"a/0"}
        records[2].kill()
        with pytest.raises(Temporary, match="1 replicas of the records answer, and it takes 2"):
            backend.get("a/0")


@pytest.mark.soak
def test_an_acknowledgement_of_all_can_be_asked_for(tmp_path):
    with running(6) as fakes:
        made = Set(tmp_path, 6, fakes, "acknowledgements = 6")
        with closing(made.open()) as backend:
            backend.put("a/0", LARGE)
            fakes[1].silent = True
            answer = within(NEVER_S, lambda: backend.put("a/1", LARGE))
            assert isinstance(answer, Degraded) and "cut 3 + 2" in answer.reason, "put anew, without the one that is silent"


@pytest.mark.soak
def test_a_moment_in_which_nothing_moves_breaks_nothing(six):
    """All servers stand still for longer than one alone may: nobody is left out for that."""
    with closing(six.open()) as backend, ThreadPoolExecutor(1) as pool:
        backend.put("a/0", LARGE)
        for fake in six.fakes:
            fake.silent = True
        putting = pool.submit(backend.put, "a/1", LARGE)
        time.sleep(1.2)                                # twice as long as one alone may
        for fake in six.fakes:
            fake.silent = False
        assert putting.result() is None and backend.get("a/1") == LARGE


def test_a_busy_set_is_no_broken_one(six):
    """All are silent for longer than usual: then it is the work, and nobody is left out."""
    with closing(six.open()) as backend:
        backend.put("a/0", LARGE)
        members = backend.cluster.holders()
        for member in members:
            member.node.links._signs[0] = time.monotonic() - 10
        assert not any(member.may_write for member in members) and backend.cluster.writable() == members
        for member in members[1:]:
            del member.node.links._signs[0]
        assert backend.cluster.writable() == members[1:]


@pytest.mark.parametrize("look", ["list", "get"])
def test_what_no_quorum_took_is_there_or_not_but_does_not_come_and_go(six, look):
    """A record that one or two of five replicas have: the first to look decides, for all that come later."""
    def sees(backend: ZdbBackend) -> bool:
        if look == "list":
            return "b/1" in {info.key for info in backend.list("b/")}
        try:
            return backend.get("b/1") == SMALL
        except NotFound:
            return False

    with closing(six.open()) as backend:
        backend.put("a/0", LARGE)
        replicas = {member.server.address for member in backend.cluster.replicas()}
        holding = [fake for fake in six.fakes if fake.address in replicas]
        written = writing.write(backend.cluster, "b/1", SMALL, 1)
        record = Record("b/1", 1, False, len(SMALL), written.where)
        value = record.encode(backend.cluster.signer)
        holding[0].do(lambda: holding[0].default.put(record.name, value))
        holding[1].kill()                              # three of the four that are left are asked
    seen = []
    for _ in range(8):
        with closing(six.open()) as machine:
            seen.append(sees(machine))
    assert any(seen) and seen == sorted(seen), "not there, or there from then on"


def test_a_key_is_overwritten_many_times(six):
    with closing(six.open()) as backend, closing(six.open()) as other:
        for number in range(40):                       # more than a read asks for at first
            backend.put("a/0", b"%d" % number)
        assert other.get("a/0") == backend.get("a/0") == b"39"
        assert in_time(lambda: sum(map(len, six.shards().values())) == 3), "what was there before is removed"


def test_a_record_that_was_half_written_when_it_was_listed_is_listed_when_it_is_whole(six):
    """A listing that met it on one replica, when no read quorum had it, does not pass it over from then on."""
    with closing(six.open()) as backend, closing(six.open()) as other:
        backend.put("a/0", SMALL)
        by_address = {fake.address: fake for fake in six.fakes}
        first, second, third, *others = (by_address[member.server.address] for member in backend.cluster.replicas())
        written = writing.write(backend.cluster, "a/1", SMALL, 1)
        record = Record("a/1", 1, False, len(SMALL), written.where)
        value = record.encode(backend.cluster.signer)
        first.do(lambda: first.default.put(record.name, value))
        for fake in (second, third):                   # so that those that are scanned are known: the first one, and the others
            fake.kill()
        with pytest.MonkeyPatch.context() as patch:    # at the worst moment: no quorum has it
            patch.setattr(other.replicas, "read", lambda key: None)
            assert [info.key for info in other.list("")] == ["a/0"]
        assert sorted(info.key for info in other.list("")) == ["a/0", "a/1"]


def test_what_a_put_that_failed_left_behind_does_not_come_back_after_a_delete(six):
    with closing(six.open()) as backend:
        backend.put("a/0", LARGE)
        by_address = {fake.address: fake for fake in six.fakes}
        first, *others = (by_address[member.server.address] for member in backend.cluster.replicas())
        for fake in others:
            fake.refuse("Cannot write data right now", "SET", 1000)
        with pytest.raises((Temporary, StoreFull)):
            backend.replicas.write("a/1", len(SMALL), Where(bytes(16), 1, 2, (1, 2, 3)), 1)
        assert any(key.startswith(b"ma/1") for key in first.keys("default"))
        for fake in others:
            fake._refusals.clear()
        first.kill()
        backend.delete("a/1")
        first.start()
        for _ in range(8):
            with closing(six.open()) as machine:
                with pytest.raises(NotFound):
                    machine.get("a/1")
                assert [info.key for info in machine.list("")] == ["a/0"]


def test_shards_that_lie_elsewhere_are_found(six):
    """Where no record says: keys do not depend on the server."""
    with closing(six.open()) as backend:
        backend.put("a/0", LARGE)
        found = {fake: fake.keys("default") for fake in six.fakes}
        for fake, next_one in zip(six.fakes, [*six.fakes[1:], six.fakes[0]], strict=True):
            for key in (key for key in found[fake] if key.startswith(b"d")):
                value = fake.do(lambda fake=fake, key=key: fake.default.get(key)).value
                next_one.do(lambda fake=next_one, key=key, value=value: fake.default.put(key, value))
                fake.forget("default", key)
        assert backend.get("a/0") == LARGE


def test_servers_that_delete_nothing(six):
    """Write-once namespaces: every version has a key of its own, so all goes on, and only the room does not come back."""
    with closing(six.open()) as backend:
        backend.put("a/0", LARGE)
        for fake in six.fakes:
            fake.do(lambda fake=fake: setattr(fake.default, "worm", True))
        assert backend.put("a/0", SMALL) is None and backend.get("a/0") == SMALL
        backend.delete("a/0")
        asked = sum(fake.counted["NSINFO"] for fake in six.fakes)
        for number in range(20):
            assert backend.put("a/1", b"%d" % number) is None and backend.get("a/1") == b"%d" % number
        assert [info.key for info in backend.list("")] == ["a/1"]
        assert sum(fake.counted["NSINFO"] for fake in six.fakes) - asked <= 12, "nobody asks them again and again how they are"
        with pytest.raises(NotFound):
            backend.get("a/0")
