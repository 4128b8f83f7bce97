"""Checkpoints as whoever reads them sees them: which there are, and an empty database filled from one.

Parts are fetched, opened and decompressed by several at once, ahead of a thread that applies them in order. The event loop holds nothing
of it, and memory a few parts. The index that rows would enter at random is made at the end, from sorted rows (meta/bulk.py).
"""
from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable

import trio

from s3cfs import ids
from s3cfs.doors import Doors
from s3cfs.errors import Damaged, NotFound, ObjectMissing
from s3cfs.formats import checkpoint
from s3cfs.formats.checkpoint import Manifest, Part
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.record import object_hash
from s3cfs.formats.seal import Seals
from s3cfs.history.localtip import LocalTip
from s3cfs.history.log import folders_newest_first
from s3cfs.history.window import fetched_in_order
from s3cfs.ids import ObjectHash
from s3cfs.meta import Meta
from s3cfs.remote import Remote

Progress = Callable[[str, int, int], None]   # what, done, of how many
OPENED_AT_ONCE = 2                 # parts, beside the thread that applies: more of them would keep the event loop from its turn


async def manifests(remote: Remote) -> AsyncGenerator[tuple[str, int], None]:
    """(key, commit) of every checkpoint's manifest, newest first; four requests for the first, however many there are. Close it."""
    prefix = ids.checkpoint_prefix()
    for million in await folders_newest_first(remote, prefix):
        for thousand in await folders_newest_first(remote, f"{prefix}{million}/"):
            for commit in await folders_newest_first(remote, f"{prefix}{million}/{thousand}/"):
                for info in sorted(await remote.list(f"{prefix}{million}/{thousand}/{commit}/"), key=lambda info: info.key):
                    with contextlib.suppress(ValueError):
                        n, part = ids.parse_checkpoint_key(info.key)
                        if part.startswith("manifest-"):
                            yield info.key, n


async def read_manifest(remote: Remote, keyring: KeyRing, key: str) -> Manifest:
    """ObjectMissing, Damaged."""
    try:
        return checkpoint.decode_manifest(await _get(remote, key), keyring.sealer("checkpoint", 0), ids.parse_checkpoint_key(key)[0])
    except Damaged as exc:
        raise Damaged(f"checkpoint {key} is damaged: {exc}") from None


async def read_part(doors: Doors, remote: Remote, keyring: KeyRing, commit: int, part: Part,
                    turn: contextlib.AbstractAsyncContextManager[object] | None = None) -> list[bytes]:
    """Its changesets, in order; opened in its `turn`, if there is one to wait for. ObjectMissing, Damaged."""
    data = await _get(remote, part.key)
    async with turn or contextlib.nullcontext():
        return await doors.threads.run(_open_part, data, commit, part, keyring.sealer("checkpoint", 0))


async def _get(remote: Remote, key: str) -> bytes:
    try:
        return await remote.get(key)
    except NotFound:
        raise ObjectMissing(f"{key} is missing from the store") from None


def _open_part(data: bytes, commit: int, part: Part, sealer: Seals) -> list[bytes]:
    if object_hash(data).hex() != part.hash:
        raise Damaged(f"checkpoint part {part.key} is damaged")
    return checkpoint.decode_part(data, commit, sealer)


def base_of(manifest: Manifest) -> LocalTip:
    """How far a database is that was filled from it."""
    return LocalTip(manifest.commit, manifest.record_key, ObjectHash(bytes.fromhex(manifest.record_hash)), 0, 0, manifest.commit,
                    sum(part.size for part in manifest.parts))


async def fill(doors: Doors, remote: Remote, keyring: KeyRing, meta: Meta, manifest: Manifest, progress: Progress) -> None:
    """Load the checkpoint into a new database. After an error that is good for nothing. ObjectMissing, Damaged, Diverged."""
    parts = {part.key: part for part in manifest.parts}
    limits, done = doors.limits, 0
    opening = trio.Semaphore(OPENED_AT_ONCE)

    async def fetch(key: str) -> list[bytes]:
        return await read_part(doors, remote, keyring, manifest.commit, parts[key], opening)

    await doors.threads.run(meta.begin_bulk)
    async with fetched_in_order([part.key for part in manifest.parts], fetch, lambda changesets: sum(map(len, changesets)),
                                at_once=max(1, limits.downloads_at_once // 2), ahead=limits.downloads_at_once,
                                ahead_bytes=2 * limits.checkpoint_part_bytes) as window:
        while found := await window.take(1, 0):
            for _, changesets in found:
                await doors.threads.run(_apply, meta, changesets)
            done += len(found)
            progress("reading the checkpoint", done, len(manifest.parts))
    progress("sorting what was read", 0, 0)
    await doors.threads.run(_end, meta, manifest)


def _apply(meta: Meta, changesets: list[bytes]) -> None:
    for changeset in changesets:
        meta.apply(changeset)
    meta.commit()
    meta.checkpoint_wal()
    meta.restart_wal()


def _end(meta: Meta, manifest: Manifest) -> None:
    meta.end_bulk()
    for pack, key, base in manifest.riding:
        meta.note_riding(pack, key, base)
    base_of(manifest).save(meta)
    meta.commit()
