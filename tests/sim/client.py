"""Somebody who uses the filesystem: random operations in one folder, each one also done in a model and compared."""
from __future__ import annotations

import random
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

import trio

from s3cfs.errors import S3cfsError
from s3cfs.vfs.types import ROOT_CALLER, SetAttr

from .check import ClientLog, Finding, Moment, after_running, below, difference
from .crash import Crash
from .history import Events
from .model import EXCHANGE, MAKERS, NOREPLACE, Model
from .scan import scan

NAMES = [b"a", b"b", b"c", b"d", b"e", b"long-" + b"n" * 60]
DEPTH_MAX = 4
FILE_MAX = 300_000


class Site(Protocol):
    """What a client needs to know of the life it works in."""

    events: Events

    def counts(self) -> list[int]:
        """How many operations of each client have ended."""

    def acknowledge(self, remote: bool, floors: list[int], what: str) -> None:
        """It was said that this much is safe."""

    def alive(self) -> None:
        """Crash when the process is dead."""

    def excuses(self, error: Exception, since_s: float) -> bool:
        """Whether there was trouble enough since then for such an answer."""

    def calm(self) -> AbstractContextManager[None]:
        """No new trouble for a moment, so that somebody may look."""

    @property
    def clock_turned_back(self) -> bool: ...


