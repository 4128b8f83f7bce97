from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3cfs.backends import probe
from tests.scenarios.kit import SPEED, World, world_before
from tests.servers import Server, rclone_s3  # noqa: F401  (fixture)


@pytest.fixture
def world(rclone_s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:  # noqa: F811
    monkeypatch.setattr(probe, "pause", lambda seconds: time.sleep(seconds / SPEED))
    with world_before(rclone_s3, tmp_path) as made:
        yield made
