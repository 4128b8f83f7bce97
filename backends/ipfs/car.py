"""An archive of blocks, CARv1: what `ipfs dag import` takes and `ipfs dag export` gives. Pure: bytes go in and out in pieces.

    varint(length) + dag-cbor {"roots": [CID, ...], "version": 1}, then of each block: varint(length) + CID + data
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from s3cfs.backends.ipfs.cid import Cid, decode_varint, digest_of, encode_varint
from s3cfs.backends.types import Body
from s3cfs.limits import MIB

SECTION_MAX_BYTES = 8 * MIB        # no node makes blocks of more than 2 MiB; what says more is no archive

_CID_TAG = b"\xd8\x2a"             # 42: a CID in CBOR, behind a byte 0


def header(roots: Sequence[Cid]) -> bytes:
    """Fewer than 24 roots."""
    if len(roots) >= 24:
        raise ValueError("an archive of s3cfs has fewer than 24 roots")
    body = b"\xa2\x65roots" + bytes([0x80 | len(roots)])
    for root in roots:
        data = b"\0" + bytes(root)
        body += _CID_TAG + b"\x58" + bytes([len(data)]) + data
    body += b"\x67version\x01"
    return encode_varint(len(body)) + body


def section(cid: Cid, data: Body) -> Iterator[Body]:
    """A block, in two pieces; its data is not copied."""
    name = bytes(cid)
    yield encode_varint(len(name) + len(data)) + name
    yield data


def archive(roots: Sequence[Cid], blocks: Iterable[tuple[Cid, Body]]) -> Iterator[Body]:
    """A whole archive, in pieces."""
    yield header(roots)
    for cid, data in blocks:
        yield from section(cid, data)


class Archive:
    """One that is read: `roots`, and the blocks one after the other. `read(n)` gives n bytes, fewer only at the end.

    ValueError, whose text says what is wrong: cut short, damaged, or no archive. Each block's hash is verified.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        data = self._section()
        if data is None:
            raise ValueError("the archive is empty")
        self.roots = _decode_header(data)

    def __iter__(self) -> Iterator[tuple[Cid, memoryview]]:
        while (data := self._section()) is not None:
            cid, at = Cid.read(data, 0)
            block = memoryview(data)[at:]
            if digest_of(block) != cid.digest:
                raise ValueError(f"the block {cid} is damaged")
            yield cid, block

    def _section(self) -> bytes | None:
        """None: it ends here."""
        head = b""
        while byte := self._read(1):
            head += byte
            if byte[0] < 0x80 or len(head) == 10:
                size, _ = decode_varint(head, 0)
                if size > SECTION_MAX_BYTES:
                    raise ValueError(f"{size} bytes are no block")
                data = self._read(size)
                if len(data) == size:
                    return data
                break
        else:
            if not head:
                return None
        raise ValueError("the archive is cut short")


def _decode_header(data: bytes) -> tuple[Cid, ...]:
    """Of version 1, keys in the order that dag-cbor has them; what else it may be is not read."""
    before, after = b"\xa2\x65roots", b"\x67version\x01"
    if not (data.startswith(before) and data.endswith(after) and len(data) > len(before) + len(after)):
        raise ValueError("this is no CARv1")
    body = data[len(before):-len(after)]
    count, at, roots = body[0] - 0x80, 1, list[Cid]()
    if not 0 <= count < 24:
        raise ValueError("the list of roots is not understood")
    for _ in range(count):
        if body[at:at + 3] != _CID_TAG + b"\x58" or len(body) < at + 5 or body[at + 4] != 0:
            raise ValueError("a root is not understood")
        end = at + 4 + body[at + 3]
        roots.append(Cid.decode(body[at + 5:end]))
        at = end
    if at != len(body):
        raise ValueError("there is more in the header than roots")
    return tuple(roots)
