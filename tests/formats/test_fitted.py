"""What `limits.fitted` makes of a store's nature, against the sizes that the formats really have."""
from __future__ import annotations

import random
from dataclasses import fields, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from s3cfs.backends.types import Capabilities
from s3cfs.formats import pack
from s3cfs.formats.chunker import valid_sizes
from s3cfs.formats.envelope import padme
from s3cfs.formats.seal import Sealer
from s3cfs.limits import DEFAULTS, GIB, KIB, MIB, PACK_ENTRY_BYTES, Limits, chunk_sizes, fitted

USUAL = DEFAULTS.chunk_max_bytes
NATURES = st.builds(
    Capabilities, parallel_reads=st.integers(1, 100), parallel_writes=st.integers(1, 100), ideal_object_bytes=st.integers(1, GIB),
    largest_object_bytes=st.none() | st.integers(64 * KIB, 64 * MIB), request_bytes=st.integers(0, 16 * MIB))


def finished(sizes: list[int], limits: Limits) -> list[int]:
    """Sizes of the finished packs of these sealed chunks, closed as the journal closes them."""
    done, at, entries = [], pack.HEADER_BYTES, 0
    for size in sizes:
        at, entries = at + size, entries + 1
        if at >= limits.pack_target_bytes or entries >= limits.pack_entries:
            done.append(padme(at + pack.tail_bytes(entries)))
            at, entries = pack.HEADER_BYTES, 0
    return done


@settings(deadline=None)
@given(NATURES, st.data())
def test_no_pack_is_larger_than_the_largest_object(nature: Capabilities, data: st.DataObject) -> None:
    chunk_max = data.draw(st.sampled_from([chunk_sizes(nature)[2], 8 * KIB, 100 * KIB, USUAL]))
    limits = fitted(DEFAULTS, nature, chunk_max)
    rng, tiny = random.Random(data.draw(st.integers(0, 99))), Sealer.OVERHEAD + 2
    most = chunk_max + Sealer.OVERHEAD + 1
    worst = [tiny] * (limits.pack_entries - 1) + [most]
    full = [tiny] * ((limits.pack_target_bytes - pack.HEADER_BYTES - 1) // tiny) + [most]
    mixed = [rng.choice([tiny, rng.randint(tiny, most), most]) for _ in range(300)]
    packs = [size for sizes in (worst, full, mixed) for size in finished(sizes, limits)]
    if nature.largest_object_bytes is None or 2 * chunk_max > nature.largest_object_bytes:
        return
    assert max(packs, default=0) <= nature.largest_object_bytes


@given(NATURES)
def test_every_bound_makes_sense(nature: Capabilities) -> None:
    limits = fitted(DEFAULTS, nature, USUAL)
    assert all(getattr(limits, one.name) > 0 for one in fields(limits) if one.name != "ride_max_bytes" and one.name != "fetch_gap_bytes")
    assert limits.uploads_at_once <= nature.parallel_writes and limits.downloads_at_once <= nature.parallel_reads
    assert limits.uploads_at_once == 1 or limits.uploads_at_once * (limits.pack_target_bytes + USUAL // 4) <= limits.upload_memory_bytes
    assert limits.pack_target_bytes <= nature.ideal_object_bytes
    assert fitted(limits, nature, USUAL) == limits, "once more changes nothing"


@given(NATURES)
def test_new_filesystems_have_chunks_of_which_two_make_an_object(nature: Capabilities) -> None:
    least, mean, most = chunk_sizes(nature)
    assert valid_sizes(least, mean, most)
    assert nature.largest_object_bytes is None or 2 * most <= nature.largest_object_bytes
    if nature.largest_object_bytes is None or nature.largest_object_bytes >= 2 * USUAL:
        assert (least, mean, most) == (DEFAULTS.chunk_min_bytes, DEFAULTS.chunk_avg_bytes, USUAL)


@given(NATURES)
def test_what_somebody_set_is_at_most_lowered(nature: Capabilities) -> None:
    own = replace(DEFAULTS, pack_target_bytes=64 * KIB, uploads_at_once=2, fetch_gap_bytes=4 * KIB, ride_max_bytes=0, pack_entries=3,
                  transaction_max_bytes=4 * KIB, record_max_bytes=8 * KIB, checkpoint_part_bytes=2 * KIB)
    made = fitted(own, nature, 8 * KIB)
    assert all(getattr(made, one.name) <= getattr(own, one.name) for one in fields(own))


def test_most_stores_get_the_defaults() -> None:
    assert fitted(DEFAULTS, Capabilities(), USUAL) == DEFAULTS


def test_large_objects_where_a_request_is_dear() -> None:
    made = fitted(DEFAULTS, Capabilities(ideal_object_bytes=64 * MIB, request_bytes=4 * MIB), USUAL)
    assert (made.pack_target_bytes, made.uploads_at_once) == (30 * MIB, 2)
    assert (made.fetch_gap_bytes, made.ride_max_bytes) == (4 * MIB, 512 * KIB)


def test_a_megabyte_at_most() -> None:
    nature = Capabilities(largest_object_bytes=MIB)
    assert chunk_sizes(nature) == (32 * KIB, 128 * KIB, 512 * KIB)
    made = fitted(DEFAULTS, nature, 512 * KIB)
    assert 300 * KIB < made.pack_target_bytes < 400 * KIB and made.record_max_bytes == 480 * KIB


def test_sizes_are_those_of_the_format() -> None:
    assert pack.tail_bytes(2) - pack.tail_bytes(1) == PACK_ENTRY_BYTES
