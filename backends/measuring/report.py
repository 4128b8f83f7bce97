"""A tally as plain data, with stable names (docs/backends.md), and the delays that follow from it for whoever waits after a change."""
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from s3cfs.backends.measuring.plan import CHANGES, VIEWS, Plan
from s3cfs.backends.measuring.quantiles import FASTS
from s3cfs.backends.measuring.tally import TROUBLES, Hour, Tally

MARGIN = 1.5                       # what was measured is what was met, and in coarse steps
INITIAL_LEAST_S = 1.0              # no late answer in so many is no proof of none
MOST_LEAST_S = 60.0                # room for what the next peak brings
CHANCE = 3.0                       # of n looks none was late: with 95 % certainty fewer than 3/n are


def report(tally: Tally, plan: Plan) -> dict[str, Any]:
    whole = tally.all_hours
    return {
        "hours": round(tally.measured_s / 3600, 6),
        "rate": plan.rate, "traffic": plan.traffic, "object_bytes": plan.object_bytes,
        "looked_s": round(plan.look_max_s, 1), "looked_on_s": {change: round(plan.later_s(change)[-1], 1) for change in CHANGES},
        "changes": whole.counts["changes"], "requests": whole.counts["requests"], "cut": tally.cut,
        "shown": {change: {view: _shown(tally, change, view) for view in VIEWS if (change, view) in tally.shown} for change in CHANGES},
        "ghosts": {"did_not_take": tally.did_not_take,
                   "came_back": {view: found.came_back for view in VIEWS if (found := tally.shown.get(("delete", view)))}},
        "troubles": {name: whole.counts[name] for name in TROUBLES}, "retry_after_s": whole.retry_after_s.shown(),
        "last_error": tally.last_error, "wrong": tally.wrong,
        "throughput": _throughput(whole),
        "latency_s": {operation: found.shown() for operation, found in sorted(tally.latency.items())},
        "by_hour": {f"{number:02}": _hour(hour) for number, hour in sorted(tally.hours.items())},
        "suggested": suggested(tally),
    }


def _shown(tally: Tally, change: str, view: str) -> dict[str, Any]:
    found = tally.of(change, view)
    return {**found.delays.shown(), "late": found.delays.above_zero, "never": found.never, "came_back": found.came_back}


def _throughput(hour: Hour) -> dict[str, Any]:
    return {"put_mb_s": hour.put_mb_s.shown(FASTS), "get_mb_s": hour.get_mb_s.shown(FASTS),
            "put_s": hour.put_s.shown(), "get_s": hour.get_s.shown()}


def _hour(hour: Hour) -> dict[str, Any]:
    return {"changes": hour.counts["changes"], "requests": hour.counts["requests"],
            "delays": {**hour.delays.shown(), "late": hour.delays.above_zero}, "ghosts": hour.counts["ghosts"],
            "troubles": {name: hour.counts[name] for name in TROUBLES}, "retry_after_s": hour.retry_after_s.shown(), **_throughput(hour)}


def suggested(tally: Tally) -> Mapping[str, Any] | None:
    """For the consistency lock: seconds to wait after a change before its key is asked for, `initial` at first, never less than `least`
    nor more than `most`; `options` is how that is written in the INI.

    Of the ages at which the last old answer was over, for the worst change and view: half of them fit into `least`, 99 of 100 into
    `initial`, all into `most`, each with a margin. `late_below`: with 95 % certainty a smaller part of the answers than this is late,
    where none was. What was `never` shown is left out: no delay helps there. None: nothing was measured.
    """
    settled = [found.settled for found in tally.shown.values() if found.settled.count]
    if not settled:
        return None
    half, most_of, all_of = (MARGIN * max(found.at(part) or 0.0 for found in settled) for part in (0.5, 0.99, 1.0))
    least = _rounded_up(half)
    initial = max(INITIAL_LEAST_S, least, _rounded_up(most_of))
    most = max(MOST_LEAST_S, initial, _rounded_up(all_of))
    late, looks = any(found.above_zero for found in settled), sum(found.count for found in settled)
    return {"least": least, "initial": initial, "most": most, "never": sum(found.never for found in tally.shown.values()),
            "late_below": None if late else min(1.0, float(f"{CHANCE / looks:.2g}")),
            "options": f"{'consistency-lock,' if late else ''}lock-delay={initial:g},lock-delay-least={least:g},lock-delay-most={most:g}"}


def _rounded_up(seconds: float) -> float:
    """To a tenth, above ten to a whole second."""
    step = 1.0 if seconds > 10 else 0.1
    return round(math.ceil(seconds / step - 1e-9) * step, 1)
