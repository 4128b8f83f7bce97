"""storjs3:// over the fake gateway (tests/gateway), which has a real server behind it."""
from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from s3cfs import ids
from s3cfs.backends import shards
from s3cfs.backends.base import Backend
from s3cfs.backends.consistency.guard import Guarded
from s3cfs.backends.registry import open_backend
from s3cfs.backends.shards import Layout
from s3cfs.backends.storj import StorjBackend
from s3cfs.backends.url import Credentials, Options, StoreUrl
from s3cfs.errors import ConfigError, Corrupt, NotFound, StoreError, Temporary, Throttled, Unsupported
from s3cfs.limits import DEFAULTS, MIB, fitted
from tests.backends.face import Face
from tests.backends.suite import BackendSuite
from tests.gateway import Gateway, HandClock
from tests.servers import Server

PAGE_KEYS = 20


@pytest.fixture(scope="module")
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(scope="module")
def running(rclone_s3: Server, clock: HandClock) -> Iterator[Gateway]:
    with Gateway(rclone_s3, clock=clock, page_keys=PAGE_KEYS) as made:
        yield made
        assert made.errors_inside == []
        assert not [note for note in made.notes if note.status == 501], "only listings that Storj has"


@pytest.fixture
def gateway(running: Gateway) -> Iterator[Gateway]:
    yield running
    running.clear()


def opened(gateway: Gateway, url: str, **options: str) -> Backend:
    """storjs3:// and s3c:// alike; without lock and checker."""
    known = {"no-ssl": "", **{name.replace("_", "-"): value for name, value in options.items()}}
    place = StoreUrl.parse(url)
    if place.scheme != "storjs3":
        return gateway.server.open(url)
    return StorjBackend.from_url(place, Options(place, known), Credentials(gateway.server.login, gateway.server.password))


def plain(gateway: Gateway, url: str) -> Backend:
    """What lies there, as it lies there; by way of the gateway, which has to hear of it."""
    return opened(gateway, url.replace("storjs3://", "s3c://"))


class TestSuite(BackendSuite):
    create_only = True
    many = 10 * PAGE_KEYS

    @pytest.fixture
    def backend(self, gateway: Gateway) -> Iterator[Backend]:
        self.secret = gateway.server.password
        backend = opened(gateway, gateway.fresh_url())
        backend.create()
        yield backend
        backend.close()