class Client:
    """One sequence of operations. `acknowledge(remote, floors, what)` is told what is safe from when on.

    When the mount says that writing has ended (`node.ended`) it goes on reading, and sees that changes are refused.
    """

    def __init__(self, node: Any, log: ClientLog, model: Model, rng: random.Random, site: Site, *, index: int = 0) -> None:
        self.node, self.log, self.model, self.rng, self.index = node, log, model, rng, index
        self._site, self._alive = site, site.alive
        self._pool = [rng.randbytes(size) for size in (10, 700, 5_000, 30_000)]      # content that comes again: dedup
        self.lost = False                 # it is not known here what is true: only the next recovery can say
        self.slowest_s = 0.0
        log.model = model

    # ------------------------------------------------------------ doing

    async def do(self, operation: str, *arguments: Any) -> bool:
        """One operation, in both worlds. False when both refused, or when there was trouble."""
        if self.lost:
            return False
        expected = self.model.refuses(operation, *arguments)
        began, floors, began_s = self._site.events.next(), self._site.counts(), trio.current_time()
        self.log.running = (operation, arguments)
        what = _describe(operation, arguments)
        got: type[Exception] | None = None
        ino = None
        try:
            result = await self._call(operation, arguments)
            ino = result.ino if operation in MAKERS else None
        except (S3cfsError, OSError) as error:
            self._alive()
            got = type(error)
            if got is not expected:
                if not self._site.excuses(error, began_s):
                    raise Finding(f"I9: {what} raised {got.__name__}: {error}; must {_name(expected)}") from error
                await self._settle(operation, what, began)
                return False
        self._alive()
        self.slowest_s = max(self.slowest_s, trio.current_time() - began_s)
        if got is not expected:
            raise Finding(f"I9: {what} succeeded; must {_name(expected)}")
        if got is not None:
            self.log.running = None
            return False
        try:
            model = self.model.copy()
            touched = model.run(operation, *arguments, ino=ino)
            for inode in dict.fromkeys(touched):
                if inode in model.nodes:
                    model.observe(await self.node.vfs.getattr(inode), back=self._site.clock_turned_back)
        except AssertionError as error:
            raise Finding(f"I9: after {what}: {error}") from error
        except S3cfsError as error:
            if not self._site.excuses(error, began_s):
                raise Finding(f"I9: after {what} getattr raised {type(error).__name__}: {error}") from error
            self.lost = True                                  # it happened, and its times are not known: it stays `running`
            return False
        self._alive()
        self._done(model, what, began)
        if operation in ("fsync", "fsyncdir", "flush_all"):
            remote = operation == "flush_all" or self.node.sync_is_remote
            floors[self.index] = len(self.log.moments) - 1
            self._site.acknowledge(remote, floors, what)
        return True

    def _done(self, model: Model, what: str, began: int) -> None:
        self.model = self.log.model = model
        self.log.running = None
        self.log.moments.append(Moment(dict(model.nodes), what, began, self._site.events.next(), trio.current_time()))

    async def _settle(self, operation: str, what: str, began: int) -> None:
        """It failed, and the mount goes on: did it happen or not? One of both, and nothing in between."""
        if self.node.ended or operation in ("create", "open", "release"):      # how often the file is open now is not known
            self.lost = True
            return
        try:
            with self._site.calm():
                found = below(await scan(self.node.vfs, self.log.root), self.log.root)
        except S3cfsError:
            self.lost = True
            return
        self._alive()
        last = {ino: replace(node, versions=node.versions[-1:]) for ino, node in self.model.nodes.items()}
        happened = after_running(self.log, found)
        if not difference(found, last, self.log.root):
            self.log.running = None
        elif happened is not None and not difference(found, happened, self.log.root):
            model = self.model.copy()
            model.nodes = happened
            self._done(model, f"{what} (failed, and had happened)", began)
        else:
            raise Finding(f"I9: {what} failed and left something else: {difference(found, last, self.log.root)}")

    async def _call(self, operation: str, arguments: tuple[Any, ...]) -> Any:
        vfs = self.node.vfs
        match operation:
            case "mkdir" | "create" | "symlink":
                return await getattr(vfs, operation)(*arguments, ROOT_CALLER)
            case "mknod":
                return await vfs.mknod(*arguments, ROOT_CALLER)
            case "chmod":
                return await vfs.setattr(arguments[0], SetAttr(mode=arguments[1]), ROOT_CALLER)
            case "utimens":
                return await vfs.setattr(arguments[0], SetAttr(mtime_ns=arguments[1]), ROOT_CALLER)
            case "truncate":
                return await vfs.setattr(arguments[0], SetAttr(size=arguments[1]), ROOT_CALLER)
            case "open":
                return await vfs.open(arguments[0], 2 | (0o1000 if arguments[1] else 0))
            case "release":
                await vfs.flush(arguments[0])
                return await vfs.release(arguments[0])
            case "flush_all":
                return await self.node.flush()
            case _:
                return await getattr(vfs, operation)(*arguments)

    async def verify_read(self, ino: int | None = None) -> None:
        """A read of a random range, or of all of the given file, gives what was written (I9); an error when there is trouble, but never
        other bytes."""
        unsure = set(self.log.running[1]) if self.log.running else set()
        offset, size = 0, FILE_MAX
        if ino is None:
            ino = self._some(lambda node: node.is_file and node.ino not in unsure)
            if ino is None:
                return
            offset = self.rng.randint(0, max(1, len(self.model.nodes[ino].data)))
            size = self.rng.choice([1, 4096, 200_000])
        elif ino in unsure:
            return
        data = self.model.nodes[ino].data
        began_s = trio.current_time()
        try:
            if not self.model.opens.get(ino):
                await self.node.vfs.open(ino, 0)
                try:
                    got = bytes(await self.node.vfs.read(ino, offset, size))
                finally:
                    await self.node.vfs.release(ino)
            else:
                got = bytes(await self.node.vfs.read(ino, offset, size))
        except (S3cfsError, OSError) as error:
            self._alive()
            if not self._site.excuses(error, began_s):
                raise Finding(f"I9: read({ino}, {offset}, {size}) raised {type(error).__name__}: {error}") from error
            return
        if got != data[offset:offset + size]:
            wanted = len(data[offset:offset + size])
            raise Finding(f"I9: read({ino}, {offset}, {size}) gave {len(got)} other bytes than the {wanted} written")

    async def verify_refusal(self) -> None:
        """Writing has ended: no change is accepted any more, and an fsync that succeeds is still a promise."""
        floors = self._site.counts()
        try:
            await self.node.vfs.fsyncdir(self.model.root)
        except S3cfsError:
            pass
        else:
            self._site.acknowledge(False, floors, "fsyncdir after the end")
        try:
            await self.node.vfs.mkdir(self.model.root, b"too late", 0o700, ROOT_CALLER)
        except S3cfsError:
            return
        raise Finding("I9: a change was accepted after writing had ended")

    # ------------------------------------------------------------ choosing

    def _some(self, wanted: Callable[[Any], bool]) -> int | None:
        """A random inode with a name (or open) of that sort."""
        found = [ino for ino, node in sorted(self.model.nodes.items()) if wanted(node)]
        return self.rng.choice(found) if found else None

    def _folder(self) -> int:
        found = self._some(lambda node: node.is_dir and node.nlink)
        assert found is not None
        return found

    def _place(self) -> tuple[int, bytes]:
        """A folder and a name in it that may be there or not."""
        folder = self._folder()
        there = sorted(self.model.nodes[folder].entries)
        name = self.rng.choice(there) if there and self.rng.random() < 0.7 else self.rng.choice(NAMES)
        return folder, name

    def _bytes(self) -> bytes:
        kind, rng = self.rng.random(), self.rng
        if kind < 0.25:
            return rng.choice(self._pool)
        if kind < 0.4:
            return bytes([rng.randrange(256)]) * rng.randint(1, 20_000)
        if kind < 0.45:
            return bytes(rng.randint(1, 70_000))
        return rng.randbytes(int(10 ** rng.uniform(0, 4.7)))

    async def step(self) -> None:
        """One random thing."""
        rng = self.rng
        if self.lost or self.node.ended:
            self.lost = True
            await (self.verify_refusal() if self.node.ended and rng.random() < 0.2 else self.verify_read())
            return await self._do_wait()
        action = rng.choices(
            ["new", "write", "release", "fsync", "save", "move", "remove", "attribute", "truncate", "folder", "reopen", "read", "barrier",
             "wait", "fill"], weights=[9, 14, 8, 4, 6, 8, 7, 7, 4, 6, 5, 6, 3, 6, 9])[0]
        await getattr(self, f"_do_{action}")()

    async def _do_new(self) -> None:
        rng, (folder, name) = self.rng, self._place()
        kind = rng.random()
        if kind < 0.7:
            name = rng.choice(NAMES)
            if await self.do("create", folder, name, 0o640):
                if rng.random() < 0.8:
                    ino = self.model.nodes[folder].entries[name]
                    await self.do("write", ino, 0, self._bytes())
                    if rng.random() < 0.7:
                        await self.do("release", ino)
        elif kind < 0.8:
            await self.do("symlink", folder, name, b"to/" + name)
        elif kind < 0.9:
            await self.do("mknod", folder, name, rng.choice([stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG]) | 0o600, 0)
        elif (old := self._some(lambda node: node.nlink)) is not None and old != self.model.root:
            await self.do("link", old, folder, name)

    async def _do_folder(self) -> None:
        folder, name = self._place()
        if self._depth(folder) < DEPTH_MAX:
            await self.do("mkdir", folder, name, 0o755)

    def _depth(self, folder: int) -> int:
        return sum(node.is_dir and self.model.is_below(folder, ino) for ino, node in self.model.nodes.items())

    def _open_file(self) -> int | None:
        return self.rng.choice(sorted(self.model.opens)) if self.model.opens else None

    async def _do_write(self) -> None:
        ino = self._open_file()
        if ino is None:
            return
        size = len(self.model.nodes[ino].data)
        offset = self.rng.choice([size, 0, self.rng.randint(0, size + 5000)])
        data = self._bytes()
        if offset + len(data) <= FILE_MAX:
            await self.do("write", ino, offset, data)

    async def _do_fill(self) -> None:
        """A file is filled in random order or in one go, cut, and grows again, while what was written is spooled and staged."""
        ino = self._open_file()
        if ino is None:
            return
        if self.rng.random() < 0.4 and await self.do("write", ino, 0, self.rng.randbytes(self.rng.randint(110_000, FILE_MAX))):
            for _ in range(self.rng.randint(1, 3)):          # it is long enough to be staged: others have a turn, then it is cut
                await trio.lowlevel.checkpoint()
                self._alive()
            size = len(self.model.nodes[ino].data)
            await self.do("truncate", ino, size - self.rng.randint(1, 10_000))
            await self.do("truncate", ino, size)
            await trio.sleep(0.3)
            self._alive()
            await self.verify_read(ino)
        for _ in range(self.rng.randint(2, 7)):
            size = len(self.model.nodes[ino].data)
            if self.rng.random() < 0.7:
                data = self.rng.randbytes(self.rng.choice([3_000, 20_000, 60_000]))
                await self.do("write", ino, self.rng.randint(0, max(0, min(size + 30_000, FILE_MAX - len(data)))), data)
            else:
                await self.do("truncate", ino, self.rng.randint(self.rng.choice([size // 2, max(0, size - 10_000)]), size))
                await self.do("truncate", ino, size)
            if self.rng.random() < 0.3:
                await self.verify_read()
            if self.rng.random() < 0.5:
                await trio.sleep(self.rng.choice([0.0, 0.0, 0.01, 0.1]))
                self._alive()

    async def _do_release(self) -> None:
        if (ino := self._open_file()) is not None:
            await self.do("release", ino)

    async def _do_reopen(self) -> None:
        ino = self._some(lambda node: node.is_file and node.nlink)
        if ino is not None and len(self.model.opens) < 4:
            await self.do("open", ino, self.rng.random() < 0.3)

    async def _do_fsync(self) -> None:
        ino = self._open_file() if self.rng.random() < 0.8 else self._folder()
        if ino is not None:
            await self.do("fsyncdir" if self.model.nodes[ino].is_dir else "fsync", ino)

    async def _do_save(self) -> None:
        """As an editor saves: a new file, written, closed (perhaps synced) and renamed over the old one."""
        folder, name = self._place()
        old = self.model.nodes[folder].entries.get(name)
        if (old is not None and self.model.nodes[old].is_dir) or not await self.do("create", folder, b"tmp", 0o600):
            return
        ino = self.model.nodes[folder].entries[b"tmp"]
        await self.do("write", ino, 0, self._bytes())
        synced, early = self.rng.random() < 0.4, self.rng.random() < 0.3
        if synced:
            await self.do("fsync", ino)
        if early and synced:
            await self.do("write", ino, self.rng.choice([0, 2000]), self._bytes())     # what only the rename puts in order
        if not early:
            await self.do("release", ino)
        await self.do("rename", folder, b"tmp", folder, name, 0)
        if early and self.rng.random() < 0.5:
            await self.do("fsyncdir", folder)
        if early and self.rng.random() < 0.4:
            await self.do("release", ino)

    async def _do_move(self) -> None:
        (folder, name), (new_folder, new_name) = self._place(), self._place()
        source = self.model.nodes[folder].entries.get(name)
        if source is not None and self.model.nodes[source].is_dir and self._depth(new_folder) >= DEPTH_MAX:
            return
        await self.do("rename", folder, name, new_folder, new_name, self.rng.choice([0, 0, 0, 0, NOREPLACE, EXCHANGE]))

    async def _do_remove(self) -> None:
        folder, name = self._place()
        ino = self.model.nodes[folder].entries.get(name)
        is_dir = ino is not None and self.model.nodes[ino].is_dir
        await self.do("rmdir" if is_dir != (self.rng.random() < 0.05) else "unlink", folder, name)

    async def _do_attribute(self) -> None:
        rng = self.rng
        ino = self._some(lambda node: (node.is_file or node.is_dir) and node.nlink)
        if ino is None:
            return
        kind, name = rng.random(), rng.choice([b"user.x", b"user.y"])
        if kind < 0.35:
            await self.do("chmod", ino, rng.choice([0o600, 0o644, 0o755]))
        elif kind < 0.6:
            await self.do("utimens", ino, rng.randrange(10**18, 2 * 10**18))
        elif kind < 0.85:
            await self.do("setxattr", ino, name, rng.randbytes(rng.randint(0, 300)))
        else:
            await self.do("removexattr", ino, name)

    async def _do_truncate(self) -> None:
        ino = self._some(lambda node: node.is_file)
        if ino is not None:
            size = len(self.model.nodes[ino].data)
            await self.do("truncate", ino, self.rng.choice([0, size, self.rng.randint(0, size), min(FILE_MAX, size + 3000)]))

    async def _do_read(self) -> None:
        await self.verify_read()

    async def _do_barrier(self) -> None:
        if self.rng.random() < 0.5:
            await self.do("flush_all")
        else:
            await self.do("fsyncdir", self._folder())

    async def _do_wait(self) -> None:
        await trio.sleep(self.rng.choice([0.0, 0.01, 0.3, 1.5, 7.0, 40.0]))
        self._alive()

    async def run(self, count: int) -> None:
        try:
            for _ in range(count):
                await self.step()
            for ino in sorted(self.model.opens):
                if self.rng.random() < 0.5:
                    while self.model.opens.get(ino) and await self.do("release", ino):
                        pass
        except Crash:
            raise
        except Exception as error:
            self._alive()                     # what a dying process says is nothing
            raise error


def _name(error: type[Exception] | None) -> str:
    return "succeed" if error is None else f"raise {error.__name__}"


def _describe(operation: str, arguments: tuple[Any, ...]) -> str:
    def short(value: Any) -> str:
        return f"<{len(value)} bytes>" if isinstance(value, bytes) and len(value) > 20 else repr(value)
    return f"{operation}({', '.join(short(value) for value in arguments)})"
