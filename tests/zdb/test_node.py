"""A server as it is used: each way in which it can be unwell, made to happen, is recognised by what it says, and known to its health."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from s3cfs.backends.zdb import commands, health
from s3cfs.backends.zdb.fanout import Fanout, Round
from s3cfs.backends.zdb.health import Latencies, Node
from s3cfs.backends.zdb.link import Links
from s3cfs.backends.zdb.setup import Server
from s3cfs.backends.zdb.words import Condition, Trouble
from tests.zdb.server import FakeZdb

LONG_S = 20.0
MIB = 1 << 20


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def node_of(fake_zdb, clock):
    made: list[Node] = []

    def node_of(namespace: str = "mine", password: str = "", timeout_s: float = LONG_S) -> Node:
        server = Server("shelf 3", "127.0.0.1", fake_zdb.port, namespace, password)
        made.append(Node(Links(server, timeout_s), clock=clock, wall=clock))
        return made[-1]

    fake_zdb.make("mine")
    yield node_of
    for node in made:
        node.close()


def set_(name: str, value: object) -> Callable[[FakeZdb], None]:
    def change(zdb: FakeZdb) -> None:
        setattr(zdb.find("mine"), name, value)
    return change


def full(zdb: FakeZdb) -> None:
    zdb.disk.full = True


# what happens; what a write and a read are told (None: they go well); what a poll finds
WAYS: dict[str, tuple[Callable[[FakeZdb], None], Condition | None, Condition | None, Condition]] = {
    "nothing": (lambda zdb: None, None, None, Condition.OK),
    "away": (FakeZdb.kill, Condition.UNREACHABLE, Condition.UNREACHABLE, Condition.UNREACHABLE),
    "locked": (set_("locked", "lock"), Condition.READ_ONLY, None, Condition.READ_ONLY),
    "frozen": (set_("locked", "freeze"), Condition.FROZEN, Condition.FROZEN, Condition.FROZEN),
    "disk full": (full, Condition.DISK_FULL, None, Condition.LOW_SPACE),
    "limit reached": (set_("maxsize", 5), Condition.LOW_SPACE, None, Condition.LOW_SPACE),
    "worm": (set_("worm", True), Condition.WORM, None, Condition.WORM),
    "wrong mode": (set_("sequential", True), Condition.WRONG_MODE, None, Condition.WRONG_MODE),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_be_unwell(fake_zdb, node_of, way):
    happens, of_write, of_read, of_poll = WAYS[way]
    node, polled = node_of(), node_of()
    commands.put(node, b"key", b"value")
    happens(fake_zdb)
    new = b"key" if way == "worm" else b"new"
    for expected, call in ((of_write, lambda: commands.put(node, new, b"another value")), (of_read, lambda: commands.get(node, b"key"))):
        met: Condition | None = None
        try:
            call()
        except Trouble as trouble:
            met = trouble.condition
        assert met is expected
    assert node.health.status.condition is (of_write or Condition.OK)
    status = polled.poll()
    assert status.condition is of_poll
    assert bool(status.words) == (of_poll is not Condition.OK)
    assert polled.may_read == of_poll.may_read and polled.may_write == of_poll.may_write
    assert node.status()["condition"] == (of_write or Condition.OK).value


@pytest.mark.parametrize("namespace, password, condition", [
    ("mine", "", Condition.WRONG_PASSWORD), ("mine", "wrong", Condition.WRONG_PASSWORD), ("none", "", Condition.NO_NAMESPACE)])
def test_who_is_not_let_in(fake_zdb, node_of, namespace, password, condition):
    set_("password", "secret")(fake_zdb)
    set_("public", False)(fake_zdb)
    node = node_of(namespace, password)
    with pytest.raises(Trouble) as caught:
        commands.get(node, b"key")
    assert caught.value.condition is condition and not node.may_read and not node.may_write
    assert node.poll().condition is condition, "a server that answers is not one that lets us in"


def test_a_silent_one_is_known_for_it_before_it_is_given_up(fake_zdb, node_of, clock):
    node = node_of()
    commands.put(node, b"key", b"value")
    node.links._clock = clock
    fake_zdb.silent = True
    thread = threading.Thread(target=commands.get, args=(node, b"key"))
    thread.start()
    while not node.links._signs:
        time.sleep(0.001)
    assert node.may_read and not node.is_silent
    clock.now += health.SILENT_S + 1
    assert node.is_silent and not node.may_read and not node.may_write and node.health.may_read
    fake_zdb.silent = False
    thread.join(LONG_S)
    assert node.may_read and node.may_write


def test_a_timeout_is_one(fake_zdb, node_of):
    node = node_of(timeout_s=0.05)
    fake_zdb.silent = True
    assert node.poll().condition is Condition.TIMED_OUT and not node.may_read


def test_those_that_answer_come_before_those_that_do_not_and_quick_ones_first(fake_zdb, node_of, clock):
    quick, slow, away = node_of(), node_of(), node_of("none")
    for node, seconds in ((quick, 0.01), (slow, 0.2)):
        node.health.answered(False, seconds)
    assert away.poll().condition is Condition.NO_NAMESPACE
    assert sorted([away, slow, quick], key=lambda node: node.rank) == [quick, slow, away]


def test_a_poll_says_how_full_it_is(fake_zdb, node_of):
    node = node_of()
    commands.put(node, b"key", b"v" * MIB)
    set_("maxsize", 100 * MIB)(fake_zdb)
    space = node.poll().space
    assert space is not None
    assert (space.entries, space.used, space.limit, space.room) == (1, MIB, 100 * MIB, 99 * MIB)
    before = space.disk_free
    for number in range(8):
        commands.put(node, b"key", bytes([number]) * MIB)
    space = node.poll().space
    assert space is not None and space.used == MIB
    assert before - space.disk_free > 4 * MIB, "what was overwritten takes the disk still"


def test_latencies_are_noted_for_all_servers_together(fake_zdb, clock):
    latencies = Latencies(usual_s=0.7)
    node = Node(Links(Server("shelf 3", "127.0.0.1", fake_zdb.port, "default")), latencies)
    for number in range(20):
        commands.put(node, b"%d" % number, b"v")
    assert latencies.delay_s(100) < 0.7 and node.health.status.latency_s > 0
    node.close()


def test_a_hung_one_costs_a_round_the_delay_and_the_next_one_nothing(zdb_servers, clock):
    """Fakes, and real ones under `make zdb-real`."""
    servers = zdb_servers(4)
    nodes = [Node(Links(servers.server(number), LONG_S, clock=clock)) for number in range(4)]
    fanout = Fanout()
    for node in nodes:
        commands.put(node, b"key", b"value")
    servers.hang(0)
    found = fanout.first(3, nodes, lambda node: commands.get(node, b"key"), 0.05)
    assert set(found.good) == set(nodes[1:]) and not found.bad
    clock.now += health.SILENT_S + 1
    found = fanout.first(3, sorted(nodes, key=lambda node: node.rank), lambda node: commands.get(node, b"key"), LONG_S)
    assert set(found.good) == set(nodes[1:]), "it is asked last"
    servers.hang(0, False)
    round_: Round[Node, bytes | None] = fanout.round()
    round_.start(nodes[0], lambda: commands.get(nodes[0], b"key"))
    done = round_.next(LONG_S)
    assert done is not None and done.value == b"value"
    for node in nodes:
        node.close()
    fanout.close()


def test_a_deletion_shows_that_it_can_be_written_again(fake_zdb, node_of):
    node = node_of()
    commands.put(node, b"key", b"value")
    node.health.failed(Trouble(Condition.READ_ONLY, "Namespace is in read-only mode", ""))
    assert commands.exists(node, b"key") and not node.may_write
    assert commands.delete(node, b"key") and node.may_write
