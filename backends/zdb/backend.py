"""A set of 0-dbs as one store: `zdb:///etc/s3cfs/zdb.toml[/PREFIX]`. See docs/zdb.md.

    setup      the list of servers                           looking    the first look at them; making a store
    members    who belongs to the store                      cluster    the servers while they are in use
    record     what is known of an object                    replicas   the same on a majority
    placing    which servers an object goes to               index      listings
    writing, reading                                         shards of objects
    repair     one object made whole (state: how it is)      survey     all of them, one after the other
    agree      what the replicas say, and who they are       care       the layer that does so while a mount runs
"""
from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from typing import ClassVar

from s3cfs.backends.base import PROBE_ROUNDS, Backend, Body, Capabilities, Degraded, ObjectInfo
from s3cfs.backends.layer import Layer
from s3cfs.backends.url import Credentials, Options, StoreUrl
from s3cfs.backends.zdb import reading, setup, writing
from s3cfs.backends.zdb.care import Care
from s3cfs.backends.zdb.cluster import TIMEOUT_S, Cluster
from s3cfs.backends.zdb.fanout import Round
from s3cfs.backends.zdb.index import Index
from s3cfs.backends.zdb.reading import Shortage, Stored
from s3cfs.backends.zdb.record import KEY_MAX_BYTES
from s3cfs.backends.zdb.replicas import Known, Replicas
from s3cfs.backends.zdb.state import looked
from s3cfs.backends.zdb.words import Trouble
from s3cfs.errors import ConfigError, NotFound, StoreError, Unsupported

BATCH_DELETE = 100
DELETES_AT_ONCE = 8
ATTEMPTS = 4                       # of a read whose record changes under it

log = logging.getLogger(__name__)


