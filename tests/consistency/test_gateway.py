"""The checker on storjs3://, through a gateway that loses, keeps and refuses: the whole way down to HTTP, in real time."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from s3cfs.backends.registry import open_backend
from s3cfs.doors import Doors, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.errors import StoreError
from s3cfs.limits import DEFAULTS
from s3cfs.remote import Remote
from tests.gateway import Gateway
from tests.servers import rclone_server

PACK, RECORD, CLAIM = "pack/aa/1-aa", "log/main/0/1-aa/0/0/1", "claim/main/1-aa"
OPTIONS = {"lock-delay": "0.1", "lock-delay-most": "0.4", "check-delays": "0.2/0.4/0.8/1.2/1.6/2/2.4/3/3.6", "check-sample": "1",
           "checks-per-minute": "6000", "busy-per-minute": "2", "shards": "4"}


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with rclone_server() as server, Gateway(server) as made:
        yield made
        assert made.errors_inside == []


@pytest.mark.soak
def test_a_gateway_that_loses_keeps_and_refuses(gateway: Gateway, tmp_path: Path) -> None:
    server = gateway.server
    doors = Doors(SystemClock(), SystemRandomness(), TrioThreads(), SystemDisk(str(tmp_path)), replace(DEFAULTS, store_deadline_s=30.0))
    backend = open_backend(gateway.url("place/"), {**server.options, **OPTIONS}, login=server.login, password=server.password)
    behind = open_backend(f"s3c://{server.host}/{server.bucket}/place/", server.options, login=server.login, password=server.password)

    def lose() -> list[str]:
        """Past the gateway."""
        keys = [info.key for info in behind.list("") if not info.key.startswith("layout/")]
        assert len(keys) == 2
        behind.delete_many(keys)
        gateway.rescan()
        return sorted(keys)

    async def original(key: str) -> bytes:
        return b"a pack" * 20_000

    async def until(condition: Callable[[], bool]) -> None:
        with trio.fail_after(15):
            while not condition():  # noqa: ASYNC110
                await trio.sleep(0.05)

    async def main() -> None:
        async with Remote(backend, doors).running() as remote:
            remote.originals.add("pack", original)
            backend.create()
            backend.assume_create_only(True)

            def told() -> dict[str, object]:
                found = remote.stack.status()["checker"]
                return {**found, **found["seen"], **found["done"]}

            await remote.put(PACK, b"a pack" * 20_000, only_if_absent=True)
            await remote.put(RECORD, b"a record", only_if_absent=True)
            lost = await trio.to_thread.run_sync(lose)
            await until(lambda: told()["repaired"] == 2)
            assert sorted(info.key for info in behind.list("") if info.key in lost) == lost
            await remote.put(CLAIM, b"a claim")
            gateway.deletes_stay(count=1)
            await remote.delete(CLAIM)
            await until(lambda: told()["deleted_again"] == 1)
            assert CLAIM not in {info.key for info in behind.list("")}
            gateway.throttle(retry_after=0.05, count=2, only="put")
            before = told()["busy"]
            try:
                await remote.put("super/1", b"a superblock")
            except StoreError as error:
                raise AssertionError(str(error)) from error
            assert told()["busy"] == before + 2  # type: ignore[operator]
            assert told()["delay_s"] == 0.4 and [entry for entry in remote.stack.decisions("checker") if entry["what"] == "delay"]

    trio.run(main)
