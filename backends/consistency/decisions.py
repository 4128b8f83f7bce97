"""What was decided and why: the newest in memory, all of the last weeks in two files of a folder, so that a remount does not end it.

Lines of JSON, appended; a file that is long enough becomes the old one. What the disk refuses stays in memory only: it is for people.
Beside it the little that the next mount goes on with.
"""
from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from s3cfs.doors import Disk

KEPT = 500                         # entries in memory
FILE_BYTES = 64 << 10              # of each of the two files
NEW, OLD, STATE = "decisions", "decisions.old", "state"


class Decisions:
    """`load` before anything else, `save` now and then, both in a thread and one at a time; the rest on the event loop."""

    def __init__(self) -> None:
        self.entries: deque[Mapping[str, Any]] = deque(maxlen=KEPT)
        self._unsaved: deque[Mapping[str, Any]] = deque(maxlen=KEPT)
        self._disk: Disk | None = None

    def add(self, entry: Mapping[str, Any]) -> None:
        """Plain data, with "time" (Unix seconds)."""
        self.entries.append(entry)
        self._unsaved.append(entry)

    def came_before(self, earlier: Sequence[Mapping[str, Any]]) -> None:
        self.entries = deque([*earlier, *self.entries], maxlen=KEPT)

    def take_unsaved(self) -> list[Mapping[str, Any]]:
        """For `save`."""
        taken = list(self._unsaved)
        self._unsaved.clear()
        return taken

    def not_saved(self, entries: Sequence[Mapping[str, Any]]) -> None:
        self._unsaved = deque([*entries, *self._unsaved], maxlen=KEPT)

    # ------------------------------------------------------------ in a thread

    def load(self, disk: Disk, folder: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """What an earlier mount left: entries, and its state. OSError."""
        self._disk, self._folder = disk, folder
        lines = [line for name in (OLD, NEW) for line in self._read(name).split(b"\n")]
        return [entry for line in lines if "time" in (entry := _parsed(line))], _parsed(self._read(STATE))

    def save(self, entries: Sequence[Mapping[str, Any]], state: Mapping[str, Any]) -> None:
        """OSError."""
        assert self._disk is not None
        if entries:
            self._append(b"".join(json.dumps(entry).encode() + b"\n" for entry in entries))
        self._write(f"{STATE}.new", json.dumps(state).encode(), 0)
        self._disk.rename(f"{self._folder}/{STATE}.new", f"{self._folder}/{STATE}")

    def _append(self, data: bytes) -> None:
        assert self._disk is not None
        path = f"{self._folder}/{NEW}"
        size = self._disk.size(path) if self._disk.exists(path) else 0
        if size + len(data) > FILE_BYTES and size:
            self._disk.rename(path, f"{self._folder}/{OLD}")
            size = 0
        torn = b"\n" if size else b""              # a line that a crash cut off ends here
        self._write(NEW, torn + data, size)

    def _write(self, name: str, data: bytes, offset: int) -> None:
        assert self._disk is not None
        file = self._disk.open(f"{self._folder}/{name}", create=not offset)
        try:
            file.pwrite(data, offset)
        finally:
            file.close()

    def _read(self, name: str) -> bytes:
        assert self._disk is not None
        path = f"{self._folder}/{name}"
        if not self._disk.exists(path):
            return b""
        file = self._disk.open(path)
        try:
            return file.pread(file.size(), 0)
        finally:
            file.close()


def _parsed(line: bytes) -> dict[str, Any]:
    """What is no entry is as good as none."""
    try:
        found = json.loads(line) if line else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
