"""A backend that s3cfs has never heard of, with every oddity that it allows for: a whole life, by the commands."""
from __future__ import annotations

import json
import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3cfs.errors import ExitCode
from tests.third.install import install
from tests.third.odd_backend import LARGEST_BYTES, OddBackend

from .kit import REPOSITORY, Filesystem, Mount, until
from .manifest import assert_same, manifest
from .test_refusals import no_mount, refused

pytestmark = [pytest.mark.mount, pytest.mark.slow]
VOUCHED = "--sole-writer"


@pytest.fixture
def odd_fs(tmp_path: Path) -> Iterator[Filesystem]:
    plugin = install(tmp_path / "plugin")
    made = Filesystem(tmp_path / "fs", f"odd://{tmp_path}/store", {"late": "2"}, env={"PYTHONPATH": f"{REPOSITORY}:{plugin}"})
    yield made
    made.close()


def fill(root: Path, rng: random.Random) -> None:
    for number in range(40):
        (root / f"small {number}").write_bytes(rng.randbytes(rng.randint(0, 9000)))
    (root / "folder").mkdir()
    for number in range(3):
        (root / "folder" / f"large {number}").write_bytes(rng.randbytes(3_000_000))
    (root / "folder" / "zeros").write_bytes(bytes(5_000_000))
    with (root / "folder" / "large 1").open("r+b") as file:
        file.seek(1_234_567)
        file.write(b"in the middle")
    os.rename(root / "small 3", root / "folder" / "renamed")
    os.setxattr(root / "small 4", "user.note", b"kept")


def wait_until_settled(root: Path) -> None:
    """What the owner of such a store vouches for, before another machine uses it: that it has stopped showing old answers."""
    store = OddBackend(str(root))
    while any((root / "fresh").iterdir()):
        list(store.list(""))


def layers(mount: Mount) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = mount.stat()["store"]["layers"]
    return found


def test_a_life_on_an_odd_store(odd_fs: Filesystem, tmp_path: Path, seed: int):
    fs, store = odd_fs, tmp_path / "store"
    fs.mkfs("--label", "odd")
    no_mount(fs, ExitCode.UNSUPPORTED, "--sole-writer")
    mount = fs.mount(VOUCHED)
    fill(mount.path, random.Random(seed))
    mount.flush()
    told = layers(mount)
    assert list(told) == ["pieces", "settling", "hold", "shards"] and told["shards"] == {"shards": 3}
    assert mount.stat()["store"]["tier"] == "sole" and mount.stat()["state"] == "ok"

    # stored, but degraded
    (store / "short").touch()
    (mount / "while short").write_bytes(b"x" * 5000)
    mount.flush()
    found = mount.stat()
    assert (found["state"], found["message"]) == ("degraded", "stored, but degraded: one copy of three is missing")
    assert found["store"]["degraded"]["reason"] == "one copy of three is missing" and sum(found["store"]["degraded"]["puts"].values()) > 0
    assert "degraded: stored, but degraded: one copy" in fs.s3cfs("stat", mount.path)
    (store / "short").unlink()

    # a layer's own setting, while it runs
    assert "hold: hold-ms=5\n" in fs.s3cfs("ctl", "layer", mount.path)
    assert json.loads(fs.s3cfs("ctl", "layer", "--json", mount.path, "hold", "hold-ms=1")) == {"layers": {"hold": {"hold-ms": "1"}}}
    assert layers(mount)["hold"]["hold_ms"] == 1 and "hold ms 1" in fs.s3cfs("stat", mount.path)
    refused(fs, "ctl", "layer", mount.path, "hold", "hold-ms=soon", code=ExitCode.CONFIG, says="hold-ms is a number up to 1000")
    refused(fs, "ctl", "layer", mount.path, "hold", "speed=1", code=ExitCode.CONFIG, says="hold-ms")
    refused(fs, "ctl", "layer", mount.path, "lock", code=ExitCode.CONFIG, says="hold")

    until(lambda: "state=degraded" in mount.log(), "the log says it")
    assert mount.log().count("state=degraded") == 1, "once"

    # again, with local state, though the store does not show yet how far it came
    expected = manifest(mount.path)
    folder = mount.state / "backend"
    mount.umount()
    assert json.loads((folder / "shards.json").read_text()) == {"shards": 3} and stat.S_IMODE(folder.stat().st_mode) == 0o700
    mount = fs.mount(VOUCHED)
    assert_same(expected, manifest(mount.path))
    (mount / "later").write_bytes(b"later")
    expected = manifest(mount.path)
    mount.umount()

    # and without
    wait_until_settled(store)
    fs.lose()
    mount = fs.mount(VOUCHED)
    assert_same(expected, manifest(mount.path))
    assert (mount.state / "backend" / "shards.json").exists()
    mount.umount()
    wait_until_settled(store)
    fs.fsck()
    fs.fsck(cache="cache")
    assert json.loads(fs.s3cfs("debug", "dump", "--json", fs.url, "super/1"))["chunk_max"] == LARGEST_BYTES // 2
    sizes = [file.stat().st_size for file in (store / "objects").iterdir()]
    assert max(sizes) <= LARGEST_BYTES and len(sizes) > 20
    assert all(file.name.startswith(("shard0", "shard1", "shard2", "shardmap")) for file in (store / "objects").iterdir())
