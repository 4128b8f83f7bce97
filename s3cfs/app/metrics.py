"""What Prometheus reads: the figures of `s3cfs stat --json` by other names. docs/metrics.md has the table, and they stay.

The text format takes thirty lines and has no state here, so it is written by hand: a client library keeps registries of its own counters,
and ours exist already. No label has the name of a file, of a place or of a person.
"""
from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import trio

from s3cfs.doors import Clock

KEPT_S = 1.0                       # whoever asks again within this gets the same: nobody can keep the mount busy with it
STATES = ("ok", "damaged", "degraded", "waiting", "store-away", "read-only", "deposed", "cache-gone", "failed")
TIERS = ("T1", "T2", "sole")

GAUGE, COUNTER, UNTYPED = "gauge", "counter", "untyped"
Data = Mapping[str, Any]
Samples = Iterator[tuple[Mapping[str, str], Any]]      # labels and value; None is left out


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    kind: str
    help: str
    samples: Callable[[Data], Samples]


def at(*path: str, scale: float = 1) -> Callable[[Data], Samples]:
    """The figure there."""
    def samples(status: Data) -> Samples:
        value: Any = status
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        yield {}, value * scale if isinstance(value, int | float) and scale != 1 else value
    return samples


def by(*labels: str, path: tuple[str, ...]) -> Callable[[Data], Samples]:
    """A figure for each name there, and for each name in that, as there are labels."""
    def within(value: Any, labels: tuple[str, ...], known: Mapping[str, str]) -> Samples:
        if not labels:
            yield known, value
            return
        for name, inner in value.items():
            yield from within(inner, labels[1:], {**known, labels[0]: name})

    def samples(status: Data) -> Samples:
        value: Any = status
        for name in path:
            value = value[name]
        yield from within(value, labels, {})
    return samples


def one_of(label: str, words: tuple[str, ...], name: str, *within: str) -> Callable[[Data], Samples]:
    """1 for the word that it is, 0 for all others."""
    def samples(status: Data) -> Samples:
        value: Any = status
        for part in (*within, name):
            value = value[part]
        for word in words:
            yield {label: word}, word == value
    return samples


def _info(status: Data) -> Samples:
    yield {"version": status["version"], "fs_id": status["fs_id"]}, 1


def _moved(status: Data) -> Samples:
    for way in ("up", "down"):
        for kind, size in status["store"]["by_kind"][f"bytes_{way}"].items():
            yield {"direction": way, "kind": kind}, size


def _degraded_layers(status: Data) -> Samples:
    for name, told in status["store"]["layers"].items():
        yield {"layer": name}, bool(told.get("degraded"))


