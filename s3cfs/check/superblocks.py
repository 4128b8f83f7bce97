"""Every superblock, not only the one that counts: an older one is what is left when the newest is lost."""
from __future__ import annotations

from collections.abc import AsyncGenerator

from s3cfs import ids
from s3cfs.check.context import Context
from s3cfs.check.problems import Problem, Severity
from s3cfs.check.repairs import Supersede
from s3cfs.errors import Damaged, NewerFormat, NotFound
from s3cfs.formats import superblock

NAME = "superblocks"
PREFIX = "super/"
_MAC_FIELD = b',"mac":"'


async def superblocks(ctx: Context) -> AsyncGenerator[Problem, None]:
    numbers: list[int] = []
    for info in await ctx.remote.list(PREFIX):
        name = info.key.removeprefix(PREFIX)
        if name.isdigit() and ids.super_key(int(name)) == info.key:
            numbers.append(int(name))
        else:
            yield Problem(NAME, f"{info.key}: nothing of s3cfs has such a name", Severity.NOTE, info.key)
    for n in sorted(numbers):
        ctx.count("objects")
        trouble = await _trouble(ctx, n)
        if trouble:
            older = n < ctx.superblock
            yield ctx.object_problem(NAME, ids.super_key(n), f"superblock {ids.super_key(n)}: {trouble}"
                                     + (f"; {ids.super_key(ctx.superblock)} counts instead" if n != ctx.superblock else ""),
                                     Supersede(ids.super_key(n), 0) if older else None)
    for n in range(1, max(numbers, default=0)):
        if n not in numbers:
            yield Problem(NAME, f"superblock {ids.super_key(n)} is gone; a newer one counts", Severity.NOTE, ids.super_key(n))


async def _trouble(ctx: Context, n: int) -> str:
    try:
        found = superblock.decode(await ctx.remote.get(ids.super_key(n)), n)
    except NotFound:
        return "missing"
    except (Damaged, NewerFormat) as error:
        return f"damaged: {error}" if isinstance(error, Damaged) else str(error)
    if found.fs_id != ctx.keyring.fs_id:
        return "damaged: it is of another filesystem"
    body = superblock.encode(found).rpartition(_MAC_FIELD)[0]
    return "" if ctx.keyring.mac(body) == found.mac else "damaged: it was changed by somebody without the key"
