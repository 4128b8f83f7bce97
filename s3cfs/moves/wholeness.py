"""Whether an object's bytes are what was written."""
from __future__ import annotations

from s3cfs import ids
from s3cfs.doors import Doors
from s3cfs.errors import Damaged, NewerFormat
from s3cfs.formats import checkpoint, envelope, pack, record, superblock
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.record import object_hash
from s3cfs.history.log import open_record
from s3cfs.ids import pack_key
from s3cfs.moves.kinds import Kind, kind_of
from s3cfs.moves.ledger import Item

SMALL_BYTES = 64 << 10             # what is looked at sooner than a thread has begun


async def looked_at(doors: Doors, item: Item, data: bytes, keyring: KeyRing | None) -> str:
    """`trouble`, where it does not hold others up."""
    if len(data) <= SMALL_BYTES:
        return trouble(item, data, keyring)
    return await doors.threads.run(trouble, item, data, keyring)


def trouble(item: Item, data: bytes, keyring: KeyRing | None) -> str:
    """What is wrong with it, "" when nothing is. Pure.

    Packs have the hash of all of their bytes for a name, superblocks have one in them: for these no key is needed. Of others without key
    only the beginning can be looked at.
    """
    if item.digest is not None and object_hash(data) != item.digest:
        return "its bytes are not those the checkpoint names"
    try:
        return _trouble(item.key, data, keyring)
    except (Damaged, NewerFormat) as error:
        return str(error)


def named_by_hash(key: str) -> bool:
    return key.startswith("pack/")


def _trouble(key: str, data: bytes, keyring: KeyRing | None) -> str:
    match kind_of(key):
        case Kind.PACK:
            return "" if pack.verify_name(key, data) else "its bytes are not those its name was made from"
        case Kind.PART:
            envelope.read_header(data, envelope.PART, "checkpoint part")
            if keyring is not None:
                checkpoint.decode_part(data, ids.parse_checkpoint_key(key)[0], keyring.sealer("checkpoint", 0))
        case Kind.MANIFEST:
            envelope.read_header(data, envelope.MANIFEST, "checkpoint")
            if keyring is not None:
                checkpoint.decode_manifest(data, keyring.sealer("checkpoint", 0), ids.parse_checkpoint_key(key)[0])
        case Kind.RECORD:
            return _record(key, data, keyring)
        case Kind.CLAIM:
            envelope.read_header(data, envelope.RECORD, "claim")
            if keyring is not None:
                record.decode(data, 1, keyring.sealer("record", 0))
        case Kind.SUPER:
            found = superblock.decode(data, ids.parse_super_key(key)[0])
            if keyring is not None:
                body = superblock.encode(found).rpartition(b',"mac":"')[0]
                if found.fs_id != keyring.fs_id or keyring.mac(body) != found.mac:
                    return "it was changed by somebody without the key"
    return ""


def _record(key: str, data: bytes, keyring: KeyRing | None) -> str:
    """With its riders: the one object whose bytes are hashed in several parts."""
    envelope.read_header(data, envelope.RECORD, "log record")
    if keyring is None:
        return "" if record.head_bytes(data) <= len(data) else f"{len(data)} bytes are not all of it"
    found = open_record(key, data, keyring.sealer("record", 0))
    for rider, base in found.bases():
        if not pack.verify_name(pack_key(rider.name), memoryview(data)[base:base + rider.size]):
            return f"a pack that rides in it is damaged: {rider.name}"
    return ""
