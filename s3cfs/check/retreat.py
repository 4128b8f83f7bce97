"""What going back to the newest whole state costs, in words; the going back itself is done when the repairing node takes office."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from s3cfs.check.problems import Outcome, Problem
from s3cfs.check.workshop import Workshop
from s3cfs.history.retreat import Retreat

NAME = "log"
SHOWN_MAX = 1000


@dataclass(frozen=True, slots=True)
class GoBack:
    """Take office after the newest record, and name the newest whole one as the one before."""

    base: int
    covered: bool                   # a damaged record stays in the history, and only a checkpoint can stand in for it
    order: int = 0

    async def mend(self, shop: Workshop) -> Outcome:
        shop.begin()
        await shop.flush()
        if self.covered:
            await shop.checkpoint()
        await shop.reload()
        return Outcome(True, f"the filesystem goes on from commit {self.base}")


def described(retreat: Retreat) -> Iterator[Problem]:
    repair = GoBack(retreat.base.n, not retreat.given_up or bool(retreat.known))
    since = f" of {_time(retreat.base_ns)}" if retreat.base_ns else ""
    if not retreat.given_up:
        for key, trouble in retreat.damaged.items():
            yield Problem(NAME, f"log record {key} cannot be read ({trouble}), and what it held is known all the same: nothing is lost. "
                          "--repair makes a checkpoint that stands in for it", object=key, repair=repair)
        return
    key, trouble = next(iter(reversed([pair for pair in retreat.damaged.items() if pair[0] not in retreat.known])), (retreat.top, ""))
    count = len(retreat.given_up)
    yield Problem(NAME, f"the newest whole state is commit {retreat.base.n}{since}: {key} is damaged or missing ({trouble}). --repair goes "
                  f"back to it, and gives up {count} records after it; they stay in the store", object=key, repair=repair)
    for one in retreat.given_up[:SHOWN_MAX]:
        when = f" ({_time(one.time_ns)})" if one.time_ns else ""
        yield Problem(NAME, f"given up by going back: record {one.n}{when}: {one.text}", object=one.key, repair=repair)
    if count > SHOWN_MAX:
        yield Problem(NAME, f"given up by going back: {count - SHOWN_MAX} further records", repair=repair)


def _time(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
