"""A store behind a running Kubo: `ipfs+rpc://HOST[:PORT]/PREFIX/`.

An object is a UnixFS graph (dag.py). Its blocks go to the node as one archive (dag/import), the root is pinned under the name
`s3cfs/PREFIX/KEY`, and only then does it get its name: `/s3cfs/PREFIX/KEY` in the node's MFS (files/cp). So whatever has a name is whole,
from the pin on no collection of the node takes a block of it, and what a put leaves that dies on the way is no object. MFS is the table of
names; what it names is kept too, whatever becomes of the pins.

Create-only is files/cp, which refuses a name that is taken: a look and an insertion under the lock of that folder. Overwriting is two
steps in MFS, the old name goes and then the new one comes; s3cfs overwrites with other bytes only what it tries a store with. Folders
outlive their objects: MFS removes a folder with whatever is in it, or not at all.
"""
from __future__ import annotations

import secrets
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar

from s3cfs.backends.base import PROBE_ROUNDS, Backend, Body, Capabilities, Listing, ObjectInfo
from s3cfs.backends.ipfs import dag
from s3cfs.backends.ipfs.cid import DAG_PB, RAW, Cid
from s3cfs.backends.ipfs.crowd import Crowd
from s3cfs.backends.ipfs.kubo_blocks import KuboBlocks, Unusable
from s3cfs.backends.ipfs.mfs import Found, Names
from s3cfs.backends.ipfs.rpc import Address, Rpc, authorization
from s3cfs.backends.probe import probe
from s3cfs.backends.progress import moved
from s3cfs.backends.s3_tls import ca_bundle
from s3cfs.backends.url import Credentials, Options, StoreUrl
from s3cfs.errors import ConfigError, Exists, NotFound, Temporary, Unsupported

TIMEOUT_S = 60.0                   # a node that collects garbage lets all changes wait
OLDEST = (0, 36)                   # of Kubo: files/cp that may replace
PIN_NAME_MAX_BYTES = 255           # the node's own limit
KEY_MAX_BYTES = 150                # longer than any that s3cfs makes
TOP = "s3cfs"
EXPORTED = "s3cfs-export"          # names of pins that are no object's


