"""Space is got back, nothing is lost on the way, whoever writes meanwhile and wherever it ends."""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from s3cfs.backends.zdb import commands, generations, reclaim
from s3cfs.backends.zdb.link import Links
from s3cfs.backends.zdb.members import IDENTITY
from s3cfs.backends.zdb.reclaim import MARK, Unwilling
from s3cfs.backends.zdb.setup import Server
from s3cfs.backends.zdb.shard import Code, Head, encode_values
from s3cfs.backends.zdb.status import ask
from s3cfs.backends.zdb.words import Condition, Trouble
from tests.zdb.caring import LARGE, Store
from tests.zdb.server import FakeZdb, running
from tests.zdb.several import ADMIN, NAMESPACE, PASSWORD

FILE = 1 << 20


@pytest.fixture
def server(zdb_servers) -> Server:
    """An empty one of a store. A real one under `make zdb-real`."""
    found: Server = zdb_servers(1).server(0)
    begin(found)
    return found


@pytest.fixture
def fake() -> Iterator[FakeZdb]:
    with running(1, admin=ADMIN) as servers:
        servers[0].make(NAMESPACE, password=PASSWORD, public=False)
        begin(server_of(servers[0]))
        yield servers[0]


def server_of(fake: FakeZdb, namespace: str = NAMESPACE, admin: str = ADMIN) -> Server:
    return Server("z", "127.0.0.1", fake.port, namespace, PASSWORD, admin_password=admin)


def begin(server: Server) -> None:
    with contextlib.closing(Links(server)) as links:
        commands.put(links, IDENTITY, b"z of this store")


def fill(server: Server, count: int = 30, of: int = 3) -> dict[bytes, bytes]:
    """Keys of which only one of `of` is alive, and what these are."""
    alive = {}
    with contextlib.closing(Links(server)) as links:
        for number in range(count):
            key, value = b"k%d" % number, b"%d" % number * (number % 7) * 9000
            commands.put(links, key, b"before")
            commands.put(links, key, value)
            if number % of:
                commands.delete(links, key)
            else:
                alive[key] = value
    return alive


def all_of(server: Server) -> dict[bytes, bytes]:
    with contextlib.closing(Links(server)) as links:
        keys: list[bytes] = []
        cursor = None
        while (page := commands.scan(links, cursor)) is not None:
            keys, cursor = keys + [entry.key for entry in page.entries], page.cursor
        return {key: value for key, value in zip(keys, commands.get_many(links, keys), strict=True)
                if value is not None and key not in (IDENTITY, MARK)}


def namespaces(server: Server) -> list[str]:
    with contextlib.closing(Links(server)) as links:
        return [name for name in commands.namespaces(links) if name != "default"]


def run(server: Server, report: reclaim.Report = lambda *said: None,
        sleep: Callable[[float], None] = lambda seconds: None) -> reclaim.Reclaimed:
    return reclaim.reclaim(server, report, data_file_bytes=FILE, sleep=sleep)


# ---------------------------------------------------------------- which generation

def test_names_of_generations():
    assert generations.name_of("ns", 0) == "ns" and generations.name_of("ns", 3) == "ns-g3"
    names = ["default", "ns", "ns-g3", "ns-g12", "ns-g0", "ns-g03", "ns-gx", "nsx", "ns-g", "other-g4", "ns-g1-g2"]
    assert generations.numbers(names, "ns") == [0, 3, 12]
    assert generations.numbers(names, "ns-g1") == [0 + 2] and generations.numbers(names, "n.") == []


