"""What `s3cfs stat` shows, as plain data; the names are documented in docs/stat.md and stay."""
from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

from s3cfs import __version__
from s3cfs.config import format_duration, format_size
from s3cfs.errors import S3cfsError
from s3cfs.formats.chunker import SLOW
from s3cfs.history.health import State
from s3cfs.history.localtip import LocalTip
from s3cfs.meta import Totals

from .node import Node

SCHEMA = 1
AWAY_AFTER_S = 2.0         # of repeated calls without an answer
CACHE_GONE, DAMAGED, DEGRADED = "cache-gone", "damaged", "degraded"      # states beside those of Health
WITHOUT_LOCAL_STATE = ("the cache folder was removed beside the mount: fsync waits for the store now, and what is not there is lost when "
                       "this process ends; unmount it when the lag is 0, and mount it again")


async def status(node: Node, *, url: str, mountpoint: str, started: float) -> dict[str, Any]:
    """One look; makes no request to the store."""
    totals, age_s = await _totals(node)
    commits, remote, tip = node.commits, node.remote.snapshot(), _tip(node)
    state, message = state_of(node)
    warnings = (SLOW, node.writer.took_over if node.writer else None, _degraded(node) if state != DEGRADED else None)
    requests = {operation: sum(kinds.values()) for operation, kinds in remote["requests"].items()}
    counters = node.meta.counters
    return {
        "schema": SCHEMA, "pid": os.getpid(), "url": url, "mountpoint": mountpoint, "label": node.superblock.label,
        "fs_id": node.superblock.fs_id.hex(), "version": __version__, "read_only": node.options.read_only,
        "state": state, "message": message, "warnings": [text for text in warnings if text],
        "damage": {"chunks": node.damage.count, "met": node.damage.met, "last": [asdict(find) for find in node.damage.last]},
        "uptime_s": round(node.doors.clock.monotonic() - started, 1),
        "files": {"inodes": counters.inodes, "logical_bytes": counters.used_bytes},
        "data": {**_data(totals, age_s), **_riding(node)},
        "lag": {"seconds": round(commits.lag_s(), 2), "bytes": commits.lag_bytes(), "bound_seconds": node.options.commits.max_lag_s},
        "commit": {"number": tip.n, "hash": tip.hash.hex(), "epoch": node.writer.epoch if node.writer else node.tip.epoch,
                   "time_ns": commits.last_commit_ns, "transactions": commits.transactions, "commits": commits.commits,
                   "outbox_rows": commits.backlog.rows, "outbox_bytes": commits.backlog.bytes},
        "dirty": {"ram_bytes": node.files.ram_bytes, "spool_bytes": node.spool.live_bytes},
        "journal": {"bytes": node.journal.bytes_total, "limit_bytes": node.options.commits.journal_max_bytes},
        "cache": {"bytes": node.cache.used_bytes, "limit_bytes": node.options.cache_bytes, "decoded_bytes": node.blocks.decoded_bytes,
                  "hits": node.blocks.stats.hits, "misses": node.blocks.stats.misses},
        "store": {"tier": str(node.writer.tier) if node.writer else None, "last_success_s": remote["seconds_since_success"],
                  "last_error": remote["last_error"], "requests": requests,
                  "bytes": {"up": sum(remote["bytes_up"].values()), "down": sum(remote["bytes_down"].values())},
                  "errors": sum(n for names in remote["errors"].values() for n in names.values()), "retries": remote["retries"],
                  "by_kind": {"requests": remote["requests"], "bytes_up": remote["bytes_up"], "bytes_down": remote["bytes_down"],
                              "errors": remote["errors"]},
                  "degraded": remote["degraded"], "layers": remote["layers"]},
    }


async def _totals(node: Node) -> tuple[Totals | None, float]:
    """Zeros when the database failed: then the rest is wanted all the more."""
    try:
        return await node.figures.get()
    except S3cfsError:
        return Totals(0, 0, 0, 0, 0, 0, 0), 0.0


def _tip(node: Node) -> LocalTip:
    try:
        return LocalTip.load(node.meta)
    except S3cfsError:
        return LocalTip(node.tip.n, node.tip.key, node.tip.hash)


def _data(totals: Totals | None, age_s: float) -> dict[str, Any]:
    if totals is None:
        return dict.fromkeys(("unique_bytes", "stored_bytes", "packs", "pack_bytes", "chunks", "dedup_ratio", "compression_ratio",
                              "as_of_s"))
    logical, unique, stored = totals.file_bytes, totals.chunk_bytes, totals.sealed_bytes
    return {"unique_bytes": unique, "stored_bytes": stored, "packs": totals.packs, "pack_bytes": totals.pack_bytes,
            "chunks": totals.chunks, "dedup_ratio": _ratio(logical, unique), "compression_ratio": _ratio(unique, stored),
            "as_of_s": round(age_s, 1)}


def _riding(node: Node) -> dict[str, int]:
    """Of the packs: those that are in records, and no objects of their own."""
    try:
        packs, size = node.meta.riding_totals()
    except S3cfsError:
        packs, size = 0, 0
    return {"riding_packs": packs, "riding_bytes": size}


def headline(node: Node) -> str:
    """One line for the service manager."""
    state, message = state_of(node)
    behind = (f"{format_duration(node.commits.lag_s())}, {format_size(node.lag_bytes())} not yet in the store" if node.lag_bytes()
              else "everything is in the store")
    return "; ".join(text for text in (f"{state}: {message}" if message else state, behind) if text)


def state_of(node: Node) -> tuple[str, str | None]:
    """What is worst, and a line about it."""
    health, writer, remote = node.commits.health, node.writer, node.remote
    if health.volatile and health.writable:
        return CACHE_GONE, WITHOUT_LOCAL_STATE
    if health.state is State.OK or (health.state is State.READ_ONLY and writer is None):
        if writer is not None and writer.away_since is not None:
            return State.AWAY, writer.away_cause
        if remote.away_since is not None and node.doors.clock.monotonic() - remote.away_since > AWAY_AFTER_S:
            return State.AWAY, str(remote.last_error)
        if node.damage.count:
            return DAMAGED, node.damage.summary()
        if degraded := _degraded(node):
            return DEGRADED, degraded
    return health.state, health.message or None


def _degraded(node: Node) -> str | None:
    """What the store, or one of its layers, says of how safe things are there."""
    if reason := node.remote.degraded_now:
        return f"stored, but degraded: {reason}"
    told = node.remote.stack.status().items()
    return next((f"the store's layer {name}: {said['degraded']}" for name, said in told if said.get("degraded")), None)


def _ratio(before: int, after: int) -> float | None:
    return round(before / after, 3) if after else None
