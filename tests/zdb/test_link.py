"""Connections to one server: what breaks, what is silent, what is refused. Against the fake, whose switches make it happen."""
from __future__ import annotations

import socket
import threading
import time

import pytest

from s3cfs.backends.progress import losses_told_to, told_to
from s3cfs.backends.zdb import commands, link
from s3cfs.backends.zdb.link import Links
from s3cfs.backends.zdb.setup import Server
from s3cfs.backends.zdb.words import Condition, Trouble
from tests.zdb.server import running

LONG_S = 20.0
SHORT_S = 0.05


@pytest.fixture
def links_to():
    """`links_to(zdb)`: closed at the end."""
    made: list[Links] = []

    def links_to(zdb, timeout_s: float = LONG_S, *, namespace: str = "default", password: str = "", admin: str = "", **options) -> Links:
        made.append(Links(Server("shelf 3", "127.0.0.1", zdb.port, namespace, password, admin_password=admin), timeout_s, **options))
        return made[-1]

    yield links_to
    for links in made:
        links.close()


def trouble_of(call) -> Trouble:
    with pytest.raises(Trouble) as caught:
        call()
    assert str(caught.value).startswith("shelf 3")
    return caught.value


@pytest.fixture
def links(fake_zdb, links_to):
    return links_to(fake_zdb)


