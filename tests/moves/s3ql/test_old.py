"""Revisions 24 and 25: one object with all metadata (real ones are in test_samples.py; here they are made), and refusals of others."""
from __future__ import annotations

import bz2
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from s3cfs.errors import AlreadyMounted, Damaged, NewerFormat, Unsupported
from s3cfs.moves.s3ql import database
from s3cfs.moves.s3ql.database import Database
from s3cfs.moves.s3ql.dumps import SCHEMA, load
from s3cfs.moves.s3ql.params import Params
from s3cfs.moves.source import Kind
from tests.moves.s3ql.kit import Sample, opened
from tests.moves.s3ql.old import dump, integer, make_old


def old_sample(tmp_path: Path, revision: int) -> Sample:
    sample = Sample.at(tmp_path, "plain")
    opened(sample, lambda tree: make_old(tmp_path / "store", tree._opened.database, revision, 77, sample.block))
    return sample


@pytest.mark.parametrize("revision", [24, 25])
def test_one_that_is_made_here_is_read_as_one_of_s3ql(tmp_path: Path, revision: int):
    sample = old_sample(tmp_path, revision)
    result, _ = opened(sample)
    assert result.revision == revision and result.label == "old" and result.origin.startswith("state 77 ")
    assert (result.there["files"], result.there["folders"]) == (60, 32)


def test_that_it_is_mounted_is_told_and_older_copies_are_taken(tmp_path: Path):
    sample = old_sample(tmp_path, 25)
    store = tmp_path / "store"
    (store / "s3ql_seq_no_78").write_bytes((store / "s3ql_seq_no_77").read_bytes())
    (store / "s3ql_metadata_bak_0").write_bytes((store / "s3ql_metadata").read_bytes())
    (store / "s3ql_metadata").write_bytes((store / "s3ql_metadata").read_bytes()[:-5])
    with pytest.raises(AlreadyMounted):
        opened(sample)
    result, findings = opened(sample, last_snapshot=True)
    told = " ".join(finding.text for finding in findings if finding.kind is Kind.NOTE)
    assert "it is mounted, or crashed" in told and "s3ql_metadata_bak_0 are taken" in told and result.there["files"] == 60
    (store / "s3ql_metadata_bak_0").unlink()
    with pytest.raises(Damaged, match="no metadata of S3QL are whole"):
        opened(sample, last_snapshot=True)


def test_a_large_one_without_symlinks_and_attributes_is_opened_at_once(tmp_path: Path):
    """It once took as many steps as the product of all other tables has rows."""
    load(dump(25, {
        "objects": [], "inodes": [(ino, 0, 0, 0o40755, 0, 0, 0, 0, 0, 0, 1) for ino in range(1, 3000)], "inode_blocks": [],
        "symlink_targets": [], "names": [(ino, b"%d" % ino, 1) for ino in range(2, 3000)],
        "contents": [(ino, ino, 1) for ino in range(2, 3000)], "ext_attributes": []}), 25, str(tmp_path / "db"))
    with closing(Database(str(tmp_path / "db"))) as made:
        assert made.prepare() == [] and made.nameless() == 0 and len(made.children(1, 0)) == 500
        assert made.summary().inodes == {0o40000: 2998}


def test_no_table_is_scanned_for_one_folder_or_file(tmp_path: Path):
    """S3QL's statistics are of an empty filesystem: SQLite would look through all names for each entry."""
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as sql:
        sql.executescript(SCHEMA + "CREATE UNIQUE INDEX by_name ON names (name);")
        sql.executescript("INSERT INTO names VALUES (1, x'00', 1); INSERT INTO contents VALUES (1, 2, 1); ANALYZE;")
    with closing(Database(str(tmp_path / "db"))) as made:
        made.prepare()
        plans = [bytes(row[3]).decode() for query, values in ((database._CHILDREN, (1, 0)), (database._BLOCKS, (1, 0, 1)))
                 for row in made._sql.execute(f"EXPLAIN QUERY PLAN {query}", values)]
    assert plans and not [step for step in plans if "SCAN" in step]


def test_integers_of_every_size():
    assert [integer(value).hex() for value in (0, 123, -123, 124, -300, 70_000, -(1 << 40))] == [
        "00", "7b", "fb", "7f7c", "fe2c01", "7d70110100", "fc0000000000010000"]


@pytest.mark.parametrize("data", [b"", b"BZh9nonsense", bz2.compress(b"\x01"), bz2.compress(b"\x7c" + b"\xff" * 8)])
def test_a_damaged_dump_is_one_clear_error(tmp_path: Path, data: bytes):
    with pytest.raises(Damaged):
        load(data, 25, str(tmp_path / "db"))


def test_other_revisions_are_refused():
    with pytest.raises(NewerFormat):
        Params.of({"revision": 27})
    with pytest.raises(Unsupported, match="upgrade"):
        Params.of({"revision": 23})
    with pytest.raises(Damaged):
        Params.of({"revision": 26, "seq_no": 1, "data_block_size": 0})
