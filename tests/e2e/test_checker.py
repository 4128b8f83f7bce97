"""A mount whose store loses packs and changes their bytes behind its back; and what people are told of it, by the commands."""
from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3cfs import control
from s3cfs.errors import ExitCode

from .kit import Filesystem, until
from .test_refusals import refused

pytestmark = pytest.mark.mount
OPTIONS = {"checker": "on", "check-delays": "/".join(f"{number + 0.4}" for number in range(60)), "check-sample": "1",
           "lock-delay": "0.2", "lock-delay-most": "0.4", "checks-per-minute": "6000"}


@pytest.fixture
def watched_fs(tmp_path: Path) -> Iterator[Filesystem]:
    made = Filesystem(tmp_path / "fs", f"local://{tmp_path}/store", {"create": "", **OPTIONS}, passphrase=None)
    yield made
    made.close()


def packs(store: Path) -> list[Path]:
    return sorted(path for path in (store / "pack").glob("*/*") if path.is_file())


def test_what_was_lost_or_flipped_behind_its_back_comes_back_or_is_told(watched_fs: Filesystem, tmp_path: Path, seed: int) -> None:
    fs, rng, store = watched_fs.mkfs(), random.Random(seed), tmp_path / "store"
    mount = fs.mount()
    (mount.path / "a").write_bytes(rng.randbytes(3_000_000))
    mount.flush()
    pack, = packs(store)
    true = pack.read_bytes()
    pack.unlink()
    until(lambda: pack.exists() and pack.read_bytes() == true, "it comes back, byte for byte")
    pack.write_bytes(true[:1000] + b"\0\0" + true[1002:])
    until(lambda: pack.read_bytes() == true, "its bytes come back")
    until(lambda: mount.stat()["store"]["layers"]["checker"]["repaired"] == 2, "it is counted")
    seen = mount.stat()["store"]["layers"]["checker"]["seen"]
    assert seen["lost"] == 1 == seen["corrupt"] and mount.stat()["state"] == "ok"
    lost = f"pack/{pack.parent.name}/{pack.name}: it is not in the store: "
    assert f"{lost}put again from the local copy" in fs.s3cfs("ctl", "checker", mount.path)

    # delays of a live mount
    assert "  check-sample           1\n" in fs.s3cfs("ctl", "consistency", mount.path)
    changed = json.loads(fs.s3cfs("ctl", "consistency", "--json", mount.path, "lock-delay=0.6", "lock-delay-most=0.7", "check-sample=0.5"))
    layer = changed["layers"]["checker"]
    assert layer["status"]["delay_s"] == 0.6 and (layer["settings"]["lock-delay-most"], layer["settings"]["check-sample"]) == ("0.7", "0.5")
    refused(fs, "ctl", "consistency", mount.path, "lock-delay=51", code=ExitCode.CONFIG, says="lock-delay <= lock-delay-most")

    # what no local copy is left of; after a remount the log of decisions goes on
    mount.umount()
    mount = fs.mount()
    (mount.path / "b").write_bytes(rng.randbytes(3_000_000))
    mount.flush()
    control.call(control.find(str(mount.path)).socket, "drop-cache", {}, None)
    other, = set(packs(store)) - {pack}
    other.unlink()
    until(lambda: mount.stat()["state"] == "degraded", "it is noticed")
    assert str(mount.stat()["message"]).startswith("the store's layer checker: 1 object is lost or damaged there; pack/")
    assert "degraded: the store's layer checker" in fs.s3cfs("stat", mount.path) and "no local copy is left" in mount.log()
    said = json.loads(fs.s3cfs("ctl", "checker", "--json", "--last", "1000", mount.path))["decisions"]
    assert [entry["what"] for entry in said if "key" in entry] == ["repair", "repair", "find"]
    assert {"setting", "delay"} >= {entry["what"] for entry in said if "key" not in entry}
