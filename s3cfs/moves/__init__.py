"""Whole filesystems on their way: verified, migrated from store to store, imported from others. No mount takes part.

`verify`, `migrate`, `reencrypt` and `import_s3ql` are what the command line calls; and `export`, for files that go into IPFS.
"""
from __future__ import annotations

from .ipfs.export import ExportResult, export
from .migrate import MigrateResult, migrate
from .reencrypt import ReencryptResult, reencrypt
from .s3ql.importing import ImportResult, import_s3ql
from .verify import VerifyResult, verify

__all__ = ["ExportResult", "ImportResult", "MigrateResult", "ReencryptResult", "VerifyResult", "export", "import_s3ql", "migrate",
           "reencrypt", "verify"]