def test_a_client_finds_the_one_in_force_when_it_connects(server: Server):
    admin, early = Links(server, as_admin=True), Links(server)
    commands.put(early, b"k", b"old")
    for name in (f"{NAMESPACE}-g2", f"{NAMESPACE}-g5"):
        assert commands.make_namespace(admin, name)
    with contextlib.closing(Links(server)) as late:
        assert commands.get(late, b"k") == b"old" and late.namespace == NAMESPACE          # none of them has an identity
    with contextlib.closing(Links(server, namespace=f"{NAMESPACE}-g2")) as new:
        commands.put(new, IDENTITY, b"z of this store")
        commands.put(new, b"k", b"new")
    with contextlib.closing(Links(server)) as late:
        assert commands.get(late, b"k") == b"new" and late.namespace == f"{NAMESPACE}-g2"
    assert commands.get(early, b"k") == b"old"                     # it is still connected to it
    commands.set_namespace(admin, NAMESPACE, "freeze", "1")
    with pytest.raises(Trouble) as caught:
        commands.get(early, b"k")
    assert caught.value.condition is Condition.FROZEN
    assert commands.get(early, b"k") == b"new" and early.namespace == f"{NAMESPACE}-g2"
    again = Links(server, namespace=NAMESPACE)
    commands.namespaces(again)
    assert commands.remove_namespace(admin, NAMESPACE)
    with pytest.raises(Trouble) as caught:
        commands.get(again, b"k")
    assert caught.value.condition is Condition.NO_NAMESPACE        # it was to be that one
    assert commands.own_info(early)["name"] == f"{NAMESPACE}-g2"
    fresh = Links(server)
    assert commands.own_info(fresh)["name"] == f"{NAMESPACE}-g2"
    for links in (admin, early, again, fresh):
        links.close()


def test_the_highest_with_an_identity_counts():
    selected: list[str] = []
    names = ["ns-g7", "ns-g2", "ns", "ns-g5"]
    assert generations.enter("ns", lambda: names, selected.append, lambda: selected[-1] != "ns-g7") == "ns-g5"
    assert selected == ["ns-g7", "ns-g5"]


def test_it_asks_again_when_the_answers_change_in_between():
    there = [["ns", "ns-g1"], ["ns-g2"]]
    selected: list[str] = []

    def select(name: str) -> None:
        selected.append(name)
        if name == "ns-g1":
            raise Trouble(Condition.NO_NAMESPACE, "Namespace not found")

    assert generations.enter("ns", lambda: there.pop(0), select, lambda: True) == "ns-g2"
    assert selected == ["ns-g1", "ns-g2"]
    with pytest.raises(Trouble):
        generations.enter("ns", lambda: ["ns", "ns-g1"], select, lambda: True)


# ---------------------------------------------------------------- moving

def test_what_is_alive_moves_and_the_space_comes_back(server: Server):
    with contextlib.closing(Links(server, as_admin=True)) as admin:
        commands.set_namespace(admin, NAMESPACE, "maxsize", "100000000")
        alive = fill(server)
        before = reclaim.space(server, FILE)
        done = run(server)
        assert done.rotten == ()
        assert all_of(server) == alive and namespaces(server) == [f"{NAMESPACE}-g1"]
        assert done.after.live == before.live == done.before.live and done.after.garbage < 0.05 < 0.5 < before.garbage
        info = commands.namespace_info(admin, f"{NAMESPACE}-g1")
    assert (info["password"], info["public"], info["mode"], info["data_limits_bytes"]) == ("yes", "no", "userkey", "100000000")
    with contextlib.closing(Links(Server("z", server.host, server.port, NAMESPACE))) as stranger, pytest.raises(Trouble):
        commands.get(stranger, b"k0")
    assert run(server).after.namespace == f"{NAMESPACE}-g2" and all_of(server) == alive


def test_what_changes_meanwhile_is_not_lost_and_does_not_come_back(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reclaim, "TOGETHER_BYTES", 1)              # a report after each key
    monkeypatch.setattr(reclaim, "LITTLE", -1)                     # lock only after all has been seen
    alive = fill(server, 60)
    links, steps = Links(server), iter(range(25))

    def change(what: str, done: int, of: int) -> None:
        if (step := next(steps, None)) is None:
            return
        for key, value in {b"new%d" % step: b"n", b"k0": b"%d" % step, b"new%d" % (step - 3): b"again"}.items():
            commands.put(links, key, value)
            alive[key] = value
        for key in (b"new%d" % (step - 2), b"k%d" % (57 - 3 * step)):
            commands.delete(links, key)
            alive.pop(key, None)

    run(server, change)
    assert all_of(server) == alive and len(alive) > 25 and next(steps, None) is None
    links.close()