METRICS = (
    Metric("s3cfs_info", GAUGE, "1, with the version of s3cfs and the filesystem's identity", _info),
    Metric("s3cfs_state", GAUGE, "1 for the state that the mount is in, as s3cfs stat shows it", one_of("state", STATES, "state")),
    Metric("s3cfs_read_only", GAUGE, "1 when mounted so", at("read_only")),
    Metric("s3cfs_uptime_seconds", GAUGE, "since the mount", at("uptime_s")),
    Metric("s3cfs_warnings", GAUGE, "lines under warnings in s3cfs stat", lambda status: iter([({}, len(status["warnings"]))])),
    Metric("s3cfs_damaged_chunks", GAUGE, "chunks that are known to be damaged or lost", at("damage", "chunks")),
    Metric("s3cfs_damage_met_total", COUNTER, "of them, those that reads met since the mount", at("damage", "met")),
    Metric("s3cfs_inodes", GAUGE, "files, folders and the like", at("files", "inodes")),
    Metric("s3cfs_logical_bytes", GAUGE, "allocated in all files", at("files", "logical_bytes")),
    Metric("s3cfs_unique_bytes", GAUGE, "after deduplication, before compression", at("data", "unique_bytes")),
    Metric("s3cfs_stored_bytes", GAUGE, "live chunks, sealed", at("data", "stored_bytes")),
    Metric("s3cfs_chunks", GAUGE, "chunks", at("data", "chunks")),
    Metric("s3cfs_packs", GAUGE, "packs", at("data", "packs")),
    Metric("s3cfs_pack_bytes", GAUGE, "size of all packs", at("data", "pack_bytes")),
    Metric("s3cfs_riding_packs", GAUGE, "packs that are in records", at("data", "riding_packs")),
    Metric("s3cfs_riding_bytes", GAUGE, "their size", at("data", "riding_bytes")),
    Metric("s3cfs_data_age_seconds", GAUGE, "age of the sums over chunks and packs", at("data", "as_of_s")),
    Metric("s3cfs_lag_seconds", GAUGE, "age of the oldest change that is not in the store", at("lag", "seconds")),
    Metric("s3cfs_lag_bytes", GAUGE, "bytes that are not in the store", at("lag", "bytes")),
    Metric("s3cfs_lag_bound_seconds", GAUGE, "max-lag, where one is set", at("lag", "bound_seconds")),
    Metric("s3cfs_commit_number", GAUGE, "the newest commit in the store", at("commit", "number")),
    Metric("s3cfs_commit_epoch", GAUGE, "the writer's term of office", at("commit", "epoch")),
    Metric("s3cfs_commit_time_seconds", GAUGE, "when it was made, since the epoch", at("commit", "time_ns", scale=1e-9)),
    Metric("s3cfs_commits_total", COUNTER, "commits since the mount", at("commit", "commits")),
    Metric("s3cfs_transactions_total", COUNTER, "local transactions since the mount", at("commit", "transactions")),
    Metric("s3cfs_outbox_rows", GAUGE, "rows of metadata that wait for the store", at("commit", "outbox_rows")),
    Metric("s3cfs_outbox_bytes", GAUGE, "their size", at("commit", "outbox_bytes")),
    Metric("s3cfs_dirty_ram_bytes", GAUGE, "file data in no transaction yet, in memory", at("dirty", "ram_bytes")),
    Metric("s3cfs_dirty_spool_bytes", GAUGE, "file data in no transaction yet, spooled to disk", at("dirty", "spool_bytes")),
    Metric("s3cfs_journal_bytes", GAUGE, "sealed data that is not yet in the store", at("journal", "bytes")),
    Metric("s3cfs_journal_limit_bytes", GAUGE, "the most that may be", at("journal", "limit_bytes")),
    Metric("s3cfs_cache_bytes", GAUGE, "sealed data on the local disk that is in the store, too", at("cache", "bytes")),
    Metric("s3cfs_cache_limit_bytes", GAUGE, "the most that is kept", at("cache", "limit_bytes")),
    Metric("s3cfs_cache_decoded_bytes", GAUGE, "the cache in memory", at("cache", "decoded_bytes")),
    Metric("s3cfs_cache_hits_total", COUNTER, "chunks that reads asked for and that were here", at("cache", "hits")),
    Metric("s3cfs_cache_misses_total", COUNTER, "chunks that reads asked for and that came from the store", at("cache", "misses")),
    Metric("s3cfs_store_tier", GAUGE, "1 for the tier of the store; all 0 when mounted read-only", one_of("tier", TIERS, "tier", "store")),
    Metric("s3cfs_store_silent_seconds", GAUGE, "since the store last answered", at("store", "last_success_s")),
    Metric("s3cfs_store_requests_total", COUNTER, "calls of the store", by("operation", "kind", path=("store", "by_kind", "requests"))),
    Metric("s3cfs_store_bytes_total", COUNTER, "bytes to (up) and from (down) the store", _moved),
    Metric("s3cfs_store_errors_total", COUNTER, "calls that failed", by("operation", "error", path=("store", "by_kind", "errors"))),
    Metric("s3cfs_store_retries_total", COUNTER, "attempts beyond the first", at("store", "retries")),
    Metric("s3cfs_store_degraded_puts_total", COUNTER, "objects stored less safely than they should be",
           by("kind", path=("store", "degraded", "puts"))),
    Metric("s3cfs_layer_degraded", GAUGE, "1 when something is wrong in this layer of the store", _degraded_layers),
)


def exposition(status: Data) -> str:
    """`status` as of app/status.py, in the Prometheus text format 0.0.4."""
    lines: list[str] = []
    for metric in (*METRICS, *_of_layers(status)):
        found = [(labels, value) for labels, value in metric.samples(status) if isinstance(value, int | float)]
        if found:
            lines.append(f"# HELP {metric.name} {_escaped(metric.help)}")
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines += [f"{metric.name}{_labels(labels)} {_value(value)}" for labels, value in found]
    return "\n".join((*lines, ""))


def _of_layers(status: Data) -> Iterator[Metric]:
    """Every number that a layer tells, one level down, too."""
    taken = {metric.name for metric in METRICS}
    for layer, told in status["store"]["layers"].items():
        for path in (path for name, value in told.items() for path in (
                [(name, inner) for inner in value] if isinstance(value, Mapping) else [(name,)])):
            name = _name("s3cfs", "layer", layer, *path)
            if name not in taken:                          # two that differ in a sign that no name here has
                taken.add(name)
                yield Metric(name, UNTYPED, f"{' '.join(map(str, path))} of the store's layer {layer}", at("store", "layers", layer, *path))


def _name(*parts: object) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", "_".join(map(str, parts)))


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value, quotes=True)}"' for name, value in labels.items()) + "}" if labels else ""


def _escaped(text: str, *, quotes: bool = False) -> str:
    text = str(text).replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text


def _value(value: float) -> str:
    return repr(float(value)) if isinstance(value, float) else str(int(value))


class Metrics:
    """The page, made at most once a second."""

    def __init__(self, clock: Clock, status: Callable[[], Awaitable[Data | None]]) -> None:
        """`status` gives None while there is none yet."""
        self._clock, self._status = clock, status
        self._lock = trio.Lock()
        self._text, self._made = "", float("-inf")

    async def page(self) -> str:
        """"" while there is nothing to tell."""
        async with self._lock:
            if self._clock.monotonic() - self._made >= KEPT_S:
                status = await self._status()
                self._text, self._made = "" if status is None else exposition(status), self._clock.monotonic()
        return self._text
