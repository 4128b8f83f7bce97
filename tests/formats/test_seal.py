from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3cfs.errors import Damaged
from s3cfs.formats.seal import PlainSealer, Sealer

from .kit import FixedRandomness, assert_any_damage_is_found, both_modes

KEYS = {epoch: bytes([epoch + 1]) * 32 for epoch in range(3)}


def sealer(plain: bool, epoch: int = 1, seed: bytes = b"") -> Sealer:
    return (
        PlainSealer(epoch, FixedRandomness(seed)) if plain else Sealer(lambda one: KEYS.get(one, bytes(32)), epoch, FixedRandomness(seed))
    )


@both_modes
@given(data=st.binary(max_size=3000), aad=st.binary(max_size=100), kind=st.sampled_from([bytes, bytearray, memoryview]))
def test_round_trip(plain: bool, data: bytes, aad: bytes, kind: type) -> None:
    sealed = sealer(plain).seal(kind(data), aad)
    assert type(sealed) is bytes and len(sealed) == len(data) + Sealer.OVERHEAD
    for epoch in (0, 1, 2):  # whoever reads may be in another epoch
        assert sealer(plain, epoch).open(kind(sealed), aad) == data


@both_modes
def test_any_damage_is_found(plain: bool) -> None:
    assert_any_damage_is_found(sealer(plain).seal(b"forty-two", b"aad"), lambda data: sealer(plain).open(data, b"aad"))


@both_modes
def test_other_aad(plain: bool) -> None:
    sealed = sealer(plain).seal(b"content", b"here")
    for aad in (b"", b"her", b"heref", b"there"):
        with pytest.raises(Damaged):
            sealer(plain).open(sealed, aad)


def test_aad_and_content_do_not_run_into_one_another_in_plain_mode() -> None:
    sealed = sealer(True).seal(b"bc", b"a")
    moved = sealed[:16] + b"c" + sealed[18:]
    with pytest.raises(Damaged):
        sealer(True).open(moved, b"ab")


def test_sealed_bytes_hide_and_never_repeat() -> None:
    made = sealer(False)
    first, second = made.seal(bytes(64), b""), made.seal(bytes(64), b"")
    assert first != second and first[4:16] != second[4:16] and bytes(16) not in first[4:]


def test_other_key_says_nothing_secret() -> None:
    sealed = sealer(False).seal(b"SECRET", b"")
    other = Sealer(lambda _: b"K" * 32, 1, FixedRandomness())
    with pytest.raises(Damaged) as raised:
        other.open(sealed, b"")
    text = repr(raised.value) + repr(other) + repr(raised.value.__cause__) + repr(vars(raised.value))
    assert "SECRET" not in text and "KKKK" not in text


def test_a_store_that_invents_epochs_does_not_fill_the_memory() -> None:
    made = sealer(False)
    for epoch in range(2000):
        with pytest.raises(Damaged):
            made.open(epoch.to_bytes(4, "little") + bytes(40), b"")
    assert len(made._ciphers) <= 256


@both_modes
def test_threads(plain: bool) -> None:
    made, wrong = sealer(plain), []

    def work(number: int) -> None:
        for size in range(200):
            data = bytes([number]) * (size * 50)
            if made.open(made.seal(data, b"%d" % number), b"%d" % number) != data:
                wrong.append((number, size))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
