"""The contract, as IPFS blocks: on memory, and on two S3 servers, one of each tier."""
from __future__ import annotations

from collections.abc import Iterator

import pytest

from s3cfs.backends.base import Backend
from s3cfs.backends.ipfs.datastore import Datastore
from s3cfs.backends.ipfs.objects import IpfsBackend
from s3cfs.backends.memory import MemoryBackend
from s3cfs.backends.registry import open_backend
from s3cfs.errors import BucketMissing, Denied, StoreError
from tests.backends.suite import BackendSuite
from tests.servers import Server


def opened(server: Server, **options: str) -> Backend:
    url = server.fresh_url().replace("s3c://", "ipfs+s3://")
    return open_backend(url, {**server.options, **options}, login=server.login, password=server.password)


@pytest.mark.parametrize(("changes", "kind", "text"), [
    ({"bucket": "no-such-bucket"}, BucketMissing, "no bucket 'no-such-bucket'"), ({"password": "wrong"}, Denied, "backend-password"),
    ({"login": "wrong"}, Denied, "backend-login")])
def test_the_usual_mistakes(moto_s3: Server, changes: dict[str, str], kind: type[StoreError], text: str) -> None:
    known = {"bucket": moto_s3.bucket, "login": moto_s3.login, "password": moto_s3.password, **changes}
    backend = open_backend(f"ipfs+s3://{moto_s3.host}/{known.pop('bucket')}/node", moto_s3.options, **known)
    for ask in (backend.check, lambda: backend.put("super/0", b"x"), lambda: backend.get("super/0"), lambda: list(backend.list(""))):
        with pytest.raises(kind, match=text) as caught:
            ask()
        assert "\n" not in str(caught.value) and "s3cfs.names" not in caught.value.key
    backend.close()


class TestOnMemory(BackendSuite):
    create_only = True
    many = 300                     # of which a listing gets the entries in several rounds

    @pytest.fixture
    def backend(self) -> Backend:
        return IpfsBackend(Datastore(MemoryBackend(), "some/where", "/"), "main", "ipfs+memory://here")


class TestOnRclone(BackendSuite):
    create_only = False
    many = 60

    @pytest.fixture
    def backend(self, rclone_s3: Server) -> Iterator[Backend]:
        self.secret = rclone_s3.password
        backend = opened(rclone_s3, mountpoint="/")
        yield backend
        backend.close()


@pytest.mark.soak
class TestOnMoto(BackendSuite):
    create_only = True

    @pytest.fixture
    def backend(self, moto_s3: Server) -> Iterator[Backend]:
        self.secret = moto_s3.password
        backend = opened(moto_s3)
        yield backend
        backend.close()
