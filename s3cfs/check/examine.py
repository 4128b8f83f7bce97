"""One pack's bytes against its name, its index and the rows: pure, and made for a thread."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from s3cfs.errors import Damaged, NewerFormat
from s3cfs.formats import pack as packs
from s3cfs.formats.chunk import ChunkCodec
from s3cfs.formats.envelope import Body
from s3cfs.formats.keys import KeyRing
from s3cfs.ids import PackName
from s3cfs.meta import Chunk


@dataclass(slots=True)
class Findings:
    """`object`: what is wrong with the pack as a whole. `bad`: chunk rows that cannot be had from these bytes, and why."""

    object: list[str] = field(default_factory=list)
    bad: dict[int, str] = field(default_factory=dict)
    intact: int = 0

    @property
    def clean(self) -> bool:
        return not self.object and not self.bad


def chunk_trouble(data: Body, row: Chunk, codec: ChunkCodec) -> str:
    """Why the chunk cannot be had from the pack's bytes; "" when it is whole."""
    view = memoryview(data)
    if row.off + row.clen > len(view):
        return f"it would end at {row.off + row.clen}, and the pack has {len(view)} bytes"
    try:
        plain = codec.decode(row.hash, view[row.off:row.off + row.clen], row.len)
    except Damaged as error:
        return str(error).partition(": ")[2] or str(error)
    return "" if codec.verify(row.hash, plain) else "its content is not what its id was made from"


def examine(data: bytes, name: PackName, key: str, rows: Sequence[Chunk] | None, keyring: KeyRing) -> Findings:
    """`rows` None: they cannot be read, so the pack's own index says what should be in it."""
    found = Findings()
    epoch = 0
    named = packs.verify_name(key, data)
    try:
        epoch = packs.read_header(data)
        if epoch != int(name.partition("-")[0]):
            found.object.append(f"its header says epoch {epoch}")
    except Damaged:
        found.object.append("its header is damaged")
    except NewerFormat as error:
        found.object.append(str(error))
    entries: list[packs.PackEntry] = []
    index = True
    try:
        entries = packs.read_index(data, len(data), keyring.sealer("index", epoch))
    except packs.NeedMore:
        index = False
        found.object.append("it is shorter than its index")
    except Damaged as error:
        index = False
        found.object.append(str(error).removeprefix("pack: ").replace("pack index: ", "its index: "))
    codec = ChunkCodec(keyring, epoch, None)
    if rows is None:
        rows = [Chunk(number, entry.chunk_id, 0, entry.offset, entry.size, entry.length, 1) for number, entry in enumerate(entries, 1)]
    listed = {(entry.chunk_id, entry.offset, entry.size, entry.length) for entry in entries}      # a chunk may be in it twice
    names = {entry.chunk_id for entry in entries}
    for row in rows:
        trouble = chunk_trouble(data, row, codec)
        if trouble:
            found.bad[row.id] = trouble
        else:
            found.intact += 1
        if index and (row.hash, row.off, row.clen, row.len) not in listed:
            where = "has it in another place" if row.hash in names else "does not list it"
            found.object.append(f"its index {where}: chunk {row.hash.hex()[:16]}, which the metadata expects at {row.off}")
    if not named:
        what = "" if found.object or found.bad else " (in bytes that no chunk needs)"
        found.object.insert(0, f"its bytes are not those its name was made from{what}")
    return found
