"""Where records lie, and how the newest is found: with a handful of requests, whatever the age."""
from __future__ import annotations

from typing import Any

import pytest

from s3cfs import ids
from s3cfs.formats import record
from s3cfs.formats.record import Kind, Record
from s3cfs.history.log import Tip, find_record, find_tip, newest_epoch, newest_key, run_of, tip_of

from .explore import SEALER, Line, Store

FINDING = 6                    # four folders, one range, the record


class Counted(Store):
    def __init__(self) -> None:
        super().__init__()
        self.requests = 0

    def perform(self, call: Any) -> Any:
        self.requests += 1
        return super().perform(call)

    def found(self, task: Any) -> Any:
        self.requests = 0
        return self.run(task)


def append(store: Store, tip: Tip, epoch: int, n: int, folder: str = "") -> Tip:
    """Record n of the history that ends at `tip`, as an office would put it."""
    key = ids.record_key(folder or ids.epoch_prefix(epoch, f"{epoch:016x}"), n)
    info = {"prev_key": tip.key, "run": list(tip.run_of_next(key))}
    made = Record(Kind.COMMIT, n, epoch, f"{epoch:016x}", tip.hash, 0, info)
    data = record.encode(made, SEALER)
    store.objects[key] = data
    return tip_of(key, data, made)


def test_numbers_lie_in_ranges() -> None:
    assert ids.log_key(1234, "0" * 16, 7_654_321) == "log/main/1/1234-0000000000000000/7/7654/7654321"
    assert ids.checkpoint_key(999, "manifest-" + "0" * 16) == "checkpoint/main/0/0/999/manifest-0000000000000000"
    for wrong in ("log/main/1/1234-0000000000000000/7/7653/7654321", "log/main/2/1234-0000000000000000/7/7654/7654321",
                  "log/main/1/1234-0000000000000000/7/7654/07654321", "log/main/1234-0000000000000000/7654321"):
        with pytest.raises(ValueError):
            ids.parse_log_key(wrong)
    for wrong in ("checkpoint/main/0/1/999/manifest-" + "0" * 16, "checkpoint/main/999/manifest-" + "0" * 16):
        with pytest.raises(ValueError):
            ids.parse_checkpoint_key(wrong)


@pytest.mark.parametrize("first", [1, 995, 999_995, 41_999_990])
@pytest.mark.parametrize("epoch", [1, 998, 12_999])
def test_the_newest_record_across_borders(first: int, epoch: int) -> None:
    store, tip = Counted(), Tip()
    assert store.found(newest_key(Line())) == "" and store.found(find_tip(Line(), SEALER)) == Tip()  # type: ignore[arg-type]
    for n in range(first, first + 12):
        tip = append(store, tip, epoch + (n - first) // 4, n)
        assert store.found(find_tip(Line(), SEALER)) == tip  # type: ignore[arg-type]
        assert store.requests == FINDING
        assert store.found(newest_epoch(Line())) == tip.epoch  # type: ignore[arg-type]
        assert store.requests == 2


def test_what_is_not_of_the_log_does_not_hide_it() -> None:
    store = Counted()
    tip = append(store, Tip(), 5, 3)
    for name in ("7", "9-0000000000000000/0/0/1", "2/2001-0000000000000000/0/0/x", "0/6-0000000000000000/0/7/7", "0/5-00000000/0/0/9",
                 f"0/5-{5:016x}/0/1/9", f"0/5-{5:016x}/1/1000/999", f"0/5-{5:016x}/0/0/04"):
        store.objects[f"log/main/{name}"] = b""
    assert store.found(find_tip(Line(), SEALER)) == tip  # type: ignore[arg-type]


def test_a_run_says_where_it_begins() -> None:
    store, tip = Counted(), Tip()
    tips = {0: tip}
    for n in (*range(1, 6), *range(6, 10), *range(13, 16)):                 # 10 to 12: a repair went back past them
        tip = tips[n] = append(store, tip, 1 + (n > 5) + (n > 12), n)
    runs = {n: run_of(Record(Kind.COMMIT, n, tip.epoch, tip.writer, tip.hash, 0, tip.info)) for n, tip in tips.items() if n}
    assert {n: first for n, (first, _) in runs.items()} == {**dict.fromkeys(range(1, 6), 1), **dict.fromkeys(range(6, 10), 6),
                                                              **dict.fromkeys(range(13, 16), 13)}
    assert (runs[3][1], runs[8][1], runs[15][1]) == ("", tips[5].key, tips[9].key)
    for n, known in tips.items():
        assert store.found(find_record(Line(), SEALER, tip, n)) == known.key  # type: ignore[arg-type]
        assert store.requests <= 3
    assert not any(store.found(find_record(Line(), SEALER, tip, n)) for n in (10, 11, 12, 16))  # type: ignore[arg-type]


def test_a_run_that_cannot_be_is_one_record() -> None:
    for run in (None, 7, [], [0, ""], [8, "x"], [1], ["1", "x"], [1, 2]):
        made = Record(Kind.COMMIT, 7, 1, "0" * 16, ids.ZERO_HASH, 0, {"prev_key": "before", "run": run})
        assert run_of(made) == (7, "before"), run
