"""Storj through its S3 gateway: `storjs3://gateway.storjshare.io/bucket/prefix/`, on the same INI as `s3c://`.

What is different there (the gateway's own rules, and what its users met): a listing is refused unless its prefix is empty or ends in '/';
listings come in the order of encrypted keys; storage costs by segments of 64 MiB besides bytes; at peak load there are 429s,
connections that die silently while they wait, deletions that do not take, answers that are old. S3Backend lists only by such prefixes,
and by token; the rest is here: keys over shards (shards.py), patience, connections, what the store is taken to be like.

How many shards there are is decided by mkfs and kept in `layout/shards`, which is read once, when the first key needs it. Without it:

- shards can be seen, or objects that lie in none: that is the layout (a place filled from another store by hand has none), and the
  first put writes the lost object anew;
- nothing can be seen: a gateway that is behind, so Temporary; unless the option `shards` says what is meant.
"""
from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from typing import ClassVar

from s3cfs.backends import shards
from s3cfs.backends.base import Body, Capabilities, Listing, ObjectInfo
from s3cfs.backends.progress import moved
from s3cfs.backends.s3c import Page, S3Backend
from s3cfs.backends.shards import Layout
from s3cfs.backends.url import Credentials, Options, StoreUrl
from s3cfs.errors import ConfigError, Exists, NotFound, StoreError, Temporary, Unsupported
from s3cfs.limits import MIB

log = logging.getLogger(__name__)

LISTINGS_AT_ONCE = 4
BATCH_DELETE = 100                 # keys in one request: the gateway deletes them one by one, and all of them within the time-out
IDEAL_OBJECT_BYTES = 60 * MIB      # with what takes a pack past it, one segment
REQUEST_BYTES = 1 * MIB            # some tenths of a second; and a small object costs a segment as a large one does


class StorjBackend(S3Backend):
    """See the module's text."""

    OPTIONS: ClassVar[Mapping[str, str]] = {
        **S3Backend.OPTIONS,
        "tcp-timeout": "seconds without any progress until a connection is given up (default 60)",
        "consistency": "eventual (the default: answers may be old), linearizable or unknown (then it is tried out where it matters)",
        "shards": f"when a place is made: over how many folders packs are spread (1 to {shards.MOST}, default {shards.USUAL}; 0: none)",
    }
    GUARDED: ClassVar[bool] = True             # the consistency lock and the checker are on unless somebody says otherwise
    TIMEOUT_S: ClassVar[float] = 60.0
    BELIEVED: ClassVar[str] = "eventual"
    CONNECTION_S: ClassVar[float | None] = 30.0

    def __init__(self, url: StoreUrl, options: Options, credentials: Credentials) -> None:
        super().__init__(url, options, credentials)
        self._wanted = _number(options)
        self._batch_delete = BATCH_DELETE
        self._layout: Layout | None = None
        self._unwritten = False                # the layout that holds is in no object yet
        self._finding = threading.Lock()

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, ideal_object_bytes=IDEAL_OBJECT_BYTES, request_bytes=REQUEST_BYTES)

    # ------------------------------------------------------------ the layout

    def create(self) -> None:
        """Decide how many shards there are, unless that is decided, or there is a filesystem already. Of two at once one decides."""
        layout = self._read() or self._seen()
        if layout is None and next(super().list("super/"), None) is None:
            layout = Layout(shards.USUAL if self._wanted is None else self._wanted)
            self._write(layout)
        if layout is not None:
            self._agree(layout)

    def check(self) -> None:
        super().check()
        if self._wanted is not None:           # else it is read when it is needed
            self._known()

    def _known(self) -> Layout:
        """The layout; Temporary when there is no sign of one, ConfigError when the option says something else."""
        layout = self._layout
        if layout is None:
            with self._finding:
                layout = self._layout or self._find()
        return layout

    def _find(self) -> Layout:
        layout = self._read()
        self._unwritten = layout is None
        if layout is None:
            layout = self._seen() or (None if self._wanted is None else Layout(self._wanted))
            if layout is None:
                raise Temporary("get", shards.KEY, f"{self.location} does not show how its objects lie, and shows none: a gateway that is "
                                "behind shows it soon; a place that was filled from another store needs the backend option shards=0, once")
        return self._agree(layout)

    def _agree(self, layout: Layout) -> Layout:
        if self._wanted not in (None, layout.shards):
            raise ConfigError(f"{self.location} was made with shards={layout.shards}, which cannot be changed: "
                              f"leave out the backend option shards={self._wanted}")
        self._layout = layout
        return layout

    def _read(self) -> Layout | None:
        try:
            data = self.get(shards.KEY)
        except NotFound:
            return None
        try:
            return Layout.decode(data)
        except ValueError as error:
            if (layout := self._seen()) is not None and "damaged" in str(error):
                log.warning("%s%s is damaged; the objects themselves show %d shards", self.location, shards.KEY, layout.shards)
                return layout
            raise Unsupported("get", shards.KEY, f"it {error}, and without it nothing says where objects lie") from None

    def _seen(self) -> Layout | None:
        """As the objects themselves show it; None: there are none of those kinds."""
        counts = {shards.shards_of(name) for folder in shards.FOLDERS for name in super(StorjBackend, self).folders(folder)}
        if len(counts) > 1:
            said = " and ".join(str(count) for count in sorted(counts))
            raise Unsupported("list", "pack/", f"{self.location} holds objects of several layouts ({said} shards)")
        return Layout(counts.pop()) if counts else None

    def _write(self, layout: Layout) -> None:
        """Temporary: somebody else was quicker, and wants another one or one that is not shown yet."""
        try:
            self._put(shards.KEY, layout.encode(), True)
        except Exists:
            if self._read() != layout:
                what = f"{self.location} was just made by somebody else, perhaps with another layout"
                raise Temporary("put", shards.KEY, what) from None
        except Unsupported:                    # a store that knows no such put
            self._put(shards.KEY, layout.encode(), False)

    # ------------------------------------------------------------ objects

    def _name(self, key: str) -> str:
        return self._prefix + (self._known().name(key) if shards.is_spread(key) else key)

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> None:
        if shards.is_spread(key):
            self._known()
            with self._finding:
                self._write_late()             # nothing is put anywhere before it is sure where
        super().put(key, data, only_if_absent)

    def _write_late(self) -> None:
        if self._unwritten and self._layout is not None:
            try:
                self._write(self._layout)
            except Temporary:
                self._layout = None            # perhaps it is shown by now: look again
                raise
            self._unwritten = False

    # ------------------------------------------------------------ listings

    def _runs(self, prefix: str) -> list[str | ObjectInfo]:
        """Prefixes in the store that hold everything below this one, and objects that lie beside them."""
        found, token = list[str | ObjectInfo](), None
        while True:
            page = self.list_page(prefix, token, only_here=True)
            found += page.objects
            for folder in page.folders:
                below = f"{prefix}{folder}/"
                if below in shards.FOLDERS:
                    found += self._runs(below)
                elif below != shards.LAYOUT:
                    found.append(below)
            token = page.following
            if token is None:
                return found

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        if not prefix or prefix in shards.FOLDERS:
            return _United(self, self._runs(prefix))
        if shards.is_spread(prefix) and prefix.endswith("/"):
            return _United(self, [self._known().name(prefix)])
        return iter(()) if prefix == shards.LAYOUT else super().list(prefix)

    def folders(self, prefix: str) -> Iterator[str]:
        if not prefix:
            return (name for name in super().folders("") if f"{name}/" != shards.LAYOUT)
        if prefix in shards.FOLDERS:
            found = dict[str, None]()
            for name in super().folders(prefix):
                found |= dict.fromkeys(super().folders(f"{prefix}{name}/") if shards.shards_of(name) else [name])
            return iter(found)
        return super().folders(self._known().name(prefix) if shards.is_spread(prefix) else prefix)


