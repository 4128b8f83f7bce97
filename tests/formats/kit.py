"""What the format tests share: randomness that repeats, and every way of damaging a few bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import strategies as st

from s3cfs.backends.base import Backend, Capabilities, ObjectInfo
from s3cfs.errors import Damaged, NotFound
from s3cfs.formats.keys import KeyRing


class FixedRandomness:
    """A stream that a seed decides."""

    def __init__(self, seed: bytes = b"") -> None:
        self._seed, self._at = seed, 0

    def bytes(self, count: int) -> bytes:
        found = blake3(self._seed, derive_key_context="s3cfs tests fixed randomness").digest(count, seek=self._at)
        self._at += count
        return found

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * int.from_bytes(self.bytes(8), "little") / 2**64


def noise(count: int, seed: bytes = b"noise") -> bytes:
    return FixedRandomness(seed).bytes(count)


FS_ID = bytes(range(16))
MASTER = bytes(range(100, 132))


def keyring(plain: bool = False, seed: bytes = b"") -> KeyRing:
    return KeyRing(FS_ID, None if plain else MASTER, FixedRandomness(seed))


both_modes = pytest.mark.parametrize("plain", [False, True], ids=["sealed", "plain"])


@st.composite
def damages(draw: st.DrawFn, size: int) -> tuple[str, int]:
    """A bit to flip, a length to cut to, or a byte to add."""
    kind = draw(st.sampled_from(["flip", "cut", "add"]))
    return kind, draw(st.integers(0, 8 * size - 1 if kind == "flip" else size - 1))


def damaged(data: bytes, damage: tuple[str, int]) -> bytes:
    kind, at = damage
    if kind == "cut":
        return data[:at]
    if kind == "add":
        return data + bytes([at % 256])
    changed = bytearray(data)
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def assert_any_damage_is_found(data: bytes, read: Callable[[bytes], Any]) -> None:
    """Every single-bit flip and every truncation raises Damaged with one line, and nothing else. `data` should be small."""
    read(data)
    for damage in [*(("flip", bit) for bit in range(8 * len(data))), *(("cut", size) for size in range(len(data))), ("add", 0), ("add", 7)]:
        try:
            read(damaged(data, damage))
        except Damaged as error:
            assert str(error) and "\n" not in str(error)
        else:
            pytest.fail(f"{damage} was not found")


class DictStore(Backend):
    """Objects in a dict: all that a dump needs of a store."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(create_only=False)

    @property
    def location(self) -> str:
        return "dict:"

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        if key not in self.objects:
            raise NotFound("get", key)
        return self.objects[key][offset : None if size is None else offset + size]

    def put(self, key: str, data: bytes | bytearray | memoryview, only_if_absent: bool = False) -> None:
        self.objects[key] = bytes(data)

    def stat(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, len(self.get(key)))

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return (ObjectInfo(key, len(data)) for key, data in list(self.objects.items()) if key.startswith(prefix))

    def probe_create_only(self, rounds: int = 1) -> bool:
        return False