class ZdbBackend(Backend):
    """See the module's text. `prefix`: where in the store its keys lie; "" or ends in '/'."""

    OPTIONS: ClassVar[Mapping[str, str]] = {"tcp-timeout": f"seconds without a byte after which a call has failed (default {TIMEOUT_S:g})"}

    def __init__(self, cluster: Cluster, prefix: str = "", password: str = "") -> None:
        """`password`: of the servers for which the list has none, also when it changes."""
        self.cluster, self._prefix, self._password = cluster, prefix, password
        self.replicas = Replicas(cluster)
        self.index = Index(cluster, self.replicas)

    @classmethod
    def from_url(cls, url: StoreUrl, options: Options, credentials: Credentials) -> Backend:
        found = re.fullmatch(r"(/.*?\.(?:toml|ini))(?:/(.*))?", url.path)
        if url.host or not found:
            raise ConfigError(f"{url}: a set of 0-dbs is zdb:///ABSOLUTE/PATH.toml (or .ini), with three slashes; where it is shared, "
                              "with a prefix after it")
        listed = setup.read(found[1], credentials.password)
        parts = [part for part in (found[2] or "").split("/") if part]
        cluster = Cluster(listed, timeout_s=options.seconds("tcp-timeout", TIMEOUT_S))
        return cls(cluster, "".join(f"{part}/" for part in parts), credentials.password)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(create_only=False, linearizable=True, batch_delete=BATCH_DELETE, examines=True)

    @property
    def location(self) -> str:
        return f"zdb://{self.cluster.setup.path}" + (f"/{self._prefix}" if self._prefix else "")

    def layers(self) -> Sequence[Layer]:
        return (Care(self.replicas, self._password),)

    def create(self) -> None:
        self.cluster.create()

    def check(self) -> None:
        self.cluster.opened()
        for said in self.cluster.mistakes():
            log.warning("%s", said)
        self.replicas.read(self._prefix + "super/0")

    # ------------------------------------------------------------ objects

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        if offset < 0 or (size is not None and size < 0):
            raise ValueError("negative offset or size")
        with self._call("get", key) as name:
            return self._get(name, offset, size)

    def _get(self, name: str, offset: int, size: int | None) -> bytes:
        cached = self.replicas.cached(name)
        if cached is not None and cached.is_there:
            asking: Round[None, Known | None] = self.cluster.fanout.round()
            asking.start(None, partial(self.replicas.read, name))          # whether it is true still, meanwhile
            data: bytes | None = None
            with suppress(Shortage):
                data = self._read(name, cached, offset, size)
            done = asking.next()
            now = done.value if done is not None else None
            if data is not None and _same(now, cached):
                return data
        else:
            now = self.replicas.read(name)
        for _ in range(ATTEMPTS):
            if now is None or not now.is_there:
                raise NotFound("get", name, "no such object")
            try:
                return self._read(name, now, offset, size)
            except Shortage as met:
                shortage, before = met, now
            now = self.replicas.read(name)             # a repair may have moved the shards
            if _same(now, before):
                return self._get_from_anywhere(name, before, offset, size, shortage)
        raise shortage.as_error()

    def _get_from_anywhere(self, name: str, known: Known, offset: int, size: int | None, shortage: Shortage) -> bytes:
        """Past what the records say: the shards of the put itself if a repair made new ones, and whatever server has one."""
        for where in {known.where: None, known.record.where: None}:
            stored = Stored(name, known.record.size, where)
            with suppress(Shortage):
                return reading.read(self.cluster, Stored(name, stored.size, reading.find(self.cluster, stored)), offset, size)
        raise shortage.as_error()

    def _read(self, name: str, known: Known, offset: int, size: int | None) -> bytes:
        return reading.read(self.cluster, Stored(name, known.record.size, known.where), offset, size)

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> Degraded | None:
        if only_if_absent:
            raise Unsupported("put", key, "a set of 0-dbs has no create-only put")
        with self._call("put", key) as name:
            time_ns = time.time_ns()
            written = writing.write(self.cluster, name, data, time_ns)
            before = self.replicas.write(name, memoryview(data).nbytes, written.where, time_ns)
            self._drop(before, written.where.object_id)
            if not written.weak:
                return None
            self.cluster.degraded.note(name, written.weak)
            return Degraded(written.weak)

    def stat(self, key: str) -> ObjectInfo:
        with self._call("stat", key) as name:
            known = self.replicas.read(name)
            if known is None or not known.is_there:
                raise NotFound("stat", name, "no such object")
            return ObjectInfo(key, known.record.size)

    def examine(self, key: str) -> str | None:
        with self._call("examine", key) as name:
            known = self.replicas.read(name)
            if known is None or not known.is_there:
                raise NotFound("examine", name, "no such object")
            return looked(self.cluster, known, deep=True).trouble(self.cluster)

    def delete(self, key: str) -> None:
        with self._call("delete", key) as name:
            self._delete(name)

    def _delete(self, name: str) -> None:
        self._drop(self.replicas.bury(name, time.time_ns()))

    def delete_many(self, keys: Sequence[str]) -> None:
        made: Round[str, None] = self.cluster.fanout.round()
        left = iter(dict.fromkeys(keys))
        for key in islice(left, DELETES_AT_ONCE):
            made.start(key, partial(self.delete, key))
        while made.next() is not None:
            for key in islice(left, 1):
                made.start(key, partial(self.delete, key))

    def _drop(self, known: Known | None, but: bytes = b"") -> None:
        """The shards of what is no more: all there ever were. `but`: the object that was put; a restore may have found it before its
        record was written."""
        if known is not None and known.is_there:
            for where in {known.record.where: None, known.where: None}:
                if where.object_id != but:
                    writing.drop(self.cluster, where, known.record.size)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        skip = len(self._prefix)
        with self._listing(prefix) as name:
            return iter([ObjectInfo(info.key[skip:], info.size) for info in self.index.objects(name)])

    def folders(self, prefix: str) -> Iterator[str]:
        with self._listing(prefix) as name:
            return iter(self.index.folders(name))

    def probe_create_only(self, rounds: int = PROBE_ROUNDS) -> bool:
        return False

    def close(self) -> None:
        self.cluster.close()

    # ------------------------------------------------------------ names

    @contextmanager
    def _call(self, operation: str, key: str) -> Iterator[str]:
        """The key in the store. Errors are those of the contract, and name the caller's key."""
        name = self._prefix + key
        if not all(key.split("/")) or not key.isascii() or "\0" in key:
            raise ValueError(f"not a key: {key!r}")
        if len(name) > KEY_MAX_BYTES:
            raise Unsupported(operation, key, f"its key has more than the {KEY_MAX_BYTES - len(self._prefix)} bytes that there is room for")
        try:
            yield name
        except Trouble as trouble:
            raise trouble.as_error(operation, key) from trouble
        except StoreError as error:
            error.operation, error.key = operation, key
            raise

    @contextmanager
    def _listing(self, prefix: str) -> Iterator[str]:
        if prefix and not prefix.endswith("/"):
            raise ValueError(f"a listing's prefix ends in '/': {prefix}")
        try:
            yield self._prefix + prefix
        except Trouble as trouble:
            raise trouble.as_error("list", prefix) from trouble


def _same(one: Known | None, other: Known) -> bool:
    return one is not None and one.record.rank == other.record.rank and one.where == other.where
