from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from s3cfs.backends.base import Backend
from tests.places import Place, here


@pytest.fixture
def place() -> Place:
    return here()


@pytest.fixture
def backend(place: Place, tmp_path: Path) -> Iterator[Backend]:
    """At an empty place."""
    made = place.seen(tmp_path / "state")
    made.create()
    yield made
    made.close()
