"""The layer of a mount: what is completed when servers are back, the list that changes under it, and that who only reads mends nothing."""
from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio

from s3cfs.backends.zdb import care
from s3cfs.backends.zdb.backup import backups
from s3cfs.backends.zdb.care import Care
from s3cfs.backends.zdb.link import Links
from s3cfs.backends.zdb.repair import Repair
from s3cfs.backends.zdb.status import told
from s3cfs.errors import ConfigError, Temporary
from s3cfs.remote import Remote
from tests.remote.kit import remote_to, run
from tests.zdb.caring import LARGE, Store
from tests.zdb.several import Servers


@pytest.fixture
def store(zdb_servers: Callable[[int], Servers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Eight servers, six of which are in the list: 4 + 2. The layer looks at everything all the time."""
    for name in ("POLL_S", "POLL_ILL_S", "LIST_S"):
        monkeypatch.setattr(care, name, 0.02)
    made = Store(zdb_servers(8), tmp_path, only=range(6))
    yield made
    made.close()


def beside(store: Store, work: Callable[[Remote, Care], Awaitable[None]]) -> None:
    """`work` while the layers of a mount are at work."""
    async def main() -> None:
        remote = remote_to(store.another())
        layer = next(layer for layer in remote.stack.layers if isinstance(layer, Care))
        async with remote.running():
            await work(remote, layer)

    run(main)


async def until(true: Callable[[], object]) -> None:
    while not true():                              # noqa: ASYNC110 - of threads and servers that know no trio
        await trio.sleep(0.01)


def test_what_was_put_while_a_server_was_away_is_completed_when_it_is_back(store: Store):
    async def work(remote: Remote, layer: Care) -> None:
        await remote.put("log/first", b"x")
        store.servers.kill(2)
        store.content["pack/a"] = bytes(LARGE)
        await remote.put("pack/a", store.content["pack/a"])
        assert remote.degraded["pack"] == 1 and layer.status()["waiting"]
        assert "z02 unreachable" in layer.status()["degraded"]
        store.servers.start(2)
        await until(lambda: layer.status()["completed"])
        await until(lambda: not layer.status().get("degraded"))
        assert layer.status()["waiting"] == 0

    beside(store, work)
    where = store.where("pack/a")
    assert (where.data, where.parity, store.whole("pack/a")) == (4, 2, 6) and store.reads_right()


def test_rot_that_a_read_met_is_mended_by_who_writes_and_by_nobody_else(store: Store):
    store.fill(1)
    flipped = [store.flip("pack/large0", 1), store.flip("log/small0", 0)]

    async def look(remote: Remote, layer: Care) -> None:
        for key, data in store.content.items():
            assert await remote.get(key) == data
        await trio.sleep(0.2)
        assert layer.status()["completed"] == 0

    beside(store, look)
    assert store.backend.examine("pack/large0") == f"of 6 shards 1 damaged (z{flipped[0]:02})"

    async def write(remote: Remote, layer: Care) -> None:
        await remote.put("log/mine", b"x")
        assert await remote.get("pack/large0") == store.content["pack/large0"]
        await until(lambda: layer.status()["completed"])

    beside(store, write)
    assert store.backend.examine("pack/large0") is None


def test_a_changed_list_is_taken_over_and_what_follows_from_it_is_done(store: Store):
    store.fill()

    async def work(remote: Remote, layer: Care) -> None:
        await remote.put("log/first", b"x")
        store.write_list(range(8), drain=[0])
        await until(lambda: layer.status()["last_repair"])
        assert layer.status()["last_repair"].endswith("new replicas filled)") or "mended" in layer.status()["last_repair"]
        said = [str(entry["why"]) for entry in layer.decisions() if entry["what"] == "list"]
        assert said == ["added z06, z07; drain z00"]
        store.path.write_text("data = 0")
        await until(lambda: layer.status()["list_error"])
        assert "data is a number" in layer.status()["degraded"] and len(remote.backend.cluster.setup.servers) == 8     # type: ignore[attr-defined]
        os.unlink(store.path)                      # an editor is at it
        assert await remote.get("pack/large0") == store.content["pack/large0"]
        store.write_list(range(8), drain=[0])
        await until(lambda: not layer.status()["list_error"])

    beside(store, work)
    for key in store.content:
        assert 0 not in {number for _, number, _ in store.shards(key)}


def test_what_changed_in_the_list_while_nobody_looked_is_noticed(store: Store):
    store.fill()
    gone = store.number(store.backend.cluster.roll.replicas[0])
    store.servers.kill(gone)
    store.write_list([number for number in range(8) if number != gone])

    async def work(remote: Remote, layer: Care) -> None:
        await remote.put("log/first", b"x")
        await until(lambda: layer.status()["last_repair"])
        assert [str(entry["why"]) for entry in layer.decisions() if entry["what"] == "repair"] == ["new in the list: z06, z07"]
        assert layer.status()["summary"] == "7 servers are well, 5 of 5 replicas of the records answer"

    beside(store, work)
    for key in store.content:
        assert gone not in {number for _, number, _ in store.shards(key)} and store.mend(key).trouble is None


def test_a_store_that_cannot_be_opened_is_tried_again(store: Store, monkeypatch: pytest.MonkeyPatch):
    for number in range(6):
        store.servers.kill(number)

    async def work(remote: Remote, layer: Care) -> None:
        await trio.sleep(0.1)
        assert layer.status()["summary"] == "no server has been looked at yet"
        for number in range(6):
            store.servers.start(number)
        await until(lambda: "6 servers are well" in layer.status()["summary"])

    beside(store, work)


def test_a_server_that_stays_away_is_done_without(store: Store):
    store.fill(1)
    store.write_list(range(8))
    store.another().cluster.admit()

    async def work(remote: Remote, layer: Care) -> None:
        layer.change("rebuild-after", "0.05")
        await remote.put("log/first", b"x")
        store.servers.kill(1)
        await until(lambda: layer.status()["last_repair"])
        assert any("away for longer than 0.05 s: z01" in str(entry["why"]) for entry in layer.decisions())
        repairs = sum(entry["what"] == "repair" for entry in layer.decisions())
        await trio.sleep(0.3)
        assert sum(entry["what"] == "repair" for entry in layer.decisions()) == repairs        # once is enough

    beside(store, work)
    assert store.mend("pack/large0").left is None
    assert 1 not in {number for _, number, _ in store.shards("pack/large0")}


def test_settings_are_checked(store: Store):
    layer = Care(store.backend.replicas)
    assert layer.settings() == {"repair-rate": "33554432", "rebuild-after": "900", "backup-every": "86400"}
    layer.change("repair-rate", "1000000")
    assert layer.settings()["repair-rate"] == "1000000"
    for setting, value in (("repair-rate", "fast"), ("rebuild-after", "-1"), ("rebuild-after", "nan"), ("nothing", "1")):
        with pytest.raises(ConfigError):
            layer.change(setting, value)


def test_too_few_replicas_put_it_off(store: Store, monkeypatch: pytest.MonkeyPatch):
    """A repair that cannot be made now is made when it can; the layer lives on."""
    store.fill(1)
    store.servers.kill(0)
    calls: list[str] = []
    mend = Repair.mend

    def fails_once(self: Repair, key: str) -> object:
        calls.append(key)
        if len(calls) == 1:
            store.servers.start(0)
            raise Temporary("get", key, "1 replicas of its record answer, and it takes 3")
        return mend(self, key)

    monkeypatch.setattr(Repair, "mend", fails_once)

    async def work(remote: Remote, layer: Care) -> None:
        await remote.put("pack/b", bytes(LARGE))
        await until(lambda: layer.status()["completed"])

    beside(store, work)
    assert len(calls) >= 2


def test_a_backup_of_the_records_is_made_when_it_is_due_and_something_was_put(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(care, "BACKUP_LOOK_S", 0.01)

    def made() -> list[int]:
        return [one.time_ns for one in backups(store.backend.cluster)]

    async def work(remote: Remote, layer: Care) -> None:
        await trio.sleep(0.1)
        assert made() == [] and layer.status()["last_backup"] is None
        await remote.put("log/a", b"x")
        await until(lambda: layer.status()["last_backup"])
        first = made()
        assert len(first) == 1 and layer.status()["last_backup"] == first[0] / 1e9
        layer.change("backup-every", "0.001")
        await trio.sleep(0.1)
        assert made() == first                                     # nothing was put since
        layer.change("backup-every", "0")
        await remote.put("log/b", b"x")
        await trio.sleep(0.1)
        assert made() == first
        layer.change("backup-every", "0.001")
        await until(lambda: len(made()) == 2)
        assert any(one["what"] == "backup" for one in layer.decisions())

    beside(store, work)


def test_a_server_that_owes_an_answer_is_called_silent(store: Store):
    cluster = store.backend.cluster
    member = next(iter(cluster))
    assert told(cluster)["degraded"] is None
    member.node.links.__class__ = _Silent
    about = next(one for one in told(cluster)["servers"] if one["name"] == member.server.name)
    assert (about["condition"], about["words"]) == ("silent", "owes an answer for 12 s")
    assert not about["may_read"] and not about["may_write"]
    assert f"{member.server.name} silent" in str(told(cluster)["degraded"])


class _Silent(Links):
    @property
    def silent_s(self) -> float:
        return 12.0
