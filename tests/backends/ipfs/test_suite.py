"""The contract, as IPFS blocks: on two S3 servers, one of each tier."""
from __future__ import annotations

from collections.abc import Iterator

import pytest

from s3cfs.backends.base import Backend
from s3cfs.backends.registry import open_backend
from tests.backends.suite import BackendSuite
from tests.servers import Server


def opened(server: Server, **options: str) -> Backend:
    url = server.fresh_url().replace("s3c://", "ipfs+s3://")
    return open_backend(url, {**server.options, **options}, login=server.login, password=server.password)


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
