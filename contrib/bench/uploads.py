"""How much of what its connections give a filesystem's uploads use, on a store that is far away and not fast.

    python -m contrib.bench.uploads [--latency-ms 50] [--mib-s 20] [--connections 8] [--mib 1024] [--folder DIR]

The store is in this process, so that no server takes the processor away: each put waits for the latency, then takes its body at so many
MiB/s a connection in pieces, and forgets it. First as many bare connections as there are uploads at once put bodies of a pack's size, one
after the other. Then a whole filesystem without a kernel (`app/node.py` `open_node`) is given random files, which are chunked, hashed,
sealed, journalled and synced as ever: once while the store takes no pack, and then the time is taken until all is in the store ("backlog"),
and once more while it takes them ("beside"), where the processor has its say. Printed: MiB/s, the ratio to the bare connections and to
the line (connections x MiB/s), and the anonymous memory of this process at its peak. The disk is that of --folder.
"""
from __future__ import annotations

import argparse
import os
import random
import tempfile
import threading
import time
from functools import partial

import trio

from s3cfs import limits
from s3cfs.app.memory import bound_the_allocator
from s3cfs.app.node import Node, NodeOptions, open_node
from s3cfs.backends.base import Body, Degraded
from s3cfs.backends.memory import MemoryBackend
from s3cfs.backends.progress import moved
from s3cfs.doors import Doors, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.formats import superblock
from s3cfs.vfs.types import ROOT_CALLER

MIB = 1 << 20
PIECE = 256 << 10
FILE = 64 * MIB


class Far(MemoryBackend):
    """Keeps everything but packs."""

    def __init__(self, latency_s: float, bytes_per_s: float) -> None:
        super().__init__()
        self._latency_s, self._bytes_per_s = latency_s, bytes_per_s
        self._lock = threading.Lock()
        self.pack_bytes = 0
        self.open = threading.Event()
        self.open.set()

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> Degraded | None:
        while key.startswith("pack/") and not self.open.wait(1):
            moved()
        time.sleep(self._latency_s)
        began, sent = time.monotonic(), 0
        while sent < len(data):
            sent = min(len(data), sent + PIECE)
            time.sleep(max(0.0, began + sent / self._bytes_per_s - time.monotonic()))
            moved()
        if not key.startswith("pack/"):
            return super().put(key, data, only_if_absent)
        with self._lock:
            self.pack_bytes += len(data)
        return None


def bare(store: Far, connections: int, total: int, size: int) -> float:
    """MiB/s."""
    body = bytes(size)

    def send() -> None:
        for number in range(max(1, total // size // connections)):
            store.put(f"pack/{number}", body)

    threads = [threading.Thread(target=send) for _ in range(connections)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return store.pack_bytes / MIB / (time.monotonic() - began)


class Watched(threading.Thread):
    """The most anonymous memory, looked at twenty times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most_mib, self._over = 0.0, threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.05):
            with open("/proc/self/status") as status:
                self.most_mib = max(self.most_mib, *(int(line.split()[1]) / 1024 for line in status if line.startswith("RssAnon:")))

    def stop(self) -> float:
        self._over.set()
        self.join()
        return self.most_mib


async def write(node: Node, name: str, total: int) -> float:
    """MiB/s."""
    rng, began = random.Random(name), time.monotonic()
    for number in range(max(1, total // FILE)):
        made = await node.vfs.create(1, f"{name} {number}".encode(), 0o644, ROOT_CALLER)
        for at in range(0, min(FILE, total), MIB):
            await node.vfs.write(made.ino, at, rng.randbytes(MIB))
        await node.vfs.flush(made.ino)
        await node.vfs.release(made.ino)
    await node.commits.durable()
    return total / MIB / (time.monotonic() - began)


async def filesystem(store: Far, bounds: limits.Limits, total: int, folder: str, by_hand: float, line: float) -> None:
    block, keyring, _ = superblock.create("bench", SystemRandomness(), True, bounds.chunk_min_bytes, bounds.chunk_avg_bytes,
                                          bounds.chunk_max_bytes, None, now_ns=time.time_ns())
    doors = Doors(SystemClock(), SystemRandomness(), TrioThreads(), SystemDisk(folder), bounds)
    async with open_node(doors, store, keyring, block, NodeOptions()) as node:
        for name in ("backlog", "beside"):
            began, before = time.monotonic(), store.pack_bytes
            if name == "backlog":
                store.open.clear()
            written = await write(node, name, total)
            if name == "backlog":
                store.open.set()
                began = time.monotonic()
            await node.flush()
            rate = (store.pack_bytes - before) / MIB / (time.monotonic() - began)
            print(f"{name}: written with {written:.1f} MiB/s, sent with {rate:.1f} MiB/s, {rate / by_hand:.2f} of the bare connections, "
                  f"{rate / line:.2f} of the line", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Uploads of a whole filesystem against bare connections.")
    parser.add_argument("--latency-ms", type=float, default=50)
    parser.add_argument("--mib-s", type=float, default=20, help="of each connection")
    parser.add_argument("--connections", type=int, default=limits.DEFAULTS.uploads_at_once)
    parser.add_argument("--mib", type=int, default=1024, help="how much is written")
    parser.add_argument("--folder", help="where the local state is (default: a temporary folder)")
    args = parser.parse_args()
    bound_the_allocator()
    bounds = limits.Limits(uploads_at_once=args.connections)
    line = args.connections * args.mib_s
    far = partial(Far, args.latency_ms / 1000, args.mib_s * MIB)
    by_hand = bare(far(), args.connections, args.mib * MIB // 2, bounds.pack_target_bytes + bounds.chunk_avg_bytes // 2)
    print(f"line {line:.0f} MiB/s; {args.connections} bare connections {by_hand:.1f} MiB/s, {by_hand / line:.2f} of the line", flush=True)
    watched = Watched()
    watched.start()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        trio.run(filesystem, far(), bounds, args.mib * MIB, os.path.join(folder, "state"), by_hand, line)
    print(f"at most {watched.stop():.0f} MiB of anonymous memory")


if __name__ == "__main__":
    main()
