"""Names: keys of objects in the store, and the small types that travel between floors."""
from __future__ import annotations

import re
from typing import NewType

ChunkId = NewType("ChunkId", bytes)      # 32 bytes: keyed BLAKE3 of the chunk's plaintext
PackName = NewType("PackName", str)      # "<epoch>-<blake3 hex of the object's bytes>"
ObjectHash = NewType("ObjectHash", bytes)  # 32 bytes: BLAKE3 of an object's bytes as stored

FORMAT_VERSION = 0                        # frozen as 1 by a later release; a higher one is refused
BRANCH = "main"
ROOT_INO = 1
ZERO_HASH = ObjectHash(bytes(32))         # "the record before" of the first record

_SUPER_KEY = re.compile(r"super/(\d{1,19})(?:\.(\d{1,9}))?")
_PACK_NAME = re.compile(r"(\d{1,10})-([0-9a-f]{64})")
_LOG_KEY = re.compile(r"log/([a-z0-9._-]+)/\d{1,10}/(\d{1,10})-([0-9a-f]{16})/\d{1,20}/\d{1,20}/(\d{1,20})")
_CLAIM_KEY = re.compile(r"claim/([a-z0-9._-]+)/(\d{1,10})-([0-9a-f]{16})")
_CHECKPOINT_KEY = re.compile(r"checkpoint/([a-z0-9._-]+)/\d{1,20}/\d{1,20}/(\d{1,20})/(manifest-[0-9a-f]{16}|[0-9a-f]{16}-\d{1,10})")


def super_key(n: int, copy: int = 1) -> str:
    """Copies of superblock n are the same bytes under several names, since damage to the only one would lose everything."""
    return f"super/{n}" if copy == 1 else f"super/{n}.{copy}"


def parse_super_key(key: str) -> tuple[int, int]:
    """(n, copy); ValueError when it is no superblock's key."""
    found = _SUPER_KEY.fullmatch(key)
    if not found or key != super_key(int(found[1]), int(found[2] or 1)):
        raise ValueError(f"not a superblock's key: {key}")
    return int(found[1]), int(found[2] or 1)


def pack_name(epoch: int, digest: bytes) -> PackName:
    return PackName(f"{epoch}-{digest.hex()}")


def pack_key(name: PackName) -> str:
    """Sharded by the first byte of the hash, so that no prefix holds more than 1/256 of the packs (A2)."""
    return f"pack/{name.partition('-')[2][:2]}/{name}"


def parse_pack_key(key: str) -> tuple[int, bytes]:
    """(epoch, BLAKE3 of the bytes) of a pack's key; ValueError when it is none."""
    found = _PACK_NAME.fullmatch(key.rpartition("/")[2])
    if not found or key != pack_key(PackName(found[0])):
        raise ValueError(f"not a pack's key: {key}")
    return int(found[1]), bytes.fromhex(found[2])


def log_prefix(branch: str = BRANCH) -> str:
    return f"log/{branch}/"


def epoch_prefix(epoch: int, nonce: str, branch: str = BRANCH) -> str:
    """Folder of one writer's records; `nonce` is 16 hex digits drawn by that writer. A thousand epochs share one above it."""
    return f"log/{branch}/{epoch // 1000}/{epoch}-{nonce}/"


def in_ranges(n: int) -> str:
    """How numbered things lie in their folder: a million below one, a thousand below the next, so no listing grows with age."""
    return f"{n // 10**6}/{n // 1000}/{n}"


def record_key(folder: str, n: int) -> str:
    """Record n in a writer's folder."""
    return folder + in_ranges(n)


def log_key(epoch: int, nonce: str, n: int, branch: str = BRANCH) -> str:
    return record_key(epoch_prefix(epoch, nonce, branch), n)


def parse_log_key(key: str) -> tuple[str, int, str, int]:
    """(branch, epoch, nonce, n); ValueError when it is no log record's key."""
    found = _LOG_KEY.fullmatch(key)
    if not found or key != log_key(int(found[2]), found[3], int(found[4]), found[1]):
        raise ValueError(f"not a log record's key: {key}")
    return found[1], int(found[2]), found[3], int(found[4])


def folder_of(key: str) -> str:
    """The writer's folder that a record lies in. ValueError."""
    branch, epoch, nonce, _ = parse_log_key(key)
    return epoch_prefix(epoch, nonce, branch)


def claim_prefix(branch: str = BRANCH) -> str:
    return f"claim/{branch}/"


def claim_key(epoch: int, nonce: str, branch: str = BRANCH) -> str:
    return f"claim/{branch}/{epoch}-{nonce}"


def parse_claim_key(key: str) -> tuple[str, int, str]:
    """(branch, epoch, nonce); ValueError when it is no claim's key."""
    found = _CLAIM_KEY.fullmatch(key)
    if not found or key != claim_key(int(found[2]), found[3], found[1]):
        raise ValueError(f"not a claim's key: {key}")
    return found[1], int(found[2]), found[3]


def checkpoint_prefix(branch: str = BRANCH) -> str:
    return f"checkpoint/{branch}/"


def checkpoint_key(commit: int, part: str, branch: str = BRANCH) -> str:
    """`part` is "manifest-<16 hex>" or "<16 hex>-<number>": the nonce keeps two attempts at one commit apart."""
    return f"checkpoint/{branch}/{in_ranges(commit)}/{part}"


def parse_checkpoint_key(key: str) -> tuple[int, str]:
    """(commit, part) of an object of a checkpoint; ValueError when the key is none."""
    found = _CHECKPOINT_KEY.fullmatch(key)
    if not found or key != checkpoint_key(int(found[2]), found[3], found[1]):
        raise ValueError(f"not a checkpoint's key: {key}")
    return int(found[2]), found[3]
