"""Checkpoints: manifests, their parts, and whether the newest can really be loaded."""
from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

import trio

from s3cfs import ids, limits
from s3cfs.check.context import Context
from s3cfs.check.problems import Problem, Severity
from s3cfs.check.repairs import Supersede
from s3cfs.errors import Damaged, Diverged, NewerFormat, NotFound, ObjectMissing
from s3cfs.formats import checkpoint
from s3cfs.formats.checkpoint import Manifest, Part
from s3cfs.formats.record import object_hash
from s3cfs.history.localtip import LocalTip
from s3cfs.history.restore import fill
from s3cfs.meta import Meta

NAME = "checkpoints"
SCRATCH = "checkpoint.db"


async def checkpoints(ctx: Context) -> AsyncGenerator[Problem, None]:
    sizes: dict[str, int] = {}
    manifests: list[tuple[int, str, str]] = []               # commit, key, nonce
    parts: dict[tuple[int, str], list[str]] = {}
    for info in await ctx.remote.list(ids.checkpoint_prefix()):
        try:
            commit, part = ids.parse_checkpoint_key(info.key)
        except ValueError:
            yield Problem(NAME, f"{info.key}: nothing of s3cfs has such a name", Severity.NOTE, info.key)
            continue
        sizes[info.key] = info.size
        kind, _, rest = part.partition("-")
        if kind == "manifest":
            manifests.append((commit, info.key, rest))
        else:
            parts.setdefault((commit, kind), []).append(info.key)
    manifests.sort(key=lambda one: (-one[0], one[1]))
    for number, (commit, key, nonce) in enumerate(manifests):
        ctx.progress("reading checkpoints", number, len(manifests), "checkpoints")
        ctx.count("objects")
        parts.pop((commit, nonce), None)
        try:
            manifest = checkpoint.decode_manifest(await ctx.remote.get(key), ctx.keyring.sealer("checkpoint", 0), commit)
        except NotFound:
            continue                                         # it went while we looked
        except (Damaged, NewerFormat) as error:
            yield ctx.object_problem(NAME, key, f"checkpoint {key}: {'damaged: ' if isinstance(error, Damaged) else ''}{error}",
                                     Supersede(key, commit))
            continue
        ctx.count("objects", len(manifest.parts))
        thorough = ctx.full or not ctx.checkpoints           # "the newest must load", however quick
        whole = True
        for piece, trouble in await _troubles(ctx, manifest, sizes, thorough):
            whole = False
            yield ctx.object_problem(NAME, piece.key, f"checkpoint part {piece.key}: {trouble}", Supersede(piece.key, commit))
        if whole and ctx.full and not ctx.checkpoints:
            trouble = await _load(ctx, manifest)
            if trouble:
                whole = False
                yield ctx.object_problem(NAME, key, f"checkpoint {key} cannot be loaded: {trouble}", Supersede(key, commit))
        if whole:
            ctx.checkpoints.append(manifest)
    for (commit, nonce), keys in sorted(parts.items()):
        yield Problem(NAME, f"{len(keys)} parts of a checkpoint at commit {commit} have no manifest {nonce}: it was never finished, or its "
                      "manifest is lost", Severity.NOTE, min(keys))
    if ctx.local is not None and ctx.meta is not None:
        known = LocalTip.load(ctx.meta).checkpoint_commit
        if known and all(commit < known for commit, _, _ in manifests):
            yield Problem(NAME, f"the checkpoint at commit {known}, which this machine knows of, is missing", repair=Supersede("", known))


async def _troubles(ctx: Context, manifest: Manifest, sizes: dict[str, int], thorough: bool) -> list[tuple[Part, str]]:
    found: list[tuple[Part, str]] = []
    limit = trio.CapacityLimiter(limits.DEFAULTS.downloads_at_once // 2)
    done = 0

    async def one(part: Part) -> None:
        nonlocal done
        async with limit:
            trouble = await _trouble(ctx, manifest.commit, part, sizes.get(part.key), thorough)
        done += 1
        if thorough:
            ctx.progress("reading the checkpoint", done, len(manifest.parts), "parts")
        if trouble:
            found.append((part, trouble))

    async with trio.open_nursery() as nursery:
        for part in manifest.parts:
            nursery.start_soon(one, part)
    return sorted(found, key=lambda pair: pair[0].key)


async def _trouble(ctx: Context, commit: int, part: Part, size: int | None, thorough: bool) -> str:
    try:
        if size is None:
            size = (await ctx.remote.stat(part.key)).size    # a listing may lag behind
        if size != part.size:
            return f"damaged: it has {size} bytes, not {part.size}"
        if not thorough:
            return ""
        data = await ctx.remote.get(part.key)
    except NotFound:
        return "missing"
    if object_hash(data).hex() != part.hash:
        return "damaged: its bytes are not those the manifest names"
    try:
        await ctx.doors.threads.run(checkpoint.decode_part, data, commit, ctx.keyring.sealer("checkpoint", 0))
    except (Damaged, NewerFormat) as error:
        return f"damaged: {error}"
    return ""


async def _load(ctx: Context, manifest: Manifest) -> str:
    """Put it into an empty database."""
    meta = Meta.open(ctx.doors, SCRATCH, ctx.keyring.database_key())
    try:
        await fill(ctx.doors, ctx.remote, ctx.keyring, meta, manifest, lambda what, done, total: ctx.progress(what, done, total, "parts"))
        return "; ".join((await ctx.doors.threads.run(meta.quick_check))[:1])
    except (Damaged, Diverged, ObjectMissing) as error:
        return str(error)
    finally:
        with contextlib.suppress(Exception):
            meta.close()
        for suffix in ("", "-wal", "-shm"):
            ctx.doors.disk.unlink(SCRATCH + suffix)
