"""All that a user can see, by path: for people, and to be compared."""
from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from .tree import Filesystem

SHOWN = ("ino", "mode", "nlink", "uid", "gid", "rdev", "size", "mtime_ns", "ctime_ns")


def listing(filesystem: Filesystem) -> dict[str, dict[str, Any]]:
    """Paths are bytes as Latin-1; the root is ""."""
    found: dict[str, dict[str, Any]] = {}
    for node in filesystem.walk():
        entry = {name: node.inode[name] for name in SHOWN}
        if node.xattrs:
            entry["xattrs"] = {name.decode(): value.hex() for name, value in node.xattrs.items()}
        if node.inode["target"] is not None:
            entry["target"] = os.fsdecode(node.inode["target"])
        if node.is_file:
            entry |= {"alloc": node.inode["alloc"], "sha256": hashlib.sha256(filesystem.content(node.ino)).hexdigest()}
        found[node.path.decode("latin-1")] = entry
    return found


def extract(filesystem: Filesystem, into: Path) -> None:
    """Folders, files and links, with the bits of their modes; nothing else."""
    for node in filesystem.walk():
        path = Path(os.fsdecode(os.fsencode(into) + node.path))
        if node.is_folder:
            path.mkdir(mode=0o700, parents=True)
        elif node.is_file:
            path.write_bytes(filesystem.content(node.ino))
            path.chmod(node.inode["mode"] & 0o777)
        elif node.inode["target"] is not None:
            path.symlink_to(os.fsdecode(node.inode["target"]))
