"""Where an object lies in a store whose keys are spread over shards: pure names, no requests.

    pack/d1/7-d1e8…    ->    pack/2-of-16/d1/7-d1e8…

Only kinds of which there are many are spread: packs, and pieces of objects that are too large. Superblocks, claims and checkpoints are
few; log records lie in ranges of a thousand already, and the newest is found by folders, which shards would multiply. The shard
follows from the folder right below the kind, so what lies together stays together: any deeper prefix is one prefix of the store.
A shard's name says how many there are. So listings are understood without knowing that number, and it can be found again when the
object that holds it is lost.
"""
from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

FOLDERS = ("pack/", "piece/")      # of the kinds that are spread
LAYOUT = "layout/"
KEY = "layout/shards"              # lies outside all shards
MOST, USUAL = 1000, 16

_SHARD = re.compile(r"(\d+)-of-(\d+)")
_TITLE = "s3cfs layout"
_VERSION = 1


def is_spread(key: str) -> bool:
    """Whether the key, or the prefix, is of a kind that is spread."""
    kind, slash, rest = key.partition("/")
    return kind + slash in FOLDERS and bool(rest)


def shards_of(folder: str) -> int:
    """How many shards there are where one has this name; 0: it is none."""
    found = _SHARD.fullmatch(folder)
    return int(found[2]) if found else 0


def key_of(name: str) -> str:
    """The key of an object that lies there, however many shards there are."""
    kind, _, rest = name.partition("/")
    shard, slash, below = rest.partition("/")
    return f"{kind}/{below}" if f"{kind}/" in FOLDERS and slash and shards_of(shard) else name


@dataclass(frozen=True, slots=True)
class Layout:
    """`shards` 0: all keys are names."""

    shards: int

    def name(self, key: str) -> str:
        """Where the object of this key lies; or what ends in '/', if it names a folder below a kind."""
        if not self.shards or not is_spread(key):
            return key
        kind, _, rest = key.partition("/")
        folder = f"{kind}/{rest.partition('/')[0]}"
        shard = int.from_bytes(hashlib.blake2b(folder.encode(), digest_size=8).digest(), "big") % self.shards
        return f"{kind}/{shard}-of-{self.shards}/{rest}"

    def encode(self) -> bytes:
        return json.dumps({_TITLE: _VERSION, "shards": self.shards}).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> Layout:
        """ValueError: damaged, or of a later version; its text says which."""
        try:
            said = json.loads(data)
            version, shards = said[_TITLE], said.get("shards")
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ValueError("is damaged") from None
        if version != _VERSION:
            raise ValueError("is of a later version of s3cfs")
        if not isinstance(shards, int) or not 0 <= shards <= MOST:
            raise ValueError("is damaged")
        return cls(shards)
