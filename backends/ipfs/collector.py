"""Takes away the blocks of deleted objects and no others: so nothing that a node put there.

A block goes when all of this holds:

- a burial (names.py) names it that is older than the grace, a day;
- no entry names it, in any name table of these blocks;
- the store says that it was put longer ago than the grace: every put puts its blocks anew, so what is being put again is young;
- it has 64 bytes at least and is none of zeros: such a one may well be somebody else's, too.

Ages of blocks are by the store's clock, which a small object shows. An entry that cannot be used may name anything: then nothing goes.
What is left open is a put of the very same bytes that a deleted object had, between the look at a block's age and its removal.

    s3cfs ipfs gc URL       or the layer: once in a while, where this process has deleted or put something itself
"""
from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from s3cfs.backends.base import Backend
from s3cfs.backends.ipfs import names
from s3cfs.backends.ipfs.cid import digest_of
from s3cfs.backends.ipfs.dag import LEAF_BYTES
from s3cfs.backends.ipfs.objects import SMALL_BYTES, IpfsBackend
from s3cfs.backends.layer import Call, Layer
from s3cfs.backends.types import Body, Degraded
from s3cfs.errors import Damaged, NotFound, S3cfsError, StoreError, Unsupported

log = logging.getLogger(__name__)

GRACE_S = 86400.0
EVERY_H = 24.0
CANDIDATES_MAX = 200_000           # digests in memory at once; what was deleted beyond that waits for the next time
AT_ONCE = 64                       # blocks between whose first look and last removal nothing else is done
ZEROS = digest_of(bytes(LEAF_BYTES))
PROBES = "probe/"                  # below it a probe may leave what is no entry (IpfsBackend.probe_create_only)


@dataclass
class Collected:
    """What one look did. `named`: blocks that some entry names (again), `young`: that were put again lately."""

    burials: int = 0
    blocks: int = 0
    bytes: int = 0
    named: int = 0
    young: int = 0
    waiting: int = 0               # burials that are not old enough yet, or were left for the next time


@dataclass
class _Burial:
    object: str                    # its name in the bucket
    digests: list[bytes]


def collect(backend: IpfsBackend, grace_s: float = GRACE_S, *, dry_run: bool = False,
            going: Callable[[str, int], None] = lambda what, done: None) -> Collected:
    """One look. `going(what is done, how many)` is called often, and may raise. Damaged: an entry or a burial cannot be used."""
    result = Collected()
    store, folder = backend.datastore.store, backend.datastore.blocks_folder
    burials = list(_old(backend, backend.now() - grace_s, result))
    if not burials:
        return result
    candidates = {digest for burial in burials for digest in burial.digests}
    everything = len(candidates)
    done = 0
    for table in names.tables(store, folder):
        for key, entry in backend.of_table(table).listed(""):
            if entry is not None:
                candidates.difference_update(entry.blocks)
            elif not key.startswith(PROBES):
                raise Damaged(f"the entry of {key} in the name table {table} cannot be used and may name anything: nothing was removed")
            done += 1
            going("entries", done)
    result.named = everything - len(candidates)
    young = _remove(backend, candidates, grace_s, dry_run, result, going)
    over = [burial.object for burial in burials if young.isdisjoint(burial.digests)]
    result.burials, result.waiting = len(over), result.waiting + len(burials) - len(over)
    batch = max(1, store.capabilities.batch_delete)
    for at in range(0, 0 if dry_run else len(over), batch):
        store.delete_many(over[at:at + batch])
    return result


