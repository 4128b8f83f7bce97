"""Whole filesystems on their way: verified, migrated from store to store, imported from others. No mount takes part.

`verify` and `migrate` are what the command line calls.
"""
from __future__ import annotations

from .migrate import MigrateResult, migrate
from .verify import VerifyResult, verify

__all__ = ["MigrateResult", "VerifyResult", "migrate", "verify"]
