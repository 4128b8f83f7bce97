"""What a list of servers can have wrong, and what can be wrong with the servers that it names: one clear line each, and nothing is done."""
from __future__ import annotations

from contextlib import closing

import pytest

from s3cfs import cli
from s3cfs.backends.base import Backend
from s3cfs.backends.registry import open_backend
from s3cfs.backends.zdb.backend import ZdbBackend
from s3cfs.errors import BucketMissing, ConfigError, Corrupt, Denied, ExitCode, NotFound, S3cfsError, StoreError, Temporary
from tests.zdb.server import FakeZdb, running
from tests.zdb.several import NAMESPACE, PASSWORD, Servers

DATA, PARITY, COUNT = 2, 1, 5


def make(backend: Backend) -> None:
    backend.create()


def look(backend: Backend) -> None:
    backend.check()


class Place:
    """Fakes and a list that names them."""

    def __init__(self, folder, fakes: list[FakeZdb]) -> None:
        self.folder, self.fakes = folder, fakes
        for fake in fakes:
            fake.make(NAMESPACE, password=PASSWORD, public=False)
        self.servers = Servers(fakes)
        self.write()

    def write(self, only=None, change=lambda text: text, more: str = "") -> None:
        path = self.servers.write_list(self.folder / "zdb.toml", only, data=DATA, parity=PARITY, more=more)
        path.write_text(change(path.read_text()))

    def open(self) -> Backend:
        return open_backend(f"zdb://{self.folder / 'zdb.toml'}")

    def said(self, kind: type[S3cfsError], call) -> str:
        """The one line of the error."""
        with closing(self.open()) as backend, pytest.raises(kind) as caught:
            call(backend)
        text = str(caught.value)
        assert "\n" not in text and PASSWORD not in text
        return text

    def mistakes(self, backend: Backend) -> str:
        assert isinstance(backend, ZdbBackend)
        backend.cluster.opened()
        return "\n".join(backend.cluster.mistakes())

    def create(self) -> None:
        with closing(self.open()) as backend:
            backend.create()
            backend.put("super/0", b"x")


@pytest.fixture
def place(tmp_path):
    with running(COUNT) as fakes:
        yield Place(tmp_path, fakes)


def test_a_wrong_password(place):
    place.write(change=lambda text: text.replace(f'"{PASSWORD}"', '"wrong"', 1))
    assert "z00" in (text := place.said(Denied, make)) and "Access denied" in text
    place.write(change=lambda text: text.replace(f'"{PASSWORD}"', '"wrong"'))
    assert "5 of 5 servers" in place.said(Denied, look)


def test_a_missing_namespace(place):
    place.write(change=lambda text: text.replace(NAMESPACE, "elsewhere", 1))
    assert "z00" in (text := place.said(BucketMissing, make)) and "elsewhere" in text


def test_a_sequential_namespace(place):
    place.fakes[3].make("sequence", sequential=True)
    place.write(only=(0, 1, 2, 4))
    text = (place.folder / "zdb.toml").read_text()
    more = f'[[servers]]\nname = "q"\naddress = "{place.fakes[3].address}"\nnamespace = "sequence"\npassword = ""\n'
    place.write(change=lambda _: text + more)
    said = place.said(ConfigError, make)
    assert "server" in said and "q (" in said and "sequential" in said and "user mode" in said


def test_too_few_servers_are_up(place):
    for number in (1, 2):
        place.servers.kill(number)
    assert "2 of 5 servers" in place.said(Temporary, make)
    place.servers.start(1)
    place.servers.start(2)
    place.create()
    for number in (0, 1, 2, 3):
        place.servers.kill(number)
    said = place.said(Temporary, look)
    assert "4 of 5 servers" in said and "too few are left" in said and "no connection" in said and "z0" in said


def test_no_store_yet(place):
    assert "mkfs makes it" in place.said(BucketMissing, look)
    assert "mkfs makes it" in place.said(BucketMissing, lambda backend: backend.get("super/0"))


def test_a_namespace_that_holds_something_else(place):
    place.fakes[2].do(lambda: place.fakes[2].find(NAMESPACE).put(b"somebody's", b"value"))
    said = place.said(ConfigError, make)
    assert "z02" in said and "holds 1 keys of somebody else" in said
    assert [place.servers.keys(number) for number in (0, 1, 3, 4)] == [[]] * 4, "nothing was begun"


