"""The database of revision 26 from its blocks in the store: of each the newest version that is not newer than the state that is wanted.

Which versions there are is found by a listing of the metadata's names, or, where there is none, by asking for one name after the other: the
version changes by one with each event (mounts, checks, six-hourly uploads), so that ends, but may take long.
"""
from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import trio

from s3cfs.errors import Damaged, NotFound, ObjectMissing
from s3cfs.remote import Remote

from .envelope import open_object
from .params import Params
from .stores import META

AT_ONCE = 24
NAME = re.compile(r"s3ql_metadata_([0-9a-f]{12,})_([0-9a-f]{10,})")

OnProgress = Callable[[Mapping[str, Any]], None]


class Blocks:
    def __init__(self, remote: Remote, passphrase: bytes | None, name: str, probe_depth: int | None, say: Callable[[str], None],
                 progress: OnProgress) -> None:
        """`name`: of the database's file, on the disk of the doors."""
        self._remote, self._passphrase, self._name, self._depth, self._progress = remote, passphrase, name, probe_depth, progress
        self._say = say
        self._versions: dict[int, list[int]] | None = None
        self._done = self._total = 0

    async def assemble(self, params: Params, seq: int) -> None:
        """Write the state of `seq`; whether it is right its checksum says. ObjectMissing, Damaged."""
        if self._versions is None and self._depth is None:
            self._versions = await self._list()
        size = params.metadata_block_bytes
        self._done, self._total = 0, -(-params.database_bytes // size)
        if self._versions is None and self._depth is not None:
            self._say(f"asking for the names of {self._total:,} blocks of the metadata, from {self._total:,} requests up to "
                      f"{self._total * min(self._depth, seq):,}: each block's newest version, backwards from {seq}")
        with closing(self._remote.doors.disk.open(self._name, create=True)) as file:
            numbers = iter(range(self._total))
            troubles: list[Damaged | ObjectMissing] = []

            async def fetch() -> None:
                for number in numbers:
                    try:
                        data = await self._block(number, seq, size)
                    except (Damaged, ObjectMissing) as error:
                        troubles.append(error)
                        return
                    file.pwrite(data, number * size)
                    self._done += 1
                    self._tell("blocks of the metadata", self._done, self._total)

            async with trio.open_nursery() as nursery:
                for _ in range(min(AT_ONCE, self._total)):
                    nursery.start_soon(fetch)
            if troubles:
                raise troubles[0]
            file.truncate(params.database_bytes)

    async def _block(self, number: int, seq: int, size: int) -> bytes:
        version = await self._probed(number, seq) if self._versions is None else self._listed(number, seq)
        if version is None:
            raise ObjectMissing(f"block {number} of the metadata is not there")
        name = f"s3ql_metadata_{number:012x}_{version:010x}"
        try:
            data = await self._remote.get(META + name)
        except NotFound:
            raise ObjectMissing(f"{name} is not there") from None
        try:
            return (await self._remote.doors.threads.run(open_object, name, data, self._passphrase, size))[1]
        except Damaged as error:
            raise Damaged(f"{name}: {error}") from None

    async def _list(self) -> dict[int, list[int]]:
        self._tell("listing the metadata", 0, 0)
        found: dict[int, list[int]] = {}
        for info in await self._remote.list(META):
            if match := NAME.fullmatch(info.key[len(META):]):
                found.setdefault(int(match[1], 16), []).append(int(match[2], 16))
        for versions in found.values():
            versions.sort()
        return found

    def _listed(self, number: int, seq: int) -> int | None:
        versions = (self._versions or {}).get(number, [])
        at = bisect_right(versions, seq)
        return versions[at - 1] if at else None

    async def _probed(self, number: int, seq: int) -> int | None:
        assert self._depth is not None
        for version in range(seq, max(-1, seq - self._depth), -1):
            try:
                await self._remote.stat(f"{META}s3ql_metadata_{number:012x}_{version:010x}")
            except NotFound:
                if (seq - version) % 50 == 49:
                    self._tell(f"asking for older versions of block {number}", self._done, self._total)
                continue
            return version
        return None

    def _tell(self, what: str, done: int, total: int) -> None:
        self._progress({"done": done, "total": total or None, "unit": "blocks", "text": what})