def test_values_come_back_whatever_their_size(links):
    for size in (0, 1, 70_000, 8 << 20):
        value = bytes(range(256)) * (size // 256) + bytes(size % 256)
        commands.put(links, b"key", value)
        assert commands.get(links, b"key") == value
        commands.put(links, b"pieces", (b"head", memoryview(value)[4:]))
        assert commands.get(links, b"pieces") == b"head" + value[4:]
    assert commands.get(links, b"none") is None


def test_an_answer_in_small_pieces_is_the_same(fake_zdb, links):
    commands.put(links, b"key", b"v" * 3000)
    fake_zdb.dribble = 7
    assert commands.get(links, b"key") == b"v" * 3000
    assert commands.get_many(links, [b"none", b"key"]) == [None, b"v" * 3000]


def test_a_server_that_was_restarted_is_asked_again_and_nobody_notices(fake_zdb, links):
    commands.put(links, b"key", b"value")
    lost: list[bool] = []
    with losses_told_to(lambda: lost.append(True)):
        fake_zdb.kill()
        fake_zdb.start()
        assert commands.get(links, b"key") == b"value"
    assert not lost, "the end of an idle connection is seen before it is used"


def test_a_connection_that_breaks_under_a_call_is_replaced_once(fake_zdb, links):
    commands.put(links, b"key", b"v" * 100_000)
    lost: list[bool] = []
    fake_zdb.tear_after = 50_000
    with losses_told_to(lambda: lost.append(True)):
        assert commands.get(links, b"key") == b"v" * 100_000
    assert lost == [True]
    assert fake_zdb.counted["GET"] == 2


def test_one_that_is_away_is_unreachable(fake_zdb, links):
    fake_zdb.kill()
    trouble = trouble_of(lambda: commands.get(links, b"key"))
    assert trouble.condition is Condition.UNREACHABLE and "refused" in trouble.words


def test_a_name_that_leads_nowhere_is_unreachable():
    links = Links(Server("shelf 3", "no-such-host.invalid", 9900, "ns"))
    assert trouble_of(lambda: links.call("PING")).condition is Condition.UNREACHABLE


def test_a_silent_one_is_given_up_without_a_repeat(fake_zdb, links_to):
    links = links_to(fake_zdb, SHORT_S)
    links.call("PING")
    fake_zdb.silent = True
    assert trouble_of(lambda: links.call("PING")).condition is Condition.TIMED_OUT
    assert trouble_of(lambda: links.call("PING")).condition is Condition.TIMED_OUT, "one that is silent to the greeting, too"
    fake_zdb.silent = False
    links.timeout_s = LONG_S
    assert links.call("PING") == b"PONG"


def test_those_that_wait_for_a_connection_are_given_up_with_the_one_that_has_it(fake_zdb, links_to):
    """Else each of them would wait for the same silence, one after the other."""
    attempts: list[float] = []
    all_wait = threading.Event()

    def connect(address: tuple[str, int], timeout_s: float) -> socket.socket:
        attempts.append(timeout_s)
        assert all_wait.wait(LONG_S)
        raise TimeoutError

    links = links_to(fake_zdb, connections=1, connect=connect)
    met: list[Condition] = []

    def call() -> None:
        met.append(trouble_of(lambda: links.call("PING")).condition)

    threads = [threading.Thread(target=call) for _ in range(20)]
    for thread in threads:
        thread.start()
    while len(links._room._waiters) < 19:      # they say so nowhere else
        time.sleep(0.001)
    assert links.silent_s > 0
    all_wait.set()
    for thread in threads:
        thread.join(LONG_S)
    assert sorted(met, key=str) == [Condition.TIMED_OUT] * 19 + [Condition.UNREACHABLE]
    assert attempts == [link.CONNECT_S] and not links.silent_s


def test_a_call_that_is_given_up_takes_those_that_wait_with_it(fake_zdb, links_to):
    links = links_to(fake_zdb, SHORT_S)
    fake_zdb.silent = True
    trouble_of(lambda: links.call("PING"))
    assert links._gave_up_at > 0


def test_many_at_once_take_no_more_connections_than_allowed(fake_zdb, links_to):
    links = links_to(fake_zdb, connections=3)
    most: list[int] = []
    fake_zdb.delay_s = 0.001

    def call() -> None:
        for number in range(10):
            commands.put(links, b"%d" % number, b"v")
            most.append(len(fake_zdb._connections))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
    assert len(most) == 80 and max(most) == 3


def test_bytes_that_go_or_come_are_movement(links):
    moves: list[int] = []
    with told_to(lambda: moves.append(1)):
        commands.put(links, b"key", bytes(8 << 20))
        sent = len(moves)
        commands.get(links, b"key")
    assert sent > 2 and len(moves) - sent >= 8


def test_who_we_are_is_proved_without_the_password_on_the_wire(fake_zdb, links_to):
    fake_zdb.make("mine", password="secret-password", public=False)
    sent = bytearray()

    class Overheard(socket.socket):
        def send(self, data, *flags) -> int:
            sent.extend(data)
            return super().send(data, *flags)

    def connect(address: tuple[str, int], timeout_s: float) -> socket.socket:
        made = Overheard()
        made.settimeout(timeout_s)
        made.connect(address)
        return made

    links = links_to(fake_zdb, namespace="mine", password="secret-password", connect=connect)
    commands.put(links, b"key", b"value")
    assert b"SECURE" in sent and b"secret" not in sent
    assert "secret" not in repr(links.server)
    fake_zdb.kill()
    fake_zdb.start()
    assert commands.get(links, b"key") == b"value", "and again after each reconnect"


@pytest.mark.parametrize("password, condition", [("wrong", Condition.WRONG_PASSWORD), ("", Condition.WRONG_PASSWORD)])
def test_a_wrong_password_is_said_to_be_one(fake_zdb, password, condition, links_to):
    fake_zdb.make("mine", password="secret-password", public=False)
    links = links_to(fake_zdb, namespace="mine", password=password)
    trouble = trouble_of(lambda: commands.get(links, b"key"))
    assert trouble.condition is condition and "secret" not in str(trouble)


def test_a_namespace_that_is_not_there_or_is_read_only_to_us(fake_zdb, links_to):
    assert trouble_of(lambda: links_to(fake_zdb, namespace="none").call("PING")).condition is Condition.NO_NAMESPACE
    fake_zdb.make("public", password="secret-password")
    links = links_to(fake_zdb, namespace="public")
    assert commands.get(links, b"key") is None
    assert trouble_of(lambda: commands.put(links, b"key", b"value")).condition is Condition.READ_ONLY


def test_a_namespace_that_is_removed_and_made_anew_under_a_connection(fake_zdb, links_to):
    fake_zdb.make("mine")
    links, admin = links_to(fake_zdb, namespace="mine"), links_to(fake_zdb, as_admin=True)
    commands.put(links, b"key", b"value")
    assert commands.remove_namespace(admin, "mine") and not commands.remove_namespace(admin, "mine")
    assert commands.make_namespace(admin, "mine") and not commands.make_namespace(admin, "mine")
    assert commands.get(links, b"key") is None
    assert commands.remove_namespace(admin, "mine")
    assert trouble_of(lambda: commands.get(links, b"key")).condition is Condition.NO_NAMESPACE


def test_an_administrator_is_one_with_the_password_only(links_to):
    with running(1, admin="root-password") as (zdb,):
        for password, may in (("root-password", True), ("wrong", False)):
            links = links_to(zdb, admin=password, as_admin=True)
            if may:
                assert commands.make_namespace(links, "ns")
                commands.set_namespace(links, "ns", "maxsize", "1000000")
                assert commands.namespace_info(links, "ns")["data_limits_bytes"] == "1000000"
                assert commands.namespaces(links) == ["default", "ns"]
            else:
                assert trouble_of(lambda links=links: commands.make_namespace(links, "ns")).condition is Condition.WRONG_PASSWORD


def test_each_new_connection_is_greeted(fake_zdb, links_to):
    greeted: list[bytes | None] = []

    def greet(caller: link.Caller) -> None:
        greeted.append(commands.get(caller, b"who"))
        if greeted[-1] != b"me":
            raise Trouble(Condition.STRANGER, "not the one it should be", str(caller.server))

    links = links_to(fake_zdb, greet=greet)
    assert trouble_of(lambda: links.call("PING")).condition is Condition.STRANGER
    assert not links._idle, "it is closed"
    commands.put(links_to(fake_zdb), b"who", b"me")
    assert links.call("PING") == links.call("PING") == b"PONG"
    assert greeted == [None, b"me"]


def test_a_sequential_namespace_is_found_out(fake_zdb, links_to):
    fake_zdb.make("numbers", sequential=True)
    links = links_to(fake_zdb, namespace="numbers")
    assert trouble_of(lambda: commands.put(links, b"key", b"value")).condition is Condition.WRONG_MODE


@pytest.mark.parametrize("answer, said", [
    (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP"), (b"+OK\r\n+OK\r\n", "more than one"), (b"$3\r\nabcde", "does not end")])
def test_what_is_no_zdb_is_strange(links_to, answer, said):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve() -> None:
            with listener.accept()[0] as peer:
                peer.recv(1000)
                peer.sendall(answer)
        thread = threading.Thread(target=serve)
        thread.start()
        links = Links(Server("shelf 3", "127.0.0.1", listener.getsockname()[1], "ns"), LONG_S)
        trouble = trouble_of(lambda: links.call("PING"))
        thread.join()
    assert trouble.condition is Condition.STRANGE and said in trouble.words


def test_closing_ends_the_calls_that_wait(fake_zdb, links_to):
    links = links_to(fake_zdb)
    fake_zdb.silent = True
    met: list[Trouble] = []
    thread = threading.Thread(target=lambda: met.append(trouble_of(lambda: links.call("PING"))))
    thread.start()
    while not links._busy:
        time.sleep(0.001)
    links.close()
    thread.join(LONG_S)
    assert met[0].condition is Condition.UNREACHABLE
    assert trouble_of(lambda: links.call("PING")).words == "closed"


def test_the_commands(fake_zdb, links):
    for number in range(2000):
        commands.put(links, b"k%d" % number, b"v" * (number % 7))
    assert commands.count(links) == 2000
    assert commands.delete(links, b"k5") and not commands.delete(links, b"k5")
    assert commands.exists(links, b"k6") and not commands.exists(links, b"k5")
    assert commands.length(links, b"k6") == 6 and commands.length(links, b"k5") is None
    assert commands.check(links, b"k6") is True and commands.check(links, b"k5") is None
    fake_zdb.flip("default", b"k6")
    assert commands.check(links, b"k6") is False and commands.get(links, b"k6") == b"vvvvvw"
    fake_zdb.cut("default", b"k6")
    assert commands.check(links, b"k6") is False
    assert trouble_of(lambda: commands.get(links, b"k6")).condition is Condition.DAMAGED
    assert trouble_of(lambda: commands.get_many(links, [b"k1", b"k6"])).condition is Condition.DAMAGED
    assert commands.get_many(links, [b"k%d" % number for number in range(7, 2000)]) == [b"v" * (number % 7) for number in range(7, 2000)]


def test_a_scan_goes_on_where_it_was_and_finds_what_changed_since(links):
    for number in range(1200):
        commands.put(links, b"k%d" % number, b"v")
    seen, cursor = [], None
    while (page := commands.scan(links, cursor)) is not None:
        seen += [entry.key for entry in page.entries]
        cursor = page.cursor
    assert seen == [b"k%d" % number for number in range(1200)]
    commands.delete(links, b"k1199")       # the cursor's own key
    commands.put(links, b"k3", b"other")
    page = commands.scan(links, cursor)
    assert page is not None and [(entry.key, entry.size) for entry in page.entries] == [(b"k3", 5)]
    assert commands.scan(links, page.cursor) is None


def test_an_end_of_a_scan_is_believed_the_second_time(fake_zdb, links):
    """A server whose turn comes late says "No more data" in the middle."""
    for number in range(3):
        commands.put(links, b"k%d" % number, b"v")
    fake_zdb.page_keys = 2
    page = commands.scan(links)
    assert page is not None
    fake_zdb.refuse("No more data", "SCAN")
    page = commands.scan(links, page.cursor)
    assert page is not None and [entry.key for entry in page.entries] == [b"k2"]
    assert commands.scan(links, page.cursor) is None
    fake_zdb.refuse("No more data", "SCAN")
    assert commands.scan(links) is None, "an empty one has no such moment"