class Place:
    """A fresh place and who opens it."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway, self.url = gateway, gateway.fresh_url()
        self.made: list[Backend] = []

    def open(self, **options: str) -> Backend:
        self.made.append(opened(self.gateway, self.url, **options))
        return self.made[-1]

    def plain(self) -> Backend:
        self.made.append(plain(self.gateway, self.url))
        return self.made[-1]

    def names(self) -> set[str]:
        return {info.key for info in self.plain().list("")}


@pytest.fixture
def place(gateway: Gateway) -> Iterator[Place]:
    made = Place(gateway)
    yield made
    for backend in made.made:
        backend.close()


PACKS = [f"pack/{number % 256:02x}/7-{number:064x}" for number in range(60)]
FEW = ["super/1", "claim/main/7-0123456789abcdef",
       ids.log_key(7, "0123456789abcdef", 12), "checkpoint/main/0/0/9/manifest-0123456789abcdef"]


# ------------------------------------------------------------ names

def test_packs_and_pieces_are_spread_and_nothing_else() -> None:
    layout = Layout(16)
    assert [layout.name(key) for key in FEW] == FEW and layout.name(shards.KEY) == shards.KEY
    keys = [f"pack/{number:02x}/7-{number:064x}" for number in range(256)] + [f"piece/{number:032x}/0" for number in range(1000)]
    count = Counter(layout.name(key).split("/")[1] for key in keys)
    assert len(count) == 16 and max(count.values()) < 2 * min(count.values())
    assert [shards.key_of(layout.name(key)) for key in keys] == keys and [shards.key_of(key) for key in FEW] == FEW
    assert layout.name("pack/d1/") == layout.name("pack/d1/x")[:-1], "what lies together stays together"
    assert [Layout(0).name(key) for key in keys] == keys
    assert Layout(16).name("pack/d1/7-x") == "pack/2-of-16/d1/7-x", "for ever: places have been made"


@pytest.mark.parametrize(("data", "text"), [
    (b"", "damaged"), (b"[]", "damaged"), (b'{"s3cfs layout": 1, "shards": "16"}', "damaged"),
    (b'{"s3cfs layout": 1, "shards": -1}', "damaged"),
    (b'{"s3cfs layout": 2, "shards": 16}', "later version")])
def test_layouts_that_nobody_wrote(data: bytes, text: str) -> None:
    assert Layout.decode(Layout(16).encode()) == Layout(16)
    with pytest.raises(ValueError, match=text):
        Layout.decode(data)


# ------------------------------------------------------------ the layout

def test_the_number_of_shards_is_that_of_mkfs(place: Place) -> None:
    maker = place.open(shards="4")
    maker.create()
    other = place.open()
    for number, key in enumerate([*PACKS, *FEW]):
        (maker, other)[number % 2].put(key, key.encode())
    assert all(place.open().get(key) == key.encode() for key in (*PACKS[:9], *FEW))
    names = place.names()
    assert names == {Layout(4).name(key) for key in (*PACKS, *FEW)} | {shards.KEY} and len(names) == len(PACKS) + len(FEW) + 1
    assert {info.key for info in other.list("pack/")} == set(PACKS)
    assert sorted(info.key for info in other.list("")) == sorted([*PACKS, *FEW]) and "layout" not in other.folders("")
    assert sorted(other.folders("pack/")) == sorted({key.split("/")[1] for key in PACKS}) and list(other.list("layout/")) == []
    place.open(shards="4").check()
    with pytest.raises(ConfigError, match="was made with shards=4, which cannot be changed: leave out the backend option shards=5"):
        place.open(shards="5").check()
    with pytest.raises(ConfigError, match="shards=4"):
        place.open(shards="5").create()
    place.open().create()
    assert place.names() == names


@pytest.mark.parametrize("text", ["-1", "1001", "many", ""])
def test_no_number_of_shards(place: Place, text: str) -> None:
    with pytest.raises(ConfigError, match="shards"):
        place.open(shards=text)


def test_a_layout_that_was_lost_or_damaged_is_found_again_and_written_by_the_next_put(place: Place) -> None:
    place.open(shards="3").create()
    place.open().put(PACKS[0], b"x")
    there = place.plain()
    for damage in (None, b"rubbish"):
        there.delete(shards.KEY)
        if damage:
            there.put(shards.KEY, damage)
        reader = place.open()
        assert reader.get(PACKS[0]) == b"x" and [info.key for info in reader.list("pack/")] == [PACKS[0]]
        assert damage or shards.KEY not in place.names(), "who reads writes nothing"
    there.delete(shards.KEY)
    writer = place.open()
    writer.put(PACKS[1], b"y")
    before = len(place.gateway.notes)
    writer.put(PACKS[2], b"z")
    assert len(place.gateway.notes) == before + 1, "it is written once"
    assert Layout.decode(there.get(shards.KEY)) == Layout(3) and place.open().get(PACKS[1]) == b"y"


def test_a_layout_of_a_later_version_is_not_guessed(place: Place) -> None:
    place.open().create()
    place.open().put(PACKS[0], b"x")
    place.plain().put(shards.KEY, b'{"s3cfs layout": 2}')
    with pytest.raises(Unsupported, match="later version"):
        place.open().get(PACKS[0])


def test_a_gateway_that_is_behind_shows_no_layout_and_that_is_no_verdict(place: Place, gateway: Gateway, clock: HandClock) -> None:
    place.open(shards="5").create()
    place.open().put("super/1", b"x")
    gateway.stale(30)
    for attempt in (lambda: place.open().get(PACKS[0]), lambda: place.open().put(PACKS[0], b"x"), lambda: place.open().stat(PACKS[0])):
        with pytest.raises(Temporary, match="a gateway that is behind shows it soon"):
            attempt()
    late = place.open()
    late.check()
    assert list(late.list("pack/")) == [] and list(late.folders("pack/")) == []
    wrong = place.open(shards="6")
    with pytest.raises(Temporary, match="somebody else"):
        wrong.put(PACKS[0], b"x")
    clock.advance(30)
    with pytest.raises(ConfigError, match="was made with shards=5"):
        wrong.put(PACKS[0], b"x")
    with pytest.raises(NotFound):
        late.get(PACKS[0])
    gateway.clear()
    late.put(PACKS[0], b"x")
    assert Layout(5).name(PACKS[0]) in place.names()


def test_a_place_that_was_filled_by_hand(place: Place) -> None:
    there = place.plain()
    for key in (*PACKS[:3], *FEW):
        there.put(key, key.encode())
    backend = place.open()
    assert backend.get(PACKS[0]) == PACKS[0].encode() and {info.key for info in backend.list("pack/")} == set(PACKS[:3])
    place.open().create()
    assert shards.KEY not in place.names(), "a filesystem is there already"
    backend.put(PACKS[3], b"x")
    assert {PACKS[3], shards.KEY} <= place.names() and Layout.decode(there.get(shards.KEY)) == Layout(0)
    there.put(Layout(7).name(PACKS[4]), b"x")
    there.delete(shards.KEY)
    with pytest.raises(Unsupported, match=r"several layouts \(0 and 7 shards\)"):
        place.open().get(PACKS[0])


def test_a_place_that_was_filled_by_hand_with_no_pack(place: Place) -> None:
    place.plain().put("super/1", b"x")
    place.open().create()
    with pytest.raises(Temporary, match="needs the backend option shards=0, once"):
        place.open().put(PACKS[0], b"x")
    place.open(shards="0").put(PACKS[0], b"x")
    assert place.open().get(PACKS[0]) == b"x" and place.names() == {"super/1", PACKS[0], shards.KEY}


def test_of_two_who_make_it_at_once_one_decides(place: Place) -> None:
    start = threading.Barrier(4)

    def make(number: int) -> str:
        backend = place.open(shards=str(number))
        start.wait()
        try:
            backend.create()
        except (Temporary, ConfigError) as error:
            return type(error).__name__
        return str(number)

    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(make, [8, 9, 10, 11]))
    winner, = [int(answer) for answer in said if answer.isdecimal()]
    assert Layout.decode(place.plain().get(shards.KEY)) == Layout(winner)


# ------------------------------------------------------------ listings

def test_a_listing_of_many_pages_goes_on_after_an_error(place: Place, gateway: Gateway) -> None:
    place.open(shards="2").create()
    backend = place.open()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: backend.put(key, b"x"), PACKS))
    backend.put("piece/0/0", b"x")
    before = gateway.operations["list"]
    found, errors, listing = list[str](), 0, backend.list("")
    storm = gateway.throttle(only="list", count=3)
    while True:
        try:
            for info in listing:
                found.append(info.key)
            break
        except Throttled:
            errors += 1
    assert (errors, storm.fired) == (3, 3) and sorted(found) == sorted([*PACKS, "piece/0/0"]) and found != sorted(found)
    pages = sum(-(-count // PAGE_KEYS) for count in Counter(Layout(2).name(key).split("/")[1] for key in PACKS).values()) + 1
    folders = 3
    assert gateway.operations["list"] - before == folders + pages + errors, "no page was asked for twice"


def test_a_page_costs_little(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's reading of the thousand times in it took twice as long as all else."""
    place.open().put("super/1", b"x")
    monkeypatch.setattr("dateutil.parser.parse", lambda *_, **__: pytest.fail("a time was read slowly"))
    assert [info.key for info in place.open().list("")] == ["super/1"]


