"""The long measurement, in virtual time, on a store that is as stale as it was told to be: what is measured is what is true."""
from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
import trio

from s3cfs.backends.measuring import Tally, report
from s3cfs.backends.measuring.pace import Pace
from s3cfs.backends.measuring.tally import HOUR_NS
from s3cfs.backends.progress import lost
from s3cfs.errors import NotFound, StoreError, Temporary, Throttled
from tests.remote.kit import virtual_time

from .stale import MIDNIGHT_NS, Clock, StaleStore, measure

Now = Callable[[], float]


def true(drawn: list[float], part: float) -> float:
    return sorted(drawn)[max(1, math.ceil(part * len(drawn))) - 1]


def test_quantiles_are_those_of_the_store() -> None:
    """Never too short; too long by what lies between two looks."""
    draw = random.Random(7)

    def delay(change: str, view: str) -> float:
        if view == "folders":
            return 0.0
        return draw.choice([0.0, draw.uniform(0.5, 5), draw.lognormvariate(2, 0.7)]) * (2 if change == "delete" else 1)
    tally, store, plan = measure(lambda now: StaleStore(now, delay), hours=1, rate=120)
    told = report(tally, plan)["shown"]
    for (change, view), drawn in store.drawn.items():
        if view == "folders":
            if change != "overwrite":                      # which changes nothing there
                assert told[change][view]["late"] == 0 < told[change][view]["count"]
            continue
        found = told[change][view]
        assert found["count"] > 40 and found["never"] == found["came_back"] == 0
        for name, part in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1)):
            # lives that were cut off are drawn and not counted: a quantile may be that of a neighbour
            low, high = true(drawn, max(0.0, part - 0.05)), true(drawn, min(1.0, part + 0.05))
            assert 0.995 * low <= found[name] <= 1.25 * high + 0.3, (change, view, name, low, high, found)
        late = sum(value > 0.03 for value in drawn) / len(drawn)
        assert abs(found["late"] / found["count"] - late) < 0.08
    assert "folders" not in told["overwrite"]
    assert not store.keys and tally.did_not_take == 0 and not tally.wrong


def test_a_store_that_is_never_late() -> None:
    tally, store, plan = measure(StaleStore, hours=1, rate=20)
    told = report(tally, plan)
    assert {found["max"] for views in told["shown"].values() for found in views.values()} == {0.0}
    assert told["suggested"]["late_below"] < 0.02 and told["suggested"]["options"] == "lock-delay=1,lock-delay-least=0,lock-delay-most=60"
    assert not store.keys and told["hours"] == 1.0


def test_the_rate_is_kept() -> None:
    """Whether each change takes few requests or many."""
    for slow in (lambda change, view: 0.0, lambda change, view: 40.0):
        tally, store, plan = measure(partial(StaleStore, delay=slow), hours=0.25, rate=120)
        asked = sum(when <= 900 for when, _ in store.asked)
        assert 0.9 * 120 * 15 < asked < 1.1 * 120 * 15, asked
        assert abs(report(tally, plan)["requests"] - asked) < 20


def test_what_is_not_shown_is_looked_for_and_then_counted() -> None:
    tally, store, plan = measure(lambda now: StaleStore(now, lambda change, view: 1e6 * (view == "list" and change == "put")), hours=0.5)
    told = report(tally, plan)["shown"]["put"]
    assert told["list"]["never"] == told["list"]["count"] > 2
    assert plan.look_max_s <= told["list"]["p50"] <= 1.3 * plan.look_max_s, "as long as it was looked for"
    assert told["get"]["never"] == 0 < told["get"]["count"]


