"""The spool: dirty bytes that memory has no room for and that cannot be cut yet (files filled in random order).

One local file, sealed with a key that only this process has; it is worth nothing after the process ends and is emptied at every
start. Pieces are appended; when none is referred to any more the file is emptied.
"""
from __future__ import annotations

from s3cfs.doors import Disk, DiskFile
from s3cfs.formats.keys import KeyRing

from .dirty import Spooled

NAME = "spool"
_AAD = b"spool"


class Spool:
    """`put` and `read` are called in threads, one `put` at a time; `free` on the event loop."""

    def __init__(self, disk: Disk, keyring: KeyRing) -> None:
        self._disk, self._sealer = disk, keyring.spool_sealer()
        self._file: DiskFile | None = None
        self._end = 0
        self._live = 0

    @property
    def live_bytes(self) -> int:
        return self._live

    @property
    def file_bytes(self) -> int:
        return self._end

    def put(self, data: bytes | bytearray | memoryview) -> Spooled:
        """Append a piece. OSError as the disk says."""
        if self._file is None:
            self._file = self._disk.open(NAME, create=True)
        sealed = self._sealer.seal(data, _AAD)
        self._file.pwrite(sealed, self._end)
        piece = Spooled(self._end, len(sealed), len(data))
        self._end += len(sealed)
        self._live += piece.size
        return piece

    def read(self, piece: Spooled) -> bytes:
        """The piece's plain bytes. Damaged, OSError."""
        assert self._file is not None
        return self._sealer.open(self._file.pread(piece.sealed_bytes, piece.position), _AAD)

    def settle(self, referred_bytes: int) -> None:
        """Empty the file when nothing is referred to; `referred_bytes` is what all dirty maps still name."""
        self._live = referred_bytes
        if not referred_bytes and self._file is not None and self._end:
            self._file.truncate(0)
            self._end = 0

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._disk.unlink(NAME)
