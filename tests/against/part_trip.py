"""A filesystem's round trip: real files in, everything local lost, the same files out, and a full check.

By the commands and the kernel where a mount can be made and other processes can use the store, and without a kernel everywhere.
"""
from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.against import headless
from tests.e2e.kit import Filesystem
from tests.e2e.manifest import assert_same, manifest
from tests.e2e.sources import mixed_file, oddities, standard_library
from tests.places import Place

MIB = 1 << 20
FILES, LARGE_BYTES = (400, 40), (48 * MIB, 4 * MIB)        # in full, and in short


@pytest.fixture
def source(place: Place, tmp_path: Path) -> Path:
    """Real files, and a large one of mixed content."""
    root = standard_library(tmp_path / "source", FILES[place.short])
    mixed_file(root / "large", LARGE_BYTES[place.short], place.seed)
    return root


@pytest.mark.mount
def test_by_the_commands(place: Place, source: Path, tmp_path: Path) -> None:
    if not place.has_processes:
        pytest.skip(f"{place.scheme}:// ends with its process: no command can mount it")
    oddities(source / "oddities")
    expected = manifest(source)
    fs = Filesystem(tmp_path / "fs", place.fresh_url(), place.options, place.login, place.password)
    try:
        fs.mkfs()
        mount = fs.mount()
        subprocess.run(["cp", "-a", str(source), str(mount / "copy")], check=True)
        place.count(mount.calls())
        mount.umount()
        fs.lose()
        mount = fs.mount()
        assert_same(expected, manifest(mount / "copy"))
        place.count(mount.calls())
        mount.umount()
        fs.fsck()
        fs.fsck(cache="cache")
    finally:
        fs.close()


def test_without_a_kernel(place: Place, source: Path, tmp_path: Path) -> None:
    files = {str(path.relative_to(source)).replace("/", " in "): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    fs = headless.Filesystem.make(place, tmp_path / "mkfs")
    fs.fill(tmp_path / "here", files)
    assert fs.look(tmp_path / "elsewhere", read_only=True) == files
    assert fs.fsck(tmp_path / "fsck") == []
