"""Which objects there are, in the order of their encrypted keys, and what was there some time ago.

As at Storj each part of a key is encrypted under its parents: what lies below a folder is one run, in an order that has nothing to do
with names and is the same each time. Of what was overwritten or deleted the bytes are kept for `remember_s`, for answers that are old.
"""
from __future__ import annotations

import base64
import binascii
import hashlib
import threading
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Entry:
    size: int
    etag: str                      # with its quotes
    modified: float                # seconds since 1970, for people


class Seen(NamedTuple):
    """What an answer shows that is not what the server behind has: nothing, or an older object with its bytes."""

    entry: Entry | None
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Old:
    until: float                   # by the gateway's clock; `entry` was true before
    entry: Entry | None
    body: bytes | None


class Page(NamedTuple):
    objects: list[tuple[str, Entry]]
    folders: list[str]             # with prefix and final '/'
    token: str | None


class BadToken(ValueError):
    pass


class Index:
    """Keys are `bucket/key`. Thread-safe."""

    def __init__(self, now: Callable[[], float], remember_s: float, secret: bytes = b"path cipher") -> None:
        self._now, self.remember_s, self._secret = now, remember_s, secret
        self._lock = threading.RLock()
        self._order: list[str] = []                    # encrypted keys, sorted
        self._names: dict[str, str] = {}               # encrypted -> clear
        self._current: dict[str, Entry] = {}
        self._history: dict[str, list[Old]] = {}       # ascending
        self._hidden: dict[str, tuple[float, Entry]] = {}      # deleted, but it comes back at that time
        self._expiry: deque[tuple[float, str]] = deque()
        self._folders: dict[str, str] = {"": ""}

    # ------------------------------------------------------------ the cipher

    def _folder(self, folder: str) -> str:
        """The encrypted form of `a/b/`, with its final '/'."""
        if (known := self._folders.get(folder)) is None:
            parent, _, name = folder[:-1].rpartition("/")
            known = self._folders[folder] = f"{self._folder(parent and parent + '/')}{self._part(folder[:-1])}/"
        return known

    def _part(self, path: str) -> str:
        return hashlib.blake2b(path.encode(), key=self._secret, digest_size=8).hexdigest()

    def encrypted(self, key: str) -> str:
        return self._folder(key[:key.rfind("/") + 1]) + self._part(key)

    # ------------------------------------------------------------ changes

    def load(self, objects: Iterable[tuple[str, Entry]]) -> None:
        """Everything that there is, instead of what was known."""
        with self._lock:
            self._current = dict(objects)
            self._history.clear()
            self._hidden.clear()
            self._names = {self.encrypted(key): key for key in self._current}
            self._order = sorted(self._names)

    def put(self, key: str, entry: Entry, before: bytes | None) -> None:
        with self._lock:
            self._change(key, entry, before)

    def remove(self, key: str, before: bytes | None) -> None:
        with self._lock:
            if key in self._current:
                self._change(key, None, before)

    def hide(self, key: str, before: bytes | None, seconds: float) -> None:
        """Deleted, as far as anybody can see, for so long."""
        with self._lock:
            entry = self._current.get(key)
            if entry is not None:
                self._change(key, None, before)
                self._hidden[key] = self._now() + seconds, entry

    def _change(self, key: str, entry: Entry | None, before: bytes | None) -> None:
        now = self._now()
        self._hidden.pop(key, None)
        encrypted = self.encrypted(key)
        if encrypted not in self._names:
            insort(self._order, encrypted)
            self._names[encrypted] = key
        self._history.setdefault(key, []).append(Old(now, self._current.get(key), before))
        self._expiry.append((now, key))
        if entry is None:
            self._current.pop(key, None)
        else:
            self._current[key] = entry
        self._forget(now)

    def _forget(self, now: float) -> None:
        while self._expiry and self._expiry[0][0] <= now - self.remember_s:
            _, key = self._expiry.popleft()
            left = self._history[key][1:]
            if left:
                self._history[key] = left
                continue
            del self._history[key]
            if key not in self._current and key not in self._hidden:
                encrypted = self.encrypted(key)
                del self._names[encrypted], self._order[bisect_left(self._order, encrypted)]

    def _bring_back(self) -> None:
        now = self._now()
        for key, (until, entry) in [*self._hidden.items()]:
            if until <= now:
                del self._hidden[key]
                self._history.setdefault(key, []).append(Old(until, None, None))
                self._expiry.append((now, key))
                self._current[key] = entry

    # ------------------------------------------------------------ looks

    def entry(self, key: str) -> Entry | None:
        with self._lock:
            self._bring_back()
            return self._current.get(key)

    def hidden(self, key: str) -> bool:
        """Whether it is shown as deleted while the server behind has it."""
        with self._lock:
            self._bring_back()
            return key in self._hidden

    def changed(self, key: str) -> float | None:
        """When it was put or deleted last, as long as that is remembered."""
        with self._lock:
            history = self._history.get(key)
            return history[-1].until if history else None

    def seen(self, key: str, age: float) -> Seen | None:
        """What somebody sees who sees the state of `age` seconds ago; None: what the server behind has."""
        with self._lock:
            self._bring_back()
            old = self._old(key, age)
            if old is not None:
                return Seen(old.entry, old.body)
            return Seen(None, None) if key in self._hidden else None

    def _old(self, key: str, age: float) -> Old | None:
        if age <= 0:
            return None
        moment = self._now() - age
        return next((old for old in self._history.get(key, ()) if old.until > moment), None)

    def _at(self, key: str, age: float) -> Entry | None:
        old = self._old(key, age)
        return self._current.get(key) if old is None else old.entry

    def count(self, prefix: str, limit: int) -> int:
        """Objects whose key begins with `prefix`, as a gateway would count that looks at each; `limit` at most."""
        with self._lock:
            self._bring_back()
            return min(limit, sum(1 for key in self._current if key.startswith(prefix)))

    def page(self, prefix: str, token: str, delimiter: bool, limit: int, age: float) -> Page:
        """One page of a listing by a prefix that ends in '/'; the token holds the last key, as the real one's does."""
        with self._lock:
            self._bring_back()
            run = self._folder(prefix)
            at, end = bisect_left(self._order, run), bisect_left(self._order, run[:-1] + "0")          # '0' follows '/'
            if token:
                at = max(at, self._after(token, prefix))
            page, last = Page([], [], None), ""
            while at < end:
                key = self._names[self._order[at]]
                entry = self._at(key, age)
                if entry is None:
                    at += 1
                    continue
                if len(page.objects) + len(page.folders) == limit:
                    return page._replace(token=base64.urlsafe_b64encode(last.encode()).decode())
                name, slash, _ = key[len(prefix):].partition("/")
                if delimiter and slash:
                    last = f"{prefix}{name}/"
                    page.folders.append(last)
                    at = bisect_left(self._order, self._folder(last)[:-1] + "0")
                else:
                    last = key
                    page.objects.append((key, entry))
                    at += 1
            return page

    def _after(self, token: str, prefix: str) -> int:
        try:
            key = base64.urlsafe_b64decode(token).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise BadToken(token) from error
        if not key.startswith(prefix):
            raise BadToken(token)
        if key.endswith("/"):
            return bisect_left(self._order, self._folder(key)[:-1] + "0")
        return bisect_right(self._order, self.encrypted(key))
