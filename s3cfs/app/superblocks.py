"""The superblocks in a store: each is there twice, under two names, since without one nothing in the store can be read.

A damaged copy stays where it is. When fewer than two whole ones are left, a mount writes one more, under the next free name: nothing is
overwritten, and a store that refuses to overwrite is healed like any other.
"""
from __future__ import annotations

import logging
from dataclasses import dataclass

from s3cfs import ids
from s3cfs.errors import Damaged, Exists, NoFilesystem, NotFound, StoreError
from s3cfs.formats import superblock
from s3cfs.formats.superblock import Superblock
from s3cfs.remote import Remote

log = logging.getLogger(__name__)

COPIES = 2
PREFIX = "super/"
LATE_LOOKS, LATE_PAUSE_S = 5, 0.5     # where answers may be old: before it is believed that there is none


@dataclass(frozen=True, slots=True)
class Copies:
    """The superblock that counts, and how many copies of it are whole."""

    superblock: Superblock
    whole: int
    damaged: tuple[str, ...]       # keys
    last: int                      # the highest number of a copy


async def read_superblock(remote: Remote) -> Superblock:
    """The one that counts. NoFilesystem, NewerFormat, Damaged."""
    return (await read_copies(remote)).superblock


async def find_copies(remote: Remote) -> dict[int, set[int]]:
    """Copies of each number that seem to be there; {}: there is no superblock. A store whose answers may be old is asked a few times, and
    copies that are usual are then taken to be there."""
    for looks_left in range(LATE_LOOKS - 1 if remote.capabilities.linearizable is False else 0, -1, -1):
        numbers: dict[int, set[int]] = {}
        for info in await remote.list(PREFIX):
            try:
                n, copy = ids.parse_super_key(info.key)
            except ValueError:
                continue
            numbers.setdefault(n, set()).add(copy)
        if numbers or not looks_left:
            break
        await remote.doors.clock.sleep(LATE_PAUSE_S)
    if remote.capabilities.linearizable is False:
        for copies in numbers.values():
            copies.update(range(1, COPIES + 1))
    return numbers


async def read_copies(remote: Remote) -> Copies:
    """Of the highest number with a whole copy. NoFilesystem, NewerFormat, Damaged when there are some but none is whole."""
    numbers = await find_copies(remote)
    if not numbers:
        raise NoFilesystem(f"{remote.location} holds no s3cfs filesystem (s3cfs mkfs makes one)")
    worst: Damaged | None = None
    for n in sorted(numbers, reverse=True):
        found: Superblock | None = None
        whole, damaged = 0, []
        for copy in sorted(numbers[n]):
            key = ids.super_key(n, copy)
            try:
                here = superblock.decode(await remote.get(key), n)
                if found is not None and here != found:
                    raise Damaged("it differs from its other copy")
                found, whole = here, whole + 1
            except NotFound:
                continue                                  # listed, and gone
            except Damaged as exc:
                log.error("superblock %s is damaged: %s", key, exc)
                damaged.append(key)
                worst = worst or Damaged(f"superblock {key} is damaged: {exc}")
        if found is not None:
            return Copies(found, whole, tuple(damaged), max(numbers[n]))
    raise worst or NoFilesystem(f"{remote.location}: its superblocks went while they were being read")


async def heal(remote: Remote, copies: Copies) -> list[str]:
    """Write copies until COPIES are whole; the new keys. Only of a superblock that was unlocked, so that it is known to be its owner's.

    A store that takes none now is asked again by the next mount.
    """
    made: list[str] = []
    data = superblock.encode(copies.superblock)
    for number in range(copies.last + 1, copies.last + 1 + COPIES - copies.whole):
        key = ids.super_key(copies.superblock.n, number)
        try:
            await remote.put(key, data)
        except Exists:
            pass
        except StoreError as exc:
            log.warning("no further copy of the superblock could be written: %s", exc)
            break
        made.append(key)
    return made
