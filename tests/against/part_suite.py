"""The whole suite of the contract."""
from __future__ import annotations

import pytest

from s3cfs.backends.base import Backend
from tests.backends.suite import BackendSuite
from tests.places import Place


class TestSuite(BackendSuite):
    @pytest.fixture(autouse=True)
    def _as_probed(self, place: Place) -> None:
        self.create_only = place.create_only
        self.secret = place.password
        if place.short:
            self.many = 50

    @pytest.fixture
    def probed(self, backend: Backend, place: Place) -> Backend:
        """One round, as the suite has it, would not find every store that looks first and writes then."""
        backend.assume_create_only(place.create_only)
        return backend
