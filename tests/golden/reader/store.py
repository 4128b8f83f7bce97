"""Where objects come from, and what a reader says of one that is not as it must be."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class Wrong(Exception):
    """An object of the store is damaged, missing, or was never written by a writer of this format."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(f"{key}: {what}")
        self.key, self.what = key, what


class Newer(Exception):
    """Whole, and written in a later version of the format."""


class NoKey(Exception):
    """The secret opens no key slot."""


class Store(Protocol):
    def keys(self, prefix: str) -> list[str]:
        """Those that begin with `prefix`, sorted as text."""

    def get(self, key: str) -> bytes:
        """Wrong when there is none."""


class Folder:
    """A store in a local folder: an object is a file, its key is the path."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def keys(self, prefix: str) -> list[str]:
        found = (str(path.relative_to(self._root)) for path in self._root.rglob("*") if path.is_file())
        return sorted(key for key in found if key.startswith(prefix))

    def get(self, key: str) -> bytes:
        try:
            return (self._root / key).read_bytes()
        except FileNotFoundError:
            raise Wrong(key, "missing") from None


class Objects:
    """A store in memory."""

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        self._objects = objects

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self._objects if key.startswith(prefix))

    def get(self, key: str) -> bytes:
        if key not in self._objects:
            raise Wrong(key, "missing")
        return self._objects[key]
