"""Everyone who joins the suite."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from s3cfs.backends.base import Backend
from s3cfs.backends.faulty import FaultyBackend
from s3cfs.backends.local import LocalBackend
from s3cfs.backends.memory import MemoryBackend
from s3cfs.backends.recorder import RecorderBackend
from s3cfs.backends.registry import open_backend
from tests.backends.suite import BackendSuite
from tests.servers import Server


class TestMemory(BackendSuite):
    create_only = True

    @pytest.fixture
    def backend(self) -> Backend:
        return open_backend("memory://")


class TestMemoryWithoutCreateOnly(BackendSuite):
    @pytest.fixture
    def backend(self) -> Backend:
        return open_backend("memory://", {"no-create-only": ""})


class TestLocal(BackendSuite):
    create_only = True

    @pytest.fixture
    def backend(self, tmp_path: Path) -> Backend:
        return open_backend(f"local://{tmp_path}/store", {"create": ""})


class TestRclone(BackendSuite):
    secret = "test-password"

    @pytest.fixture
    def backend(self, rclone_s3: Server) -> Iterator[Backend]:
        backend = rclone_s3.open()
        yield backend
        backend.close()


class TestRcloneTls(BackendSuite):
    many = 50

    @pytest.fixture
    def backend(self, rclone_tls: Server) -> Iterator[Backend]:
        backend = rclone_tls.open()
        yield backend
        backend.close()


class TestMoto(BackendSuite):
    create_only = True

    @pytest.fixture
    def backend(self, moto_s3: Server) -> Iterator[Backend]:
        self.secret = moto_s3.password
        backend = moto_s3.open()
        yield backend
        backend.close()


class TestAws(BackendSuite):
    """The AWS scheme, with its endpoint overridden as AWS's own tools allow, and credentials from the environment."""

    create_only = True
    many = 50

    @pytest.fixture
    def backend(self, moto_s3: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{moto_s3.host}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", moto_s3.login)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", moto_s3.password)
        place = moto_s3.fresh_url().partition("://")[2].partition("/")[2]
        backend = open_backend(f"s3://us-east-1/{place}", {"addressing": "path"})
        yield backend
        backend.close()


class TestRecorder(BackendSuite):
    create_only = True

    @pytest.fixture
    def backend(self) -> Backend:
        return RecorderBackend(MemoryBackend())


class TestFaultyWithoutFaults(BackendSuite):
    create_only = True

    @pytest.fixture
    def backend(self) -> Backend:
        return FaultyBackend(MemoryBackend())


class TestAllWrappers(BackendSuite):
    create_only = True

    @pytest.fixture
    def backend(self, tmp_path: Path) -> Backend:
        local = LocalBackend(str(tmp_path / "store"))
        local.create()
        return RecorderBackend(FaultyBackend(RecorderBackend(local)))
