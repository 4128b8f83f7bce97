"""A filesystem without a kernel on any store, at work in a known order, so that after its death the tree says how far it got.

`step(i)` is what is done i-th, and `tree(n)` what the first n leave behind. As a program (`python -m tests.against.headless`, with the
place as JSON on its standard input) it mounts, does the steps after those that it finds done, and prints a line for each thing that it may
be held to: `done I` (the call returned), `durable I` (on this disk), `sent I` (in the store), each with the number of calls of the store.
"""
from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import random
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from s3cfs import ids
from s3cfs.app.fsck import check_filesystem
from s3cfs.app.host import process_alive, this_host
from s3cfs.app.node import Node, NodeOptions, open_node
from s3cfs.backends.base import Backend
from s3cfs.check import Line
from s3cfs.config import FsckOptions
from s3cfs.doors import Doors, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.formats import superblock
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.superblock import Superblock
from s3cfs.history.commits import Options
from s3cfs.vfs.types import ROOT_CALLER
from tests.against.lent import Borrowed
from tests.places import Counted, Place

ROOT = 1
CHUNKS = (16 << 10, 64 << 10, 256 << 10)       # small ones, so that small files have several
SIZES = (1, 300, 700, 4096, 20_000, 100_000, 400_000)
WRITE_BYTES = 128 << 10
DURABLE_EVERY, SENT_EVERY = 5, 17

Tree = dict[str, bytes]                # name -> content
Report = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Step:
    """A new file `name`; or, without one, `old` gets the name `to`, or goes where there is no `to`."""

    name: str
    data: bytes = b""
    old: str = ""
    to: str = ""


@functools.lru_cache(4096)
def step(number: int, seed: int) -> Step:
    """The first is 1. Files get other names, replace others, and go; each only when it has been there for a while."""
    if number % 4 == 0 and number >= 12:
        return Step("", old=f"f{number - 3}", to=f"g{number - 3}")
    if number % 8 == 6 and number >= 22:
        return Step("", old=f"f{number - 3}")
    if number % 8 == 2 and number >= 26:
        return Step("", old=f"g{number - 13}", to=f"f{number - 3}")
    dice = random.Random(f"{seed} {number}")
    return Step(f"f{number}", dice.randbytes(dice.choice(SIZES)))


def tree(done: int, seed: int) -> Tree:
    """What the first `done` steps leave behind."""
    files: Tree = {}
    for one in (step(number, seed) for number in range(1, done + 1)):
        if one.name:
            files[one.name] = one.data
        else:
            data = files.pop(one.old)
            if one.to:
                files[one.to] = data
    return files


def matching(found: Tree, seed: int, at_most: int) -> int:
    """How many steps `found` is the result of; the next one may be half done: its file is the beginning of what it was to be."""
    for done in range(at_most, -1, -1):
        expected, following = tree(done, seed), step(done + 1, seed)
        if found == expected:
            return done
        half = found.get(following.name)
        if half is not None and following.data.startswith(half) and {**expected, following.name: half} == found:
            return done
    names = {name: hashlib.sha256(data).hexdigest()[:8] for name, data in found.items()}
    raise AssertionError(f"the tree is not what any number of steps up to {at_most} leaves behind: {names}")


# ---------------------------------------------------------------- a filesystem

def doors(folder: Path) -> Doors:
    return Doors(SystemClock(), SystemRandomness(), TrioThreads(), SystemDisk(str(folder)))


def node_options(**changes: Any) -> NodeOptions:
    return NodeOptions(**{"host": this_host(), "process_alive": process_alive, "commits": Options(commit_interval_s=0.2), **changes})


async def write(node: Node, name: str, data: bytes) -> None:
    made = await node.vfs.create(ROOT, name.encode(), 0o644, ROOT_CALLER)
    for at in range(0, len(data), WRITE_BYTES):
        await node.vfs.write(made.ino, at, data[at:at + WRITE_BYTES])
    await node.vfs.flush(made.ino)
    await node.vfs.release(made.ino)


