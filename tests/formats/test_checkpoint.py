from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3cfs.errors import Damaged
from s3cfs.formats import checkpoint, envelope
from s3cfs.formats.checkpoint import Manifest, Part

from .kit import assert_any_damage_is_found, both_modes, keyring

MANIFEST = Manifest(
    12,
    3,
    "ab" * 32,
    "log/main/3-0123456789abcdef/12",
    [Part("checkpoint/main/12/0123456789abcdef-0", 999, "cd" * 32), Part("checkpoint/main/12/0123456789abcdef-1", 5, "ef" * 32)],
    1_700_000_000_000_000_000,
    {"next_ino": 55, "used_bytes": 123},
    [(7, "log/main/3-0123456789abcdef/11", 600), (9, "log/main/3-0123456789abcdef/12", 512)],
)


@both_modes
@given(changesets=st.lists(st.binary(max_size=500), max_size=10), commit=st.integers(0, 2**63 - 1))
@settings(deadline=None)
def test_part_round_trip(plain: bool, changesets: list[bytes], commit: int) -> None:
    data = checkpoint.encode_part(changesets, commit, keyring(plain).sealer("checkpoint", 2))
    assert checkpoint.decode_part(memoryview(data), commit, keyring(plain).sealer("checkpoint", 5)) == changesets
    assert len(data) == envelope.padme(len(data))


@both_modes
def test_manifest_round_trip(plain: bool) -> None:
    data = checkpoint.encode_manifest(MANIFEST, keyring(plain).sealer("checkpoint", 2))
    sealer = keyring(plain).sealer("checkpoint", 5)
    assert checkpoint.decode_manifest(memoryview(data), sealer) == checkpoint.decode_manifest(data, sealer, 12) == MANIFEST
    with pytest.raises(Damaged, match="of commit 12"):
        checkpoint.decode_manifest(data, sealer, 13)


@both_modes
def test_any_damage_is_found(plain: bool) -> None:
    sealer = keyring(plain).sealer("checkpoint", 2)
    assert_any_damage_is_found(
        checkpoint.encode_part([b"one", b"", b"two"], 12, sealer), lambda data: checkpoint.decode_part(data, 12, sealer)
    )
    assert_any_damage_is_found(
        checkpoint.encode_manifest(replace(MANIFEST, parts=[]), sealer), lambda data: checkpoint.decode_manifest(data, sealer)
    )


@both_modes
def test_another_commit_or_kind(plain: bool) -> None:
    sealer = keyring(plain).sealer("checkpoint", 2)
    part, manifest = checkpoint.encode_part([b"x"], 12, sealer), checkpoint.encode_manifest(MANIFEST, sealer)
    for wrong in (
        lambda: checkpoint.decode_part(part, 13, sealer),
        lambda: checkpoint.decode_part(manifest, 12, sealer),
        lambda: checkpoint.decode_manifest(part, sealer),
    ):
        with pytest.raises(Damaged):
            wrong()


def test_sealed_nonsense_in_a_part() -> None:
    sealer = keyring().sealer("checkpoint", 2)

    def part(inner: bytes) -> bytes:
        return checkpoint._seal(envelope.PART, checkpoint._part_name(1), [inner], sealer)

    def raw(content: bytes) -> bytes:
        packed = envelope.compress(content, 3)
        return part(struct.pack("<II", len(packed), len(content)) + packed)

    assert checkpoint.decode_part(raw(b"\1\0\0\0x"), 1, sealer) == [b"x"]
    for data in (
        part(b""),
        part(b"\0" * 7),
        part(struct.pack("<II", 2**32 - 1, 5)),
        part(struct.pack("<II", 1, 2**32 - 1) + b"x"),
        part(struct.pack("<II", 0, 0)),
        part(struct.pack("<II", 0, 0) + b"\1"),
        raw(b"\1"),
        raw(b"\2\0\0\0x"),
        raw(b"\xff" * 4),
    ):
        with pytest.raises(Damaged):
            checkpoint.decode_part(data, 1, sealer)


def test_sealed_nonsense_in_a_manifest() -> None:
    sealer = keyring().sealer("checkpoint", 2)

    def manifest(inner: bytes) -> bytes:
        return checkpoint._seal(envelope.MANIFEST, b"checkpoint manifest", [inner], sealer)

    part = {"key": "k", "size": 1, "hash": "00" * 32}
    good = {"commit": 1, "epoch": 1, "record_hash": "00" * 32, "record_key": "k", "time_ns": 1, "counters": {"a": 1}, "parts": [part],
            "riding": [[1, "k", 9]]}

    def text(**changes: object) -> bytes:
        made = envelope.dump_json({name: value for name, value in {**good, **changes}.items() if value is not ...})
        return manifest(struct.pack("<I", len(made)) + made)

    assert checkpoint.decode_manifest(text(), sealer, 1).counters == {"a": 1}
    for data in (
        manifest(b""),
        manifest(b"\xff" * 4),
        manifest(b"\0\0\0\0"),
        manifest(b"\2\0\0\0{}x"),
        *(text(**{name: ...}) for name in good),
        text(more=1),
        text(counters={"a": "b"}),
        text(counters={"a": True}),
        text(parts=[1]),
        text(parts={}),
        text(parts=[{**part, "x": 1}]),
        text(parts=[{**part, "size": 0}]),
        text(riding=[[1, "k", 9, 9]]),
        text(riding=[[0, "k", 9]]),
        text(riding=[[1, "", 9]]),
        text(riding=[[1, "k", 0]]),
        text(riding=[{}]),
        text(record_hash="00"),
        text(record_key=7),
        text(epoch=2**32),
    ):
        with pytest.raises(Damaged):
            checkpoint.decode_manifest(data, sealer)
