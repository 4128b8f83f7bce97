"""DirtyMap against a plain dictionary of bytes."""
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from s3cfs.vfs.dirty import DirtyMap, Spooled

OPERATIONS = st.lists(st.tuples(st.sampled_from(["write", "under", "cut", "take"]), st.integers(0, 60), st.integers(0, 25)), max_size=40)


def flat(found: DirtyMap) -> dict[int, int]:
    out: dict[int, int] = {}
    position = -1
    for start, (buffer, inner, length) in zip(found.starts, found.pieces, strict=True):
        assert start >= position and length > 0
        position = start + length
        assert not isinstance(buffer, Spooled)
        out.update({start + i: buffer[inner + i] for i in range(length)})
    assert found.bytes == found.ram_bytes == len(out)
    return out


@given(OPERATIONS)
def test_equals_a_dictionary(operations: list[tuple[str, int, int]]) -> None:
    dirty, model = DirtyMap(), dict[int, int]()
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
            taken = flat(dirty.take(offset, offset + length))
            assert taken == {i: v for i, v in model.items() if i in span}
            model = {i: v for i, v in model.items() if i not in span}
        assert flat(dirty) == model
        assert dirty.covers(offset, offset + length) == all(i in model for i in span)
        assert sum(end - start for start, end in dirty.runs()) == len(model)
        assert dirty.end == max(model, default=-1) + 1
