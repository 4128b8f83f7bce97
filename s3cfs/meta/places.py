"""Where a name stands in the listing of its directory: a hash, so that a number says it and nothing has to be remembered.

It is part of no format: each machine indexes names by it (schema.py, `dentry_by_place`). But whoever reads a directory over NFS holds
such numbers across remounts, so it should stay as it is.
"""
from __future__ import annotations

from hashlib import blake2b
from typing import Any

PLACE_BITS = 62


def place(name: Any) -> int:
    """1 .. 2**62, of the bytes of a name (Any: SQLite calls it, too). That two share one is next to impossible, and listings bear it."""
    return 1 + (int.from_bytes(blake2b(name, digest_size=8).digest()) >> 64 - PLACE_BITS)
