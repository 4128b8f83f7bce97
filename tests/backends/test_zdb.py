"""zdb:// over several 0-dbs: fakes (tests/zdb/server.py), or real ones under `make zdb-real`."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from s3cfs.backends.base import Backend
from s3cfs.backends.registry import open_backend
from tests.backends.suite import BackendSuite
from tests.zdb.several import PASSWORD
from tests.zdb.store import ZdbStore, zdb_server


@pytest.fixture(scope="module")
def store() -> Iterator[ZdbStore]:
    """For several tests: each has a prefix of its own."""
    with zdb_server() as made:
        yield made


class TestZdb(BackendSuite):
    create_only = False
    secret = PASSWORD
    many = 100

    @pytest.fixture
    def backend(self, store: ZdbStore) -> Iterator[Backend]:
        with closing(open_backend(store.fresh_url())) as backend:
            yield backend
