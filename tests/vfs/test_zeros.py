"""Where zeros begin and end does not depend on where they lie."""
from __future__ import annotations

import random

import pytest

from s3cfs.vfs.cutting import ZERO_RUN_BYTES, zero_parts


@pytest.mark.parametrize("round_", range(60))
def test_long_runs_of_zeros_are_found_exactly(round_: int, seed: int):
    dice = random.Random(f"{seed} {round_}")
    data, expected, at = b"", [], 1000 * round_
    while len(data) < 1 << 20:
        zero = dice.choice((ZERO_RUN_BYTES, ZERO_RUN_BYTES + 1, dice.randrange(ZERO_RUN_BYTES, 5 * ZERO_RUN_BYTES)))
        short = dice.choice((0, dice.randrange(ZERO_RUN_BYTES), ZERO_RUN_BYTES - 1))
        other = b"x" * dice.choice((1, 2, dice.randrange(1, 200_000)))
        if dice.random() < 0.3 and data:
            other = other + bytes(short) + b"y"
        elif dice.random() < 0.1 and not data:
            other = bytes(short) + b"z"
        for piece, is_zero in ((other, False), (bytes(zero), True)):
            expected.append((at + len(data), at + len(data) + len(piece), is_zero))
            data += piece
    if dice.random() < 0.5:
        del expected[-1]
        data = data[:expected[-1][1] - at]
    assert zero_parts(memoryview(data), at) == expected
