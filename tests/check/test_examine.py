"""One pack's bytes against its index and the rows."""
from __future__ import annotations

from dataclasses import replace

from blake3 import blake3

from s3cfs import ids
from s3cfs.check.examine import examine
from s3cfs.formats import pack
from s3cfs.formats.chunk import ChunkCodec
from s3cfs.formats.pack import PackEntry
from s3cfs.meta import Chunk
from tests.formats.kit import keyring


def make(contents: list[bytes]) -> tuple[bytes, ids.PackName, list[Chunk]]:
    ring = keyring()
    codec, data = ChunkCodec(ring, 4, None), bytearray(pack.header(4, bytes(16)))
    rows = []
    for number, content in enumerate(contents, 1):
        sealed = codec.encode(ring.chunk_id(content), content)
        rows.append(Chunk(number, ring.chunk_id(content), 1, len(data), len(sealed), len(content), 1))
        data += sealed
    entries = [PackEntry(row.hash, row.off, row.clen, row.len) for row in rows]
    data += pack.tail(entries, len(data), ring.sealer("index", 4))
    return bytes(data), ids.pack_name(4, blake3(data).digest()), rows


def test_a_chunk_twice_in_one_pack_is_no_damage() -> None:
    """Two writers of one content at once, or a repair, may bring it about; both are whole, and rows may name either."""
    data, name, rows = make([b"same", b"other", b"same"])
    for named in (rows, rows[:2], rows[1:], None):
        found = examine(data, name, ids.pack_key(name), named, keyring())
        assert found.clean and found.intact == (3 if named is None else len(named))


def test_a_chunk_that_the_index_has_in_another_place_is() -> None:
    data, name, rows = make([b"same", b"other", b"same"])
    wrong = [replace(rows[0], off=rows[1].off)]
    found = examine(data, name, ids.pack_key(name), wrong, keyring())
    assert found.bad and any("in another place" in text for text in found.object)
    found = examine(data, name, ids.pack_key(name), [replace(rows[0], hash=ids.ChunkId(b"?" * 32))], keyring())
    assert any("does not list it" in text for text in found.object)
