from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.zdb.server import FakeZdb, running
from tests.zdb.several import Servers, several


@pytest.fixture
def zdb_servers(tmp_path) -> Iterator[Callable[[int], Servers]]:
    """`zdb_servers(20)`: so many 0-dbs (several.py), real ones under `make zdb-real`."""
    folders = (tmp_path / f"zdbs-{number}" for number in itertools.count())
    with contextlib.ExitStack() as stack:
        yield lambda count: stack.enter_context(several(count, next(folders)))


@pytest.fixture(autouse=True)
def settled_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A repair that is to change the replicas waits no second for others who want to, too."""
    monkeypatch.setattr("s3cfs.backends.zdb.agree.SETTLES_S", 0.02)


@pytest.fixture
def fake_zdb() -> Iterator[FakeZdb]:
    """One fake with its switches, without an administrator's password, and nothing but its default namespace."""
    with running(1) as servers:
        yield servers[0]
