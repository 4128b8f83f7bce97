"""What a tree is, entry by entry, so that two of them can be compared: nothing that a copy must keep is left out."""
from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
Manifest = dict[str, Entry]


def digest(path: Path) -> str:
    """Of a file's content, block by block."""
    found = hashlib.blake2b(digest_size=16)
    with path.open("rb", buffering=0) as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def manifest(root: Path, *, blocks: bool = False, without: Iterable[str] = ()) -> Manifest:
    """Every entry below `root`, by its path: kind, mode, owner, ns times, content, link target, device, xattrs, which names are one file.

    `blocks`: allocated blocks of files as well. `without`: fields to leave out.
    """
    found: Manifest = {}
    first_name: dict[int, str] = {}
    left_out = set(without)
    pending = [root]
    while pending:
        folder = pending.pop()
        with os.scandir(folder) as entries:
            paths = sorted(Path(entry.path) for entry in entries)
        for path in paths:
            name = str(path.relative_to(root))
            info = path.lstat()
            entry: Entry = {"mode": oct(info.st_mode), "owner": (info.st_uid, info.st_gid), "mtime": info.st_mtime_ns}
            if stat.S_ISLNK(info.st_mode):
                entry["target"] = os.readlink(path)
            elif stat.S_ISREG(info.st_mode):
                entry["size"], entry["content"] = info.st_size, digest(path)
                if blocks:
                    entry["blocks"] = info.st_blocks
            elif stat.S_ISBLK(info.st_mode) or stat.S_ISCHR(info.st_mode):
                entry["device"] = (os.major(info.st_rdev), os.minor(info.st_rdev))
            if stat.S_ISDIR(info.st_mode):
                pending.append(path)
            else:
                entry["names"] = info.st_nlink
                entry["same_as"] = first_name.setdefault(info.st_ino, name)
            entry["xattrs"] = {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
                               if key != "security.selinux"}
            found[name] = {key: value for key, value in entry.items() if key not in left_out}
    return found


def differences(expected: Manifest, found: Manifest) -> list[str]:
    """In words, at most 20; empty when the trees are the same."""
    said = [f"missing: {name}" for name in expected.keys() - found.keys()]
    said += [f"not expected: {name}" for name in found.keys() - expected.keys()]
    for name in expected.keys() & found.keys():
        if expected[name] != found[name]:
            which = [key for key in expected[name].keys() | found[name].keys() if expected[name].get(key) != found[name].get(key)]
            said += [f"{name}: {key} is {found[name].get(key)!r}, not {expected[name].get(key)!r}" for key in sorted(which)]
    return sorted(said)[:20]


def assert_same(expected: Manifest, found: Manifest) -> None:
    said = differences(expected, found)
    assert not said, "\n".join(said)
