"""Filesystems for a test on each kind of store; all of it ended and unmounted afterwards."""
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.places import current
from tests.servers import Server, Store, moto_s3, rclone_s3  # noqa: F401  (fixtures)

from .kit import Filesystem

Make = Callable[..., Filesystem]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """make(server=None, name="fs") -> Filesystem, not yet made, on that server or on a folder."""
    with contextlib.ExitStack() as stack:
        def one(server: Store | None = None, name: str = "fs", passphrase: str | None = "correct horse battery staple") -> Filesystem:
            base = tmp_path / name
            if server is None:
                store = base / "store"
                store.mkdir(parents=True)
                made = Filesystem(base, f"local://{store}", passphrase=passphrase)
            else:
                made = Filesystem(base, server.fresh_url(), server.options, server.login, server.password, passphrase)
            stack.callback(made.close)
            return made

        yield one


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Store:
    """The store that was named (`make backends`), else a server that knows no create-only puts."""
    place = current()
    found: Store = request.getfixturevalue("rclone_s3") if place is None else place
    return found


@pytest.fixture
def local_fs(make: Make) -> Filesystem:
    """Made, on a folder."""
    return make().mkfs()


@pytest.fixture
def rclone_fs(make: Make, rclone_s3: Server) -> Filesystem:  # noqa: F811
    return make(rclone_s3).mkfs()


@pytest.fixture
def moto_fs(make: Make, moto_s3: Server) -> Filesystem:  # noqa: F811
    return make(moto_s3).mkfs()
