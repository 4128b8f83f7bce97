"""Where a filesystem may go: an empty place, what an earlier run left of the same, or the same filesystem as it was copied before."""
from __future__ import annotations

import os
from dataclasses import dataclass

from s3cfs.app.superblocks import find_copies, read_superblock
from s3cfs.errors import BucketMissing, Diverged, FilesystemExists, NotFound, UsageError
from s3cfs.formats.superblock import Superblock
from s3cfs.history.log import newest_key
from s3cfs.moves.kinds import is_object
from s3cfs.moves.places import told_of
from s3cfs.remote import Remote

SAMPLE = 8                         # packs of a target that are looked for in the source


def refuse_same_place(source: str, target: str) -> None:
    """Of two URLs in normal form."""
    one, other = map(_place, (source, target))
    if one == other:
        raise UsageError(f"source and target are the same place: {target}")
    if one.startswith(other.rstrip("/") + "/") or other.startswith(one.rstrip("/") + "/"):
        raise UsageError(f"one place lies in the other: {source} and {target}")


def _place(url: str) -> str:
    """One text for one place, as far as URLs can tell."""
    scheme, _, rest = url.partition("://")
    if scheme == "local":
        return f"local://{os.path.realpath(rest)}"
    return f"s3c://{rest}" if scheme == "storjs3" else url         # one server, seen in two ways


@dataclass(frozen=True, slots=True)
class Target:
    superblock: Superblock                     # of the source
    is_filesystem: bool                        # it can be mounted: an earlier run came to its end
    is_empty: bool

    async def refuse_others(self, source: Remote, target: Remote) -> bool:
        """FilesystemExists, Diverged: what is there is not of this filesystem, or of another history of it. True: it is the same one, and
        has gone on where the source ended."""
        if self.is_filesystem:
            return await _gone_on(source, target)
        if not self.is_empty:
            with told_of(target):
                there = [key] if (key := await newest_key(target)) else await _some_packs(target)
            if there and not any([await _has(source, key) for key in there]):
                raise FilesystemExists(f"{target.location} holds objects of another filesystem, whose superblock is gone ({there[0]}): "
                                       "choose an empty place")
        return False

    async def still_ours(self, target: Remote) -> None:
        """Nobody made another filesystem there meanwhile."""
        if await find_copies(target):
            await _check_id(target, self.superblock)


async def look_at_target(found: Superblock, target: Remote, *, make: bool) -> Target:
    """`make`: the place may be made where that is possible (a folder). FilesystemExists when another filesystem is there."""
    if make:
        await target.create()
    try:
        await target.check()
    except BucketMissing:
        if make:
            raise
        return Target(found, is_filesystem=False, is_empty=True)     # a folder that will be made, or a bucket that will be asked for again
    if await find_copies(target):
        await _check_id(target, found)
        return Target(found, is_filesystem=True, is_empty=False)
    kinds = [await target.folders(f"{kind}/") for kind in ("pack", "checkpoint", "log", "claim")]
    return Target(found, is_filesystem=False, is_empty=not any(kinds))


async def _check_id(target: Remote, found: Superblock) -> None:
    there = await read_superblock(target)
    if there.fs_id != found.fs_id:
        raise FilesystemExists(f"{target.location} holds another filesystem ({there.label or there.fs_id.hex()}): choose an empty place")


async def _gone_on(source: Remote, target: Remote) -> bool:
    """Whether the target has newer records. The newest record of one must be in the other, else both went on: Diverged."""
    with told_of(source):
        ours = await newest_key(source)
    with told_of(target):
        theirs = await newest_key(target)
    if not theirs or await _same(source, target, theirs):
        return False
    if not ours or await _same(source, target, ours):
        return True
    raise Diverged(f"{source.location} and {target.location} were both written since one was copied to the other, and cannot be joined: "
                   f"one ends with {ours}, the other with {theirs}. Nothing was copied")


async def _same(source: Remote, target: Remote, key: str) -> bool:
    try:
        with told_of(source):
            one = await source.get(key)
        with told_of(target):
            return one == await target.get(key)
    except NotFound:
        return False


async def _has(remote: Remote, key: str) -> bool:
    try:
        with told_of(remote):
            await remote.stat(key)
    except NotFound:
        return False
    return True


async def _some_packs(target: Remote) -> list[str]:
    for name in sorted(await target.folders("pack/")):
        if found := [info.key for info in await target.list(f"pack/{name}/") if is_object(info.key)]:
            return found[:SAMPLE]
    return []
