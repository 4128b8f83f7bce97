"""Packs that this machine still has whole: for whoever finds that the store has lost one (backends/layer.py `Originals`)."""
from __future__ import annotations

from s3cfs.blocks.cache import PackCache
from s3cfs.blocks.journal import Journal
from s3cfs.doors import Doors
from s3cfs.formats.pack import verify_name
from s3cfs.ids import pack_name, parse_pack_key


class LocalPacks:
    def __init__(self, doors: Doors, journal: Journal, cache: PackCache) -> None:
        self._doors, self._journal, self._cache = doors, journal, cache

    async def of(self, key: str) -> bytes | None:
        """From the cache, else the journal; None when it is in neither, or no pack's key, or not what its name says. OSError."""
        try:
            epoch, digest = parse_pack_key(key)
        except ValueError:
            return None
        name = pack_name(epoch, digest)
        data = await self._cache.whole(name)
        if data is not None and await self._doors.threads.run(verify_name, key, data):
            return data
        pack_id = self._journal.named(name)
        return None if pack_id is None else await self._journal.load(pack_id)