def test_servers_of_another_store(place, tmp_path):
    place.create()
    with running(3) as others:
        (tmp_path / "other").mkdir()
        other = Place(tmp_path / "other", others)
        other.create()
        text = (tmp_path / "other" / "zdb.toml").read_text().replace(f'"z00"\naddress = "{others[0].address}"',
                                                                    f'"z00"\naddress = "{place.fakes[0].address}"')
        other.write(change=lambda _: text)
        assert "z00" in (said := other.said(ConfigError, make)) and "belongs to another store" in said
        with closing(other.open()) as backend:
            assert backend.get("super/0") == b"x", "two of three are enough, and the third is not asked"
            backend.check()
            assert "z00" in (said := other.mistakes(backend)) and "belongs to another store" in said and said.count("\n") == 0


def test_a_server_of_another_store_is_taken_for_no_store_to_join(place, tmp_path):
    """All the others are empty: they are not made members of a store that somebody else has."""
    place.create()
    for fake in place.fakes[1:]:
        fake.wipe()
    place.write(change=lambda text: text.replace('"z0', '"y0').replace('"y00"', '"z00"'))
    assert "z00" in (said := place.said(ConfigError, make)) and "whose other servers are not in the list" in said
    assert [place.servers.keys(number) for number in range(1, 5)] == [[]] * 4


def test_a_server_that_lost_its_disk_is_not_one_that_knows_of_nothing(place):
    place.create()
    with closing(place.open()) as backend:
        assert backend.get("super/0") == b"x"
        for fake in place.fakes[:1]:
            fake.wipe()
        for _ in range(10):
            assert backend.get("super/0") == b"x"
        with closing(place.open()) as second:
            assert second.get("super/0") == b"x"
            assert "z00" in (said := place.mistakes(second)) and "is empty, and was a server of this store" in said and "new name" in said
        assert "is empty, and was a server" in place.said(ConfigError, make)
        assert place.servers.keys(0) == [], "nobody made it a new one silently"


def test_under_a_new_name_it_is_a_new_server(place):
    place.create()
    place.fakes[0].wipe()
    place.write(change=lambda text: text.replace('"z00"', '"z00-new"'))
    with closing(place.open()) as backend:
        assert backend.get("super/0") == b"x" and place.servers.keys(0) == []
        backend.create()
        assert sorted(place.servers.keys(0)) == [b"s3cfs:roll", b"s3cfs:server"]
        assert {member.server.name for member in backend.cluster} == {"z00-new", "z01", "z02", "z03", "z04"}


def test_domains_with_too_many_shards_are_named(place):
    place.create()
    with closing(place.open()) as backend:
        assert place.mistakes(backend) == "", "one domain only: nothing else can be had"
    place.write(change=lambda text: text.replace("drain", 'domain = "a"\ndrain', 4))
    with closing(place.open()) as backend:
        assert "2 of the 3 shards of an object lie in one domain" in place.mistakes(backend)


def test_two_names_for_one_namespace(place):
    first, second = place.fakes[:2]
    place.write(change=lambda text: text.replace(f"127.0.0.1:{second.port}", f"localhost:{first.port}"))
    assert "the same namespace as another server" in place.said(StoreError, make)


def test_another_secret(place):
    place.write(more='secret = "first"')
    place.create()
    place.write(more='secret = "second"')
    assert "secret" in place.said(StoreError, look)


def test_the_command_says_it_in_one_line(place, capsys, monkeypatch):
    monkeypatch.setenv("S3CFS_PASSPHRASE", "x")
    place.write(only=(0, 1))
    assert cli.main(["mkfs", f"zdb://{place.folder / 'zdb.toml'}"]) == ExitCode.CONFIG
    said = capsys.readouterr().err
    assert "too few servers: 2 + 1 needs 3, the list has 2" in said and said.count("\n") == 1
    assert cli.main(["mkfs", "zdb://zdb.toml"]) == ExitCode.CONFIG


def test_objects_that_are_lost_are_an_error_and_no_bytes(place):
    """More than `parity` of the shards are gone."""
    place.create()
    with closing(place.open()) as backend:
        backend.put("pack/1", bytes(100_000))
        for number in range(COUNT):
            for key in place.servers.keys(number):
                if key.startswith(b"d"):
                    place.fakes[number].forget(NAMESPACE, key)
        with pytest.raises(Corrupt, match="0 of the 2 shards that it takes can be read; 3 are missing"):
            backend.get("pack/1")
        with pytest.raises(NotFound):
            backend.get("pack/2")
