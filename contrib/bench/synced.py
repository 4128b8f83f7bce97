"""What an fsync takes that waits for the store (`--sync=remote`), with small packs in records and without, on a store that is far away.

    python -m contrib.bench.synced [--latency-ms 50] [--count 40] [--folder DIR] [--s3 rclone]

A filesystem without a kernel (`app/node.py` `open_node`); each round writes a file of 4 KiB and fsyncs it. The store is in this process and
answers after the latency; with --s3 it is `rclone serve s3` of this machine, and the latency is waited for before each call of it. Printed:
the median and the worst, in ms and in round trips.
"""
from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace

import trio

from s3cfs import limits
from s3cfs.app.node import NodeOptions, open_node
from s3cfs.backends.base import Backend
from s3cfs.backends.memory import MemoryBackend
from s3cfs.doors import Doors, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.formats import superblock
from s3cfs.history.commits import Options
from s3cfs.vfs.types import ROOT_CALLER
from tests.servers import rclone_server


def far(backend: Backend, latency_s: float) -> Backend:
    """The same backend, each call later."""
    for name in ("get", "put", "list", "stat"):
        def late(*arguments: object, _real: object = getattr(backend, name), **options: object) -> object:
            time.sleep(latency_s)
            return _real(*arguments, **options)  # type: ignore[operator]
        setattr(backend, name, late)
    return backend


@contextlib.contextmanager
def store(kind: str | None, latency_s: float) -> Iterator[Backend]:
    if kind is None:
        yield far(MemoryBackend(), latency_s)
    else:
        with rclone_server() as server:
            yield far(server.open(), latency_s)


async def fsyncs(backend: Backend, bounds: limits.Limits, folder: str, count: int) -> list[float]:
    """Seconds of each."""
    block, keyring, _ = superblock.create("bench", SystemRandomness(), True, bounds.chunk_min_bytes, bounds.chunk_avg_bytes,
                                          bounds.chunk_max_bytes, None, now_ns=time.time_ns())
    doors = Doors(SystemClock(), SystemRandomness(), TrioThreads(), SystemDisk(folder), bounds)
    found = []
    async with open_node(doors, backend, keyring, block, NodeOptions(commits=Options(sync_remote=True))) as node:
        for number in range(count):
            made = await node.vfs.create(1, b"%d" % number, 0o644, ROOT_CALLER)
            await node.vfs.write(made.ino, 0, random.randbytes(4096))
            began = time.monotonic()
            await node.vfs.fsync(made.ino)
            found.append(time.monotonic() - began)
            await node.vfs.release(made.ino)
    return found[5:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency-ms", type=float, default=50)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--folder")
    parser.add_argument("--s3", choices=["rclone"])
    options = parser.parse_args()
    for name, bounds in (("each pack an object", replace(limits.DEFAULTS, ride_max_bytes=0)), ("small packs ride", limits.DEFAULTS)):
        with store(options.s3, options.latency_ms / 1000) as backend, tempfile.TemporaryDirectory(dir=options.folder) as folder:
            took = [1000 * one for one in trio.run(fsyncs, backend, bounds, folder, options.count)]
        print(f"{name}: median {statistics.median(took):.0f} ms ({statistics.median(took) / options.latency_ms:.1f} round trips), "
              f"worst {max(took):.0f} ms")


if __name__ == "__main__":
    main()
