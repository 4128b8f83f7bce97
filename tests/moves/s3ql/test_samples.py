"""Filesystems that the real S3QL made come as their mounts showed them."""
from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from s3cfs.config import ImportOptions
from s3cfs.errors import AlreadyMounted
from s3cfs.moves.s3ql.tree import S3qlTree
from s3cfs.moves.source import Kind
from tests.gateway import Gateway
from tests.moves.s3ql.kit import Sample, imported, opened
from tests.moves.trees import differences
from tests.servers import Server


@pytest.mark.parametrize("name", ["zlib", "lzma", "none", "plain", "revision25", "revision24"])
def test_a_local_one_comes_as_it_is(tmp_path: Path, name: str):
    sample = Sample.at(tmp_path, name)
    done = imported(sample)
    assert not differences(sample.expected, done.tree) and not done.told
    assert {finding.path.partition(b"/")[0] for finding in done.findings} == {b"copied"}, "what was made immutable is told"
    assert done.result.requests < 80 and not (tmp_path / "scratch").exists() or not os.listdir(tmp_path / "scratch")


def test_one_in_a_bucket_comes_as_it_is(tmp_path: Path, moto_s3: Server):
    sample = Sample.at(tmp_path, "s3c", moto_s3.host, moto_s3)
    done = imported(sample)
    assert not differences(sample.expected, done.tree) and not done.told


def test_the_forks_comes_through_storjs_gateway_and_another_is_found_there_too(tmp_path: Path, moto_s3: Server):
    """Which lists by whole folders only: of the one nothing but metadata is listed, of the other all that lies beside them."""
    with Gateway(moto_s3) as gateway:
        sample = Sample.at(tmp_path / "storj", "storj", gateway.host, moto_s3)
        done = imported(sample)
        assert not differences(sample.expected, done.tree) and not done.told
        listings = [note for note in gateway.notes if note.operation == "list"]
        assert len(listings) == 1 and listings[0].status == 200
        other = Sample.at(tmp_path / "s3c", "s3c", gateway.host, moto_s3, data=False)
        result, _ = opened(other)
        assert result.there["files"] == 60 and [note.status for note in gateway.notes if note.operation == "list"] == [200, 501, 200]


def test_a_crashed_one_comes_with_its_cache_as_it_was_last_seen(tmp_path: Path):
    sample = Sample.at(tmp_path, "crashed")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.parts[-2] != "scratch"}
    done = imported(sample, options=ImportOptions(s3ql_cache=str(sample.cache)))
    # the kernel had a ctime of its own, some milliseconds off, for what was being written
    assert not differences(sample.expected, done.tree, without=("ctime",)) and not done.told
    after = {path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.parts[-2] != "scratch"}
    assert set(before.values()) <= after, "nothing of the old filesystem was changed"


def test_empty_files_of_the_cache_are_no_content(tmp_path: Path):
    """They stand for holes that were read: a block that is in the store comes from there."""
    sample = Sample.at(tmp_path, "crashed")
    blocks = next(path for path in sample.cache.iterdir() if path.is_dir())
    dirty = {path: path.read_bytes() for path in blocks.iterdir()}
    numbers: dict[str, str] = {}

    def look(tree: S3qlTree) -> None:
        sql = sqlite3.connect(tree._opened.database)
        numbers.update({bytes(name).decode(errors="replace"): str(ino) for name, ino in
                        sql.execute("SELECT n.name, c.inode FROM contents c JOIN names n ON n.id = c.name_id WHERE c.parent_inode = 1")})
        sql.close()
    opened(sample, look, s3ql_cache=str(sample.cache))
    emptied = [path for path in dirty if path.name.partition("-")[0] in (numbers["cut"], numbers["sparse"], numbers["small 9"])]
    assert any(dirty[path] for path in emptied)
    for path in emptied:
        path.write_bytes(b"")
    done = imported(sample, options=ImportOptions(s3ql_cache=str(sample.cache)))
    assert not differences(sample.expected, done.tree, without=("ctime",)) and not done.told


def test_a_crashed_one_without_its_cache_comes_as_of_its_last_snapshot(tmp_path: Path):
    sample = Sample.at(tmp_path, "crashed")
    store = tmp_path / "store"
    mounted_as = max(path.name for path in store.glob("s3ql_params_*")).removeprefix("s3ql_params_")
    (store / f"s3ql_metadata_000000000000_{mounted_as}").write_bytes(b"half uploaded when it crashed")
    with pytest.raises(AlreadyMounted, match="--last-snapshot"):
        opened(sample)
    done = imported(sample, options=ImportOptions(last_snapshot=True))
    assert not any("could not be put together" in finding.text for finding in done.findings)
    assert any(finding.kind is Kind.NOTE and "last snapshot" in finding.text for finding in done.findings)
    missing = [(finding.path, finding.ranges) for finding in done.findings if finding.kind is Kind.MISSING]
    assert missing == [(b"incompressible", ((0, 3000),))]
    assert b"new" not in done.tree and done.tree.pop(b"small 7")
    del done.tree[b"incompressible"]
    changed = {b"", b"big", b"folder/hard link to big", b"new", b"new folder", b"new folder/new too", b"new folder/seven"}
    for tree in (done.tree, sample.expected):
        for path in changed & tree.keys():
            del tree[path]
    assert not differences(sample.expected, done.tree, without=("atime",))
