"""The contract of an object store, as small as it can be: whole objects and ranges of them, by key.

A backend is synchronous and thread-safe: several threads call one instance at once. It does not retry, cache or count: `Remote` does.
Wrappers with this same interface (`faulty`, `recorder`) are for tests. Keys are ASCII, parts separated by '/', as `s3cfs.ids` makes them;
the backend decides how they become names in its store.

A call that may take long says `progress.moved()` in its thread for each piece that has gone or come: a caller's patience ends with silence.
It may be given up by its caller and go on (a put reads its body, which never changes, for as long as it likes).

What s3cfs relies on (ASSUMPTIONS, cited as [S1] ... where code needs them):
  S1  `put` is atomic: a reader sees the whole object or none; a `put` that raised Temporary may have happened or not.
  S2  After `put` returned, `get` and `stat` of that key find exactly those bytes until a `delete`.
  S3  `list(prefix)` for a prefix that ends in '/' finds every key whose put returned before the call, and `folders(prefix)` every
      folder of such keys. No order is promised.
  S4  With `only_if_absent` on a store whose `capabilities.create_only` is true, of several puts on one key at most one wins,
      and the others raise Exists. On a store without it `only_if_absent` raises Unsupported: it is never ignored.
"""
from __future__ import annotations

import abc
import secrets
from collections.abc import Iterator, Sequence

from s3cfs.backends.layer import Layer
from s3cfs.backends.progress import moved
from s3cfs.backends.stale import stale_answers
from s3cfs.backends.types import Body, Capabilities, Degraded, ObjectInfo

__all__ = ["PROBE_ROUNDS", "Backend", "Body", "Capabilities", "Degraded", "Listing", "ObjectInfo"]

PROBE_ROUNDS = 20

class Listing(Iterator[ObjectInfo]):
    """What `list` may return: after a retryable error `next` may be called again and goes on where it was.

    A plain generator ends at its first error, and the listing is begun again.
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
    def put(self, key: str, data: Body, only_if_absent: bool = False) -> Degraded | None:
        """Store the object, atomically; returns when the store acknowledges it. See S1, S4.

        Degraded: it is stored, less safely than it should be.
        Raises Exists, Unsupported (create-only not possible here), StoreFull, Denied, Temporary (it may have happened).
        """

    @abc.abstractmethod
    def stat(self, key: str) -> ObjectInfo:
        """Size without the bytes. NotFound."""

    @abc.abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object; absent is success. Unsupported where `capabilities.may_delete` is false."""

    def examine(self, key: str) -> str | None:
        """What is wrong with how the object is stored, though it can be read (a lost copy, a rotten shard), in one line; None: nothing.

        Asked only where `capabilities.examines`. Reads all that there is of it and mends nothing. NotFound; what is damaged or cannot be
        reached is an answer here, and no error.
        """
        return None

    def delete_many(self, keys: Sequence[str]) -> None:
        """At most `capabilities.batch_delete` of them, in one request if the store can. After an error some may be gone."""
        for key in keys:
            self.delete(key)
            moved()

    @abc.abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose key begins with `prefix`, which is "" or ends in '/' (else ValueError), in no order."""

    def folders(self, prefix: str) -> Iterator[str]:
        """Names (without '/') of the folders directly below `prefix` that hold objects, each once, in no order; objects there are left out.

        This one reads the whole listing; a store that can do it in fewer requests overrides it.
        """
        skip = len(prefix)
        yield from {info.key[skip:].partition("/")[0]: None for info in self.list(prefix) if "/" in info.key[skip:]}

    @abc.abstractmethod
    def probe_create_only(self, rounds: int = PROBE_ROUNDS) -> bool:
        """Find out by trying whether create-only puts hold here, set `capabilities` accordingly, and say so.

        Writes and removes objects under `probe/` only: a put on an existing key must fail, and of `rounds` races each must have one winner.
        """

    def probe_linearizable(self, rounds: int = PROBE_ROUNDS) -> bool:
        """Look for answers that are old (stale.py): False after the first one; True says that there was none in so many rounds.

        Writes and removes objects under `probe/` only. `capabilities` stay as they are: it is evidence, and the caller's to weigh.
        """
        return not stale_answers(self, secrets.token_hex(8), rounds)

    def assume_create_only(self, holds: bool) -> None:  # noqa: B027 - where puts do not depend on it
        """Take it as known, from an earlier probe that the filesystem remembers: `capabilities` say so from now on."""

    def assume_linearizable(self, holds: bool) -> None:  # noqa: B027 - most know it
        """The same of S2 and S3, where `capabilities.linearizable` was None."""

    @property
    def keeps_state(self) -> bool:
        """Whether it wants a folder of its own on the local disk (see `start`)."""
        return False

    def start(self, folder: str) -> None:  # noqa: B027 - most keep nothing here
        """Once, before the first request, where `keeps_state`: `folder` exists, is this backend's alone, and is the same at the next mount
        of this filesystem on this machine, unless it was lost: what is there may be a copy, never the only one."""

    def layers(self) -> Sequence[Layer]:
        """Layers that this store needs between itself and `Remote`, the topmost first (see layer.py). Asked once."""
        return ()

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
