from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3cfs.formats.chunker import ACCELERATED, Chunker, valid_sizes
from s3cfs.limits import DEFAULTS

from .kit import noise

SMALL = (1 << 10, 4 << 10, 16 << 10)
NOISE = noise(300_000) + bytes(40_000) + b"a line of text\n" * 3000


def default() -> Chunker:
    return Chunker(DEFAULTS.chunk_min_bytes, DEFAULTS.chunk_avg_bytes, DEFAULTS.chunk_max_bytes, seed=77)


def test_the_compiled_code_is_there() -> None:
    assert ACCELERATED


@given(start=st.integers(0, len(NOISE)), size=st.integers(0, len(NOISE)), seed=st.sampled_from([0, 1, 2**62 - 1]))
@settings(max_examples=60, deadline=None)
def test_lengths(start: int, size: int, seed: int) -> None:
    data = memoryview(NOISE)[start : start + size]
    lengths = Chunker(*SMALL, seed).cut(data, True)
    assert sum(lengths) == len(data)
    assert all(SMALL[0] <= length <= SMALL[2] for length in lengths[:-1])
    assert all(1 <= length <= SMALL[2] for length in lengths)


@given(st.lists(st.integers(0, 60_000), max_size=40), st.sampled_from([bytes, bytearray, memoryview]))
@settings(max_examples=60, deadline=None)
def test_cut_in_arbitrary_runs_is_cut_at_once(runs: list[int], kind: type) -> None:
    chunker, lengths, pending, at = Chunker(*SMALL, seed=5), [], b"", 0
    for run in [*runs, len(NOISE)]:
        pending += NOISE[at : at + run]
        at = min(at + run, len(NOISE))
        found = chunker.cut(kind(pending), False)
        assert len(pending) - sum(found) < SMALL[2]
        lengths += found
        pending = pending[sum(found) :]
    lengths += chunker.cut(pending, True)
    assert lengths == chunker.cut(NOISE, True)


def test_a_largest_chunk_is_decided() -> None:
    chunker = Chunker(*SMALL)
    assert chunker.cut(bytes(SMALL[2]), False) == [SMALL[2]]
    assert chunker.cut(bytes(SMALL[2] - 1), False) == []
    assert chunker.cut(b"", False) == chunker.cut(b"", True) == []


def test_a_shifted_copy_shares_its_chunks() -> None:
    data = noise(64 << 20)

    def pieces(whole: bytes) -> set[bytes]:
        view, at, found = memoryview(whole), 0, set()
        for length in default().cut(whole, True):
            found.add(bytes(view[at : at + length]))
            at += length
        return found

    before = pieces(data)
    new = sum(len(piece) for piece in pieces(noise(1000, b"shift") + data) - before)
    assert new < 0.03 * len(data)
    at = len(data) // 2
    new = sum(len(piece) for piece in pieces(data[:at] + b"inserted" + data[at:]) - before)
    assert new < 0.03 * len(data)


def test_mean_size() -> None:
    lengths = default().cut(noise(128 << 20), True)
    mean = sum(lengths) / len(lengths)
    assert DEFAULTS.chunk_avg_bytes * 0.9 < mean < DEFAULTS.chunk_avg_bytes * 1.5


def test_the_seed_moves_the_boundaries() -> None:
    one, two = Chunker(*SMALL, seed=1), Chunker(*SMALL, seed=2)

    def ends(chunker: Chunker) -> set[int]:
        total, found = 0, set()
        for length in chunker.cut(NOISE[:300_000], True):
            total += length
            found.add(total)
        return found

    assert len(ends(one) & ends(two)) < 0.2 * len(ends(one))


def test_known_cuts() -> None:
    """The cuts are the format of deduplication: another version of the library must make the same."""
    assert Chunker(*SMALL).cut(NOISE, True)[:6] == KNOWN[0]
    assert Chunker(*SMALL, seed=123456789).cut(NOISE, True)[:6] == KNOWN[1]


KNOWN = [[6125, 2597, 5090, 4283, 4502, 7460], [4401, 6825, 2429, 4404, 6713, 14833]]


def test_threads_do_not_disturb_one_another() -> None:
    chunker, wrong = Chunker(*SMALL, seed=3), []
    right = chunker.cut(NOISE, True)

    def work() -> None:
        for _ in range(30):
            if chunker.cut(NOISE, True) != right:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_gil_is_released() -> None:
    """While one thread cuts, this one keeps counting: with the GIL held it would stand still for a whole chunk's scan."""
    data, chunker, done = bytes(256 << 20), Chunker(1 << 20, 4 << 20, 16 << 20), threading.Event()

    def work() -> None:
        chunker.cut(data, True)
        done.set()

    longest, last = 0.0, time.perf_counter()
    thread = threading.Thread(target=work)
    begun = last
    thread.start()
    count = 0
    while not done.is_set():
        now = time.perf_counter()
        longest, last, count = max(longest, now - last), now, count + 1
    thread.join()
    took = time.perf_counter() - begun
    assert count > 1000 and longest < took


@pytest.mark.parametrize(
    "sizes", [(0, 0, 0), (1 << 10, 1 << 10, 1 << 10), (1025, 4096, 16384), (2 << 20, 4 << 20, 16 << 20), (1 << 10, 4 << 10, 32 << 20)]
)
def test_sizes_out_of_range(sizes: tuple[int, int, int]) -> None:
    assert not valid_sizes(*sizes)
    with pytest.raises(ValueError, match="chunk sizes"):
        Chunker(*sizes)


def test_defaults_are_valid() -> None:
    assert valid_sizes(DEFAULTS.chunk_min_bytes, DEFAULTS.chunk_avg_bytes, DEFAULTS.chunk_max_bytes)
    with pytest.raises(ValueError, match="seed"):
        Chunker(*SMALL, seed=1 << 62)
