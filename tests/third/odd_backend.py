"""A store with every oddity that a store may have, in a folder: odd:///ABSOLUTE/PATH.

It takes objects of at most 1 MiB, cannot refuse to overwrite, shows what was just put only after a few looks (from whomever), deletes
nothing, is sometimes one copy short, spreads its keys over shards, keeps a map of these in a folder of its own, and holds a key back
for some moments after it was written. All of s3cfs that it needs is the contract: this is what another project's file would look like.

Its files: `objects/<quoted key>`; `fresh/<quoted key>`, how many looks will not find it yet; `short`, while it is there every put is
one copy short.
"""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, unquote

from s3cfs.backends.base import PROBE_ROUNDS, Backend, Body, Capabilities, Degraded, ObjectInfo
from s3cfs.backends.layer import Call, Layer
from s3cfs.backends.url import Credentials, Options, StoreUrl
from s3cfs.errors import BucketMissing, ConfigError, NotFound, StoreError, Temporary, Unsupported

LARGEST_BYTES = 1 << 20
MAP = "shardmap"                       # the object that says how many shards there are


class OddBackend(Backend):
    OPTIONS: ClassVar[Mapping[str, str]] = {
        "late": "how many looks do not find what was just put (default 2)",
        "short-every": "every so many puts are one copy short (default 0: none)",
    }

    def __init__(self, root: str, late: int = 2, short_every: int = 0) -> None:
        self._root, self._late, self._short_every = Path(root), late, short_every
        self._lock = threading.Lock()
        self._puts = 0

    @classmethod
    def from_url(cls, url: StoreUrl, options: Options, credentials: Credentials) -> Backend:
        def number(name: str, default: int) -> int:
            text = options.text(name, str(default))
            if not text.isdigit():
                raise ConfigError(f"{name} is a number, not {text!r}")
            return int(text)

        if url.host or not url.path.strip("/"):
            raise ConfigError("an odd store is odd:///ABSOLUTE/PATH")
        return cls("/" + url.path.strip("/"), number("late", 2), number("short-every", 0))

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(create_only=False, linearizable=False, may_delete=False, parallel_reads=4, parallel_writes=4,
                            ideal_object_bytes=512 << 10, largest_object_bytes=LARGEST_BYTES, request_bytes=64 << 10)

    @property
    def location(self) -> str:
        return f"odd://{self._root}"

    @property
    def keeps_state(self) -> bool:
        return True

    def start(self, folder: str) -> None:
        if not os.path.isdir(folder):
            raise AssertionError(f"{folder} is promised to be there")

    def layers(self) -> Sequence[Layer]:
        return Hold(), Shards()

    # ------------------------------------------------------------ objects

    def _file(self, key: str) -> Path:
        return self._root / "objects" / quote(key, safe="")

    def _look(self, key: str) -> bool:
        """Whether this look finds it. Under the lock."""
        fresh = self._root / "fresh" / quote(key, safe="")
        try:
            left = int(fresh.read_text())
        except FileNotFoundError:
            return self._file(key).exists()
        fresh.write_text(str(left - 1)) if left > 1 else fresh.unlink()
        return False

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        if offset < 0 or (size is not None and size < 0):
            raise ValueError("negative offset or size")
        with self._lock:
            if not self._look(key):
                raise NotFound("get", key, "not here, or not yet")
        data = self._file(key).read_bytes()
        return data[offset:] if size is None else data[offset:offset + size]

    def stat(self, key: str) -> ObjectInfo:
        with self._lock:
            if not self._look(key):
                raise NotFound("stat", key, "not here, or not yet")
        return ObjectInfo(key, self._file(key).stat().st_size)

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> Degraded | None:
        if only_if_absent:
            raise Unsupported("put", key, "this store overwrites")
        if len(data) > LARGEST_BYTES:
            raise StoreError("put", key, f"{len(data)} bytes are too many")
        file = self._file(key)
        if not file.parent.is_dir():
            raise Temporary("put", key, f"{file.parent} is not there")
        handle, name = tempfile.mkstemp(dir=self._root)
        with os.fdopen(handle, "wb") as out:
            out.write(data)
        with self._lock:
            if self._late and not file.exists():
                (self._root / "fresh" / file.name).write_text(str(self._late))
            os.rename(name, file)
            self._puts += 1
            short = (self._root / "short").exists() or (self._short_every and self._puts % self._short_every == 0)
        return Degraded("one copy of three is missing") if short else None

    def delete(self, key: str) -> None:
        raise Unsupported("delete", key, "this store keeps everything")

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        if prefix and not prefix.endswith("/"):
            raise ValueError(f"a listing's prefix ends in '/': {prefix}")
        keys = [unquote(name) for name in os.listdir(self._root / "objects")]
        for key in keys:
            if key.startswith(prefix):
                with contextlib.suppress(NotFound):
                    yield self.stat(key)

    def probe_create_only(self, rounds: int = PROBE_ROUNDS) -> bool:
        return False

    def create(self) -> None:
        for folder in ("objects", "fresh"):
            (self._root / folder).mkdir(parents=True, exist_ok=True)
        if not self._file(MAP).exists():
            self._file(MAP).write_text(json.dumps({"shards": 3}))

    def check(self) -> None:
        if not (self._root / "objects").is_dir():
            raise BucketMissing("check", "", f"{self._root} is not there")


