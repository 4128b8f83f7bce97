"""Which state of a filesystem of S3QL counts, and its database, put together in a folder of ours.

| the store says (revision 26) | the cache folder says | what counts |
|---|---|---|
| not mounted | nothing, or an older sequence number | the store |
| not mounted | the same | the local database, if it is the store's byte for byte: the download is saved |
| anything | newer; or the same or newer, and mounted | the local database with its log; and the cached blocks, if it says mounted |
| mounted | nothing, or older | if asked for: the last snapshot, which is complete: from before it was mounted, or up to six hours old |

A database from blocks is right when its SHA-256 is: states are tried until one fits. The local files are copied first and never touched.
"""
from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from s3cfs.config import Secret
from s3cfs.errors import AlreadyMounted, ConfigError, Damaged, NoFilesystem, NotFound, ObjectMissing, WrongPassphrase
from s3cfs.limits import MIB
from s3cfs.remote import Remote

from . import dumps
from .blocks import Blocks
from .envelope import BadSignature, open_object, parse
from .params import NEWEST, Params
from .place import Place
from .stores import META

SMALL_BYTES = 1 * MIB              # of params and passphrases
DUMP_MAX_BYTES = 1 << 40
PASSPHRASES = ("s3ql_passphrase", "s3ql_passphrase_bak1", "s3ql_passphrase_bak2", "s3ql_passphrase_bak3")
OLD_STATES = 40                    # kept parameters that are tried: S3QL keeps 32
OLD_DUMPS = ("s3ql_metadata", "s3ql_metadata_new", *(f"s3ql_metadata_bak_{number}" for number in range(11)))
WAL_VERSIONS = slice(18, 20)       # of SQLite's header: 2 2 says that there is a log beside it
PASSPHRASE_BYTES = 32
DATABASE = "s3ql.db"

OnProgress = Callable[[Mapping[str, Any]], None]
Say = Callable[[str], None]


class Cached(NamedTuple):
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Opened:
    params: Params
    passphrase: bytes | None       # of all objects; None: a plain filesystem
    database: str                  # path, in the scratch folder
    origin: str                    # for people
    cached: Mapping[tuple[int, int], Cached] = field(default_factory=dict)   # (inode, block) -> its newest content