def test_ghosts() -> None:
    """What was deleted is there again a minute later, for a while; and one delete of ten does not take."""
    draw = random.Random(2)
    comes_back = list[bool]()

    def back(change: str, view: str) -> list[tuple[float, float]]:
        if (change, view) != ("delete", "get"):
            return []
        comes_back.append(draw.random() < 0.25)
        return [(60.0, 100.0)] if comes_back[-1] else []
    tally, store, plan = measure(lambda now: StaleStore(now, back=back, takes=lambda: draw.random() < 0.9), hours=1.5, rate=50)
    told = report(tally, plan)
    deletes = told["shown"]["delete"]["get"]
    assert 0.03 < told["ghosts"]["did_not_take"] / deletes["count"] < 0.2
    assert deletes["never"] == told["ghosts"]["did_not_take"]
    # each of them is there at 120 s, when two of four views are asked: half of them are met
    part = told["ghosts"]["came_back"]["get"] / sum(comes_back)
    assert 0.3 < part < 0.7 and told["ghosts"]["came_back"]["stat"] == 0
    assert sum(hour["ghosts"] for hour in told["by_hour"].values()) == deletes["never"] + told["ghosts"]["came_back"]["get"]


def test_an_old_answer_that_came_back_counts_once_and_until_it_is_over() -> None:
    tally, _, plan = measure(lambda now: StaleStore(now, back=lambda change, view: [(25, 20), (110, 40)]), hours=2, rate=35)
    found = tally.of("delete", "get")
    assert found.came_back > 0 and found.delays.most == 0.0
    # two of four views are asked while either is shown: 3 of 4 meet one or both
    assert 2.0 < sum(tally.of("delete", view).came_back for view in ("get", "stat", "list", "folders")) / found.delays.count < 3.5
    assert 150 <= (found.settled.most or 0) <= 170 and report(tally, plan)["suggested"]["most"] >= 150


def test_a_delete_that_does_not_take_is_no_reason_to_wait_longer() -> None:
    """And is made again at the end."""
    draw = random.Random(5)
    tally, store, plan = measure(lambda now: StaleStore(now, takes=lambda: draw.random() < 0.5), hours=0.5)
    told = report(tally, plan)
    assert told["ghosts"]["did_not_take"] > 3 and told["suggested"]["never"] > 10
    assert (told["suggested"]["initial"], told["suggested"]["most"]) == (1.0, 60.0) and not store.keys


def test_a_pace_is_no_savings_bank() -> None:
    async def main() -> None:
        clock = Clock(mock)
        pace = Pace(clock, 60)
        await trio.sleep(1000)
        for begins, seconds in ((5, 5.0), (1, 1.0)):
            since = trio.current_time()
            for _ in range(begins):
                pace.spend()
            await pace.room()
            assert trio.current_time() - since == pytest.approx(seconds, abs=0.01)
        pace.hold(100)
        since = trio.current_time()
        await pace.room()
        assert trio.current_time() - since == pytest.approx(100, abs=0.01)
    mock = virtual_time()
    trio.run(main, clock=mock)


def test_what_a_store_refuses_and_what_it_asks_for() -> None:
    """A storm in the second hour: it is counted there, and Retry-After is obeyed by all that is new."""
    held, met = list[float](), Counter[str]()

    def make(now: Now) -> StaleStore:
        draw = random.Random(3)

        def trouble(operation: str) -> None:
            luck = draw.random() if now() >= 600 else 1.0
            if operation in ("get", "stat", "list"):
                luck /= 3                                  # the last look before a change, too
            kinds = ("throttled", 0.04), ("server", 0.06), ("silent", 0.07), ("lost", 0.09)
            kind = next((kind for kind, below in kinds if luck < below), "")
            met[kind] += 1
            if kind == "throttled":
                held.append(now())
                raise Throttled(operation, "", "slow down", 20.0)
            if kind == "server":
                error = Temporary(operation, "", "500")
                error.status = 500
                raise error
            if kind == "silent":
                raise Temporary(operation, "", "closed")
            if kind == "lost":
                lost()                                     # and the backend asked again
        return StaleStore(now, lambda change, view: 5.0, trouble=trouble)
    tally, store, plan = measure(make, hours=0.6, rate=120, began_s=3000)
    hours = report(tally, plan)["by_hour"]
    assert set(hours["00"]["troubles"].values()) == {0}
    assert hours["01"]["troubles"] == {"throttled": met["throttled"], "server": met["server"], "broken": met["silent"] + met["lost"],
                                       "corrupt": 0, "other": 0}
    assert min(met.values()) > 3 and hours["01"]["retry_after_s"] == {
        "count": met["throttled"], "p50": 20.0, "p90": 20.0, "p99": 20.0, "max": 20.0}
    puts = [when for when, operation in store.asked if operation == "put"]
    begun = [when for when in puts if any(since + 0.05 < when < since + 20 for since in held)]
    assert len(held) > 15 and len([when for when in puts if when > 600]) > 15 and not begun
    for change in ("put", "overwrite"):                    # what nobody could see in time is not taken for late
        assert 5.0 <= (tally.of(change, "get").delays.most or 0) < 10, change
    assert not store.keys