class Shards(Layer):
    """Spreads keys over `shard<n>/`. How many there are says an object; the folder keeps a copy of it."""

    name = "shards"

    def __init__(self) -> None:
        self._shards = 0

    async def _count(self, call: Call) -> int:
        if not self._shards:
            self._shards = self._kept()
        if not self._shards:
            found = await self.below.get(MAP, 0, None, call)
            Path(self.folder, "shards.json").write_bytes(found)              # noqa: ASYNC240 - twenty bytes, once
            self._shards = int(json.loads(found)["shards"])
        return self._shards

    def _kept(self) -> int:
        try:
            return int(json.loads(Path(self.folder, "shards.json").read_text())["shards"])
        except OSError:
            return 0

    def _place(self, key: str, count: int) -> str:
        return f"shard{hashlib.blake2b(key.encode(), digest_size=4).digest()[0] % count}/{key}"

    def status(self) -> Mapping[str, Any]:
        return {"shards": self._shards}

    async def get(self, key: str, offset: int, size: int | None, call: Call) -> bytes:
        with _named(key):
            return await self.below.get(self._place(key, await self._count(call)), offset, size, call)

    async def put(self, key: str, data: Body, only_if_absent: bool, call: Call) -> Degraded | None:
        with _named(key):
            return await self.below.put(self._place(key, await self._count(call)), data, only_if_absent, call)

    async def stat(self, key: str, call: Call) -> ObjectInfo:
        with _named(key):
            return ObjectInfo(key, (await self.below.stat(self._place(key, await self._count(call)), call)).size)

    async def delete(self, keys: Sequence[str], call: Call) -> None:
        for key in keys:
            with _named(key):
                await self.below.delete([self._place(key, await self._count(call))], call)

    async def folders(self, prefix: str, call: Call) -> list[str]:
        found: set[str] = set()
        for number in range(await self._count(call)):
            found.update(await self.below.folders(f"shard{number}/{prefix}", call))
        return list(found)

    async def list(self, prefix: str, call: Call) -> list[ObjectInfo]:
        found = []
        for number in range(await self._count(call)):
            for info in await self.below.list(f"shard{number}/{prefix}", call):
                found.append(ObjectInfo(info.key.partition("/")[2], info.size))
        return found


@contextlib.contextmanager
def _named(key: str) -> Iterator[None]:
    """Errors name the key that was asked for."""
    try:
        yield
    except StoreError as error:
        error.key = key
        raise


class Hold(Layer):
    """Whoever wants a key that was put less than `hold-ms` ago waits for the rest of that time."""

    name = "hold"

    def __init__(self) -> None:
        self._hold_ms, self._waits, self._looks = 5, 0, 0
        self._until: dict[str, float] = {}

    async def run(self) -> None:
        while True:
            await self.doors.clock.sleep(0.2)
            now = self.doors.clock.monotonic()
            self._looks += 1
            self._until = {key: until for key, until in self._until.items() if until > now}

    def status(self) -> Mapping[str, Any]:
        return {"hold_ms": self._hold_ms, "waits": self._waits, "looks": self._looks, "held": len(self._until)}

    def settings(self) -> Mapping[str, str]:
        return {"hold-ms": str(self._hold_ms)}

    def change(self, setting: str, value: str) -> None:
        if setting != "hold-ms":
            super().change(setting, value)
        if not value.isdigit() or int(value) > 1000:
            raise ConfigError(f"hold-ms is a number up to 1000, not {value!r}")
        self._hold_ms = int(value)

    async def _wait(self, key: str) -> None:
        left = self._until.get(key, 0.0) - self.doors.clock.monotonic()
        if left > 0:
            self._waits += 1
            await self.doors.clock.sleep(left)

    async def get(self, key: str, offset: int, size: int | None, call: Call) -> bytes:
        await self._wait(key)
        return await self.below.get(key, offset, size, call)

    async def put(self, key: str, data: Body, only_if_absent: bool, call: Call) -> Degraded | None:
        await self._wait(key)
        try:
            return await self.below.put(key, data, only_if_absent, call)
        finally:
            self._until[key] = self.doors.clock.monotonic() + self._hold_ms / 1000
