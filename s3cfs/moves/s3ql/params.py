"""The parameters of one state of a filesystem of S3QL."""
from __future__ import annotations

from dataclasses import dataclass

from s3cfs.errors import Damaged, NewerFormat, Unsupported

from .envelope import Header, Value

OLDEST, NEWEST = 24, 26
BLOCK_MAX_BYTES = 1 << 30
DATABASE_MAX_BYTES = 1 << 46


@dataclass(frozen=True, slots=True)
class Params:
    revision: int
    seq: int
    block_bytes: int               # of file data
    mounted: bool
    needs_fsck: bool
    label: str
    modified: float                # Unix seconds
    # of revision 26, else 0 and ""
    metadata_block_bytes: int = 0
    database_bytes: int = 0
    database_sha256: str = ""

    @classmethod
    def of(cls, found: Header) -> Params:
        """Damaged; NewerFormat and Unsupported by revision."""
        revision = _number(found, "revision", 0, 10**6)
        if revision > NEWEST:
            raise NewerFormat(f"the filesystem of S3QL has revision {revision}; this version of s3cfs reads {OLDEST} to {NEWEST}")
        if revision < OLDEST:
            what = f"the filesystem of S3QL has revision {revision}: upgrade it to {OLDEST} or later with S3QL (s3qladm)"
            raise Unsupported("import", "", what)
        today = revision == NEWEST
        return cls(
            revision, _number(found, "seq_no", 0, 1 << 40),
            _number(found, "data_block_size" if today else "max_obj_size", 1, BLOCK_MAX_BYTES),
            bool(found.get("is_mounted", False)), bool(found.get("needs_fsck", False)), str(found.get("label") or ""),
            _seconds(found.get("last_modified", found.get("last-modified"))),
            _number(found, "metadata_block_size", 512, BLOCK_MAX_BYTES) if today else 0,
            _number(found, "db_size", 1, DATABASE_MAX_BYTES) if today else 0, str(found.get("db_md5", "")) if today else "")


def _number(found: Header, key: str, least: int, most: int) -> int:
    value = found.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Damaged(f"the parameters of S3QL have no usable {key}")
    return value


def _seconds(value: Value) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
