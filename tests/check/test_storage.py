"""What a store says of its own storage reaches `fsck --full` and `verify --data`, through every layer, and nobody else is asked."""
from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from s3cfs.backends.base import Backend, Capabilities
from s3cfs.backends.memory import MemoryBackend
from s3cfs.backends.pieces import FOLDER
from s3cfs.backends.wrapper import Wrapper
from s3cfs.cli import verify as command
from s3cfs.errors import ExitCode, NotFound
from tests.check.kit import World
from tests.moves.kit import Moving, moving  # noqa: F401 - a fixture
from tests.remote.kit import ask

LINE = "1 of 20 shards is damaged (z03)"


class Shards(Wrapper):
    """Keeps shards of each object, and knows which of them have lost one."""

    def __init__(self, inner: Backend, weak: Sequence[str] = (), **nature: object) -> None:
        super().__init__(inner)
        self.weak, self.nature = set(weak), {"examines": True, **nature}
        self.asked: list[str] = []

    @property
    def capabilities(self) -> Capabilities:
        return replace(self.inner.capabilities, **self.nature)       # type: ignore[arg-type]

    def examine(self, key: str) -> str | None:
        self.asked.append(key)
        self.inner.stat(key)
        return LINE if key in self.weak else None


def test_fsck_names_each_weak_object_and_full_only(tmp_path: Path):
    store = Shards(MemoryBackend("weak"))
    world = World.make(store, tmp_path)
    world.fill()
    assert world.fsck(full=True).code == 0 and set(store.asked) == set(world.keys(""))
    pack, record, superblock = world.keys("pack/")[0], world.log()[0], "super/1.2"
    store.weak = {pack, record, superblock}
    assert world.fsck().code == 0
    checked = world.fsck(full=True)
    assert checked.code == 4 and checked.errors == [f"object {key}: weak: {LINE}" for key in sorted(store.weak)]
    assert {line.object for line in checked.lines if line.check == "storage"} == store.weak
    assert checked.result.counts["weak"] == 3 and not any(line.repairable for line in checked.lines if line.check == "storage")


def test_a_store_without_it_is_not_asked(tmp_path: Path):
    store = Shards(MemoryBackend("bare"), examines=False)
    world = World.make(store, tmp_path)
    world.fill()
    store.weak = set(world.keys(""))
    assert world.fsck(full=True).code == 0 and not store.asked


def test_what_went_meanwhile_is_not_weak(tmp_path: Path):
    class Going(Shards):
        def examine(self, key: str) -> str | None:
            raise NotFound("examine", key)

    world = World.make(Going(MemoryBackend("going")), tmp_path)
    world.fill()
    assert world.fsck(full=True).code == 0


def test_verify_tells_weak_from_damaged(moving: Moving, capsys: pytest.CaptureFixture[str]):  # noqa: F811
    packs = sorted(key for key in moving.objects(moving.source_url) if key.startswith("pack/"))
    moving.wrap[moving.source_url] = lambda backend: Shards(backend, [packs[0], "super/1.2"])
    assert moving.verify().exit_code is ExitCode.OK
    listed = moving.root / "corrupt"
    result = moving.verify(data=True, corrupt_file=str(listed))
    assert (sorted(result.weak), result.damaged, result.missing) == ([packs[0], "super/1.2"], [], [])
    assert result.exit_code is ExitCode.DAMAGED and listed.read_text() == ""
    assert f"{packs[0]}: weak: {LINE}" in moving.lines
    moving.damage(packs[0])
    result = moving.verify(data=True)
    assert (result.damaged, result.weak) == ([packs[0]], ["super/1.2"])
    assert "1 damaged and 1 weak" in command._verdict(result, True) and json.dumps(result.weak)


def test_pieces_of_an_object_are_examined_too():
    store = Shards(MemoryBackend("pieces"), largest_object_bytes=1 << 16)
    ask(store, lambda remote: remote.put("pack/x", bytes(300_000)))
    pieces = sorted(info.key for info in store.inner.list(FOLDER))
    assert len(pieces) == 5 and ask(store, lambda remote: remote.examine("pack/x")) is None
    assert sorted(store.asked) == sorted(["pack/x", *pieces])
    store.weak = {pieces[3]}
    assert ask(store, lambda remote: remote.examine("pack/x")) == f"piece 3 of 5: {LINE}"
    store.weak = {"pack/x"}
    assert ask(store, lambda remote: remote.examine("pack/x")) == LINE
    with pytest.raises(NotFound):
        ask(store, lambda remote: remote.examine("pack/y"))
