"""A filesystem's round trip: real files in, everything local lost, the same files out, and a full check.

By the commands and the kernel where a mount can be made and other processes can use the store, and without a kernel everywhere.
"""
from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3cfs.errors import S3cfsError
from tests.against import headless
from tests.e2e.kit import Filesystem
from tests.e2e.manifest import assert_same, manifest
from tests.e2e.sources import mixed_file, oddities, standard_library
from tests.places import Place

MIB = 1 << 20
LOOKS = 10
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
    sole = ["--sole-writer"] if place.sole else []
    expected = manifest(source)
    fs = Filesystem(tmp_path / "fs", place.fresh_url(), place.options, place.login, place.password)
    try:
        fs.mkfs()
        mount = fs.mount(*sole)
        subprocess.run(["cp", "-a", str(source), str(mount / "copy")], check=True)
        place.count(mount.calls())
        mount.umount()
        fs.lose()
        mount = fs.mount(*sole)
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
    assert files in elsewhere(fs, tmp_path), "what was written is not there"
    assert fs.fsck() == [] or place.sole


def elsewhere(fs: headless.Filesystem, base: Path) -> Iterator[headless.Tree]:
    """What another machine sees; where a store may answer with what is old, several others, some of whom may see nothing yet."""
    if not fs.place.sole:
        yield fs.look(base / "elsewhere", read_only=True)
    for number in range(LOOKS if fs.place.sole else 0):
        with contextlib.suppress(S3cfsError, ExceptionGroup):
            yield fs.look(base / f"elsewhere {number}", read_only=True)