def test_a_lock_keeps_writers_out_while_the_rest_is_copied(server: Server, monkeypatch: pytest.MonkeyPatch):
    alive = fill(server)
    links = Links(server)
    commands.exists(links, b"k0")
    seen = []
    original = reclaim._Move._strike

    def strike(move: reclaim._Move) -> None:
        for work in (lambda: commands.put(links, b"x", b"x"), lambda: commands.delete(links, b"k0")):
            with pytest.raises(Trouble) as caught:
                work()
            seen.append(caught.value.condition)
        assert commands.get(links, b"k3") == alive[b"k3"]
        original(move)

    def last_moment(caller: Links, key: bytes, value: bytes) -> None:
        if key == IDENTITY:
            with pytest.raises(Trouble) as caught:
                commands.get(links, b"k3")
            seen.append(caught.value.condition)
        put(caller, key, value)

    def meanwhile(move: reclaim._Move) -> bytes | None:
        cursor = followed(move)
        put(links, b"meanwhile", b"x")
        alive[b"meanwhile"] = b"x"
        return cursor

    put, followed = commands.put, reclaim._Move._followed
    with monkeypatch.context() as patch:
        patch.setattr(reclaim._Move, "_strike", strike)
        patch.setattr(reclaim._Move, "_followed", meanwhile)
        patch.setattr(commands, "put", last_moment)
        run(server)
    assert seen == [Condition.READ_ONLY] * 2 + [Condition.FROZEN]
    commands.put(links, b"x", b"x")                               # the same links, without a hitch
    assert all_of(server) == {**alive, b"x": b"x"}
    links.close()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("first", [0, pytest.param(1, marks=pytest.mark.soak)])
def test_wherever_it_is_killed_nothing_is_lost_and_the_next_run_ends_it(server: Server, monkeypatch: pytest.MonkeyPatch, first: int):
    monkeypatch.setattr(reclaim, "MARK_EVERY_S", 1e9)
    alive = fill(server, 4, of=2)
    original = Links.call
    for last in range(first, 10_000, 2):
        calls = iter(range(last))

        def call(links: Links, *arguments, calls=calls, **options):
            if next(calls, None) is None:
                raise Killed
            return original(links, *arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Links, "call", call)
            try:
                run(server)
            except Killed:
                ended = False
            else:
                ended = True
        if ended:
            break
        with contextlib.suppress(Trouble):                         # frozen: it may have to wait for the next run
            assert all_of(server) == alive
        run(server)
        assert all_of(server) == alive and len(namespaces(server)) == 1
        with contextlib.closing(Links(server)) as links:
            commands.put(links, b"k1", b"%d" % last)
            alive[b"k1"] = b"%d" % last
    assert 30 < last < 200


def test_a_restart_that_takes_the_lock_away_is_noticed(fake: FakeZdb, monkeypatch: pytest.MonkeyPatch):
    server = server_of(fake)
    alive, strike, put = fill(server), reclaim._Move._strike, commands.put
    for moment in ("before the freeze", "after it", "unlocked"):
        alive[b"late"] = moment.encode()

        def restarted() -> None:
            if alive[b"late"] == b"unlocked":
                with contextlib.closing(Links(server, as_admin=True)) as admin:
                    commands.set_namespace(admin, NAMESPACE, "lock", "0")
            else:
                fake.kill()
                fake.start()
            with contextlib.closing(Links(server)) as links:
                put(links, b"late", alive[b"late"])

        def striking(move: reclaim._Move) -> None:
            strike(move)
            if alive[b"late"] != b"after it":
                restarted()

        def putting(links: Links, key: bytes, value: bytes) -> None:
            if key == IDENTITY and alive[b"late"] == b"after it":
                restarted()
            put(links, key, value)

        with monkeypatch.context() as patch:
            patch.setattr(reclaim._Move, "_strike", striking)
            patch.setattr(commands, "put", putting)
            with pytest.raises((Unwilling, Trouble), match="restarted"):
                run(server)
        assert namespaces(server) == [NAMESPACE] and all_of(server) == alive
    run(server)
    assert all_of(server) == alive


