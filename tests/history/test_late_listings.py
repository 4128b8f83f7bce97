"""A store whose listings may be old (its owner vouches that nobody else writes): what this machine has seen is asked for by key."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from s3cfs import ids
from s3cfs.app.node import NodeOptions
from s3cfs.backends.base import ObjectInfo
from s3cfs.backends.types import Capabilities
from s3cfs.errors import RolledBack
from tests.sim.doors import Bucket, SimStore

from .kit import Life, Site, content, filled, look, read_all, write_file

SOLE = NodeOptions(sole_writer=True)


@pytest.fixture(autouse=True)
def late(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Listings show no record above `upto`, and for so many reads the newest is not there either (`missing`)."""
    known = {"upto": 1 << 60, "missing": 0}
    real_list, real_get = SimStore.list, SimStore.get
    real: Callable[[SimStore], Capabilities] = vars(SimStore)["capabilities"].fget

    def listed(store: SimStore, prefix: str) -> Iterator[ObjectInfo]:
        for info in real_list(store, prefix):
            if not info.key.startswith("log/") or ids.parse_log_key(info.key)[3] <= known["upto"]:
                yield info

    def got(store: SimStore, key: str, offset: int = 0, size: int | None = None) -> bytes:
        if known["missing"] and key.startswith("log/") and ids.parse_log_key(key)[3] > known["upto"]:
            known["missing"] -= 1
            return real_get(store, "log/late", offset, size)           # NotFound
        return real_get(store, key, offset, size)

    def capabilities(store: SimStore) -> Capabilities:
        return replace(real(store), linearizable=False)

    monkeypatch.setattr(SimStore, "list", listed)
    monkeypatch.setattr(SimStore, "get", got)
    monkeypatch.setattr(SimStore, "capabilities", property(capabilities))
    return known


async def begin(life: Life) -> None:
    async with life.node(SOLE) as node:
        for name in "abcde":
            await write_file(node, name.encode(), content(ord(name)))
            await node.flush()


@pytest.mark.parametrize("missing", [0, 3])
def test_the_local_tip_is_found_by_its_key(late: dict[str, int], missing: int) -> None:
    site = Site(Bucket(create_only=False))
    site.live(begin)
    expected = site.live(look)
    assert expected is not None
    late["upto"], late["missing"] = expected[2] - 3, missing
    assert site.live(look) == expected

    async def goes_on(life: Life) -> None:
        async with life.node(SOLE) as node:
            await write_file(node, b"more", content(9))
            await node.flush()
            assert await read_all(node) == filled() | {b"more": content(9)}

    site.live(goes_on)
    late["upto"] = 1 << 60
    found = site.live(look, "new")
    assert found is not None and found[0] == filled() | {b"more": content(9)}, "it went on behind its own records"


def test_one_that_is_gone_is_missed(late: dict[str, int]) -> None:
    site = Site(Bucket(create_only=False))
    site.live(begin)
    expected = site.live(look)
    assert expected is not None
    for key in [key for key in site.bucket.objects if key.startswith("log/") and ids.parse_log_key(key)[3] > expected[2] - 3]:
        site.bucket.delete(key)
    with pytest.raises(RolledBack):
        site.live(look)
