"""The rows: what SQLite says of its file, what the audit says of the rows, and whether local state says what the store says.

Local rows that differ from the store's must never be mended by a change that travels: it would be one *from* values that nobody
else has, and every replica would refuse it. So what is found in local state is first compared with a database made from the store
alone. If that one differs, the local state is what is damaged, and going back to the store is the repair.
"""
from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from s3cfs.check.context import Context
from s3cfs.check.problems import Problem, Repair, Severity
from s3cfs.check.repairs import DropLocalState, MendRows
from s3cfs.errors import Damaged, Diverged, ObjectMissing, RolledBack
from s3cfs.meta import Meta, Paths
from s3cfs.meta import Problem as RowProblem

NAME = "rows"
SHOWN_MAX = 1000
_BY_INODE = frozenset(("orphan with a name", "parent of a folder", "link count",
                       "extent beyond its chunk", "missing chunk", "overlapping extents",
                       "extent beyond the size", "inline and extents", "allocated bytes", "folder with several names"))


async def rows(ctx: Context) -> AsyncGenerator[Problem, None]:
    if ctx.meta is None:
        yield Problem(NAME, f"the metadata cannot be read: {ctx.unreadable}")
        return
    ctx.progress("checking rows", 0, None, "rows")
    meta = ctx.meta
    ctx.count("inodes", meta.counters.inodes)
    broken = meta.quick_check()
    found = [] if broken else list(meta.audit.problems())
    pending, pending_bytes, _ = meta.outbox()
    if pending:
        yield Problem(NAME, f"{pending} transactions ({pending_bytes} bytes of metadata) are in the local state and not in the store yet: "
                      "mount the filesystem to bring them there", Severity.NOTE)
    repair: Repair | None = MendRows()
    if ctx.local is not None and (ctx.full or broken or found):
        given_back = None if pending else DropLocalState()
        try:
            rebuilt = await ctx.rebuild()
        except (Damaged, ObjectMissing, Diverged, RolledBack) as error:      # then the local state may be the only whole copy
            yield Problem(NAME, f"the local state cannot be compared with the store, which cannot be read: {error}", Severity.NOTE)
            repair = None
        else:
            differs, from_store = _compare(rebuilt, meta)
            if differs:
                yield Problem(NAME, differs, object="meta.db", repair=given_back)
                async for problem in _shown(meta, [*broken], found, given_back):
                    yield problem
                async for problem in _shown(meta, [], from_store, MendRows() if not pending else None):
                    yield problem
                return
            if broken:
                repair = given_back
    async for problem in _shown(meta, broken, found, repair):
        yield problem


def _compare(rebuilt: Meta, meta: Meta) -> tuple[str, list[RowProblem]]:
    """("" or how local state differs from the store's rows, what is wrong with those). Closes `rebuilt`."""
    try:
        wrong = list(rebuilt.audit.problems())
        try:
            for changeset in meta.unsent_changes():
                rebuilt.apply(changeset)
            rebuilt.commit()
        except (Diverged, Damaged) as error:
            return f"changes of the local state that are not in the store yet do not fit to what is there: {error}", wrong
        if rebuilt.fingerprint() != meta.fingerprint():
            return "the metadata database of the local state differs from what the store holds", wrong
        if rebuilt.riding() != meta.riding():
            return "meta.db of the local state says that packs ride in other places than the store does", wrong
        return "", wrong
    finally:
        with contextlib.suppress(Exception):
            rebuilt.close()


async def _shown(meta: Meta, broken: list[str], found: list[RowProblem], repair: Repair | None) -> AsyncGenerator[Problem, None]:
    for text in broken[:SHOWN_MAX]:
        yield Problem(NAME, f"the metadata database is damaged: {text}", object="meta.db",
                      repair=repair if isinstance(repair, DropLocalState) else None)
    paths = Paths(meta)
    inos = {int(problem.row[0]) for problem in found[:SHOWN_MAX] if problem.check in _BY_INODE}
    names = await paths.of(inos) if inos else {}
    for problem in found[:SHOWN_MAX]:
        name = names.get(int(problem.row[0]), [""])[0] if problem.check in _BY_INODE else ""
        able = problem.repairable or isinstance(repair, DropLocalState)
        yield Problem(NAME, f"{problem.check}: {problem.text}{f' ({name})' if name else ''}", repair=repair if able else None)
    if len(found) > SHOWN_MAX:
        yield Problem(NAME, f"{len(found) - SHOWN_MAX} further problems of rows", repair=repair)
