"""What is gone or damaged is named with its files and ranges, and all else comes; dying on the way is made up for."""
from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from s3cfs.backends.memory import MemoryBackend
from s3cfs.config import ImportOptions
from s3cfs.errors import Damaged
from s3cfs.moves.s3ql import database
from s3cfs.moves.s3ql.envelope import pack
from s3cfs.moves.s3ql.tree import S3qlTree
from s3cfs.moves.source import Extent, Kind
from tests.check.kit import World
from tests.moves.s3ql.kit import Sample, imported, opened
from tests.moves.trees import Killed, differences


def objects_of(sample: Sample, name: bytes) -> list[int]:
    """Numbers of the objects of a file of the root, from the database as S3QL left it in the store."""
    found: list[int] = []

    def look(tree: S3qlTree) -> None:
        sql = sqlite3.connect(tree._opened.database)
        found.extend(number for number, in sql.execute(
            "SELECT obj_id FROM inode_blocks b JOIN contents c ON c.inode = b.inode JOIN names n ON n.id = c.name_id "
            "WHERE n.name = ? AND c.parent_inode = 1 ORDER BY blockno", (name,)))
        sql.close()
    opened(sample, look)
    return found


def test_lost_and_damaged_objects_are_named_and_the_rest_comes(tmp_path: Path):
    sample = Sample.at(tmp_path, "zlib")
    big, cut, small = objects_of(sample, b"big"), objects_of(sample, b"cut"), objects_of(sample, b"small 3")
    sample.object(big[1]).unlink()
    data = bytearray(sample.object(cut[0]).read_bytes())
    data[-40] ^= 1
    sample.object(cut[0]).write_bytes(data)
    shutil.copyfile(sample.object(small[0]), sample.object(cut[1]))          # another object under its name
    done = imported(sample)
    size, end = sample.block, sample.block + 10
    told = {(finding.kind, finding.path, finding.ranges) for finding in done.findings if finding.kind is not Kind.DROPPED}
    lost = ((size, 2 * size),)
    assert told == {
        (Kind.MISSING, b"big", lost), (Kind.MISSING, b"copied/folder/hard link to big", lost), (Kind.MISSING, b"same content", lost),
        (Kind.DAMAGED, b"cut", ((0, end),))}
    assert "2 further names" not in str(done.findings) and any("(1 further names)" in finding.text for finding in done.findings)
    hit = {path for _, path, _ in told} | {b"folder/hard link to big"}
    for path in hit:
        entry, found = sample.expected.pop(path), done.tree.pop(path)
        assert not differences({path: entry}, {path: found}, without=("content", "ctime"))
    assert not differences(sample.expected, done.tree)


@pytest.mark.parametrize("reads", [0, 1, 5, 17])
def test_killed_and_gone_on_it_ends_equal(tmp_path: Path, reads: int):
    sample, world = Sample.at(tmp_path, "lzma"), World.make(MemoryBackend(), tmp_path)

    def dies(tree: S3qlTree) -> None:
        read, left = tree.read, [reads]

        async def until(ino: int, extent: Extent) -> bytes:
            if not left[0]:
                raise Killed
            left[0] -= 1
            return await read(ino, extent)
        tree.read = until  # type: ignore[method-assign]
    with pytest.raises(ExceptionGroup):
        imported(sample, world, tmp_path / "here", before=dies)
    done = imported(sample, world, tmp_path / "here")
    assert not differences(sample.expected, done.tree) and not done.told


def test_an_older_state_is_taken_when_the_newest_is_not_whole(tmp_path: Path):
    sample = Sample.at(tmp_path, "zlib")
    newest = sorted(path for path in (tmp_path / "store").glob("s3ql_metadata_000000000000_*"))[-1]
    newest.unlink()
    result, findings = opened(sample)
    assert any("could not be put together" in finding.text for finding in findings) and "files" not in result.there, "as mkfs left it"
    for path in (tmp_path / "store").glob("s3ql_metadata_*"):
        path.unlink()
    with pytest.raises(Damaged, match="no state .* is whole"):
        opened(sample)


def test_without_a_listing_blocks_are_asked_for(tmp_path: Path):
    sample = Sample.at(tmp_path, "zlib")
    listed, _ = opened(sample)
    asked, findings = opened(sample, probe_depth=100)
    assert any("2 blocks of the metadata, from 2 requests up to 200" in finding.text for finding in findings)
    assert asked.there == listed.there and asked.requests > listed.requests


def test_the_local_database_saves_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sample = Sample.at(tmp_path, "crashed")
    cache = sample.cache
    base = next(path for path in cache.iterdir() if path.name.endswith(".params")).name.removesuffix(".params")
    shutil.rmtree(tmp_path / "store")
    clean = Sample.at(tmp_path / "clean", "zlib")
    os.rename(tmp_path / "clean" / "store", tmp_path / "store")
    sample.url, sample.passphrase = f"local://{tmp_path}/store", clean.passphrase
    from_store, _ = opened(sample)
    states: list[bytes] = []
    with monkeypatch.context() as patch:
        patch.setattr(database, "_forget_statistics", lambda path: None)      # as it was put together
        opened(sample, lambda tree: states.append(Path(tree._opened.database).read_bytes()))
    image = bytearray(states[0])
    image[18:20] = b"\2\2"                               # as S3QL has it
    for path in cache.iterdir():
        if path.is_file():
            path.unlink()
    (cache / f"{base}.db").write_bytes(image)
    seq = from_store.origin.split()[1]
    (cache / f"{base}.params").write_text(f"{{ 'revision': 26, 'seq_no': {seq}, 'data_block_size': 32768, 'metadata_block_size': 65536, "
                                          f"'db_size': {len(image)}, 'db_md5': '', 'is_mounted': False }}")
    local, _ = opened(sample, s3ql_cache=str(cache))
    assert local.there == from_store.there and local.origin.startswith("the local copy") and local.requests < from_store.requests
    (cache / f"{base}.db").write_bytes(image[:-1] + b"x")
    other, _ = opened(sample, s3ql_cache=str(cache))
    assert other.origin == from_store.origin


def test_where_nothing_is_signed_the_hash_tells(tmp_path: Path):
    sample = Sample.at(tmp_path, "plain")
    (number,) = objects_of(sample, b"small 3")
    header = "{ 'format_version': 2, 'compression': 'None', 'encryption': 'None', 'data': b'e30=' }"
    sample.object(number).write_bytes(pack(header, b"x" * 30))
    done = imported(sample)
    assert done.told == {(str(Kind.DAMAGED), b"small 3")}


def test_a_plain_object_planted_into_an_encrypted_filesystem_is_not_believed(tmp_path: Path):
    sample = Sample.at(tmp_path / "a", "zlib")
    plain = Sample.at(tmp_path / "b", "plain")
    (number,) = objects_of(sample, b"small 3")
    shutil.copyfile(plain.object(number), sample.object(number))
    done = imported(sample, options=ImportOptions())
    assert (str(Kind.DAMAGED), b"small 3") in done.told and any("somebody else" in finding.text for finding in done.findings)
