"""Whole filesystems on their way: verified, migrated from store to store, imported from others. No mount takes part.

`verify`, `migrate` and `import_s3ql` are what the command line calls.
"""
from __future__ import annotations

from .migrate import MigrateResult, migrate
from .s3ql.importing import ImportResult, import_s3ql
from .verify import VerifyResult, verify

__all__ = ["ImportResult", "MigrateResult", "VerifyResult", "import_s3ql", "migrate", "verify"]