async def read(node: Node) -> Tree:
    """All of the root."""
    found: Tree = {}
    handle, cookie = await node.vfs.opendir(ROOT), 0
    while rows := await node.vfs.readdir(handle, cookie, 100):
        for name, inode, cookie in rows:  # noqa: B007
            found[name.decode()] = bytes(await node.vfs.read(inode.ino, 0, inode.size + 1))
    await node.vfs.releasedir(handle)
    return {name: data for name, data in found.items() if name not in (".", "..")}


async def work(node: Node, seed: int, known: int, steps: int, report: Report) -> None:
    """From where the tree is (at most `known` steps were begun), `steps` further ones; what was half done is done again."""
    found = await read(node)
    done = matching(found, seed, known)
    if (half := step(done + 1, seed).name) in found:
        await node.vfs.unlink(ROOT, half.encode())
    report("mounted", done)
    for number in range(done + 1, done + steps + 1):
        one = step(number, seed)
        if one.name:
            await write(node, one.name, one.data)
        elif one.to:
            await node.vfs.rename(ROOT, one.old.encode(), ROOT, one.to.encode())
        else:
            await node.vfs.unlink(ROOT, one.old.encode())
        report("done", number)
        if number % DURABLE_EVERY == 0:
            await node.commits.durable()
            report("durable", number)
        if number % SENT_EVERY == 0:
            await node.flush()
            report("sent", number)


@dataclass(frozen=True, slots=True)
class Filesystem:
    """One at `url` of a place, without a passphrase; `blob` is its superblock."""

    place: Place
    url: str
    blob: bytes

    @classmethod
    def make(cls, place: Place, state: Path) -> Filesystem:
        url = place.fresh_url()
        made, _, _ = superblock.create("test", SystemRandomness(), True, *CHUNKS, None, now_ns=SystemClock().time_ns())
        with contextlib.closing(place.seen(state, url)) as backend:
            backend.create()
            for copy in (1, 2):
                backend.put(ids.super_key(made.n, copy), superblock.encode(made))
        return cls(place, url, superblock.encode(made))

    @property
    def superblock(self) -> Superblock:
        return superblock.decode(self.blob)

    @property
    def keyring(self) -> KeyRing:
        return superblock.unlock(self.superblock, random=SystemRandomness())

    def open(self) -> Backend:
        """A backend of its own, started and closed by whoever uses it."""
        return self.place.open(self.url)

    @contextlib.asynccontextmanager
    async def node(self, folder: Path, backend: Backend | None = None, **changes: Any) -> AsyncIterator[Node]:
        """With local state in `folder`; closes the backend."""
        options = node_options(**{"sole_writer": self.place.sole, **changes})
        async with open_node(doors(folder / "state"), backend or self.open(), self.keyring, self.superblock, options) as node:
            yield node

    def look(self, folder: Path, **changes: Any) -> Tree:
        """All of the root; what was unsent is in the store afterwards, unless it is a look only (`read_only`)."""
        async def main() -> Tree:
            async with self.node(folder, **changes) as node:
                return await read(node)
        return trio.run(main)

    def fill(self, folder: Path, files: Tree) -> None:
        """One mount that writes all of them."""
        async def main() -> None:
            async with self.node(folder) as node:
                for name, data in files.items():
                    await write(node, name, data)
        trio.run(main)

    def fsck(self) -> list[str]:
        """What a full check of the store finds, in words."""
        lines: list[Line] = []
        result = trio.run(check_filesystem, self.open, self.superblock, self.keyring, None, FsckOptions(full=True),
                          lines.append, lambda event: None)
        return [f"{line.severity}: {line.text}" for line in lines] if result.exit_code else []


def child() -> int:
    told: dict[str, Any] = json.load(sys.stdin)
    place = Place(told["place"], told["options"], told["login"], told["password"], sole=told["sole"])
    fs, folder = Filesystem(place, told["url"], bytes.fromhex(told["superblock"])), Path(told["folder"])

    def report(what: str, number: int) -> None:
        print(what, number, place.requests, flush=True)

    backend = Counted(Borrowed(tuple(told["lent"])), place) if told["lent"] else fs.open()

    async def main() -> None:
        async with fs.node(folder, backend) as node:
            await work(node, told["seed"], told["known"], told["steps"], report)
    trio.run(main)
    return 0


if __name__ == "__main__":
    sys.exit(child())
