"""How fast the Reed-Solomon coder of 0-db stores is on one core.

    python -m contrib.bench.coder [--code 16+4] [--seconds 1] [--json]

MB/s of the object's data: the parity of an object made (encode); its lost data shards made again, as many as there is parity, a pattern
of losses that came before, and one that did not. Beside it what zlib.crc32 and a copy of the same data do in the same run, and the
ratio to crc32: other work on the machine changes the figures, and the ratio less. CPU time of the thread, the best of all rounds.
"""
from __future__ import annotations

import argparse
import json
import random
import time
import zlib
from collections.abc import Callable

from s3cfs.backends.zdb.coder import Coder

SIZES = (160 << 10, 1 << 20, 6656 << 10, (6656 << 10) + 5, 64 << 20)


def best(work: Callable[[], object], seconds: float) -> float:
    """The least time that it took, in seconds."""
    until, least = time.monotonic() + seconds, float("inf")
    while time.monotonic() < until:
        begun = time.thread_time()
        work()
        least = min(least, time.thread_time() - begun)
    return least


def measure(k: int, m: int, size: int, seconds: float) -> dict[str, float]:
    picked = random.Random(1)
    coder, data = Coder(k, m), picked.randbytes(size)
    each = coder.shard_bytes(size)
    shards = dict(enumerate([*coder.slices(data), *coder.encode(data)]))

    def rebuild(lost: list[int]) -> None:
        coder.rebuild({index: shard for index, shard in shards.items() if index not in lost}, lost, each)

    took = {"encode": best(lambda: coder.encode(data), seconds),
            "rebuild": best(lambda: rebuild(list(range(min(k, m)))), seconds),
            "rebuild, other losses each time": best(lambda: rebuild(picked.sample(range(k), min(k, m))), seconds),
            "crc32": best(lambda: zlib.crc32(data), seconds / 4),
            "copy": best(lambda: bytearray(data), seconds / 4)}
    return {name: size / 1e6 / max(time_s, 1e-9) for name, time_s in took.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--code", default="16+4")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    k, m = map(int, asked.code.split("+"))
    found = {size: measure(k, m, size, asked.seconds) for size in SIZES}
    if asked.json:
        print(json.dumps({"code": asked.code, "mb_per_s": found}))
        return 0
    names = list(next(iter(found.values())))
    print(f"| {asked.code}, bytes | {' | '.join(f'{name}, MB/s' for name in names)} |\n|---|{'---|' * len(names)}")
    for size, figures in found.items():
        print(f"| {size:,} | " + " | ".join(f"{value:,.0f} ({value / figures['crc32']:.2f})" for value in figures.values()) + " |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