def test_two_at_once(fake: FakeZdb, monkeypatch: pytest.MonkeyPatch):
    server = server_of(fake)
    alive = fill(server)
    monkeypatch.setattr(reclaim, "MARK_EVERY_S", 0.0)
    original, slept = reclaim._Move._strike, []

    def second_while_the_first_lives(move: reclaim._Move) -> None:
        def sleep(seconds: float) -> None:
            slept.append(seconds)
            move._beat()
        with pytest.raises(Unwilling, match="somebody else"):
            run(server, sleep=sleep)
        original(move)

    with monkeypatch.context() as patch:
        patch.setattr(reclaim._Move, "_strike", second_while_the_first_lives)
        run(server)
    assert slept == [reclaim.STILL_S] and namespaces(server) == [f"{NAMESPACE}-g1"] and all_of(server) == alive

    def second_while_the_first_sleeps(move: reclaim._Move) -> None:
        monkeypatch.setattr(reclaim._Move, "_strike", original)
        run(server)
        assert all_of(server) == alive
        with contextlib.closing(Links(server)) as links:
            commands.put(links, b"after", b"it")
        original(move)

    monkeypatch.setattr(reclaim._Move, "_strike", second_while_the_first_sleeps)
    with pytest.raises(Trouble):
        run(server)
    assert namespaces(server) == [f"{NAMESPACE}-g3"] and all_of(server) == {**alive, b"after": b"it"}


def test_rot_is_not_given_a_new_checksum(fake: FakeZdb):
    server, alive = server_of(fake), {}
    with contextlib.closing(Links(server)) as links:
        for number in range(6):
            (name, value), = encode_values(Head(bytes([number] * 16), Code(1, 0), 100, 1, "pack/1"), b"x" * 100)
            commands.put(links, name, value)
            alive[name] = b"".join(value)
        foreign = Head(b"f" * 16, Code(1, 0), 100, 1, "pack/1").name
        commands.put(links, foreign, b"of a later version")       # the server says that it is what was written
        alive[foreign] = b"of a later version"
    rotten, unreadable, *_ = alive
    fake.flip(NAMESPACE, rotten)
    fake.cut(NAMESPACE, unreadable)
    assert run(server).rotten == (rotten, unreadable)
    assert all_of(server) == {key: value for key, value in alive.items() if key not in (rotten, unreadable)}


def test_where_it_cannot_be_done_one_line_says_why(fake: FakeZdb):
    fill(server_of(fake))
    for wrong, why in ((server_of(fake, "default"), "default cannot be removed"),
                       (server_of(fake, admin=""), "has no admin-password for it"),
                       (server_of(fake, admin="no"), "admin-password in the list is wrong")):
        with pytest.raises(Unwilling, match=why) as caught:
            run(wrong)
        assert "\n" not in str(caught.value)
    with pytest.raises(Unwilling, match="its disk has"):
        reclaim.reclaim(server_of(fake), lambda *said: None, data_file_bytes=1 << 50)
    fake.make("empty", password=PASSWORD)
    with pytest.raises(Unwilling, match="no server of a store"):
        run(server_of(fake, "empty"))
    with contextlib.closing(Links(server_of(fake), as_admin=True)) as admin:
        commands.set_namespace(admin, NAMESPACE, "worm", "1")
    with pytest.raises(Unwilling, match="write once"):
        run(server_of(fake))
    assert namespaces(server_of(fake)) == [NAMESPACE, "empty"]


def test_a_store_goes_on_while_its_servers_move(zdb_servers, tmp_path: Path):
    servers = zdb_servers(6)
    store = Store(servers, tmp_path)
    store.fill()
    running, listed = store.another(), [info.key for info in store.backend.list("")]
    assert sorted(info.key for info in running.list("")) == sorted(listed) and store.reads_right(running)
    for number in range(6):
        run(servers.server(number))
        assert store.reads_right(running)
    store.put("pack/after", LARGE)
    assert {info.key for info in running.list("")} == store.content.keys() == {info.key for info in store.another().list("")}
    assert store.reads_right(running) and store.reads_right()
    store.backend.delete("log/small0")
    assert "log/small0" not in {info.key for info in running.list("")}
    ask(running.cluster, list(running.cluster))
    assert {member.node.health.status.condition for member in running.cluster} == {Condition.OK}
    assert {member.namespace for member in running.cluster} == {f"{NAMESPACE}-g1"}
    store.close()
