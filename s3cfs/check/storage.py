"""How objects are stored, where the store keeps more of each than it needs to give it back (shards, copies): `--full` only.

What can be read may yet have lost a part of its safety. The store itself looks (Backend.examine), at everything that it lists; mending is
its own matter, too (`s3cfs zdb repair`).
"""
from __future__ import annotations

from collections.abc import AsyncGenerator

from s3cfs.backends.crew import each
from s3cfs.check.context import Context
from s3cfs.check.problems import Problem
from s3cfs.errors import NotFound
from s3cfs.remote import Lane

NAME = "storage"
WINDOW = 64                      # objects between two reports


async def storage(ctx: Context) -> AsyncGenerator[Problem, None]:
    if not (ctx.full and ctx.remote.capabilities.examines):
        return
    keys = sorted(info.key for info in await ctx.remote.list(""))
    for at in range(0, len(keys), WINDOW):
        weak: dict[str, str] = {}

        async def look(key: str, weak: dict[str, str] = weak) -> None:
            try:
                trouble = await ctx.remote.examine(key)
            except NotFound:
                return                                       # it went while we looked
            if trouble is not None:
                weak[key] = trouble

        await each(look, keys[at:at + WINDOW], ctx.remote.slots(Lane.READ))
        ctx.progress("looking at how objects are stored", min(at + WINDOW, len(keys)), len(keys), "objects")
        for key, trouble in sorted(weak.items()):
            ctx.count("weak")
            yield Problem(NAME, f"object {key}: weak: {trouble}", object=key)
    ctx.count("examined", len(keys))
