"""The kernel's mount table. Nothing here touches a mounted filesystem, so it works while one hangs or is dead."""
from __future__ import annotations

import os
import re
from dataclasses import dataclass

_ESCAPE = re.compile(rb"\\([0-7]{3})")
MOUNTINFO = "/proc/self/mountinfo"


@dataclass(frozen=True, slots=True)
class MountEntry:
    """A line of mountinfo. `device` is "major:minor"; `owner` the uid that mounted it, where FUSE says so."""

    device: str
    mountpoint: str
    fstype: str
    source: str
    options: str                # of the mount and of the filesystem, comma-separated
    owner: int | None


def parse(table: bytes) -> list[MountEntry]:
    """Entries of the text of a mountinfo file, oldest first: of two on one folder the later one is seen."""
    entries = []
    for line in table.splitlines():
        left, dash, right = line.partition(b" - ")
        fields, about = left.split(b" "), right.split(b" ")
        if not dash or len(fields) < 6 or len(about) < 3:
            continue
        options = os.fsdecode(fields[5] + b"," + about[2])
        owner = re.search(r"(?:^|,)user_id=(\d+)", options)
        entries.append(MountEntry(
            device=os.fsdecode(fields[2]), mountpoint=_plain(fields[4]), fstype=os.fsdecode(about[0]), source=_plain(about[1]),
            options=options, owner=int(owner[1]) if owner else None))
    return entries


def entries() -> list[MountEntry]:
    with open(MOUNTINFO, "rb") as file:
        return parse(file.read())


def entry_at(path: str) -> MountEntry | None:
    """What is mounted on exactly this folder, or None."""
    here = resolve(path)
    return next((entry for entry in reversed(entries()) if entry.mountpoint == here), None)


def elsewhere(device: str) -> list[tuple[int, str]]:
    """Where else this filesystem is mounted: as (0, mount point) here, once more or as a part of it (`mount --bind`), and as (process,
    mount point) in other mount namespaces, one process for each. Only root sees those of others.
    """
    found = [(0, entry.mountpoint) for entry in entries() if entry.device == device]
    seen = {_namespace("self")}
    for folder in sorted((name for name in os.listdir("/proc") if name.isdecimal()), key=int):
        if (namespace := _namespace(folder)) in seen:
            continue
        seen.add(namespace)
        try:
            with open(f"/proc/{folder}/mountinfo", "rb") as file:
                found += [(int(folder), entry.mountpoint) for entry in parse(file.read()) if entry.device == device]
        except OSError:              # it has ended, or is not ours to look at
            seen.discard(namespace)
    return found


def _namespace(process: str) -> str | None:
    try:
        return os.readlink(f"/proc/{process}/ns/mnt")
    except OSError:
        return None


def resolve(path: str) -> str:
    """The real path of a mount point, without a look at the mount itself, which might hang."""
    whole = os.path.abspath(path)
    if any(entry.mountpoint == whole for entry in entries()):
        return whole
    parent, name = os.path.split(whole)
    whole = os.path.join(os.path.realpath(parent), name)
    if any(entry.mountpoint == whole for entry in entries()):
        return whole
    return os.path.realpath(whole)


def _plain(field: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), field))
