"""The tenth year: a million records, a million files, ten million chunks, mounted from the store alone."""
from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest
import trio

from s3cfs.app.node import NodeOptions, open_node
from s3cfs.backends.recorder import RecorderBackend
from s3cfs.history.log import Host
from tests.history.kit import KEYRING, SUPERBLOCK, content, write_file
from tests.loopmeter import measure
from tests.oldstore import old_store, on_disk

from .grown import grow

RECORDS, EPOCHS, MILLION = 1_000_000, 3_650, 1_000_000
MOST_REQUESTS, MOST_S, MOST_MIB = 40, 0.05, 250


def anonymous_mib() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) >> 10


@pytest.mark.soak
@pytest.mark.parametrize("chunks", [MILLION, 10 * MILLION])
def test_a_mount_of_an_old_store(chunks: int, tmp_path: Path) -> None:
    store = old_store(KEYRING, RECORDS, EPOCHS, lambda doors, path: grow(doors, path, None, MILLION, chunks))
    before = peak = anonymous_mib()

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, anonymous_mib())
            await trio.sleep(0.1)

    async def mount(what: str) -> None:
        backend, began = RecorderBackend(store), time.monotonic()
        options = NodeOptions(host=Host("boot", "ns", 1, 1), process_alive=lambda host: False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            async with measure() as meter:
                async with open_node(on_disk(str(tmp_path / "local")), backend, KEYRING, SUPERBLOCK, options) as node:
                    took_s, calls = time.monotonic() - began, backend.take()
                    assert node.meta.counters.inodes > MILLION
                    await write_file(node, what.encode(), content(len(what), 600))
                    await node.flush()
                parts = sum(call.operation == "get" and call.kind == "checkpoint" and "manifest" not in call.key for call in calls)
                print(f"\n{what}: {took_s:.1f} s, {len(calls) - parts} requests besides {parts} parts, "
                      f"{peak - before} MiB more than {before}; {meter.report()}")
                assert len(calls) - parts < MOST_REQUESTS, Counter((call.operation, call.kind) for call in calls)
                assert meter.longest_s < MOST_S, meter.report()
            nursery.cancel_scope.cancel()

    async def main() -> None:
        await mount("from the store alone")
        await mount("once more")

    trio.run(main)
    assert peak - before < MOST_MIB