class _United(Listing):
    """Several listings as one, some pages of them on their way at once. A page that failed is asked for again by the next `next`."""

    def __init__(self, backend: StorjBackend, runs: Sequence[str | ObjectInfo]) -> None:
        self._backend = backend
        self._left: deque[tuple[str, str | None]] = deque((run, None) for run in runs if isinstance(run, str))
        self._under_way: dict[Future[Page], tuple[str, str | None]] = {}
        self._page: Iterator[ObjectInfo] = iter([run for run in runs if isinstance(run, ObjectInfo)])

    def __next__(self) -> ObjectInfo:
        while True:
            for info in self._page:
                return ObjectInfo(shards.key_of(info.key), info.size)
            while self._left and len(self._under_way) < LISTINGS_AT_ONCE:
                run, token = self._left.popleft()
                self._under_way[self._ask(run, token)] = run, token
            if not self._under_way:
                raise StopIteration
            done = next(iter(wait(self._under_way, return_when=FIRST_COMPLETED).done))
            run, token = self._under_way.pop(done)
            try:
                page = done.result()
            except StoreError:
                self._left.appendleft((run, token))
                raise
            moved()
            if page.following is not None:
                self._left.append((run, page.following))
            self._page = iter(page.objects)

    def _ask(self, run: str, token: str | None) -> Future[Page]:
        """In a thread that keeps nobody from ending, whatever the store does."""
        future: Future[Page] = Future()

        def ask() -> None:
            try:
                future.set_result(self._backend.list_page(run, token))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=ask, daemon=True, name="s3cfs listing").start()
        return future


def _number(options: Options) -> int | None:
    if "shards" not in options.values:
        return None
    text = options.text("shards")
    if not text.isdecimal() or int(text) > shards.MOST:
        raise ConfigError(f"backend option shards is a number from 0 to {shards.MOST}, not {text!r}")
    return int(text)