def test_a_life_is_patient_between_its_changes() -> None:
    """The last look before the next change is refused each time."""
    held = list[float]()

    def make(now: Now) -> StaleStore:
        def trouble(operation: str) -> None:
            puts = [when for when, asked in store.asked if asked == "put"]
            if operation not in ("put", "delete") and puts and 29 < now() - puts[-1] < 31:
                held.append(now())
                raise Throttled(operation, "", "slow down", 20.0)
        store = StaleStore(now, trouble=trouble)
        return store
    _, store, _ = measure(make, hours=1, rate=6)
    assert len(held) > 5
    for when in held:
        assert not [then for then, operation in store.asked if operation in ("put", "delete") and when < then < when + 20]


def test_every_hour_of_the_day_by_itself() -> None:
    """Stale from 01:00 to 02:00. What happens at the same hour of another day counts there, too."""
    def make(now: Now) -> StaleStore:
        return StaleStore(now, lambda change, view: 20.0 if 3600 <= now() < 7200 else 0.0)
    tally, store, plan = measure(make, hours=2.2, rate=20)
    hours = report(tally, plan)["by_hour"]
    assert list(hours) == ["00", "01", "02", "03"][:len(hours)]
    assert hours["01"]["delays"]["p50"] >= 20 and hours["01"]["changes"] > 8 < hours["00"]["changes"]
    assert hours["00"]["delays"]["max"] == 0 == hours["02"]["delays"]["p90"]
    assert tally.hour(MIDNIGHT_NS + (24 + 1) * HOUR_NS) is tally.hours[1]
    assert tally.hour(MIDNIGHT_NS + 23 * HOUR_NS) is tally.hours[23]


def test_throughput() -> None:
    size = 1 << 16
    tally, store, plan = measure(StaleStore, hours=1, rate=15, traffic=60 * size, object_bytes=size, took_s=0.5)
    told = report(tally, plan)["throughput"]
    assert 20 <= told["put_mb_s"]["count"] <= 40
    assert told["get_mb_s"]["p50"] == pytest.approx(size / 1e6 / 0.5, rel=0.01) and told["put_s"]["max"] == 0.5
    assert not store.keys


class Liar(StaleStore):
    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        return super().get(key, offset, size)[:-1]


def test_what_was_true_at_no_time_is_told() -> None:
    tally, _, plan = measure(Liar, hours=0.05, traffic=1 << 20, object_bytes=1000)
    for text in ("`get` saw 200 bytes, which was true at no time", "an object of 1000 bytes was got as 999 others"):
        assert text in report(tally, plan)["wrong"]
    assert len(tally.wrong) <= 20


class Bug(StaleStore):
    def stat(self, key: str) -> object:                    # type: ignore[override]
        raise ZeroDivisionError


def test_a_backend_with_a_bug_is_measured_all_the_same() -> None:
    tally, store, plan = measure(Bug, hours=0.05)
    told = report(tally, plan)
    assert told["troubles"]["other"] > 0 and "ZeroDivisionError" in told["last_error"] and told["shown"]["put"]["get"]["count"] > 0
    assert not store.keys


def test_one_that_is_stopped_tells_what_it_has_and_tidies_up() -> None:
    async def soon(stop: trio.Event) -> None:
        await trio.sleep(1000)
        stop.set()

    def delay(change: str, view: str) -> float:
        return 3.0 if view in ("get", "stat") else 1e6
    tally, store, plan = measure(lambda now: StaleStore(now, delay), hours=24, after=soon)
    told = report(tally, plan)
    assert told["hours"] == pytest.approx(1000 / 3600, abs=0.001) and told["shown"]["put"]["get"]["count"] > 5 and tally.cut > 0
    assert not store.keys and {operation for when, operation in store.asked if when > 1001} <= {"folders", "list", "delete"}


