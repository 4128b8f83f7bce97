"""The contract of an object store, as small as it can be: whole objects and ranges of them, by key.

A backend is synchronous and thread-safe: several threads call one instance at once. It does not retry, cache or count;
wrappers with this same interface do (`retry`, `faulty`, `recorder`). Keys are ASCII, parts separated by '/', as `s3cfs.ids`
makes them; the backend decides how they become names in its store.

What s3cfs relies on (ASSUMPTIONS, cited as [S1] ... where code needs them):
  S1  `put` is atomic: a reader sees the whole object or none; a `put` that raised Temporary may have happened or not.
  S2  After `put` returned, `get` and `stat` of that key find exactly those bytes until a `delete`.
  S3  `list(prefix)` for a prefix that ends in '/' finds every key whose put returned before the call. No order is promised.
  S4  With `only_if_absent` on a store whose `capabilities.create_only` is true, of several puts on one key at most one wins,
      and the others raise Exists. On a store without it `only_if_absent` raises Unsupported: it is never ignored.
"""
from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import dataclass

PROBE_ROUNDS = 20

Body = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    key: str
    size: int                      # bytes


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this store can do. `create_only` None: not known, `probe` must find out (never assumed)."""

    create_only: bool | None = None


class Listing(Iterator[ObjectInfo]):
    """What `list` may return: after a retryable error `next` may be called again and goes on where it was.

    A plain generator ends at its first error; the retry wrapper then has to begin again and leave out what was seen.
    """


class Backend(abc.ABC):
    """One place (bucket and prefix, folder …) that holds objects. See the module's text for what is promised."""

    @property
    @abc.abstractmethod
    def capabilities(self) -> Capabilities: ...

    @property
    @abc.abstractmethod
    def location(self) -> str:
        """For messages: the URL without any secret."""

    @abc.abstractmethod
    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        """The object's bytes from `offset`, at most `size` of them (None: to the end); fewer only where the object ends.

        An offset at or past the end gives b"". NotFound when there is no such object; Corrupt when the transfer was short or its
        checksum wrong.
        """

    @abc.abstractmethod
    def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        """Store the object, atomically; returns when the store acknowledges it. See S1, S4.

        Raises Exists, Unsupported (create-only not possible here), StoreFull, Denied, Temporary (it may have happened).
        """

    @abc.abstractmethod
    def stat(self, key: str) -> ObjectInfo:
        """Size without the bytes. NotFound."""

    @abc.abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object; absent is success."""

    @abc.abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose key begins with `prefix`, which is "" or ends in '/' (else ValueError), in no order."""

    @abc.abstractmethod
    def probe_create_only(self, rounds: int = PROBE_ROUNDS) -> bool:
        """Find out by trying whether create-only puts hold here, set `capabilities` accordingly, and say so.

        Writes and removes objects under `probe/` only: a put on an existing key must fail, and of `rounds` races each must have one winner.
        """

    def assume_create_only(self, holds: bool) -> None:  # noqa: B027 - where puts do not depend on it
        """Take it as known, from an earlier probe that the filesystem remembers: `capabilities` say so from now on."""

    def create(self) -> None:  # noqa: B027 - most places are made by other means
        """Make the place itself where this kind of store lets us (a folder); present is success. Only mkfs calls it.

        A bucket is its owner's to make (region, versioning, price): stores of buckets do nothing, and `check` finds what is missing.
        """

    def check(self) -> None:
        """One cheap request that finds the usual mistakes: raises BucketMissing, Denied, WrongRegion, ClockSkew, Temporary."""
        for _ in self.list("super/"):
            break

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Release connections. Calls after it are errors."""
