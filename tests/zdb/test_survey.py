"""The walk over all objects without any server: order, what is noted of it, bounds, figures."""
from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from s3cfs.backends.zdb.survey import Finding, Notes, Rate, Room, Tally, _Crew
from s3cfs.errors import ExitCode


def test_the_crew_counts_what_is_done_from_the_beginning_only():
    batches = [["a", "b"], ["c"], ["d", "e"], ["f"]]
    held, seen = threading.Event(), []

    def work(keys: Sequence[str]) -> Tally:
        if keys == ["c"]:
            assert held.wait(20)
        seen.append(keys[0])
        return Tally(objects=len(keys))

    crew = _Crew(work, batches, 2, threading.Event(), Tally())
    while crew.done < 5:
        crew.wait(0.01)
    assert (crew.after, crew.tally.objects) == ("b", 2)        # c is not done: the next run begins with it
    held.set()
    while crew.wait(0.01):
        pass
    assert (crew.after, crew.tally.objects, crew.done, sorted(seen)) == ("f", 6, 6, ["a", "c", "d", "f"]) and not crew.errors


def test_an_error_ends_the_crew_and_nothing_after_it_counts():
    def work(keys: Sequence[str]) -> Tally:
        if keys == ["b"]:
            raise OSError("x")
        return Tally(objects=1)

    crew = _Crew(work, [["a"], ["b"], ["c"], ["d"]], 1, threading.Event(), Tally())
    crew.join()
    assert (crew.after, crew.tally.objects) == ("a", 1) and isinstance(crew.errors[0], OSError)


def test_notes_are_of_one_kind_of_run(tmp_path: Path):
    notes = Notes(str(tmp_path / "notes"))
    assert notes.load("repair deep") == ("", Tally())
    notes.save("repair deep", "pack/x", Tally(objects=7, lost=1))
    assert notes.load("repair deep") == ("pack/x", Tally(objects=7, lost=1)) and notes.load("check deep") == ("", Tally())
    (tmp_path / "notes").write_text("{")
    assert notes.load("repair deep") == ("", Tally())
    notes.remove()
    assert not list(tmp_path.iterdir())
    Notes(None).save("repair deep", "x", Tally())
    Notes(str(tmp_path / "no" / "notes")).save("repair deep", "x", Tally())      # it is a convenience


def test_rate_is_kept_over_all_threads():
    class Pauses(threading.Event):
        def __init__(self) -> None:
            super().__init__()
            self.taken: list[float] = []

        def wait(self, timeout: float | None = None) -> bool:
            self.taken.append(timeout or 0.0)
            return False

    pauses, now = Pauses(), [100.0]
    rate = Rate(1000, pauses, lambda: now[0])
    for size in (500, 1500, 0):
        rate.take(size)
    assert pauses.taken == [0.5, 2.0] and rate.total == 2000
    now[0] = 200.0                                 # idle time is no credit
    rate.take(1000)
    assert pauses.taken[-1] == 1.0
    Rate(None, pauses).take(1 << 40)
    assert len(pauses.taken) == 3


def test_room_lets_in_what_fits_and_what_never_would_alone():
    room = Room(100)
    order: list[int] = []
    with room.of(60), room.of(40):
        waiting = threading.Thread(target=lambda: _with(room, 500, order), daemon=True)
        waiting.start()
        waiting.join(0.05)
        assert not order
    waiting.join(20)
    assert order == [500]


def _with(room: Room, size: int, order: list[int]) -> None:
    with room.of(size):
        order.append(size)


def test_what_is_said_in_the_end():
    assert (Tally(objects=3).exit_code, Tally(objects=3).verdict()) == (ExitCode.OK, "3 objects: all well")
    assert Tally(weak=1, lost=1).exit_code is ExitCode.OBJECT_MISSING
    assert {Tally(weak=1).exit_code, Tally(records=1).exit_code, Tally(replicas_away=1).exit_code} == {ExitCode.DAMAGED}
    assert Tally(objects=1234, mended=5, shards=20, weak=1).verdict() == "1,234 objects: 1 not whole (5 mended, 20 shards written)"
    assert Tally(deletions=2).exit_code is ExitCode.OK
    found = Tally(objects=1)
    found.add(Tally(objects=2, lost=1))
    assert found == Tally(objects=3, lost=1) and found.as_json()["lost"] == 1
    assert str(Finding("pack/x", "weak", "of 6 shards 1 missing", True)) == "pack/x: weak: of 6 shards 1 missing; mended"
