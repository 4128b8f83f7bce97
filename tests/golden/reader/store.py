"""Where objects come from, and what a reader says of one that is not as it must be."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path

HEAD, MAGIC = 313, b"s3cfs in pieces\n"


class Wrong(Exception):
    """An object of the store is damaged, missing, or was never written by a writer of this format."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(f"{key}: {what}")
        self.key, self.what = key, what


class Newer(Exception):
    """Whole, and written in a later version of the format."""


class NoKey(Exception):
    """The secret opens no key slot."""


class Store:
    """Keys and their bytes. An object that the store could not take whole is put together again."""

    def raw(self, key: str) -> bytes:
        """What lies under that key itself. Wrong when there is nothing."""
        raise NotImplementedError

    def names(self) -> Iterable[str]:
        """All keys."""
        raise NotImplementedError

    def keys(self, prefix: str) -> list[str]:
        """Those that begin with `prefix`, sorted as text."""
        return sorted(key for key in self.names() if key.startswith(prefix))

    def get(self, key: str) -> bytes:
        """The object. Wrong when it, or a piece of it, is not there."""
        data = self.raw(key)
        said, check = data[:44], data[44:]
        if len(data) != HEAD or not data.startswith(MAGIC) or check != blake2b(said, digest_size=16).digest().ljust(len(check), b"\0"):
            return data
        size, piece, token = int.from_bytes(data[16:24], "little"), int.from_bytes(data[24:28], "little"), data[28:44].hex()
        if not piece or size > 1 << 32 or -(-size // piece) > 100_000:
            return data
        try:
            made = b"".join(self.raw(f"piece/{token}/{number}") for number in range(-(-size // piece)))
        except Wrong as error:
            raise Wrong(key, f"its {error}") from None
        if len(made) != size:
            raise Wrong(key, "its pieces have another size together")
        return made


class Folder(Store):
    """A store in a local folder: an object is a file, its key is the path."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> Iterable[str]:
        return (str(path.relative_to(self._root)) for path in self._root.rglob("*") if path.is_file())

    def raw(self, key: str) -> bytes:
        try:
            return (self._root / key).read_bytes()
        except FileNotFoundError:
            raise Wrong(key, "missing") from None


class Objects(Store):
    """A store in memory."""

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        self._objects = objects

    def names(self) -> Iterable[str]:
        return self._objects

    def raw(self, key: str) -> bytes:
        if key not in self._objects:
            raise Wrong(key, "missing")
        return self._objects[key]
