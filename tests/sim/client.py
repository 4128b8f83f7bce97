"""Somebody who uses the filesystem: each operation is also done in a model and compared. What it does: see `actions`."""
from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

import trio

from s3cfs.errors import S3cfsError
from s3cfs.vfs.types import ROOT_CALLER, SetAttr

from .check import ClientLog, Finding, Moment, after_running, below, difference
from .history import Events
from .model import MAKERS, Model
from .scan import scan


class Site(Protocol):
    """What a client needs to know of the life it works in."""

    events: Events

    def counts(self) -> list[int]:
        """How many operations of each client have ended."""

    def acknowledge(self, remote: bool, floors: list[int], what: str) -> None:
        """It was said that this much is safe."""

    def alive(self) -> None:
        """Crash when the process is dead."""

    def die(self) -> None:
        """The process is killed."""

    def excuses(self, error: Exception, since_s: float) -> bool:
        """Whether there was trouble enough since then for such an answer."""

    def judge_time(self, operation: str, what: str, began_s: float) -> None:
        """Finding when it took too long for what was in its way."""

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
        log.model = model

    # ------------------------------------------------------------ doing

    async def do(self, operation: str, *arguments: Any) -> bool:
        """One operation, in both worlds. False when both refused, or when there was trouble."""
        if self.lost:
            return False
        expected = self.model.refuses(operation, *arguments)
        began, floors, began_s = self._site.events.next(), self._site.counts(), trio.current_time()
        self.log.running, self.log.running_began = (operation, arguments), began
        what = _describe(operation, arguments)
        got: type[Exception] | None = None
        ino = None
        try:
            result = await self._call(operation, arguments)
            ino = result.ino if operation in MAKERS else None
        except (S3cfsError, OSError) as error:
            self._alive()
            self._site.judge_time(operation, what, began_s)
            got = type(error)
            if got is not expected:
                if not self._site.excuses(error, began_s):
                    raise Finding(f"I9: {what} raised {got.__name__}: {error}; must {_name(expected)}") from error
                await self._settle(operation, what, began)
                return False
        self._alive()
        self._site.judge_time(operation, what, began_s)
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
        offset, size = 0, 1 << 30
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

    def _some(self, wanted: Callable[[Any], bool]) -> int | None:
        """A random inode with a name (or open) of that sort."""
        found = [ino for ino, node in sorted(self.model.nodes.items()) if wanted(node)]
        return self.rng.choice(found) if found else None

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


def _name(error: type[Exception] | None) -> str:
    return "succeed" if error is None else f"raise {error.__name__}"


def _describe(operation: str, arguments: tuple[Any, ...]) -> str:
    def short(value: Any) -> str:
        return f"<{len(value)} bytes>" if isinstance(value, bytes) and len(value) > 20 else repr(value)
    return f"{operation}({', '.join(short(value) for value in arguments)})"
