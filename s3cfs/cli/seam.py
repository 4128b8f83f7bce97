"""What the commands ask of the floors below, in types. Imported only when a command runs, since it pulls in trio and the store's SDK."""
from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from s3cfs.config import FsckOptions, MountOptions, Secret, Settings

Event = Mapping[str, Any]                 # progress: {"done": n, "total": n or None, "unit": "bytes" or a word, "text": what}
OnProgress = Callable[[Event], None]


class MkfsResult(Protocol):
    @property
    def fs_id(self) -> str: ...
    @property
    def recovery_key(self) -> str | None: ...
    @property
    def location(self) -> str: ...


class FsckResult(Protocol):
    @property
    def counts(self) -> Mapping[str, int]: ...
    @property
    def exit_code(self) -> int: ...


class App(Protocol):
    def mkfs(self, settings: Settings, *, label: str, plain: bool, passphrase: Secret | None) -> MkfsResult: ...
    def mount(self, settings: Settings, mountpoint: str, options: MountOptions) -> int: ...
    def fsck(self, settings: Settings, options: FsckOptions, report: Callable[[Any], None], progress: OnProgress) -> FsckResult: ...
    def dump(self, settings: Settings, key: str) -> Mapping[str, Any]: ...


class MountInfo(Protocol):
    """A running mount, found by its mount point."""

    @property
    def pid(self) -> int: ...
    @property
    def socket(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def mountpoint(self) -> str: ...


class Control(Protocol):
    def find(self, mountpoint: str) -> MountInfo: ...
    def call(self, socket: str, op: str, args: Mapping[str, Any], on_progress: OnProgress | None) -> dict[str, Any]: ...


def app() -> App:
    return cast(App, importlib.import_module("s3cfs.app"))


def control() -> Control:
    return cast(Control, importlib.import_module("s3cfs.control"))
