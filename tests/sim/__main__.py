"""make sim: tell the stories of many seeds, on all processors if asked to; the first failing ones are printed with their traces."""
from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from .assembly import S3cfs
from .crash import Plan
from .driver import Story
from .nature import Families
from .story import tell

Job = tuple[int, list[Plan] | None, Families]
Result = tuple[int, bool, str, tuple[int, ...], float]               # seed, well, text, counts, seconds
TOLD_EVERY = 500


def _one(job: Job) -> Result:
    seed, plans, families = job
    began = time.perf_counter()
    story = tell(seed, S3cfs(), plans, families)
    text = _report(story) if story.finding is not None else story.text
    return seed, story.finding is None, text, _counts(story), time.perf_counter() - began


def _counts(story: Story) -> tuple[int, ...]:
    return story.lives, story.crashes, story.checks, story.operations, story.duos, story.faults


def _report(story: Story) -> str:
    assert story.finding is not None
    frames = "".join(traceback.format_exception(story.finding)[-12:])
    return f"{story.text}\n{frames}\nagain: python -m tests.sim --seed {story.seed} --count 1 --verbose"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description="s3cfs, its crashes, its disks and its stores, simulated.")
    parser.add_argument("--seed", type=int, default=1, help="first seed")
    parser.add_argument("--count", type=int, default=500, help="how many")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--keep-going", action="store_true", help="tell all, though some fail")
    parser.add_argument("--verbose", action="store_true", help="print what happened also when all is well")
    parser.add_argument("--plan", action="append", type=Plan.parse, help="KIND:K, KIND:K:working or never: where each life dies")
    parser.add_argument("--without", type=Families().without, dest="families", default=Families(), help="names of Families, commas between")
    parser.add_argument("--only", type=Families.only, dest="families", help="all others are off")
    options = parser.parse_args()
    jobs = [(seed, options.plan, options.families) for seed in range(options.seed, options.seed + options.count)]
    totals, slowest, done = [0] * 6, (0.0, 0), 0
    failed: list[int] = []
    began = time.perf_counter()
    for seed, well, text, counts, seconds in _results(jobs, options.jobs):
        totals = [a + b for a, b in zip(totals, counts, strict=True)]
        slowest, done = max(slowest, (seconds, seed)), done + 1
        if done % TOLD_EVERY == 0 and done < len(jobs):
            print(f"... {done} stories, {len(failed)} failed, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        if not well:
            failed.append(seed)
        if not well or options.verbose:
            print(text, flush=True)
        if failed and not options.keep_going:
            break
    lives, crashes, checks, operations, duos, faults = totals
    print(f"seeds {options.seed}..{options.seed + options.count - 1}: {len(failed)} failed {failed[:20]}; {lives} lives, {crashes} deaths, "
          f"{checks} recovered states judged, {operations} operations, {duos} times two machines at once, {faults} calls of disks failed; "
          f"{time.perf_counter() - began:.1f} s, slowest seed {slowest[1]}: {slowest[0]:.2f} s")
    return 1 if failed else 0


def _results(jobs: list[Job], processes: int) -> Iterator[Result]:
    if processes == 1:
        yield from map(_one, jobs)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(_one, jobs, chunksize=4)


if __name__ == "__main__":
    sys.exit(main())
