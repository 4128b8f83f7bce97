"""Every test: no settings of the machine it runs on, and seeds that are the same each time.

S3CFS_TEST_RANDOM=1 (`make soak`): other seeds each time, those of properties (hypothesis) too. A failure prints how to have it again:
S3CFS_TEST_SEED=N for the `seed` of a test, `@reproduce_failure` for a property.
"""
from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

from tests.places import current

RANDOM = os.environ.get("S3CFS_TEST_RANDOM") == "1"
SEED = int(os.environ.get("S3CFS_TEST_SEED") or (secrets.randbits(32) if RANDOM else 1))

settings.register_profile("fixed", derandomize=True, database=None)
settings.register_profile("random", print_blob=True)
settings.load_profile("random" if RANDOM else "fixed")


def pytest_report_header() -> str:
    return f"s3cfs: S3CFS_TEST_SEED={SEED}"


@pytest.fixture
def seed() -> int:
    """For anything random in a test."""
    return SEED


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No S3CFS_*, AWS_* or proxy of the caller; a home of its own; who goes to another folder comes back."""
    monkeypatch.chdir(Path(__file__).parent.parent)
    for name in list(os.environ):
        if (name.startswith(("S3CFS_", "AWS_")) and not name.startswith("S3CFS_TEST_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "CREDENTIALS_DIRECTORY", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    return home


def fuse_missing() -> str:
    """Why no real mount can be made here, or ""."""
    if not os.path.exists("/dev/fuse"):
        return "no /dev/fuse"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse is not for this user"
    if os.geteuid() != 0 and not shutil.which("fusermount3"):
        return "no fusermount3"
    return ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "soak" not in config.option.markexpr:
        for item in items:
            if item.get_closest_marker("soak") and current() is None:
                item.add_marker(pytest.mark.skip(reason="takes minutes (-m soak)"))
    missing = fuse_missing()
    if missing:
        skip = pytest.mark.skip(reason=f"needs a real mount: {missing}")
        for item in items:
            if item.get_closest_marker("mount"):
                item.add_marker(skip)
