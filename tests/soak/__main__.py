"""Random work on a real mount and the same on a plain folder; after each round something happens to the mount, then both are compared.

What happens: a flush, a dropped cache, an unmount, an unmount and the loss of all local state, or SIGKILL after a flush (what was flushed
must be there afterwards, exactly). The seed is printed; the same seed does the same work.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROUND_OPERATIONS = 300
FILE_MAX_BYTES = 4 << 20
ENTRIES_MAX = 1500


class Soak:
    def __init__(self, work: Path, rng: random.Random) -> None:
        self.work, self.rng = work, rng
        self.mnt, self.plain, self.cache = work / "mnt", work / "plain", work / "cache"
        self.url = f"local://{work}/store"
        for folder in (self.mnt, self.plain, work / "store"):
            folder.mkdir()
        self.environ = {**os.environ, "S3CFS_CACHEDIR": str(self.cache), "S3CFS_PASSPHRASE": "soak"}
        self.pid = 0
        self.names = 0

    def s3cfs(self, *argv: str) -> str:
        done = subprocess.run([sys.executable, "-m", "s3cfs", *argv], env=self.environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"s3cfs {' '.join(argv)}: exit code {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def mount(self) -> None:
        self.s3cfs("mount", self.url, str(self.mnt))
        found: dict[str, Any] = json.loads(self.s3cfs("stat", "--json", str(self.mnt)))
        self.pid = int(found["pid"])

    def kill(self) -> None:
        """End the one process that this run started, and see it end."""
        handle = os.pidfd_open(self.pid)
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        import select
        select.select([handle], [], [])
        os.close(handle)

    def both(self, *parts: str) -> tuple[Path, Path]:
        return self.mnt.joinpath(*parts), self.plain.joinpath(*parts)

    def round(self) -> None:
        entries = [str(p.relative_to(self.plain)) for p in sorted(self.plain.rglob("*"))]
        folders = ["", *(e for e in entries if (self.plain / e).is_dir() and not (self.plain / e).is_symlink())]
        files = [e for e in entries if (self.plain / e).is_file() and not (self.plain / e).is_symlink()]
        for _ in range(ROUND_OPERATIONS):
            self._one(folders, files)
        if len(files) > ENTRIES_MAX:
            for name in files[: len(files) // 2]:
                for path in self.both(name):
                    path.unlink()

    def _one(self, folders: list[str], files: list[str]) -> None:
        rng, what = self.rng, self.rng.random()
        self.names += 1
        fresh = os.path.join(rng.choice(folders), f"n{self.names}")
        if what < 0.35 or not files:
            self._write(fresh, "wb", 0, rng.choice((0, 100, 600, 4096, 70_000, rng.randrange(FILE_MAX_BYTES))))
            files.append(fresh)
        elif what < 0.60:
            name = rng.choice(files)
            self._write(name, "r+b", rng.randrange((self.plain / name).stat().st_size + 5000), rng.choice((1, 4096, 200_000)))
        elif what < 0.68:
            size, name = rng.randrange(FILE_MAX_BYTES), rng.choice(files)
            for path in self.both(name):
                os.truncate(path, size)
        elif what < 0.74:
            for path in self.both(fresh):
                path.mkdir()
            folders.append(fresh)
        elif what < 0.86:
            source, target = rng.choice(files), rng.choice((fresh, rng.choice(files)))
            for base in (self.mnt, self.plain):
                os.rename(base / source, base / target)
            files[:] = sorted({f for f in files if f != source} | {target})
        elif what < 0.90:
            for path in self.both(fresh):
                path.symlink_to("../somewhere/" + "x" * (self.names % 900))
        elif what < 0.94:
            name = rng.choice(files)
            for base in (self.mnt, self.plain):
                os.link(base / name, base / fresh)
            files.append(fresh)
        elif what < 0.97:
            name, mode, when = rng.choice(files), rng.choice((0o600, 0o755, 0o640)), rng.randrange(10**18)
            for path in self.both(name):
                os.chmod(path, mode)
                os.utime(path, ns=(when, when))
        else:
            name = files.pop(rng.randrange(len(files)))
            for path in self.both(name):
                path.unlink()

    def _write(self, name: str, how: str, offset: int, size: int) -> None:
        data = self.rng.randbytes(size) if self.rng.random() < 0.6 else (b"%d words that compress " % self.names * (size // 20 + 1))[:size]
        sync = self.rng.random() < 0.2
        for path in self.both(name):
            with open(path, how, buffering=0) as file:
                file.seek(offset)
                view = memoryview(data)
                while view:
                    view = view[file.write(view):]
                if sync:
                    os.fsync(file.fileno())

    def event(self) -> str:
        what = self.rng.choice(("flush", "drop-cache", "umount", "lost", "kill"))
        if what in ("flush", "kill", "drop-cache"):
            self.s3cfs("ctl", "flush", str(self.mnt))
        if what == "drop-cache":
            self.s3cfs("ctl", "drop-cache", str(self.mnt))
        elif what == "kill":
            self.kill()
            self.mount()
        elif what in ("umount", "lost"):
            self.s3cfs("umount", "--quiet", str(self.mnt))
            if what == "lost":
                shutil.rmtree(self.cache)
                self.s3cfs("fsck", "--quiet", self.url)
            self.mount()
        return what

    def compare(self) -> int:
        ours, theirs = list(listing(self.mnt)), list(listing(self.plain))
        for one, other in zip(ours, theirs, strict=False):
            if one != other:
                raise SystemExit(f"differs: mount {one}, plain {other}")
        if len(ours) != len(theirs):
            raise SystemExit(f"{len(ours)} entries on the mount, {len(theirs)} in the plain folder")
        return len(ours)


def listing(base: Path) -> Iterator[tuple[object, ...]]:
    for folder, folders, files in os.walk(base):
        folders.sort()
        for name in sorted(folders + files):
            path = os.path.join(folder, name)
            info = os.lstat(path)
            where = os.path.relpath(path, base)
            if os.path.islink(path):
                yield where, os.readlink(path)
            elif os.path.isdir(path):
                yield where, info.st_mode
            else:
                with open(path, "rb") as file:
                    digest = hashlib.file_digest(file, "blake2b").hexdigest()[:32]
                yield where, info.st_mode, info.st_nlink, info.st_size, digest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print(f"soak: seed {args.seed}, {args.minutes:g} minutes", flush=True)
    work = Path(tempfile.mkdtemp(prefix="s3cfs-soak-"))
    soak, rounds, failed = Soak(work, random.Random(args.seed)), 0, True
    end = time.monotonic() + 60 * args.minutes
    try:
        soak.s3cfs("mkfs", "--quiet", soak.url)
        soak.mount()
        while rounds == 0 or time.monotonic() < end:
            soak.round()
            rounds += 1
            print(f"soak: round {rounds}: {soak.event()}, {soak.compare()} entries are the same", flush=True)
        soak.s3cfs("umount", "--quiet", str(soak.mnt))
        soak.pid = 0
        soak.s3cfs("fsck", "--full", "--quiet", soak.url)
        failed = False
    finally:
        if failed:
            print(f"soak: failed in round {rounds + 1} with seed {args.seed}; all is kept in {work}, mount and process too", flush=True)
        else:
            shutil.rmtree(work)
    print(f"soak: {rounds} rounds, all well")
    return 0


sys.exit(main())
