"""Kinds of objects, in the order in which a copy is made: at no moment does something in the target name what is not there yet.

Superblocks come last. Without one nothing can be mounted, so a target is no filesystem until it is a whole one.
"""
from __future__ import annotations

import enum

from s3cfs import ids


class Kind(enum.IntEnum):
    PACK = 0
    PART = 1                       # of a checkpoint
    MANIFEST = 2
    RECORD = 3
    CLAIM = 4
    SUPER = 5

    @property
    def word(self) -> str:
        return {Kind.PACK: "packs", Kind.PART: "parts of checkpoints", Kind.MANIFEST: "checkpoints", Kind.RECORD: "log records",
                Kind.CLAIM: "claims", Kind.SUPER: "superblocks"}[self]


def kind_of(key: str) -> Kind:
    """ValueError: nothing of s3cfs has such a name."""
    match key.partition("/")[0]:
        case "pack":
            ids.parse_pack_key(key)
            return Kind.PACK
        case "checkpoint":
            return Kind.MANIFEST if ids.parse_checkpoint_key(key)[1].startswith("manifest-") else Kind.PART
        case "log":
            ids.parse_log_key(key)
            return Kind.RECORD
        case "claim":
            ids.parse_claim_key(key)
            return Kind.CLAIM
        case "super":
            ids.parse_super_key(key)
            return Kind.SUPER
    raise ValueError(f"no object of s3cfs: {key}")


def is_object(key: str) -> bool:
    """Whether it is one of s3cfs. All else in a store is somebody else's, or of a moment (probe/)."""
    try:
        kind_of(key)
    except ValueError:
        return False
    return True
