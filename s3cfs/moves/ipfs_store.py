"""What commands ask of a store of IPFS blocks as such: its roots, its garbage, what a node must be told of it."""
from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from s3cfs.app.store import open_store
from s3cfs.backends.ipfs.collector import Collected, collect
from s3cfs.backends.ipfs.dag import Root
from s3cfs.backends.ipfs.s3 import IpfsS3Backend
from s3cfs.backends.ipfs.spec import Spec
from s3cfs.backends.wrapper import Wrapper
from s3cfs.config import Settings
from s3cfs.errors import StoreError, UsageError

PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)       # before each further attempt at what may pass

T = TypeVar("T")


class IpfsStore:
    """Each method opens it and closes it again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def spec(self) -> Spec:
        """Makes no request."""
        with self._opened() as backend:
            return backend.spec

    def roots(self, prefix: str) -> Iterator[tuple[str, Root]]:
        """Of every object below that prefix, its key and what names it. What cannot be used is left out: fsck finds it."""
        with self._opened() as backend:
            pairs = backend.listed(prefix)
            while (found := _patiently(lambda: next(pairs, None))) is not None:
                key, entry = found
                if entry is not None:
                    yield key, entry.tree.root

    def gc(self, grace_s: float, dry_run: bool, progress: Callable[[Mapping[str, Any]], None]) -> Collected:
        def going(what: str, done: int) -> None:
            progress({"done": done, "total": None, "unit": what, "text": "looking"})

        with self._opened() as backend:
            return _patiently(lambda: collect(backend, grace_s, dry_run=dry_run, going=going))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[IpfsS3Backend]:
        opened = bare = open_store(self._settings)
        while isinstance(bare, Wrapper):               # the consistency lock
            bare = bare.inner
        try:
            if not isinstance(bare, IpfsS3Backend):
                raise UsageError(f"{opened.location} is no ipfs+s3:// store")
            yield bare
        finally:
            opened.close()


def _patiently(ask: Callable[[], T]) -> T:
    for pause in PAUSES_S:
        try:
            return ask()
        except StoreError as error:
            if not error.retryable:
                raise
            time.sleep(pause)
    return ask()
