"""The meters measure what they say."""
from __future__ import annotations

import time
from pathlib import Path

import trio

from .loopmeter import SqlMeter, measure
from .meta.kit import open_meta, populate, run


def test_a_task_that_does_not_give_way_is_seen_and_named() -> None:
    async def blocks() -> None:
        time.sleep(0.05)                                    # noqa: ASYNC251

    async def main() -> None:
        async with measure() as meter:
            await trio.sleep(0.01)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(blocks)
            await trio.sleep(0.01)                          # for the timer to see that it is late
        assert meter.longest_s >= 0.05 and meter.late_s >= 0.04
        assert any("blocks" in step.task and step.wall_s >= 0.05 > step.cpu_s for step in meter.worst), meter.report()
        meter.reset()
        assert meter.longest_s == 0 and not meter.worst

    trio.run(main)


def test_steps_of_statements_are_counted(tmp_path: Path) -> None:
    meta = open_meta(tmp_path)
    run(populate(meta, 500))
    meta.commit()
    with SqlMeter(meta) as sql:
        run(meta.lookup(1, b"f-folder"))
        assert sql.statements == 1 and 5 < sql.most_steps == sql.steps < 100 and not sql.scanned
        meta.fingerprint()
        assert sql.most_steps > 2000 and sql.scanned > 400 and "FROM" in sql.worst
        sql.clear()
        run(meta.lookup(1, b"f-folder"))
        assert sql.statements == 1
    run(meta.lookup(1, b"f-folder"))
    assert sql.statements == 1
    meta.close()
