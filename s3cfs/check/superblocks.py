"""Every copy of every superblock, not only the one that counts: an older one is what is left when the newest is lost."""
from __future__ import annotations

from collections.abc import AsyncGenerator

from s3cfs import ids
from s3cfs.check.context import Context
from s3cfs.check.problems import Problem, Severity
from s3cfs.check.repairs import CopySuperblock, Supersede
from s3cfs.errors import Damaged, NewerFormat, NotFound
from s3cfs.formats import superblock

NAME = "superblocks"
PREFIX = "super/"
_MAC_FIELD = b',"mac":"'


async def superblocks(ctx: Context) -> AsyncGenerator[Problem, None]:
    numbers: dict[int, list[int]] = {}
    for info in await ctx.remote.list(PREFIX):
        try:
            n, copy = ids.parse_super_key(info.key)
        except ValueError:
            yield Problem(NAME, f"{info.key}: nothing of s3cfs has such a name", Severity.NOTE, info.key)
            continue
        numbers.setdefault(n, []).append(copy)
    for n, copies in sorted(numbers.items()):
        keys = [ids.super_key(n, copy) for copy in sorted(copies)]
        ctx.count("objects", len(keys))
        troubles = {key: trouble for key in keys if (trouble := await _trouble(ctx, key, n))}
        whole = len(keys) - len(troubles)
        for key, trouble in troubles.items():
            text = f"superblock {key}: {trouble}"
            if whole > 1:
                yield Problem(NAME, f"{text}; {whole} whole copies of it are there", Severity.NOTE, key)
            elif whole:
                yield Problem(NAME, f"{text}; one copy of it is left", object=key, repair=CopySuperblock(n))
            else:
                instead = f"; {ids.super_key(ctx.superblock)} counts instead" if n != ctx.superblock else ""
                yield ctx.object_problem(NAME, key, text + instead, Supersede(key, 0) if n < ctx.superblock else None)
        if n == ctx.superblock and len(keys) == whole == 1:
            yield Problem(NAME, f"superblock {keys[0]} has no second copy yet: the next mount makes one", Severity.NOTE, keys[0])
    for n in range(1, max(numbers, default=0)):
        if n not in numbers:
            yield Problem(NAME, f"superblock {ids.super_key(n)} is gone; a newer one counts", Severity.NOTE, ids.super_key(n))


async def _trouble(ctx: Context, key: str, n: int) -> str:
    try:
        found = superblock.decode(await ctx.remote.get(key), n)
    except NotFound:
        return "missing"
    except (Damaged, NewerFormat) as error:
        return f"damaged: {error}" if isinstance(error, Damaged) else str(error)
    if found.fs_id != ctx.keyring.fs_id:
        return "damaged: it is of another filesystem"
    body = superblock.encode(found).rpartition(_MAC_FIELD)[0]
    return "" if ctx.keyring.mac(body) == found.mac else "damaged: it was changed by somebody without the key"
