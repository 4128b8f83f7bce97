"""Who puts an object dies in the middle of it (SIGKILL): the object is there whole, or not at all (S1)."""
from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from s3cfs.backends.base import Backend
from s3cfs.errors import NotFound
from tests.against.programs import Program
from tests.against.sender import body
from tests.places import Place

SIZE = 8 << 20
KILLED_A_ROUND = 4


def test_a_put_whose_sender_dies_is_there_whole_or_not_at_all(place: Place, tmp_path: Path) -> None:
    if not place.has_processes:
        pytest.skip("the store ends with its process")
    dice = random.Random(place.seed)
    url = place.fresh_url()
    backend = place.seen(tmp_path / "state", url)
    backend.create()
    took, begun, done = _put(place, url, tmp_path / "state of first", ["pack/aa/first"], None)
    assert begun == done
    for number in range(KILLED_A_ROUND * place.rounds):
        _, now_begun, now_done = _put(place, url, tmp_path / f"state {number}", [f"pack/aa/{number}"], dice.uniform(0, took))
        begun += now_begun
        done += now_done
    kept = [_whole(backend, key) for key in begun]
    print(f"{len(begun)} puts, {len(done)} of them answered, {kept.count(True)} whole, {kept.count(None)} not there")
    backend.close()
    assert False not in kept, f"what came of the put stays: {[key for key, whole in zip(begun, kept, strict=True) if whole is False]}"
    assert all(whole for key, whole in zip(begun, kept, strict=True) if key in done)
    assert len(done) < len(begun), "none was killed before its answer"


def _whole(backend: Backend, key: str) -> bool | None:
    """None: not there."""
    try:
        return backend.get(key) == body(key, SIZE)
    except NotFound:
        return None


def _put(place: Place, url: str, state: Path, keys: list[str], after_s: float | None) -> tuple[float, list[str], list[str]]:
    """Seconds of the last put, begun, done. `after_s` of a put its sender dies; None: it does not."""
    told = {"place": place.url, "options": dict(place.options), "login": place.login, "password": place.password,
            "create_only": place.create_only, "sole": place.sole, "url": url, "state": str(state), "keys": keys, "size": SIZE}
    lists: dict[str, list[str]] = {"begun": [], "done": []}
    since = took = 0.0
    with Program("tests.against.sender", told) as program:
        for line in program.lines():
            what, key = line.split()
            lists[what].append(key)
            took, since = time.monotonic() - since, time.monotonic()
            if what == "begun" and after_s is not None:
                program.kill_after(after_s)
    place.count(len(lists["begun"]))
    assert lists["begun"], f"it ended by itself:\n{program.errors}"
    assert after_s is not None or program.code == 0, program.errors
    return took, lists["begun"], lists["done"]
