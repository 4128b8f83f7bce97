"""Stories of s3cfs: many seeds that must go well, and the same seed twice."""
from __future__ import annotations

import os
import subprocess
import sys

import pytest

from .assembly import S3cfs
from .story import tell

BATCH = 50
FIRST_SEED = int(os.environ.get("S3CFS_SIM_SEED", "1"))


@pytest.mark.parametrize("batch", range(2))
def test_stories(batch):
    first = FIRST_SEED + batch * BATCH
    for seed in range(first, first + BATCH):
        story = tell(seed, S3cfs())
        if story.finding is not None:
            pytest.fail(f"{story.text}\nagain: python -m tests.sim --seed {seed} --count 1", pytrace=False)


def test_time_that_was_not_mounted_is_not_the_systems_lag():
    """Of this seed the second life does not come to mount for 200 s; what the first one did has no claim to be in the store by then."""
    assert tell(101990, S3cfs()).finding is None


def told(seed: int) -> str:
    story = tell(seed, S3cfs())
    return "\n".join([*story.lines, *story.last_trace, str(story.lives), str(story.operations)])


def test_one_seed_is_one_story():
    for seed in (3, 8, 12):
        assert told(seed) == told(seed)


def test_the_order_of_sets_does_not_matter():
    """Another hash seed, another process, the same story."""
    script = "from tests.sim.test_sim import told; print(told(5), told(9))"
    outputs = {subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60,
                              env={**os.environ, "PYTHONHASHSEED": number}).stdout for number in ("1", "77")}
    assert len(outputs) == 1
