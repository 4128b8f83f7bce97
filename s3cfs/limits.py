"""Every bound in one place, the unit in its name.

`Limits` is what a running filesystem is bounded by: one object, passed in as `Doors.limits`, so that a test or the simulator gives other
bounds with `dataclasses.replace` (a name that does not exist is an error). What a user may set has its default here too (`DEFAULTS`).
Those that depend on the store are what `fitted` makes of them when a filesystem is opened; their defaults fit a store like most.
The constants are Linux's own limits and what is told to the kernel.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

# names and attributes (Linux's own limits)
NAME_MAX_BYTES = 255
SYMLINK_MAX_BYTES = 4095
XATTR_NAME_MAX_BYTES = 255
XATTR_VALUE_MAX_BYTES = 65536
LINK_MAX = 2**31 - 1
FILE_MAX_BYTES = 2**62

# kernel
ENTRY_TIMEOUT_S = 3600.0
ATTR_TIMEOUT_S = 3600.0
READ_AHEAD_KIB = 4096
KERNEL_DIRTY_BYTES = 64 * MIB      # what the kernel's page cache holds back of written data
KERNEL_BACKGROUND = KERNEL_DIRTY_BYTES // (4 * KIB)     # so that writes that wait, a page each at worst, never hold up its read-ahead
WAITING_REQUESTS = 8192            # with a caller behind them, 12 KiB each


@dataclass(frozen=True, slots=True)
class Limits:
    # content
    inline_max_bytes: int = 512              # a file up to this size lives in its inode row
    chunk_min_bytes: int = 128 * KIB         # of new filesystems; each keeps its own in the superblock
    chunk_avg_bytes: int = 512 * KIB
    chunk_max_bytes: int = 2 * MIB           # also the largest overlay chunk
    pack_target_bytes: int = 6656 * KIB      # a journal pack is closed at the first chunk that takes it past this
    pack_entries: int = 65_536               # or by so many chunks: its index is in memory while it is open

    # writing
    dirty_pool_bytes: int = 56 * MIB         # dirty file data in RAM, staged ones included; beyond it writers wait or data is spooled
    spool_max_bytes: int = 1 * GIB           # of sealed dirty data that memory had no room for; beyond it files are staged instead
    stage_run_bytes: int = 8 * MIB           # a contiguous dirty run of this size is staged while its file is still open
    stage_slice_bytes: int = 16 * MIB        # what one round of staging takes at most
    stage_open_file_s: float = 30.0          # dirty data of a file that stays open is staged after this
    ready_bytes: int = 8 * MIB               # closed files are staged when so much is waiting,
    ready_files: int = 128                   # or so many of them
    tail_max_bytes: int = 24 * KIB           # a last chunk up to this is stored anew with what is appended to it (and may ride still)
    overlay_run_max_bytes: int = 64 * KIB    # runs shorter than this inside existing data go into one overlay chunk
    transaction_interval_s: float = 1.0
    transaction_max_bytes: int = 1 * MIB     # of its changeset: then it ends at once; beyond four times that changes wait for it
    transaction_max_rows: int = 4000         # the same of rows (each may dirty a page); eight times that while COMMITs are quick
    commit_interval_s: float = 5.0           # default of --commit-interval
    short_sync_s: float = 0.0005             # an fsync expected to take less is not worth a thread
    fresh_file_grace_s: float = 0.2          # a transaction waits so long for a just created file to be closed
    journal_max_bytes: int = 10 * GIB        # not yet in the store; beyond it writers wait, then ENOSPC
    writer_wait_s: float = 30.0              # how long a writer waits for room before ENOSPC
    disk_reserve_bytes: int = 96 * MIB       # ballast: free space below which no operation starts
    uploads_at_once: int = 8                 # each holds one pack in memory, and one more is loaded ahead
    upload_memory_bytes: int = 64 * MIB      # of those packs together
    downloads_at_once: int = 8

    # reading
    decoded_cache_bytes: int = 64 * MIB
    cache_bytes: int = 10 * GIB              # default of --cachesize: sealed packs on disk
    fetch_align_bytes: int = 64 * KIB
    fetch_max_bytes: int = 8 * MIB           # one ranged GET
    fetch_gap_bytes: int = 256 * KIB         # wants this near each other are one GET: a request costs more than what lies between
    neighbourhood_bytes: int = 2 * MIB
    readahead_max_bytes: int = 32 * MIB

    # metadata
    count_rows: int = 20_000                 # chunks and packs that are counted on the event loop; more in a thread
    slow_query_s: float = 0.002              # a query of the metadata that is expected to take longer is first asked in a thread
    sweep_rows: int = 1024                   # extents that go in one step when a file is removed or truncated
    ride_max_bytes: int = 32 * KIB           # new chunks of one commit, up to this, ride in its record: a request costs more
    ride_packs: int = 256                    # so many that ride, or so many bytes, are packed together
    ride_total_bytes: int = 2 * MIB
    record_max_bytes: int = 16 * MIB         # uncompressed changesets in one record
    outbox_max_bytes: int = 128 * MIB        # uncompressed changesets waiting for the store; beyond it writers wait
    wal_copy_pages: int = 1024               # of SQLite's log; copying them is not worth its syncs below this (4 MiB)
    wal_restart_pages: int = 8192            # 32 MiB: start it anew when next it can be
    wal_rest_pages: int = 2048               # changes wait while so much is copied for that (8 MiB), not for more
    wal_anyhow_pages: int = 65536            # but when it is 256 MiB long for whatever is left
    snapshot_wal_pages: int = 65536          # so much may come while a snapshot waits for its commit
    follow_records: int = 256                # of the log that are fetched ahead of the one that is being applied
    follow_bytes: int = 16 * MIB             # and of their bytes, about
    checkpoint_min_log_bytes: int = 1 * MIB  # a checkpoint is not worth it below this
    checkpoint_log_ratio: float = 0.25       # of the size of the last checkpoint
    checkpoint_record_bytes: int = 4 * KIB   # what a record of the log counts for besides its bytes: it is a request
    checkpoint_part_bytes: int = 8 * MIB     # uncompressed

    # who may write (facts: metadata.md)
    heartbeat_s: float = 10.0                # a writer that has something to say is not silent for longer
    slow_line_bytes_s: int = 64 * KIB        # a record that would take longer than a heartbeat at this rate is announced
    takeover_silence_s: float = 30.0
    release_after_idle_s: float = 15.0       # with this and a heartbeat no living writer is silent for takeover_silence_s

    # the store
    store_timeout_s: float = 20.0
    store_deadline_s: float = 120.0          # of silence; then a call has an error, whatever its attempt is at
    urgent_at_once: int = 4                  # records, claims, superblocks: beside all others


DEFAULTS = Limits()


# ---------------------------------------------------------------- what follows from the store

SEALED_EXTRA_BYTES = 128           # a sealed chunk is at most so much larger than its plaintext (nonce, tag, flag; generously)
PACK_ENTRY_BYTES = 44              # of a chunk in a pack's index (formats/pack.py; a test compares)


class Nature(Protocol):
    """What `fitted` asks of `backends.types.Capabilities`, which see."""

    @property
    def parallel_reads(self) -> int: ...
    @property
    def parallel_writes(self) -> int: ...
    @property
    def ideal_object_bytes(self) -> int: ...
    @property
    def largest_object_bytes(self) -> int | None: ...
    @property
    def request_bytes(self) -> int: ...


def fitted(limits: Limits, store: Nature, chunk_max: int) -> Limits:
    """`limits` for a filesystem with chunks of up to `chunk_max` bytes on this store.

    A bound that nobody changed becomes what the store likes; one that somebody set is at most lowered. With chunks of at most half its
    largest object no pack is larger than that; with larger ones, packs are as small as is sensible, and those that are too large are
    stored in pieces (backends/pieces.py), as is every other object.
    """
    def follow(name: str, wanted: int) -> int:
        own: int = getattr(limits, name)
        return wanted if own == getattr(DEFAULTS, name) else min(own, wanted)

    pack = min(store.ideal_object_bytes, limits.upload_memory_bytes // 2 - chunk_max)      # with the chunk that ends it, two fit
    changes: dict[str, int] = {}
    if store.largest_object_bytes is not None:
        room = _unpadded(store.largest_object_bytes)
        index = room // 8
        changes = {
            "pack_entries": min(limits.pack_entries, max(1, index // PACK_ENTRY_BYTES)),
            "transaction_max_bytes": min(limits.transaction_max_bytes, max(64 * KIB, room // 4)),
            "record_max_bytes": min(limits.record_max_bytes, max(64 * KIB, room // 2)),
            "checkpoint_part_bytes": min(limits.checkpoint_part_bytes, max(64 * KIB, room)),
        }
        left = room - index - chunk_max - 4 * SEALED_EXTRA_BYTES
        pack = min(pack, left if 2 * chunk_max <= store.largest_object_bytes else room // 4)
    pack = max(1, follow("pack_target_bytes", pack))
    return replace(
        limits, **changes, pack_target_bytes=pack,
        uploads_at_once=max(1, min(limits.uploads_at_once, store.parallel_writes, limits.upload_memory_bytes // (pack + chunk_max // 4))),
        downloads_at_once=max(1, min(limits.downloads_at_once, store.parallel_reads)),
        fetch_gap_bytes=follow("fetch_gap_bytes", store.request_bytes), ride_max_bytes=follow("ride_max_bytes", store.request_bytes // 8))


def chunk_sizes(store: Nature) -> tuple[int, int, int]:
    """(least, mean, most) bytes of a new filesystem's chunks: the usual ones, or smaller where two of the largest make no object."""
    least, mean, most = DEFAULTS.chunk_min_bytes, DEFAULTS.chunk_avg_bytes, DEFAULTS.chunk_max_bytes
    if store.largest_object_bytes is None or 2 * most <= store.largest_object_bytes:
        return least, mean, most
    most = max(8 * KIB, store.largest_object_bytes // 2 // KIB * KIB)      # the formats' least
    return max(KIB, most // 16 // 2 * 2), max(4 * KIB, most // 4 // 2 * 2), most


def _unpadded(size: int) -> int:
    """Padmé makes of nothing up to this more than `size` (it adds at most a sixteenth to what is larger than 256 bytes)."""
    return size - size // 16
