"""zdb:// over several 0-dbs: fakes (tests/zdb/server.py), or real ones under `make zdb-real`."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from s3cfs.backends.base import Backend
from s3cfs.backends.registry import open_backend
from tests.backends.suite import BackendSuite
from tests.zdb.several import PASSWORD, several

SERVERS, DATA, PARITY = 7, 4, 2


@pytest.fixture(scope="module")
def servers_list(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of a store that is made, for several tests: each has a prefix of its own."""
    folder = tmp_path_factory.mktemp("zdb")
    with several(SERVERS, folder) as servers:
        path = servers.write_list(folder / "zdb.toml", data=DATA, parity=PARITY, domains=4)
        backend = open_backend(f"zdb://{path}")
        backend.create()
        backend.close()
        yield path


class TestZdb(BackendSuite):
    create_only = False
    secret = PASSWORD
    many = 100

    @pytest.fixture
    def backend(self, servers_list: Path, request: pytest.FixtureRequest) -> Iterator[Backend]:
        backend = open_backend(f"zdb://{servers_list}/{abs(hash(request.node.name))}")
        yield backend
        backend.close()
