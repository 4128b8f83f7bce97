"""Random operations on a folder by several processes at once, the way fsstress makes them: for what only hours bring to light.

    python -m tests.soak.stress FOLDER [--processes 4] [--seconds 60] [--seed 1]

Each process works in a folder of its own and now and then in another's. Errors that such work meets are part of it; any other one ends
it, and so does a file that is not what its only writer has written: `data-*` files are written by their own process alone, which keeps
a digest of each and looks at one now and then. Prints how often each operation was done.
"""
from __future__ import annotations

import argparse
import collections
import errno
import json
import mmap
import os
import random
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

EXPECTED = {errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR, errno.ENODATA, errno.EINVAL, errno.ELOOP,
            errno.EOPNOTSUPP, errno.EPERM, errno.ENXIO, errno.ENAMETOOLONG, errno.EMLINK}
FILE_MAX_BYTES = 1 << 20
ENTRIES_MAX = 400


class Process:
    def __init__(self, base: Path, number: int, processes: int, seed: int) -> None:
        self.base, self.number, self.processes = base, number, processes
        self.dice = random.Random(f"{seed} {number}")
        self.home = base / f"p{number}"
        self.home.mkdir(exist_ok=True)
        self.kept: dict[Path, tuple[int, int]] = {}         # size and checksum of what only this process writes
        self.counts: collections.Counter[str] = collections.Counter()
        self.operations: list[tuple[int, Callable[[], None]]] = [
            (8, self.create), (10, self.write), (6, self.truncate), (8, self.read), (6, self.rename), (3, self.link), (3, self.symlink),
            (8, self.unlink), (3, self.mkdir), (2, self.rmdir), (4, self.attributes), (2, self.xattr), (3, self.listing), (2, self.fsync),
            (2, self.mapped), (1, self.special), (5, self.keep), (5, self.look)]

    def run(self, seconds: float) -> None:
        weights, operations = zip(*self.operations, strict=True)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            operation = self.dice.choices(operations, weights)[0]
            self.counts[operation.__name__] += 1
            try:
                operation()
            except OSError as error:
                if error.errno not in EXPECTED:
                    raise
        for path in list(self.kept):
            self.compare(path)

    # ---------------------------------------------------------------- choices

    def folder(self) -> Path:
        number = self.number if self.dice.random() < 0.8 else self.dice.randrange(self.processes)
        folder = self.base / f"p{number}"
        for _ in range(self.dice.randrange(4)):
            folder = folder / f"d{self.dice.randrange(3)}"
        return folder

    def name(self) -> Path:
        return self.folder() / f"f{self.dice.randrange(ENTRIES_MAX // 8)}"

    def data(self) -> bytes:
        size = self.dice.choice((1, 100, 700, 4096, 30_000, self.dice.randrange(200_000)))
        return self.dice.randbytes(size) if self.dice.random() < 0.5 else (b"some words " * (size // 11 + 1))[:size]

    # ---------------------------------------------------------------- operations

    def create(self) -> None:
        self.name().write_bytes(self.data())

    def write(self) -> None:
        with self.name().open("r+b", buffering=0) as file:
            file.seek(self.dice.randrange(FILE_MAX_BYTES))
            file.write(self.data())

    def truncate(self) -> None:
        os.truncate(self.name(), self.dice.randrange(FILE_MAX_BYTES))

    def read(self) -> None:
        with self.name().open("rb") as file:
            file.seek(self.dice.randrange(FILE_MAX_BYTES))
            file.read(self.dice.randrange(1, FILE_MAX_BYTES))

    def rename(self) -> None:
        os.rename(self.name(), self.name())

    def link(self) -> None:
        os.link(self.name(), self.name(), follow_symlinks=False)

    def symlink(self) -> None:
        os.symlink("x" * self.dice.randrange(1, 1000), self.name())

    def unlink(self) -> None:
        self.name().unlink()

    def mkdir(self) -> None:
        (self.folder() / f"d{self.dice.randrange(3)}").mkdir()

    def rmdir(self) -> None:
        (self.folder() / f"d{self.dice.randrange(3)}").rmdir()

    def attributes(self) -> None:
        path = self.name()
        os.chmod(path, self.dice.choice((0o600, 0o644, 0o755)))
        os.utime(path, ns=(self.dice.randrange(10**18), self.dice.randrange(10**18)))

    def xattr(self) -> None:
        path, name = self.name(), f"user.x{self.dice.randrange(4)}"
        if self.dice.random() < 0.6:
            os.setxattr(path, name, self.data()[:5000])
        else:
            os.removexattr(path, name)

    def listing(self) -> None:
        for entry in os.scandir(self.folder()):
            entry.stat(follow_symlinks=False)

    def fsync(self) -> None:
        handle = os.open(self.name(), os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def mapped(self) -> None:
        with self.name().open("r+b") as file:
            size = os.fstat(file.fileno()).st_size
            if size:
                with mmap.mmap(file.fileno(), size) as memory:
                    at = self.dice.randrange(size)
                    try:
                        memory[at:at + 100] = b"m" * len(memory[at:at + 100])
                    except (IndexError, ValueError):
                        pass

    def special(self) -> None:
        path = self.folder() / f"q{self.dice.randrange(5)}"      # nobody opens these, which might wait for ever
        if self.dice.random() < 0.6:
            os.mkfifo(path)
        else:
            path.unlink()

    def keep(self) -> None:
        """A file that nobody else touches, written, appended to, or cut short."""
        path = self.home / f"data-{self.dice.randrange(30)}"
        what = self.dice.random()
        if path not in self.kept or what < 0.4:
            path.write_bytes(self.data())
        elif what < 0.8:
            with path.open("r+b", buffering=0) as file:
                file.seek(self.dice.randrange(self.kept[path][0] + 5000))
                file.write(self.data())
        else:
            os.truncate(path, self.dice.randrange(self.kept[path][0] + 5000))
        content = path.read_bytes()          # from the kernel's cache, which has just been given it
        self.kept[path] = len(content), zlib.crc32(content)

    def look(self) -> None:
        if self.kept:
            path = self.dice.choice(list(self.kept))
            if self.dice.random() < 0.5:
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            self.compare(path)

    def compare(self, path: Path) -> None:
        content = path.read_bytes()
        found = len(content), zlib.crc32(content)
        assert found == self.kept[path], f"{path}: size and checksum {found}, written {self.kept[path]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.number is not None:
        process = Process(args.folder, args.number, args.processes, args.seed)
        process.run(args.seconds)
        print(json.dumps(process.counts))
        return 0
    running = [subprocess.Popen([sys.executable, "-m", "tests.soak.stress", str(args.folder), "--processes", str(args.processes),
                                 "--seconds", str(args.seconds), "--seed", str(args.seed), "--number", str(number)],
                                stdout=subprocess.PIPE, text=True) for number in range(args.processes)]
    counts: collections.Counter[str] = collections.Counter()
    failed = False
    for one in running:
        said, _ = one.communicate()
        failed = failed or one.returncode != 0
        counts.update(json.loads(said) if said else {})
    print(json.dumps(counts))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
