"""Two places, a small filesystem in one of them, and the two commands without a command line."""
from __future__ import annotations

import atexit
import functools
import random
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from s3cfs.app import store
from s3cfs.app.local import folder_name, locked
from s3cfs.app.node import Node
from s3cfs.backends.base import Backend
from s3cfs.backends.local import LocalBackend
from s3cfs.backends.recorder import RecorderBackend
from s3cfs.config import MigrateOptions, Secret, Settings, VerifyOptions
from s3cfs.doors import SystemDisk
from s3cfs.moves import MigrateResult, VerifyResult, migrate, places, verify
from tests.check.kit import KIB, World

READS = {"get", "stat", "list", "check"}


@dataclass
class Moving:
    """`source` is the filesystem; what `migrate` and `verify` open is recorded, and may be wrapped, by URL."""

    root: Path
    monkeypatch: pytest.MonkeyPatch
    source: World
    recorders: dict[str, RecorderBackend] = field(default_factory=dict)
    wrap: dict[str, Callable[[Backend], Backend]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)               # problems that were reported
    said: list[str] = field(default_factory=list)
    events: list[Mapping[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.source_url, self.target_url = f"local://{self.root}/source", f"local://{self.root}/target"
        real = store.open_store

        def open_store(settings: Settings, **how: Any) -> Backend:
            backend = self.wrap.get(settings.url, lambda backend: backend)(real(settings, **how))
            self.recorders[settings.url] = RecorderBackend(backend)
            return self.recorders[settings.url]

        for module in (store, places):
            self.monkeypatch.setattr(module, "open_store", open_store)

    def settings(self, url: str, passphrase: str | None = "secret") -> Settings:
        return Settings(url, str(self.root / "cache"), passphrase=Secret(passphrase) if passphrase else None)

    def migrate(self, passphrase: str | None = "secret", to: str = "", **options: Any) -> MigrateResult:
        result = migrate(self.settings(self.source_url, passphrase), self.settings(to or self.target_url, None),
                         MigrateOptions(str(self.root / "cache"), **options), lambda line: self.lines.append(str(line)), self.said.append,
                         self.events.append)
        reads = {call.operation for call in self.recorders[self.source_url].calls}
        assert reads <= READS, f"the source was written: {reads - READS}"
        return result

    def verify(self, url: str = "", passphrase: str | None = "secret", **options: Any) -> VerifyResult:
        result = verify(self.settings(url or self.source_url, passphrase), VerifyOptions(str(self.root / "cache"), **options),
                        lambda line: self.lines.append(str(line)), self.events.append)
        assert {call.operation for call in self.recorders[url or self.source_url].calls} <= READS
        return result

    def objects(self, url: str) -> dict[str, bytes]:
        folder = Path(url.removeprefix("local://"))
        return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
                if path.is_file() and ".tmp" not in path.parts}

    def put_count(self, url: str) -> int:
        return sum(call.operation == "put" for call in self.recorders[url].calls)

    def more(self, seed: int, **options: Any) -> None:
        """One mount of the source that writes a file, in the local state of all of them."""
        async def work(node: Node) -> None:
            await self.source.write(node, 1, b"more%d" % seed, random.Random(seed).randbytes(100 * KIB))
        self.source.on_node(work, self.state, **options)

    def mounted(self, work: Callable[[Node], Awaitable[None]]) -> None:
        """As a mount does it: with the lock of the local state."""
        with locked(SystemDisk(str(self.state)), "mounted", self.said.append):
            self.source.on_node(work, self.state)

    @property
    def state(self) -> Path:
        """The local state of the source, where the commands look for it."""
        return self.root / "cache" / folder_name(self.source.superblock, self.source_url)

    def damage(self, key: str, url: str = "", at: int = -1) -> None:
        path = Path((url or self.source_url).removeprefix("local://"), key)
        data = bytearray(path.read_bytes())
        data[at if at >= 0 else len(data) // 2] ^= 1
        path.write_bytes(data)

    def remove(self, key: str, url: str = "") -> None:
        Path((url or self.source_url).removeprefix("local://"), key).unlink()


@functools.lru_cache
def _template() -> World:
    """Filled once a process."""
    root = Path(tempfile.mkdtemp(prefix="s3cfs-moving-"))
    atexit.register(shutil.rmtree, root)
    made = World.make(LocalBackend(str(root / "source")), root)
    made.fill(root / "cache" / folder_name(made.superblock, ""))
    return made


@pytest.fixture
def moving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Moving:
    template = _template()
    shutil.copytree(template.root, tmp_path, dirs_exist_ok=True)
    source = World(LocalBackend(str(tmp_path / "source")), tmp_path, template.superblock, template.keyring, template.content)
    return Moving(tmp_path, monkeypatch, source)


__all__ = ["KIB", "Moving", "moving"]