# ------------------------------------------------------------ connections

def test_after_every_error_that_may_pass_there_is_a_new_connection(place: Place, gateway: Gateway) -> None:
    backend = place.open(tcp_timeout="0.3")
    backend.put("super/1", b"x" * 1000)
    lines = [gateway.notes[-1].line]

    def asked(kind: type[StoreError] | None) -> None:
        try:
            backend.get("super/1")
        except StoreError as error:
            assert kind is not None and isinstance(error, kind), error
        else:
            assert kind is None

    asked(None)
    assert gateway.notes[-1].line == lines[0]
    for fault, kind in ((lambda: gateway.throttle(count=1), Throttled), (lambda: gateway.errors(500, count=1), Temporary),
                        (lambda: gateway.errors(503, count=1), Throttled), (lambda: gateway.hang(count=1), Temporary),
                        (lambda: gateway.reset(count=2), Temporary), (lambda: gateway.cut(count=1), Corrupt)):
        fault()
        asked(kind)
        asked(None)
        lines.append(gateway.notes[-1].line)
    assert lines == sorted(set(lines)), "a new one after each"
    with pytest.raises(NotFound):
        backend.get("super/2")
    asked(None)
    assert gateway.notes[-1].line == lines[-1], "an answer is no error"
    gateway.kill_idle()
    asked(Temporary)
    asked(None)
    assert gateway.notes[-1].line > lines[-1]


