"""A real source tree and a large file: copied, compared, brought back from the store alone; what copies of them cost."""
from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.servers import Server, moto_s3, rclone_s3  # noqa: F401  (fixtures)

from .conftest import Make
from .kit import Mount, until
from .manifest import assert_same, manifest
from .sources import MIB, mixed_file, oddities, shifted, standard_library

pytestmark = pytest.mark.mount
LARGE = bool(os.environ.get("S3CFS_TEST_LARGE"))
LARGE_BYTES = 1024 * MIB if LARGE else 48 * MIB
LIBRARY_FILES = None if LARGE else 1000
STORED_FOR_A_SECOND_TREE = 0.01
STORED_FOR_A_SHIFTED_FILE = 0.03
SMALL_FILES, SMALL_FILE_BYTES, SMALL_FILES_PUTS = 5_000, 4096, 60


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    root = tmp_path_factory.mktemp("source")
    standard_library(root / "library", LIBRARY_FILES)
    oddities(root / "oddities")
    os.chdir("/")
    mixed_file(root / "large", LARGE_BYTES, 1)
    return root


def copy(source: Path, target: Path) -> None:
    done = subprocess.run(["cp", "-a", str(source), str(target)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def stored(mount: Mount) -> int:
    """Bytes in the store's packs and log, once everything has arrived."""
    mount.flush()
    found = mount.stat()
    assert found["lag"] == {**found["lag"], "bytes": 0, "seconds": 0}
    return int(found["store"]["bytes"]["up"])


def test_a_tree_survives_the_loss_of_everything_local(make: Make, rclone_s3: Server, source: Path):  # noqa: F811
    fs = make(rclone_s3).mkfs()
    mount = fs.mount()
    copy(source, mount / "copy")
    expected = manifest(source)
    assert_same(expected, manifest(mount / "copy"))
    with_blocks = manifest(mount.path, blocks=True)
    assert with_blocks["copy/oddities/sparse"]["blocks"] * 512 < 2 * MIB
    mount.umount()
    fs.fsck(cache="cache")
    fs.lose()
    mount = fs.mount(where="elsewhere", cache="other machine")
    assert_same(expected, manifest(mount / "copy"))
    assert_same(with_blocks, manifest(mount.path, blocks=True))
    mount.umount()
    mount = fs.mount(where="elsewhere", cache="other machine")          # and from local state
    assert_same(with_blocks, manifest(mount.path, blocks=True))
    mount.umount()
    fs.fsck()


def test_copies_cost_next_to_nothing(make: Make, rclone_s3: Server, source: Path, tmp_path: Path):  # noqa: F811
    mount = make(rclone_s3).mkfs().mount()
    copy(source / "library", mount / "library")
    tree = stored(mount)
    copy(source / "library", mount / "library again")
    again = stored(mount)
    assert again - tree < STORED_FOR_A_SECOND_TREE * tree, f"a second copy added {again - tree} to {tree} bytes"
    copy(source / "large", mount / "large")
    large = stored(mount)
    copy(shifted(source / "large", tmp_path / "shifted", 1000, 2), mount / "shifted")
    more = stored(mount)
    assert more - large < STORED_FOR_A_SHIFTED_FILE * (large - again), f"a shifted copy added {more - large} to {large - again} bytes"
    assert manifest(tmp_path, without=["mtime"])["shifted"]["content"] == manifest(mount.path)["shifted"]["content"]


def test_small_files_are_few_puts(make: Make, rclone_s3: Server):  # noqa: F811
    mount = make(rclone_s3).mkfs().mount()
    before = mount.requests()["put"]
    for number in range(SMALL_FILES):
        folder = mount / f"d{number % 50}"
        if number < 50:
            folder.mkdir()
        (folder / f"f{number}").write_bytes(os.urandom(SMALL_FILE_BYTES))
    mount.flush()
    puts = mount.requests()["put"] - before
    assert puts < SMALL_FILES_PUTS, f"{SMALL_FILES} files cost {puts} PUTs"


def test_sequence_of_names_is_unharmed_by_many_entries(local_fs):
    mount = local_fs.mount()
    big = mount / "big"
    big.mkdir()
    names = {f"entry {number:06d}" for number in range(6_000)}
    for name in names:
        (big / name).touch()
    assert set(os.listdir(big)) == names
    with os.scandir(big) as entries:            # removing while listing: every entry is seen once
        for entry in entries:
            os.unlink(entry.path)
            names.remove(entry.name)
    assert not names and not os.listdir(big)
    big.rmdir()
    until(lambda: mount.stat()["lag"]["bytes"] == 0, "everything in the store")
