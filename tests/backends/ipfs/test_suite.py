"""The contract, as IPFS blocks: on memory, and on two S3 servers, one of each tier."""
from __future__ import annotations

from collections.abc import Iterator

import pytest

from s3cfs.backends.base import Backend
from s3cfs.backends.ipfs.datastore import Datastore
from s3cfs.backends.ipfs.objects import IpfsBackend
from s3cfs.backends.memory import MemoryBackend
from s3cfs.backends.registry import open_backend
from tests.backends.suite import BackendSuite
from tests.servers import Server


def opened(server: Server, **options: str) -> Backend:
    url = server.fresh_url().replace("s3c://", "ipfs+s3://")
    return open_backend(url, {**server.options, **options}, login=server.login, password=server.password)


class TestOnMemory(BackendSuite):
    create_only = True

    @pytest.fixture
    def backend(self) -> Backend:
        return IpfsBackend(Datastore(MemoryBackend(), "some/where", "/"), "main", "ipfs+memory://here")


class TestOnMoto(BackendSuite):
    create_only = True
    many = 60

    @pytest.fixture
    def backend(self, moto_s3: Server) -> Iterator[Backend]:
        self.secret = moto_s3.password
        backend = opened(moto_s3)
        yield backend
        backend.close()


@pytest.mark.soak
class TestOnRclone(BackendSuite):
    create_only = False

    @pytest.fixture
    def backend(self, rclone_s3: Server) -> Iterator[Backend]:
        self.secret = rclone_s3.password
        backend = opened(rclone_s3, mountpoint="/")
        yield backend
        backend.close()
