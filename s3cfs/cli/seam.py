"""What the commands ask of the floors below, in types. Imported only when a command runs, since it pulls in trio and the store's SDK."""
from __future__ import annotations

import ctypes
import importlib
import os
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


class Control:
    """The control socket of a mount, found by its mount point."""

    def find(self, mountpoint: str) -> MountInfo:
        """Who serves it; also just after it was unmounted, while the last changes are brought to the store. NotAMount."""
        from s3cfs import control
        from s3cfs.fuse import mounttable
        path = mounttable.resolve(mountpoint)
        entry = mounttable.entry_at(path)
        return control.find(path, entry.device if entry else None)

    def call(self, socket: str, op: str, args: Mapping[str, Any], on_progress: OnProgress | None) -> dict[str, Any]:
        from s3cfs import control
        return cast(dict[str, Any], control.call(socket, op, args, on_progress=on_progress or (lambda event: None)))

    def unmount(self, mountpoint: str, *, lazy: bool) -> None:
        """Take the mount away from the kernel, which first hands over what it holds back. MountpointError when it is in use."""
        from s3cfs.fuse import mountpoint as mountpoints
        mountpoints.unmount(mountpoint, lazy=lazy)

    def write_back(self, mountpoint: str) -> None:
        """Have the kernel send what it holds back of written data (syncfs, twice: the first only starts it on FUSE)."""
        libc = ctypes.CDLL(None, use_errno=True)
        fd = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for _ in range(2):
                libc.syncfs(fd)
        finally:
            os.close(fd)


def app() -> App:
    return cast(App, importlib.import_module("s3cfs.app"))


def control() -> Control:
    return Control()
