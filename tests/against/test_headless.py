"""What `make backends` compares with: trees that say how far the work had got, and nothing else."""
from __future__ import annotations

import pytest

from tests.against.headless import matching, step, tree

SEED, FAR = 7, 80


def test_every_step_changes_the_tree_and_is_recognised() -> None:
    for done in range(FAR):
        assert matching(dict(tree(done, SEED)), SEED, FAR) == done
    kinds = {("new" if one.name else "renamed" if one.to else "removed") for one in (step(number, SEED) for number in range(1, FAR))}
    assert kinds == {"new", "renamed", "removed"}


def test_a_file_may_be_half_done_if_it_is_the_last() -> None:
    done = next(number for number in range(30, FAR) if step(number + 1, SEED).name)
    data = step(done + 1, SEED).data
    for length in (0, 1, len(data) // 2):
        assert matching({**tree(done, SEED), f"f{done + 1}": data[:length]}, SEED, FAR) == done
    for wrong in (b"x" + data, data[::-1]):
        with pytest.raises(AssertionError):
            matching({**tree(done, SEED), f"f{done + 1}": wrong}, SEED, FAR)


def test_what_no_number_of_steps_leaves_behind() -> None:
    whole = dict(tree(60, SEED))
    name = sorted(whole)[3]
    for wrong in ({key: data for key, data in whole.items() if key != name}, {**whole, name: whole[name][:-1]}, {**whole, "f999": b""}):
        with pytest.raises(AssertionError, match="the tree is not"):
            matching(wrong, SEED, FAR)
    with pytest.raises(AssertionError):
        matching(whole, SEED, 50)
