"""What must hold of a filesystem, as a list of checks; each yields problems, and a problem may carry its repair.

Checks only look: at the store, at the rows, at local state. They print nothing, so fsck runs them now and a checker in the background of
a mount can run them too. Their order matters: the log asks what checkpoints are whole.
"""
from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from s3cfs.check.checkpoints import checkpoints
from s3cfs.check.context import Check, Context, Progress
from s3cfs.check.history import history
from s3cfs.check.packs import packs
from s3cfs.check.problems import Line, Outcome, Problem, Range, Repair, Severity
from s3cfs.check.repairs import DropLocalState, MendRows, RewritePack, Supersede
from s3cfs.check.rows import rows
from s3cfs.check.storage import storage
from s3cfs.check.superblocks import superblocks
from s3cfs.check.workshop import Workshop

CHECKS = (
    Check("superblocks", superblocks),
    Check("checkpoints", checkpoints),
    Check("log", history),
    Check("packs", packs),
    Check("rows", rows),
    Check("storage", storage),
)


async def run(ctx: Context) -> AsyncGenerator[Problem, None]:
    """All checks, in their order."""
    for check in CHECKS:
        async with aclosing(check.find(ctx)) as found:
            async for problem in found:
                yield problem


__all__ = ["CHECKS", "Check", "Context", "DropLocalState", "Line", "MendRows", "Outcome", "Problem", "Progress", "Range", "Repair",
           "RewritePack", "Severity", "Supersede", "Workshop", "run"]