def test_a_put_whose_answer_was_lost_and_that_is_not_shown_yet_is_no_missing_object(place: Place, gateway: Gateway) -> None:
    backend = place.open()
    backend.assume_create_only(True)
    gateway.lose_answers(only="put", count=1)
    backend.put("super/1", b"x", only_if_absent=True)      # sent again, refused, and read back
    gateway.clear()
    gateway.lose_answers(only="put", count=1)
    gateway.stale(30)
    with pytest.raises(Temporary, match="does not show yet"):
        backend.put("super/2", b"x", only_if_absent=True)


def test_no_connection_is_used_for_long(place: Place, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """They die while they wait, and nothing says so until a request has waited for its whole time-out."""
    monkeypatch.setattr(StorjBackend, "CONNECTION_S", 0.0)
    backend = place.open()
    for _ in range(3):
        backend.put("super/1", b"x")
    assert len({note.line for note in list(gateway.notes)[-3:]}) == 3


def test_retry_after_is_waited_for(place: Place, gateway: Gateway) -> None:
    with closing(Face(opened(gateway, place.url))) as face:
        storm = gateway.throttle(retry_after=0.3, count=1)
        began = threading.Event()
        timer = threading.Timer(0.25, began.set)           # started before the request: it is set only if the pause was that long
        timer.start()
        face.put("super/1", b"x")
        assert storm.fired == 1 and began.is_set()
        timer.join()


# ------------------------------------------------------------ what it is like

def test_what_it_is_taken_to_be_like() -> None:
    backend = open_backend("storjs3://gateway.storjshare.io/bucket/", {"tcp-timeout": "60"}, login="l", password="p")
    assert isinstance(backend, Guarded) and isinstance(backend.inner, StorjBackend)
    nature = backend.capabilities
    assert nature.linearizable is False and nature.create_only is None and nature.batch_delete == 100
    limits = fitted(DEFAULTS, nature, DEFAULTS.chunk_max_bytes)
    assert (limits.pack_target_bytes, limits.uploads_at_once) == (30 * MIB, 2), "docs/backends.md has the prices"
    assert backend.location == "storjs3://gateway.storjshare.io/bucket/"
    backend.close()
    options = {"consistency": "linearizable", "consistency-lock": "off", "checker": "off"}
    trusted = open_backend("storjs3://gateway.storjshare.io/bucket/", options, login="l", password="p")
    assert isinstance(trusted, StorjBackend) and trusted.capabilities.linearizable is True
    trusted.close()