def _old(backend: IpfsBackend, until: float, result: Collected) -> Iterator[_Burial]:
    store, folder = backend.datastore.store, backend.datastore.blocks_folder
    old: list[tuple[str, str]] = []                    # object, name
    for table in names.tables(store, folder):
        gone = names.Table(folder, table).gone
        for info in store.list(gone):
            at = names.buried_at(name := info.key[len(gone):])
            if at is not None and at <= until:
                old.append((info.key, name))
            elif at is not None:                       # else a mark of `_store_now` whose process died
                result.waiting += 1
    count = 0
    for first in range(0, len(old), AT_ONCE):
        if count > CANDIDATES_MAX:
            result.waiting += len(old) - first
            break
        for burial in backend.datastore.crowd.each(lambda one: _read(store, *one), old[first:first + AT_ONCE]):
            if burial is not None:
                count += len(burial.digests)
                yield burial


def _read(store: Backend, key: str, name: str) -> _Burial | None:
    try:
        return _Burial(key, names.decode_burial(name, store.get(key)))
    except NotFound:                                   # another collector was quicker
        return None
    except ValueError as error:
        raise Damaged(f"{key}, which says what was deleted, cannot be used: {error}; without it those blocks stay") from None


def _remove(backend: IpfsBackend, candidates: set[bytes], grace_s: float, dry_run: bool, result: Collected,
            going: Callable[[str, int], None]) -> set[bytes]:
    """Those that are old enough; the others are returned."""
    store, datastore, young = backend.datastore.store, backend.datastore, set[bytes]()
    until = _store_now(backend) - grace_s
    batch = min(AT_ONCE, max(1, store.capabilities.batch_delete))
    left = sorted(candidates)

    def look(digest: bytes) -> str | None:
        name = datastore.object_of(datastore.block(digest))
        try:
            info = store.stat(name)
        except NotFound:
            return None
        if info.size < SMALL_BYTES or digest == ZEROS:
            return None
        if info.modified is None or info.modified > until:
            young.add(digest)
            return None
        result.bytes += info.size
        return name

    for at in range(0, len(left), batch):
        old = [name for name in datastore.crowd.each(look, left[at:at + batch]) if name is not None]
        if old and not dry_run:
            store.delete_many(old)
        result.blocks += len(old)
        going("blocks", at + batch)
    result.young = len(young)
    return young


def _store_now(backend: IpfsBackend) -> float:
    """By the store's clock. Unsupported: it does not say when something was put."""
    store, mark = backend.datastore.store, f"{backend.table.gone}now-{secrets.token_hex(8)}"
    store.put(mark, b"")
    try:
        modified = store.stat(mark).modified
    finally:
        store.delete(mark)
    if modified is None:
        raise Unsupported("stat", mark, "this store does not say when something was put: nothing can be removed")
    return modified


class Collecting(Layer):
    """A look every so many hours, where this process puts or deletes anything."""

    name = "collector"

    def __init__(self, backend: IpfsBackend, every_h: float) -> None:
        self._backend, self._every_s = backend, every_h * 3600
        self._changed = self._ended = False
        self._last: Mapping[str, Any] = {}

    async def run(self) -> None:
        try:
            while True:
                await self.doors.clock.sleep(self._every_s)
                if self._changed:
                    await self._look()
        finally:
            self._ended = True

    async def _look(self) -> None:
        def going(what: str, done: int) -> None:
            if self._ended:
                raise StoreError("get", "", "the mount is ending")

        try:
            found = await self.doors.store_threads.run(lambda: collect(self._backend, going=going), ended=lambda: None)
        except S3cfsError as error:
            log.warning("blocks that nothing needs any more could not be removed: %s", error)
            self._last = {"error": str(error)}
            return
        self._last = asdict(found)
        if found.blocks:
            log.info("%d blocks (%d bytes) of deleted objects were removed", found.blocks, found.bytes)

    def status(self) -> Mapping[str, Any]:
        return {"last": self._last} if self._last else {}

    async def put(self, key: str, data: Body, only_if_absent: bool, call: Call) -> Degraded | None:
        self._changed = True
        return await super().put(key, data, only_if_absent, call)

    async def delete(self, keys: Sequence[str], call: Call) -> None:
        self._changed = True
        await super().delete(keys, call)
