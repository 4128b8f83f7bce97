"""The spool: dirty bytes that memory has no room for and that cannot be cut yet (files filled in random order).

One local file, sealed with a key that only this process has; it is worth nothing after the process ends and is emptied at every
start. Pieces are appended; when none is referred to any more the file is emptied. It has a bound: once it is reached nothing is put
there until the file was emptied, and files are staged instead, whatever state they are in.
"""
from __future__ import annotations

import contextlib
from collections.abc import Iterator

from s3cfs.doors import Disk, DiskFile
from s3cfs.errors import Damaged, DataError
from s3cfs.formats.keys import KeyRing

from .dirty import Spooled

NAME = "spool"
_AAD = b"spool"


class Spool:
    """`put` and `read` are called in threads, one `put` at a time; the rest on the event loop."""

    def __init__(self, disk: Disk, keyring: KeyRing, max_bytes: int) -> None:
        self._disk, self._sealer, self._max_bytes = disk, keyring.spool_sealer(), max_bytes
        self._file: DiskFile | None = None
        self._end = 0
        self._pins = 0
        self._full = False
        self.live_bytes = 0       # plain bytes that dirty maps refer to

    @property
    def file_bytes(self) -> int:
        return self._end

    @property
    def has_room(self) -> bool:
        return not self._full and self._end < self._max_bytes

    def close_entrance(self) -> None:
        """Nothing more is put until it was emptied (the disk refused, or the bound is reached)."""
        self._full = True

    @contextlib.contextmanager
    def pinned(self) -> Iterator[None]:
        """Whoever has pieces in hand that no dirty map may refer to any more, or yet."""
        self._pins += 1
        try:
            yield
        finally:
            self._pins -= 1

    def put(self, data: bytes | bytearray | memoryview) -> Spooled:
        """Append a piece. OSError as the disk says."""
        if self._file is None:
            self._file = self._disk.open(NAME, create=True)
        sealed = self._sealer.seal(data, _AAD)
        self._file.pwrite(sealed, self._end)
        piece = Spooled(self._end, len(sealed), len(data))
        self._end += len(sealed)
        return piece

    def read(self, piece: Spooled) -> bytes:
        """The piece's plain bytes. DataError when the disk does not give them back."""
        assert self._file is not None
        try:
            return self._sealer.open(self._file.pread(piece.sealed_bytes, piece.position), _AAD)
        except (OSError, Damaged) as error:
            raise DataError(f"what was written cannot be read back from the spool: {error}") from error

    def settle(self, referred_bytes: int) -> None:
        """Empty the file when nothing is referred to; `referred_bytes` is what all dirty maps still name, those being staged included."""
        self.live_bytes = referred_bytes
        if self._end >= self._max_bytes:
            self._full = True
        if not referred_bytes and not self._pins and self._file is not None and self._end:
            with contextlib.suppress(OSError):            # then it stays as long as it is
                self._file.truncate(0)
                self._end, self._full = 0, False

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._disk.unlink(NAME)
