"""What a mount may choose of the way its changes go."""
from __future__ import annotations

from dataclasses import dataclass

from s3cfs.limits import DEFAULTS


@dataclass(frozen=True, slots=True)
class Options:
    sync_remote: bool = False              # an fsync waits for the store
    transaction_interval_s: float = DEFAULTS.transaction_interval_s
    commit_interval_s: float = DEFAULTS.commit_interval_s
    max_lag_s: float | None = None
    journal_max_bytes: int = DEFAULTS.journal_max_bytes
    writer_wait_s: float = DEFAULTS.writer_wait_s
    release_after_idle_s: float = DEFAULTS.release_after_idle_s
    short_sync_s: float = DEFAULTS.short_sync_s
