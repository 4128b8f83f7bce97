"""What a client does: random things in its folder, some as programs do them."""
from __future__ import annotations

import stat

import trio

from .client import Client
from .crash import Crash
from .model import EXCHANGE, NOREPLACE

NAMES = [b"a", b"b", b"c", b"d", b"e", b"long-" + b"n" * 60]
DEPTH_MAX = 4
FILE_MAX = 300_000


class Busy(Client):
    """A client that thinks of something to do."""

    # ------------------------------------------------------------ choosing

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
             "wait", "fill"], weights=[9, 14, 8, 4, 8, 8, 7, 7, 4, 6, 5, 6, 3, 6, 9])[0]
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
        if early and self.rng.random() < 0.5 and await self.do("fsyncdir", folder) and self.rng.random() < 0.3:
            self._site.die()                                   # the name is there, and its content must be
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
