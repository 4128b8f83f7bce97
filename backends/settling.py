"""What this process has written is there, though the store does not show it yet; a layer for stores whose answers may be old.

It does something only where `capabilities.linearizable` is False. An object that was put is remembered for ten minutes: a get or stat
that does not find it is Temporary, so `Remote` asks again, instead of an absence that looks like damage; listings get it added. What was
deleted is left out of listings. It knows nothing of what others wrote, nor of what an earlier process did: that such a store has
settled before another machine uses it is what its owner vouches for (docs/backends.md).
"""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from s3cfs.backends.layer import Call, Layer
from s3cfs.backends.types import Body, Degraded, ObjectInfo
from s3cfs.errors import NotFound, Temporary

SETTLES_S = 600.0                  # stores that are late by more than this are not for filesystems
KEYS_KEPT = 20_000

T = TypeVar("T")


class Settling(Layer):
    """See the module's text."""

    name = "settling"

    def __init__(self) -> None:
        self._young: OrderedDict[str, tuple[float, int | None]] = OrderedDict()       # since when, size; None: deleted
        self._late = 0

    @property
    def active(self) -> bool:
        return self.capabilities.linearizable is False

    def status(self) -> Mapping[str, Any]:
        return {"remembered": len(self._young), "late_answers": self._late} if self.active else {}

    async def put(self, key: str, data: Body, only_if_absent: bool, call: Call) -> Degraded | None:
        if not (only_if_absent and self._known(key) is not None):
            self._young.pop(key, None)             # until it is answered, who knows; but what is there, a create-only put leaves alone
        answer = await self.below.put(key, data, only_if_absent, call)
        self._note(key, len(data))
        return answer

    async def delete(self, keys: Sequence[str], call: Call) -> None:
        for key in keys:
            self._young.pop(key, None)
        await self.below.delete(keys, call)
        for key in keys:
            self._note(key, None)

    def _note(self, key: str, size: int | None) -> None:
        if not self.active:
            return
        now = self.doors.clock.monotonic()
        self._young[key] = now, size
        self._young.move_to_end(key)
        while len(self._young) > KEYS_KEPT or now - next(iter(self._young.values()))[0] > SETTLES_S:
            self._young.popitem(last=False)

    def _known(self, key: str) -> int | None:
        """Size of what was put there lately; None: nothing, as far as this process knows."""
        since, size = self._young.get(key, (0.0, None))
        return None if size is None or self.doors.clock.monotonic() - since > SETTLES_S else size

    async def get(self, key: str, offset: int, size: int | None, call: Call) -> bytes:
        return await self._there("get", key, lambda: self.below.get(key, offset, size, call))

    async def stat(self, key: str, call: Call) -> ObjectInfo:
        return await self._there("stat", key, lambda: self.below.stat(key, call))

    async def _there(self, operation: str, key: str, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            return await ask()
        except NotFound:
            if self._known(key) is None:
                raise
            self._late += 1
            raise Temporary(operation, key, "the store does not show yet what was put there") from None

    def _below(self, prefix: str) -> Iterator[tuple[str, int]]:
        for key in [key for key in self._young if key.startswith(prefix)]:
            if (size := self._known(key)) is not None:
                yield key, size

    async def folders(self, prefix: str, call: Call) -> list[str]:
        found = await self.below.folders(prefix, call)
        rests = [key[len(prefix):] for key, _ in self._below(prefix)]
        return list({*found, *(rest.partition("/")[0] for rest in rests if "/" in rest)})

    async def list(self, prefix: str, call: Call) -> list[ObjectInfo]:
        found = {info.key: info for info in await self.below.list(prefix, call)}
        missing = {key: ObjectInfo(key, size) for key, size in self._below(prefix) if key not in found}
        gone = {key for key, (_, size) in self._young.items() if size is None}
        self._late += bool(missing or not gone.isdisjoint(found))
        return [info for info in [*found.values(), *missing.values()] if info.key not in gone]
