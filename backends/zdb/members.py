"""Who belongs to a store: written in its servers, since a list of addresses can change in more places than one.

Each server has its *identity* (`s3cfs:server`): of which store, under which id and name. All have the *roll* (`s3cfs:roll`): who there is,
which of them are replicas of the records, since which epoch. The list that a user keeps only says where a name is reached, and what
the password is. A name stands for a server with its data: an empty server under a name of the roll has lost it, and is not taken for
a replica that knows of no record. Ids are never used twice.
"""
from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from s3cfs.backends.zdb.record import STORE_ID_BYTES, Signer

IDENTITY, ROLL = b"s3cfs:server", b"s3cfs:roll"
OWN_NAMES = (IDENTITY, ROLL)

_MAGIC = b"s3cfs zdb 1\0"


@dataclass(frozen=True, slots=True)
class Identity:
    """Of one server. The store's id lies beside the seal, since the seal's key follows from it."""

    store_id: bytes
    server_id: int
    name: str

    def encode(self, secret: str) -> bytes:
        body = _MAGIC + self.store_id + struct.pack(">I", self.server_id) + self.name.encode()
        return Signer(self.store_id, secret).seal(IDENTITY, body)

    @classmethod
    def decode(cls, value: bytes, secret: str) -> Identity:
        """ValueError: no identity. PermissionError: one of a store with another secret, or damaged."""
        at = len(_MAGIC)
        if len(value) < at + STORE_ID_BYTES + 4 or not value.startswith(_MAGIC):
            raise ValueError("is no identity of an s3cfs store")
        store_id = value[at:at + STORE_ID_BYTES]
        try:
            body = Signer(store_id, secret).unseal(IDENTITY, value)
        except ValueError:
            raise PermissionError("is sealed with another secret, or damaged") from None
        at += STORE_ID_BYTES
        return cls(store_id, struct.unpack_from(">I", body, at)[0], body[at + 4:].decode())


@dataclass(frozen=True, slots=True)
class Roll:
    """`names`: of every server there ever was, by id (those that went stay, so that they are known when they come back).

    `replicas` hold the records, and are read. `coming`: those that shall be the replicas, while a repair fills them; () as a rule. Until
    they are, every write needs a majority of both.
    """

    store_id: bytes
    epoch: int
    names: Mapping[int, str]
    replicas: tuple[int, ...]
    coming: tuple[int, ...] = ()
    mark: str = field(default="")          # of who wrote it: two that write the same epoch at once are told apart

    @property
    def rank(self) -> tuple[int, str]:
        return self.epoch, self.mark

    @property
    def voters(self) -> tuple[tuple[int, ...], ...]:
        """Of each of these a majority has to take a write."""
        return (self.replicas, self.coming) if self.coming else (self.replicas,)

    @property
    def joining(self) -> tuple[int, ...]:
        return tuple(number for number in self.coming if number not in self.replicas)

    def encode(self, signer: Signer) -> bytes:
        said = {"store": self.store_id.hex(), "epoch": self.epoch, "names": {str(number): name for number, name in self.names.items()},
                "replicas": self.replicas, "coming": self.coming, "mark": self.mark}
        return signer.seal(ROLL, json.dumps(said, separators=(",", ":"), sort_keys=True).encode())

    @classmethod
    def decode(cls, value: bytes, signer: Signer) -> Roll:
        """ValueError: damaged, or another store's."""
        said: Any = json.loads(signer.unseal(ROLL, value))
        try:
            return cls(bytes.fromhex(said["store"]), said["epoch"], {int(number): name for number, name in said["names"].items()},
                       tuple(said["replicas"]), tuple(said["coming"]), said["mark"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"has no {error}") from None

    def id_of(self, name: str) -> int | None:
        return next((number for number, known in self.names.items() if known == name), None)


def fresh_ids(names: Iterable[str], store_id: bytes, taken: Iterable[int] = (), salt: bytes = b"") -> dict[str, int]:
    """An id for each name: never 0, never one that is taken."""
    used = {0, *taken}
    found: dict[str, int] = {}
    for name in names:
        attempt = 0
        while (number := _id(store_id, name, salt, attempt)) in used:
            attempt += 1
        used.add(number)
        found[name] = number
    return found


def _id(store_id: bytes, name: str, salt: bytes, attempt: int) -> int:
    text = store_id + salt + attempt.to_bytes(4, "big") + name.encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")
