"""The log: every record that lies in the store, and the chain from the newest back to the first."""
from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

import trio

from s3cfs import ids, limits
from s3cfs.check.context import Context, Rider
from s3cfs.check.problems import Problem, Severity
from s3cfs.check.repairs import Supersede
from s3cfs.errors import Damaged, NewerFormat, ObjectMissing
from s3cfs.formats import record
from s3cfs.history.log import read_record
from s3cfs.ids import ObjectHash

NAME = "log"
LOG = "log/"


@dataclass(frozen=True, slots=True)
class Seen:
    """A record without its changes."""

    key: str
    place: tuple[int, str]              # folder: epoch and writer
    n: int
    hash: ObjectHash | None = None
    prev: ObjectHash | None = None
    prev_key: str = ""
    skips: int = 0                      # records before it that a repair left out
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """A step of the walk back that went wrong."""

    key: str
    n: int
    text: str


async def history(ctx: Context) -> AsyncGenerator[Problem, None]:
    places: dict[str, tuple[int, str, int]] = {}
    for info in await ctx.remote.list(LOG):
        ctx.records[info.key] = info.size
        try:
            branch, epoch, nonce, n = ids.parse_log_key(info.key)
        except ValueError:
            yield Problem(NAME, f"{info.key}: nothing of s3cfs has such a name", Severity.NOTE, info.key)
            continue
        if branch == ids.BRANCH:
            places[info.key] = (epoch, nonce, n)
        else:
            yield Problem(NAME, f"{info.key}: of the branch {branch}, which this s3cfs does not know", Severity.NOTE, info.key)
    seen = await _read(ctx, places)
    ctx.count("records", len(seen))
    covered = max((manifest.commit for manifest in ctx.checkpoints), default=0)
    broken, in_history = walk(seen, covered)
    for link in broken:
        spare = f"; the checkpoint at commit {covered} stands in for it" if link.n <= covered else ""
        yield ctx.object_problem(NAME, link.key, f"log record {link.key}: {link.text}{spare}", Supersede(link.key, link.n))
    late = sorted(seen.keys() - in_history - {link.key for link in broken}, key=lambda key: (seen[key].n, key))
    left_out = [range(one.n - one.skips, one.n) for one in seen.values() if one.skips and one.key in in_history]
    for key in late:
        what = f"damaged ({seen[key].trouble}), and " if seen[key].trouble else ""
        repaired = any(seen[key].n in some for some in left_out)
        why = "a repair went back to before it" if repaired else "it came too late, from a writer that had been replaced"
        yield Problem(NAME, f"log record {key}: {what}in no history: {why}", Severity.NOTE, key)
    for manifest in ctx.checkpoints:
        there = seen.get(manifest.record_key)
        if there is not None and there.hash is not None and there.hash.hex() != manifest.record_hash:
            yield Problem(NAME, f"the checkpoint at commit {manifest.commit} was made from another record than the one that is in "
                          f"the store as {there.key}", object=there.key)


async def _read(ctx: Context, places: dict[str, tuple[int, str, int]]) -> dict[str, Seen]:
    seen: dict[str, Seen] = {}
    sealer = ctx.keyring.sealer("record", 0)
    queue = sorted(places, reverse=True)

    async def work() -> None:
        while queue:
            key = queue.pop()
            epoch, nonce, n = places[key]
            try:
                found, data = await read_record(ctx.remote, key, sealer)
                seen[key] = Seen(key, (epoch, nonce), n, record.record_hash(data), found.prev, str(found.info.get("prev_key", "")),
                                 int(found.info.get("skips", 0)))
                ctx.riders += [Rider(rider.name, key, base, rider.size) for rider, base in found.bases()]
            except ObjectMissing:
                pass                                                     # listed, and gone: the walk says so if it matters
            except (Damaged, NewerFormat) as error:
                seen[key] = Seen(key, (epoch, nonce), n, trouble=str(error).removeprefix(f"log record {key} is damaged: "))
            ctx.progress("reading the log", len(seen), len(places), "records")

    async with trio.open_nursery() as nursery:
        for _ in range(limits.DEFAULTS.downloads_at_once):
            nursery.start_soon(work)
    return seen


def walk(seen: dict[str, Seen], covered: int) -> tuple[list[Link], set[str]]:
    """What is wrong on the way from the newest record back to the first, and the keys of the way.

    Where a link is broken the way goes on with the best guess: the record with the number before, of the same writer if there is one.
    A log that begins after 1 is whole when a checkpoint (`covered`: commit of the newest that is whole) has what came before.
    """
    broken: list[Link] = []
    way: set[str] = set()
    if not seen:
        return broken, way
    newest = max(one.place for one in seen.values())
    key = max((one for one in seen.values() if one.place == newest), key=lambda one: one.n).key
    expected: ObjectHash | None = None
    above = ""
    while key:
        here = seen.get(key)
        n = here.n if here else _number(key)
        way.add(key)
        if here is None:
            below = _guess(seen, n, None)
            if below is None and n <= covered:
                break                                                    # the old log went when a checkpoint had taken its place
            broken.append(Link(key, n, f"missing, and {above} names it as the one before"))
        elif here.trouble:
            broken.append(Link(key, n, f"damaged: {here.trouble}"))
            below = _guess(seen, n, here.place)
        elif expected is not None and here.hash != expected:
            broken.append(Link(key, n, f"damaged: it is not the one whose hash {above} names"))
            below = _guess(seen, n, here.place)
        else:
            if not here.prev_key and (n != 1 + here.skips or here.prev != ids.ZERO_HASH):
                broken.append(Link(key, n, "damaged: it names no record before it"))
            elif here.prev_key and _number(here.prev_key) != n - 1 - here.skips:
                broken.append(Link(key, n, f"damaged: it names {here.prev_key} as the one before"))
            else:
                above, expected, key = key, here.prev, here.prev_key
                continue
            below = _guess(seen, n, here.place)
        above, expected = key, None
        if below is None:
            if n > 1 and n - 1 > covered and here is not None:
                broken.append(Link(key, n - 1, f"the {n - 1} records before it are missing"))
            break
        if below.n < n - 1:
            broken.append(Link(key, n - 1, f"the records {below.n + 1} to {n - 1}, which came before it, are missing"))
        key = below.key
    return broken, way


def _number(key: str) -> int:
    try:
        return ids.parse_log_key(key)[3]
    except ValueError:
        return 0


def _guess(seen: dict[str, Seen], n: int, place: tuple[int, str] | None) -> Seen | None:
    """The nearest record below `n`."""
    below = [one for one in seen.values() if one.n < n]
    return max(below, key=lambda one: (one.n, one.place == place, one.place), default=None)
