"""A mount of a store with a million records: how many requests it makes, and that what takes long is done in threads."""
from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from s3cfs.app.node import NodeOptions, open_node
from s3cfs.app.opening import load_meta
from s3cfs.backends.recorder import Call, RecorderBackend
from s3cfs.history.localtip import LocalTip
from s3cfs.history.log import Host, find_tip
from s3cfs.history.office import Takeover, Tier, Writer
from s3cfs.limits import Limits
from s3cfs.meta import Meta
from s3cfs.meta.changes import Changes
from s3cfs.remote import Remote
from tests.oldstore import OldStore, old_store, on_disk
from tests.soak.grown import grow

from .kit import KEYRING, SUPERBLOCK, content, write_file

RECORDS, EPOCHS, FILES = 1_000_000, 3_650, 2_000
SMALL = Limits(checkpoint_part_bytes=64 << 10, checkpoint_min_log_bytes=1 << 30, ride_max_bytes=0)
MOST = 40


@pytest.fixture(scope="module")
def store() -> OldStore:
    return old_store(KEYRING, RECORDS, EPOCHS, lambda doors, path: grow(doors, path, None, FILES, 2 * FILES), SMALL)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[bool]]:
    """How often changes were applied, and database files opened and closed with rows in them: whether by the loop's thread."""
    found: Counter[bool] = Counter()
    here = threading.get_ident()
    for owner, name in ((Changes, "apply"), (Meta, "commit")):
        real = getattr(owner, name)

        def noted(self: object, *arguments: object, real: object = real, name: str = name) -> object:
            if name == "apply" or threading.get_ident() != here:
                found[threading.get_ident() == here] += 1
            return real(self, *arguments)  # type: ignore[operator]
        monkeypatch.setattr(owner, name, noted)
    yield found


def besides_data(calls: list[Call], applied: int) -> int:
    """Requests but for the parts of the checkpoint, and the records that were applied, each once."""
    parts = sum(call.operation == "get" and call.kind == "checkpoint" and "manifest" not in call.key for call in calls)
    return len(calls) - parts - applied


async def mount(store: OldStore, folder: Path, names: str = "", *, read_only: bool = False) -> list[Call]:
    backend = RecorderBackend(store)
    options = NodeOptions(read_only=read_only, takeover=Takeover.NO, host=Host("boot", "ns", 1, 1), process_alive=lambda host: False)
    async with open_node(on_disk(str(folder), SMALL), backend, KEYRING, SUPERBLOCK, options) as node:
        calls = backend.take()
        assert node.meta.counters.inodes > FILES
        for name in names:
            await write_file(node, name.encode(), content(ord(name), 600))
            await node.flush()
    return calls


def test_the_requests_of_a_mount(store: OldStore, tmp_path: Path, threads: Counter[bool]) -> None:
    """From the store alone, with local state that is at the tip, and with some that is behind: the same handful, whatever the age."""
    async def main() -> None:
        first = await mount(store, tmp_path / "a", "abc")
        assert besides_data(first, 0) < MOST, Counter((call.operation, call.kind) for call in first)
        again = await mount(store, tmp_path / "a", "def")
        assert besides_data(again, 1) < MOST
        other = await mount(store, tmp_path / "b", read_only=True)
        records = sum(call.operation == "get" and call.kind == "log" for call in other)
        assert besides_data(other, 0) < MOST and records > 10, "they are not in the checkpoint"
        behind = await mount(store, tmp_path / "b", "g")
        assert besides_data(behind, 0) < MOST

    trio.run(main)
    assert threads[False] and not threads[True], "changes were applied on the event loop"


def test_what_waits_for_silence_looks_with_one_request(store: OldStore, tmp_path: Path) -> None:
    async def main() -> None:
        backend = RecorderBackend(store)
        doors = on_disk(str(tmp_path), Limits(takeover_silence_s=0.1))
        remote = Remote(backend, doors)
        tip = await find_tip(remote, KEYRING.sealer("record", 0))
        writer = Writer(doors, remote, Tier.T1, lambda epoch: KEYRING.sealer("record", epoch), Host(), lambda host: True)
        backend.take()
        assert not await writer._has_follower(tip)
        assert len(backend.take()) == 1

    trio.run(main)


def test_what_is_loaded_is_what_was_written(store: OldStore, tmp_path: Path) -> None:
    async def main() -> None:
        doors = on_disk(str(tmp_path))
        remote = Remote(store, doors)
        steps: list[tuple[str, int, int]] = []
        meta, _, tip = await load_meta(doors, remote, KEYRING, lambda *step: steps.append(step))
        assert LocalTip.load(meta).n == tip.n >= RECORDS
        assert not list(meta.audit.problems()) and not meta.quick_check() and not meta.missing_indexes()
        assert sum(what == "reading the checkpoint" for what, _, _ in steps) > 10
        meta.close()

    trio.run(main)