class KuboBackend(Backend):
    """Objects of one node below `/s3cfs/PREFIX/`."""

    OPTIONS: ClassVar[Mapping[str, str]] = {
        "ssl": "HTTPS (the default, unless the host is this machine)",
        "no-ssl": "plain HTTP to another machine: whoever listens there learns the password or token",
        "ssl-ca-path": "file or folder of CA certificates to trust instead of the system's",
        "tcp-timeout": f"seconds without any progress until a call is given up (default {TIMEOUT_S:g})",
    }

    def __init__(self, url: StoreUrl, options: Options, credentials: Credentials) -> None:
        address = Address.parse(url.host)
        parts = [part for part in url.path.split("/") if part]
        if any(part in (".", "..") for part in parts):
            raise ConfigError(f"{url}: '.' and '..' are no folders of an IPFS node's names")
        self._prefix = "".join(part + "/" for part in (TOP, *parts))
        if len(self._prefix.encode()) + KEY_MAX_BYTES > PIN_NAME_MAX_BYTES:
            most = PIN_NAME_MAX_BYTES - KEY_MAX_BYTES - len(TOP) - 2
            raise ConfigError(f"{url}: the prefix is longer than {most} bytes, and the names of pins would be too long for the node")
        if options.flag("ssl") and options.flag("no-ssl"):
            raise ConfigError("the backend options ssl and no-ssl contradict each other: give one of them")
        self._ca = ca_bundle(options.text("ssl-ca-path"))
        encrypted = options.flag("ssl") or not (options.flag("no-ssl") or address.is_local)
        tls = None
        if encrypted:
            tls = ssl.create_default_context(cafile=self._ca.path)
            tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._rpc = Rpc(address, options.seconds("tcp-timeout", TIMEOUT_S), authorization=authorization(credentials), tls=tls)
        self._location = f"{url.scheme}://{address}/" + "".join(part + "/" for part in parts)
        self._create_only: bool | None = None
        crowd = Crowd()
        self._blocks = KuboBlocks(self._rpc, crowd)
        self._names = Names(self._rpc, self._blocks, crowd)

    @classmethod
    def from_url(cls, url: StoreUrl, options: Options, credentials: Credentials) -> Backend:
        return cls(url, options, credentials)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(create_only=self._create_only, linearizable=True)

    @property
    def location(self) -> str:
        return self._location

    def check(self) -> None:
        with self._rpc.errors("check", ""):
            version = str(self._rpc.json("version").get("Version", ""))
            numbers = tuple(int(part) if part.isdecimal() else 0 for part in version.split(".")[:2])
            if numbers < OLDEST:
                known = f"is Kubo {version}" if version else "does not say which Kubo it is"
                raise Unsupported("check", "", f"{self._rpc.address} {known}: {OLDEST[0]}.{OLDEST[1]} or newer is needed")
            self._rpc.json("files/stat", "/")

    # ------------------------------------------------------------ objects

    def stat(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, self._there("stat", key)[1])

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        if offset < 0 or (size is not None and size < 0):
            raise ValueError("negative offset or size")
        cid, there = self._there("get", key)
        end = there if size is None else min(there, offset + size)
        if offset >= end:
            return b""
        try:
            with self._rpc.errors("get", key):
                return self._blocks.read(cid, there, offset, end)
        except Unusable as error:                  # asking again, for minutes, does not help
            raise NotFound("get", key, error.cause) from error

    def _there(self, operation: str, key: str) -> tuple[Cid, int]:
        """The root of what has this name, and its size. NotFound, also when the root cannot be read."""
        with self._rpc.errors(operation, key):
            found = self._names.look(self._path(key))
        if found is None:
            raise NotFound(operation, key, "no such object")
        if found.size is None:
            raise NotFound(operation, key, f"{self._rpc.address} cannot read the block {found.cid}")
        return found.cid, found.size

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        if only_if_absent and not self._create_only:
            why = "has none" if self._create_only is False else "was not probed for it"
            raise Unsupported("put", key, f"create-only put on a store that {why}")
        self._put(key, data, only_if_absent)

    def _put(self, key: str, data: Body, only_if_absent: bool) -> None:
        path = self._path(key)
        tree, made = dag.blocks_of(data)
        blocks = tuple(made)
        with self._rpc.errors("put", key):
            self._blocks.add(_with_cids(tree, blocks))
            self._blocks.pin(tree.cid, path[1:])
            there = self._give_name(key, tree.cid)
            if there is None:
                return
            if there.cid == tree.cid and not only_if_absent:
                self._mend(blocks)
                return
            if only_if_absent:
                if there.cid != tree.cid:
                    self._blocks.unpin(tree.cid, path[1:])
                raise Exists("put", key, "the key is taken")
            if there.size is None or not self._blocks.has(there.cid):
                self._names.take(path)             # the node would wait for its root
            if not self._names.give(path, tree.cid, instead=True):
                raise Temporary("put", key, "somebody else gave the name to something at the same time")
            self._blocks.unpin(there.cid, path[1:])

    def _give_name(self, key: str, root: Cid) -> Found | None:
        """What has it already; None: it is given."""
        path = self._path(key)
        for _ in range(2):                         # who had it may be gone before we look again
            there = self._names.look(path)         # first: the node would open what is there
            if there is not None:
                return there
            if self._names.give(path, root):
                return None
        self._blocks.unpin(root, path[1:])
        raise Unsupported("put", key, "a key cannot be an object and a folder of others in an IPFS node")

    def _mend(self, blocks: Iterable[dag.Block]) -> None:
        """What was put again with the same bytes may be damaged: of an archive a node leaves out what it believes to have. Corrupt where
        it leaves out single blocks too, as it does with those that it has lately read (BlockKeyCacheSize)."""
        for block in blocks:
            self._blocks.add_one(block.digest, block.data)
            self._blocks.block(Cid(1, RAW, block.digest))

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._rpc.errors("delete", key):
            found = self._names.look(path)
            if found is not None:
                self._names.take(path)
                self._blocks.unpin(found.cid, path[1:])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        if prefix and not prefix.endswith("/"):
            raise ValueError(f"a listing's prefix ends in '/': {prefix}")
        return _Walk(self, prefix)

    def folders(self, prefix: str) -> Iterator[str]:
        if prefix and not prefix.endswith("/"):
            raise ValueError(f"a listing's prefix ends in '/': {prefix}")
        for name in self.here(prefix)[1]:
            if any(True for _ in _Walk(self, f"{prefix}{name}/")):     # folders outlive their objects here
                yield name

    def here(self, prefix: str) -> tuple[Sequence[ObjectInfo], Sequence[str]]:
        """Objects directly below `prefix`, and names of folders."""
        with self._rpc.errors("list", prefix):
            entries = self._names.entries(self._path(prefix))
        moved()
        return ([ObjectInfo(prefix + entry.name, entry.size) for entry in entries if entry.size is not None],
                [entry.name for entry in entries if entry.size is None])

    # ------------------------------------------------------------ what is exported

    def put_block(self, digest: bytes, data: Body) -> None:
        """A block that belongs to no object."""
        with self._rpc.errors("put", ""):
            self._blocks.add_one(digest, data)

    def keep_root(self, cid: Cid, name: str) -> None:
        """Pin what `put_block` stored, under a name made of this one."""
        whole = f"{EXPORTED}/{name}".encode()[:PIN_NAME_MAX_BYTES].decode("utf-8", "ignore")
        with self._rpc.errors("put", ""):
            self._blocks.pin(cid, whole)

    # ------------------------------------------------------------ the rest

    def _path(self, key: str) -> str:
        """In the node's MFS."""
        path = self._prefix + key
        if any(part in ("", ".", "..") for part in path.rstrip("/").split("/")) or "\0" in key or len(key) > KEY_MAX_BYTES:
            raise ValueError(f"not a key: {key!r}")
        return "/" + path.rstrip("/")

    def probe_create_only(self, rounds: int = PROBE_ROUNDS) -> bool:
        self._create_only = probe(lambda key, data: self._put(key, data, True), self.get, self.delete, secrets.token_hex(8), rounds)
        return self._create_only

    def assume_create_only(self, holds: bool) -> None:
        self._create_only = holds

    def close(self) -> None:
        self._rpc.close()
        self._ca.close()


class _Walk(Listing):
    """Everything below a folder, folder by folder; one that failed is asked for again by the next `next`."""

    def __init__(self, backend: KuboBackend, prefix: str) -> None:
        self._backend, self._left = backend, [prefix]
        self._found: Iterator[ObjectInfo] = iter(())

    def __next__(self) -> ObjectInfo:
        while True:
            for info in self._found:
                return info
            if not self._left:
                raise StopIteration
            objects, folders = self._backend.here(self._left[-1])
            here = self._left.pop()
            self._left += [f"{here}{name}/" for name in folders]
            self._found = iter(objects)


def _with_cids(tree: dag.Tree, blocks: Iterable[dag.Block]) -> Iterator[tuple[Cid, Body]]:
    leaves = dag.leaf_count(tree.size)
    for number, block in enumerate(blocks):
        yield Cid(1, RAW if number < leaves else DAG_PB, block.digest), block.data
