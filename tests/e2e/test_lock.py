"""A real mount whose keys rest after each write: killed, mounted again, asked for its settings."""
from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from .kit import Filesystem

pytestmark = pytest.mark.mount
OPTIONS = {"create": "", "consistency-lock": "on", "lock-delay": "0.2", "lock-delay-most": "0.2", "lock-jitter": "0"}


def test_a_mount_with_the_lock_is_killed_and_goes_on(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    fs = Filesystem(tmp_path / "fs", f"local://{tmp_path}/store", OPTIONS, passphrase=None).mkfs()
    try:
        mount = fs.mount()
        data = rng.randbytes(3_000_000)
        (mount.path / "a").write_bytes(data)
        mount.flush()
        fs.s3cfs("ctl", "drop-cache", mount.path)
        assert (mount.path / "a").read_bytes() == data
        told = mount.stat()["store"]["layers"]["consistency"]
        assert told["mode"] == "block" and told["delay_s"] == 0.2 and told["known"] >= 3 and not told["not_kept"]
        assert not any(told[name] for name in ("stale", "ghosts", "lost", "corrupt", "clashes")), told
        changed = json.loads(fs.s3cfs("ctl", "consistency", "--json", mount.path, "lock-mode=warn", "lock-memory=300"))
        assert changed["layers"]["consistency"]["settings"]["lock-memory"] == "300"
        mount.kill()
        mount = fs.mount()
        assert (mount.path / "a").read_bytes() == data
        assert mount.stat()["store"]["layers"]["consistency"]["restored"] >= 3
        mount.umount()
    finally:
        fs.close()