def test_what_is_still_on_its_way_at_the_end_is_tidied_up_too() -> None:
    """A put that was given up takes effect after the end."""
    async def soon(stop: trio.Event) -> None:
        await trio.sleep(10.5)                             # in the middle of the first puts
        stop.set()
    tally, store, _ = measure(StaleStore, hours=1, rate=600, after=soon, goes_on=True,
                              took_s=lambda: 10.0 if trio.current_time() < 10.5 else 0.1)
    assert tally.cut > 0 and any(10.5 < when <= 21 and operation == "put" for when, operation in store.asked) and not store.keys


def test_what_a_killed_one_left_goes_when_it_is_surely_nobodys() -> None:
    left = {"probe/long-1767225000-0123456789abcdef-1/here/key": b"x",              # before this day
            "probe/long-1767227000-0123456789abcdef-2/here/key": b"x",              # of a run that may still be there
            "probe/0123456789abcdef-3": b"x"}                                       # of the short probe

    def make(now: Now) -> StaleStore:
        store = StaleStore(now)
        for key, data in left.items():
            store.put(key, data)
        return store
    _, store, _ = measure(make, hours=0.05)
    assert sorted(store.keys) == sorted(list(left)[1:])
    _, store, _ = measure(make, hours=1)
    assert sorted(store.keys) == [list(left)[2]], "looked at again each hour, and at the end"


def test_deletes_that_are_refused_leave_no_more_than_they_must() -> None:
    class Keeps(StaleStore):
        def put(self, key: str, data: object, only_if_absent: bool = False) -> None:
            if key in self.keys:
                raise StoreError("put", key, "written once")
            super().put(key, data, only_if_absent)         # type: ignore[arg-type]
    tally, store, plan = measure(Keeps, hours=0.1)
    assert report(tally, plan)["changes"] > 0 and not store.keys, "a life that cannot go on is over, and its object gone"


def test_an_interrupted_run_is_gone_on_with() -> None:
    def make(now: Now) -> StaleStore:
        return StaleStore(now, lambda change, view: 2.0)
    async def halfway(stop: trio.Event) -> None:
        await trio.sleep(1800)
        stop.set()
    first, _, _ = measure(make, hours=1, after=halfway)
    kept = json.loads(json.dumps(first.raw()))
    both, _, plan = measure(make, hours=1, tally=Tally.from_raw(kept), seed=2)
    one, two = report(first, plan), report(both, plan)
    assert one["hours"] == pytest.approx(0.5, abs=0.01) and two["hours"] == 1.0 and two["changes"] > 1.5 * one["changes"]
    assert two["shown"]["put"]["get"]["count"] > 1.5 * one["shown"]["put"]["get"]["count"]
    assert report(Tally.from_raw(json.loads(json.dumps(both.raw()))), plan) == {**two, "last_error": two["last_error"]}


def test_late_answers_behind_an_error_are_no_measurement() -> None:
    """For a minute nobody answers; what is then shown was shown since nobody knows when."""
    def make(now: Now) -> StaleStore:
        def trouble(operation: str) -> None:
            if operation == "stat" and now() % 70 < 60:
                raise Temporary(operation, "", "silent")
        return StaleStore(now, trouble=trouble)
    tally, _, plan = measure(make, hours=0.5)
    told = report(tally, plan)["shown"]["put"]
    assert told["stat"]["count"] < 0.6 * told["get"]["count"] and told["stat"]["max"] == 0


def test_absence_is_an_answer() -> None:
    with pytest.raises(NotFound):
        StaleStore(lambda: 0.0).get("probe/x")
    tally, _, plan = measure(StaleStore, hours=0.1)
    assert sum(report(tally, plan)["troubles"].values()) == 0 and report(tally, plan)["latency_s"]["get"]["p50"] == 0.02
