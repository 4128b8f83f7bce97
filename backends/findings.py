"""What a store can do, found out by trying each thing: for `s3cfs probe`, and for whoever chooses a store.

Everything is written below `probe/` and removed again. Cheap but for `large`: some 1,500 small requests.
"""
from __future__ import annotations

import contextlib
import mmap
import random
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from s3cfs.backends.base import PROBE_ROUNDS, Backend
from s3cfs.backends.listing_rules import NAMES, ListingRules, listing_rules
from s3cfs.backends.stale import stale_answers, surely
from s3cfs.errors import Corrupt, Denied, NotFound, StoreError, StoreFull, Unsupported
from s3cfs.limits import KIB, MIB

LARGE_BYTES = tuple(size * MIB for size in (16, 64, 256, 1024))
ROUNDS_AT_ONCE = 5                 # of races for a key, between two words about how far it is
Progress = Callable[[Mapping[str, Any]], None]      # {"done": n, "total": n, "unit": "steps", "text": what}


@dataclass
class Findings:
    """`stale` are answers that were old, in words; `wrong` is what else was not as the contract has it."""

    create_only: bool = False
    stale: list[str] = field(default_factory=list)
    rounds: int = PROBE_ROUNDS
    may_delete: bool = True
    batch_delete: int = 1              # keys that go in one request
    ranged_reads: bool = True          # False: for a part of an object all of it is transferred
    delimiters: bool = True            # False: folders are found by listing all that is below
    listings: ListingRules | None = None     # None: it does not list by pages
    largest_bytes: int | None = None   # the largest object that was stored; None: not tried
    wrong: list[str] = field(default_factory=list)

    @property
    def linearizable(self) -> bool:
        """No stale answer was seen: evidence, no proof."""
        return not self.stale


class Examination:
    """One look at one store. `rounds` of racing and of looking for stale answers."""

    def __init__(self, backend: Backend, *, large: bool = False, rounds: int = PROBE_ROUNDS,
                 progress: Progress = lambda event: None) -> None:
        self._backend, self._large, self._progress = backend, large, progress
        self._prefix = f"probe/{secrets.token_hex(8)}/"
        self._done, self._total = 0, -(-rounds // ROUNDS_AT_ONCE) + rounds + 4 + (len(LARGE_BYTES) if large else 0)
        self.found = Findings(rounds=rounds)

    def run(self) -> Findings:
        """StoreError where the store does not answer, or refuses what every store must do."""
        found, backend = self.found, self._backend
        found.create_only = True
        for done in range(0, found.rounds, ROUNDS_AT_ONCE):
            found.create_only = found.create_only and backend.probe_create_only(min(ROUNDS_AT_ONCE, found.rounds - done))
            self._step("races for one key")
        if backend.capabilities.linearizable is False:
            found.stale = ["it says so itself"]
            self._done += found.rounds
        else:
            found.stale = stale_answers(backend, secrets.token_hex(8), found.rounds, lambda done: self._step("looking for stale answers"))
        for what in (self._deletions, self._ranges, self._folders, self._listings):
            what()
            self._step("deletions, parts and listings")
        if self._large:
            self._largest()
        known = backend.capabilities
        found.ranged_reads, found.delimiters = known.ranged_reads, known.delimiters
        return found

    def _step(self, text: str) -> None:
        self._done += 1
        self._progress({"done": self._done, "total": self._total, "unit": "steps", "text": text})

    @contextlib.contextmanager
    def _objects(self, objects: Mapping[str, bytes | memoryview]) -> Iterator[None]:
        """There, and removed afterwards where that is possible."""
        try:
            for key, data in objects.items():
                surely(partial(self._backend.put, self._prefix + key, data))
            yield
        finally:
            for key in objects:
                with contextlib.suppress(StoreError):
                    self._backend.delete(self._prefix + key)

    def _there(self, key: str) -> bool:
        try:
            self._backend.stat(self._prefix + key)
        except NotFound:
            return False
        return True

    def _deletions(self) -> None:
        found, backend = self.found, self._backend
        with self._objects(dict.fromkeys(("one", "two", "three"), b"x")):
            found.may_delete = backend.capabilities.may_delete
            try:
                surely(lambda: backend.delete(f"{self._prefix}one"))
                if self._there("one"):
                    found.wrong.append("what was deleted is there")
            except (Denied, Unsupported):
                found.may_delete = False
            if not found.may_delete:
                found.batch_delete = 0
                return
            several = [f"{self._prefix}{key}" for key in ("two", "three", "never")][:max(2, backend.capabilities.batch_delete)]
            surely(lambda: backend.delete_many(several))
            if self._there("two") or self._there("three"):
                found.wrong.append("of several keys that were deleted in one request some are there")
            found.batch_delete = backend.capabilities.batch_delete

    def _ranges(self) -> None:
        data = random.Random(1).randbytes(64 * KIB)
        with self._objects({"parts": data}):
            for offset, size in ((0, 100), (1000, 3000), (60 * KIB, None), (64 * KIB - 1, 10), (64 * KIB, 5)):
                try:
                    part = self._backend.get(f"{self._prefix}parts", offset, size)
                except Corrupt as error:
                    part = str(error).encode()
                if part != data[offset:None if size is None else offset + size]:
                    self.found.wrong.append(f"{'all' if size is None else size} bytes from {offset} on of an object are others")

    def _folders(self) -> None:
        backend, prefix = self._backend, f"{self._prefix}folders/"
        with self._objects(dict.fromkeys(("folders/a/1", "folders/b/c/2", "folders/3"), b"x")):
            if sorted(backend.folders(prefix)) != ["a", "b"]:
                self.found.wrong.append("folders of keys are not listed as they are")
        if self.found.may_delete and list(backend.folders(prefix)):
            self.found.wrong.append("a folder is listed though its last object is gone")

    def _listings(self) -> None:
        with self._objects({f"listings/{name}": b"x" for name in NAMES}):
            self.found.listings = listing_rules(self._backend, f"{self._prefix}listings/")

    def _largest(self) -> None:
        """Zeros, which take no memory here and are as good as any bytes."""
        bound = self._backend.capabilities.largest_object_bytes
        for size in LARGE_BYTES:
            with mmap.mmap(-1, size) as memory, contextlib.suppress(Unsupported, StoreFull, Denied):
                if bound is None or size <= bound:
                    view = memoryview(memory)
                    try:
                        with self._objects({f"large-{size}": view}):
                            whole = self._backend.stat(f"{self._prefix}large-{size}").size == size
                            if whole and self._backend.get(f"{self._prefix}large-{size}", size - 8) == bytes(8):
                                self.found.largest_bytes = size
                    finally:
                        view.release()
            self._step("large objects")