class Opening:
    """`run` once."""

    def __init__(self, remote: Remote, place: Place, need_passphrase: Callable[[], Secret], *, cachedir: str | None = None,
                 probe_depth: int | None = None, last_snapshot: bool = True, say: Say = lambda text: None,
                 progress: OnProgress = lambda event: None) -> None:
        """The disk of `remote`'s doors is an empty folder of ours. `probe_depth`: find blocks of the metadata by asking for their names."""
        self._remote, self._place, self._need_passphrase = remote, place, need_passphrase
        self._path = remote.doors.disk.real_path
        self._cachedir, self._depth, self._last_snapshot, self._say, self._progress = cachedir, probe_depth, last_snapshot, say, progress
        self._passphrase: bytes | None = None

    async def run(self) -> Opened:
        """NoFilesystem, WrongPassphrase, Damaged, ObjectMissing, NewerFormat, Unsupported, StoreError, ConfigError."""
        self._passphrase = await self._unwrap()
        there = await self._params("s3ql_params")
        local = self._local_params()
        if there is None:
            return await self._old(local)
        if local is not None and (local.seq > there.seq or (there.mounted and local.mounted and local.seq == there.seq)):
            return await self._local(local)
        if local is not None and local.seq == there.seq and not there.mounted and await self._same_database(there):
            return Opened(there, self._passphrase, self._path(DATABASE), f"the local copy of state {there.seq}, as the store has it")
        return await self._from_blocks(there)

    # ---------------------------------------------------------------- keys and parameters

    async def _object(self, name: str, most_bytes: int = SMALL_BYTES, passphrase: bytes | None = None) -> tuple[Any, bytes]:
        """NotFound, Damaged."""
        data = await self._remote.get(META + name)
        return await self._remote.doors.threads.run(open_object, name, data, passphrase or self._passphrase, most_bytes)

    async def _unwrap(self) -> bytes | None:
        trouble: Damaged | None = None
        secret: bytes | None = None
        for name in PASSPHRASES:
            try:
                data = await self._remote.get(META + name)
                secret = secret or self._need_passphrase().reveal().encode()
                _, plain = open_object(name, data, secret, SMALL_BYTES)
                if len(plain) != PASSPHRASE_BYTES:
                    raise Damaged(f"{name} holds no passphrase")
                return plain
            except NotFound:
                if trouble is None and name == PASSPHRASES[0] and await self._plain():
                    return None
            except Damaged as error:
                trouble = trouble or error
        if isinstance(trouble, BadSignature):
            raise WrongPassphrase("this is not the passphrase of the filesystem of S3QL")
        if trouble is not None:
            raise Damaged(f"{PASSPHRASES[0]} and its copies are damaged: {trouble}")
        raise NoFilesystem(f"{self._remote.location} holds no filesystem of S3QL")

    async def _plain(self) -> bool:
        """Whether parameters are there that are not encrypted."""
        for name in ("s3ql_params", *OLD_DUMPS):
            try:
                data = await self._remote.get(META + name)
            except NotFound:
                continue
            with suppress(Damaged):
                open_object(name, data, None, DUMP_MAX_BYTES if name in OLD_DUMPS else SMALL_BYTES)
                return True
            return False
        return False

    async def _params(self, name: str) -> Params | None:
        try:
            _, plain = await self._object(name)
        except NotFound:
            return None
        return Params.of(parse(plain.decode("utf-8", "replace")))

    def _local_params(self) -> Params | None:
        """What the cache folder says; ConfigError when it says nothing of this filesystem."""
        if self._cachedir is None:
            return None
        path = self._cache("params")
        try:
            with open(path, encoding="utf-8") as file:
                return Params.of(parse(file.read(SMALL_BYTES)))
        except FileNotFoundError:
            raise ConfigError(f"{self._cachedir} holds nothing of {self._place.url}: there is no {os.path.basename(path)}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None

    def _cache(self, suffix: str) -> str:
        return os.path.join(self._cachedir or "", f"{self._place.cache_name()}.{suffix}")

    # ---------------------------------------------------------------- from the cache folder

    async def _local(self, params: Params) -> Opened:
        run = self._remote.doors.threads.run
        await run(self._copy, "db", DATABASE)
        if not await run(self._copy, "db-wal", f"{DATABASE}-wal", True) and params.mounted and params.revision == NEWEST:
            self._say("the local database has no log (.db-wal) beside it: it may be old")
        cached = await run(self._cached_blocks) if params.mounted or params.revision < NEWEST else {}
        state = "where it crashed, or is mounted" if params.mounted else "which is newer than the store's"
        return Opened(params, self._passphrase, self._path(DATABASE),
                      f"state {params.seq} of the cache folder, {state}, with {len(cached)} cached blocks", cached)

    def _copy(self, suffix: str, name: str, optional: bool = False) -> bool:
        try:
            shutil.copyfile(self._cache(suffix), self._path(name))
            return True
        except OSError as error:
            if optional and isinstance(error, FileNotFoundError):
                return False
            raise ConfigError(f"{self._cache(suffix)} cannot be read: {error.strerror}") from None

    def _cached_blocks(self) -> dict[tuple[int, int], Cached]:
        """Files `<inode>-<block>`. Empty ones may stand for holes that were read."""
        folder = os.path.join(self._cachedir or "", f"{self._place.cache_name()}-cache")
        found: dict[tuple[int, int], Cached] = {}
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                ino, dash, block = entry.name.partition("-")
                if dash and ino.isdecimal() and block.isdecimal() and entry.is_file(follow_symlinks=False):
                    found[int(ino), int(block)] = Cached(entry.path, entry.stat().st_size)
        return {key: one for key, one in found.items() if one.size}

    async def _same_database(self, there: Params) -> bool:
        return await self._remote.doors.threads.run(self._copy, "db", DATABASE, True) and await self._checked(there)

    async def _checked(self, params: Params) -> bool:
        """Whether the database in our folder is the one of this state. Then it is one that SQLite opens without a log."""
        return await self._remote.doors.threads.run(self._check, params)

    def _check(self, params: Params) -> bool:
        with open(self._path(DATABASE), "r+b") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != params.database_sha256:
                return False
            file.seek(WAL_VERSIONS.start)
            file.write(b"\1\1")
        return True

    # ---------------------------------------------------------------- from the store

    async def _from_blocks(self, newest: Params) -> Opened:
        blocks = Blocks(self._remote, self._passphrase, DATABASE, self._depth, self._say, self._progress)
        if newest.mounted:
            self._only_a_snapshot(newest)
        tried: list[str] = []
        states = [(newest, newest.seq - 1), (newest, newest.seq)] if newest.mounted else [(newest, newest.seq), (newest, newest.seq - 1)]
        for back in range(OLD_STATES + 1):
            for params, seq in states:
                try:
                    await blocks.assemble(params, seq)
                except (Damaged, ObjectMissing) as error:
                    tried.append(f"state {seq}: {error}")
                    continue
                if await self._checked(params):
                    if tried:
                        self._say(f"the newest metadata could not be put together ({tried[0]}); state {seq} is whole, and is taken")
                    return Opened(params, self._passphrase, self._path(DATABASE), f"state {seq} of the store")
                tried.append(f"state {seq}: its checksum is wrong")
            seq = newest.seq - 1 - back
            try:
                older = await self._params(f"s3ql_params_{seq:010x}")
            except Damaged as error:
                tried.append(f"state {seq}: {error}")
                older = None
            states = [(older, seq)] if older is not None else []
        raise Damaged(f"no state of the metadata of S3QL is whole: {tried[0]}"
                      + (f" (and {len(tried) - 1} older ones)" if len(tried) > 1 else "")
                      + ("" if self._cachedir else "; --s3ql-cache names a kept cache folder"))

    async def _old(self, local: Params | None) -> Opened:
        """Revisions 24 and 25."""
        trouble: Exception | None = None
        for name in OLD_DUMPS:
            try:
                inner, dump = await self._object(name, DUMP_MAX_BYTES)
                params = Params.of(inner)
                if params.revision == NEWEST:
                    raise Damaged("it was upgraded, and its parameters (s3ql_params) are gone")
                following = await self._there(f"s3ql_seq_no_{params.seq + 1}")
                if local is not None and (local.seq > params.seq or (local.needs_fsck and local.seq == params.seq)):
                    return await self._local(local)
                if following:
                    self._only_a_snapshot(params)
                await self._remote.doors.threads.run(partial(dumps.load, dump, params.revision, self._path(DATABASE)))
                if trouble is not None:
                    self._say(f"the newest metadata cannot be read ({trouble}); those of {name} are taken")
                return Opened(params, self._passphrase, self._path(DATABASE), f"state {params.seq} of the store ({name})")
            except NotFound:
                continue
            except Damaged as error:
                trouble = trouble or error
                with suppress(FileNotFoundError):
                    os.unlink(self._path(DATABASE))
        if trouble is not None:
            raise Damaged(f"no metadata of S3QL are whole: {trouble}")
        raise NoFilesystem(f"{self._remote.location} holds no filesystem of S3QL")

    def _only_a_snapshot(self, params: Params) -> None:
        """Of one that is mounted or crashed, without a cache folder that has more."""
        when = datetime.fromtimestamp(params.modified, UTC).strftime("%Y-%m-%d %H:%M UTC")
        if not self._last_snapshot:
            raise AlreadyMounted(
                "the filesystem of S3QL is mounted, or was when its machine crashed: unmount it; or name the cache folder of that machine "
                f"(--s3ql-cache); or take what the store has, of {when} or before (--last-snapshot)")
        self._say(f"it is mounted, or crashed: this is its last snapshot, of {when} or before, and what was rewritten since may be gone")

    async def _there(self, name: str) -> bool:
        try:
            await self._remote.stat(META + name)
        except NotFound:
            return False
        return True
