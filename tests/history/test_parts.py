"""Parts of a checkpoint that lie under one another's keys: each is sealed and whole, and still the checkpoint is damaged."""
from __future__ import annotations

import itertools

import pytest

from s3cfs import ids
from s3cfs.errors import Damaged, ObjectMissing
from s3cfs.limits import Limits

from .kit import Site, every, fill, filled, look

OFTEN = Limits(ride_max_bytes=0, checkpoint_record_bytes=every(4), checkpoint_part_bytes=400)


def swap_parts(site: Site, commit: int) -> None:
    folder = f"checkpoint/main/{ids.in_ranges(commit)}/"
    parts = sorted(key for key in site.bucket.objects if key.startswith(folder) and "manifest" not in key)
    one, other = next((a, b) for a, b in itertools.pairwise(parts) if site.bucket.objects[a] != site.bucket.objects[b])
    objects = site.bucket.objects
    objects[one], objects[other] = objects[other], objects[one]


def test_swapped_parts_are_damage() -> None:
    site = Site(limits=OFTEN)
    site.live(lambda life: fill(life, "abcdefghijkl"))
    commits = sorted({ids.parse_checkpoint_key(key)[0] for key in site.bucket.objects if "/manifest-" in key})
    assert len(commits) >= 2
    swap_parts(site, commits[-1])
    assert (site.live(look, "an older checkpoint, and the log since then") or ({},))[0] == filled("abcdefghijkl")
    for key in list(site.bucket.objects):                    # nothing is left but the swapped one
        old_log = key.startswith("log/") and ids.parse_log_key(key)[3] < commits[-1]
        if old_log or (key.startswith("checkpoint/") and ids.parse_checkpoint_key(key)[0] != commits[-1]):
            site.bucket.delete(key)
    with pytest.raises((Damaged, ObjectMissing)):
        site.live(look, "only the newest")
