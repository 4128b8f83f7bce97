"""DirtyMap against a plain dictionary of bytes."""
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from s3cfs.vfs.dirty import PIECE_BYTES, Account, DirtyMap, Spooled

OPERATIONS = st.lists(st.tuples(st.sampled_from(["write", "under", "cut", "take"]), st.integers(0, 60), st.integers(0, 25)), max_size=40)


def flat(found: DirtyMap, *, shared: bool = False) -> dict[int, int]:
    out: dict[int, int] = {}
    position = -1
    for start, (buffer, inner, length) in zip(found.starts, found.pieces, strict=True):
        assert start >= position and length > 0
        position = start + length
        assert not isinstance(buffer, Spooled)
        out.update({start + i: buffer[inner + i] for i in range(length)})
        assert shared or length * 2 >= len(buffer), "a remnant that keeps a large buffer in memory"
    assert (found.bytes, found.ram_bytes) == (len(out), len(out) + PIECE_BYTES * len(found.pieces))
    return out


@given(OPERATIONS)
def test_equals_a_dictionary(operations: list[tuple[str, int, int]]) -> None:
    account = Account()
    dirty, model = DirtyMap(account), dict[int, int]()
    for number, (what, offset, length) in enumerate(operations):
        data = bytes([number % 256]) * length
        span = range(offset, offset + length)
        if what == "write":
            dirty.write(offset, data)
            model.update(dict.fromkeys(span, number % 256))
        elif what == "under" and length:
            dirty.put_under(offset, (data, 0, length))
            model.update({i: number % 256 for i in span if i not in model})
        elif what == "cut":
            dirty.cut(offset, offset + length)
            model = {i: v for i, v in model.items() if i not in span}
        elif what == "take":
            expected = {i: v for i, v in model.items() if i in span}
            assert flat(dirty.part(offset, offset + length), shared=True) == expected
            taken = DirtyMap()
            dirty.move_to(taken, offset, offset + length)
            assert flat(taken, shared=True) == expected
            model = {i: v for i, v in model.items() if i not in span}
        assert flat(dirty) == model
        assert dirty.covers(offset, offset + length) == all(i in model for i in span)
        assert sum(end - start for start, end in dirty.runs()) == len(model)
        assert dirty.end == max(model, default=-1) + 1
        assert account == Account(dirty.bytes, 0, dirty.ram_bytes)
    dirty.clear()
    assert account == Account() and not dirty
