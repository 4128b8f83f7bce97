"""A fake 0-db, faithful to v2.0.7 as far as its texts, limits and quirks go, with switches for what can happen to one.

    with running(20) as servers: servers[3].kill() ...        in this process: one thread serves them all
    python -m tests.zdb.server --count 20 [--port 9900]       a process of its own; commands on its standard input (see `main`)

Each server has its own port, disk and namespaces; what it keeps outlives `kill` and `start`. Passwords, modes, texts: answers.py and
doorkeeper.py. What is on the disk: space.py. Switches may be set at any time, from any thread.

Stricter than the original in one thing: it stalls whenever more than 8191 bytes of requests wait on a connection (the original does so when
a read happens to end between two of them), so a client that depends on luck does not have it here.
"""
from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from tests.zdb.answers import answer
from tests.zdb.doorkeeper import Refused, Session
from tests.zdb.space import Disk, Namespace

T = TypeVar("T")

ARGUMENTS_MAX, ARGUMENT_MAX_BYTES = 1024, 8 << 20
WAITING_MAX_BYTES = 8191
PAGE_KEYS = 500                        # of a scan; the original gives what it finds in two milliseconds (232 to 1922 keys, seen)


class FakeZdb:
    """One server, and its switches.

    `silent`: it hangs, as when it was stopped, until it is False again. `delay_s`: before each answer. `dribble`: an answer goes in pieces
    of so many bytes (0: whole). `tear_after`: the next answer ends after so many bytes, and the connection with it. `page_keys`: of a scan.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, port: int = 0, *, admin: str = "", protect: bool = False, mode: str = "mix",
                 disk_bytes: int = 1 << 40, datasize: int = 4 << 20) -> None:
        self._loop, self.port = loop, port
        self.admin, self.protect, self.mode = admin, protect, mode
        self.disk = Disk(disk_bytes, datasize)
        self.default = self.make("default")
        if protect:
            self.default.password = admin
        self.counted: Counter[str] = Counter()         # commands, by their full names
        self.bugs: list[Exception] = []                # of the fake itself
        self.instance = 0
        self.delay_s, self.dribble = 0.0, 0
        self._awake = asyncio.Event()
        self._awake.set()
        self.tear_after: int | None = None
        self.page_keys = PAGE_KEYS
        self._refusals: list[tuple[str, str, int]] = []
        self._connections: set[_Connection] = set()
        self._listener: asyncio.Server | None = None

    @property
    def silent(self) -> bool:
        return not self._awake.is_set()

    @silent.setter
    def silent(self, silent: bool) -> None:
        self.do(self._awake.clear if silent else self._awake.set)

    def hang(self, silent: bool) -> None:
        """The same as `silent`, by the name that real ones have too (real.py)."""
        self.silent = silent

    async def awake(self) -> None:
        await self._awake.wait()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    # ------------------------------------------------------------ its life

    def start(self) -> None:
        """On the port that it had, if it had one."""
        self.on_its_thread(self._start)

    async def _start(self) -> None:
        if self._listener is None:
            self._listener = await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port)
            self.port = self._listener.sockets[0].getsockname()[1]
            self.instance = secrets.randbits(32)
            for namespace in self.disk.namespaces:
                namespace.locked = ""

    def kill(self) -> None:
        """As kill -9 does: connections are reset, what was written is kept."""
        self.on_its_thread(self._kill)

    async def _kill(self) -> None:
        if self._listener is not None:
            for sock in self._listener.sockets:        # asyncio leaks a connection that is accepted while its listener ends
                self._loop.remove_reader(sock.fileno())
            await asyncio.sleep(0)
            self._listener.close()
            self._listener = None
        self.drop()

    def drop(self) -> None:
        """All connections, while it goes on. On its thread."""
        for connection in list(self._connections):
            connection.abort()

    def power_cut(self) -> None:
        """Killed, and what was not flushed is gone (`flush` of the namespaces; without --sync a 0-db never does it by itself)."""
        self.kill()
        for namespace in self.disk.namespaces:
            self.do(namespace.power_cut)

    def flush(self) -> None:
        """All that was acknowledged is on the disk."""
        for namespace in self.disk.namespaces:
            self.do(namespace.flush)

    def wipe(self) -> None:
        """All that its namespaces hold is gone, as after a new disk; names and passwords are as they were."""
        def empty() -> None:
            for old in self.disk.namespaces[:]:
                self.disk.namespaces.remove(old)
                new = Namespace(old.name, self.disk, old.sequential, old.password, old.public, old.worm, old.maxsize)
                if old is self.default:
                    self.default = new
            self.drop()
        self.do(empty)

    # ------------------------------------------------------------ what it keeps

    def make(self, name: str, *, password: str = "", public: bool = True, sequential: bool = False) -> Namespace:
        return Namespace(name, self.disk, sequential or self.mode == "seq", password, public)

    def find(self, name: str) -> Namespace | None:
        return next((namespace for namespace in self.disk.namespaces if namespace.name == name), None)

    def keys(self, namespace: str) -> list[bytes]:
        return self.do(lambda: list(self._known(namespace).keys))

    def flip(self, namespace: str, key: bytes, at: int = -1) -> None:
        """One bit of a value, at that byte, as a disk may do it."""
        def flip() -> None:
            entry = self._known(namespace).keys[key]
            assert entry.value
            value = bytearray(entry.value)
            value[at] ^= 1
            entry.value = bytes(value)
        self.do(flip)

    def cut(self, namespace: str, key: bytes) -> None:
        """The data file ends before this value: it is listed, and cannot be read."""
        def cut() -> None:
            self._known(namespace).keys[key].value = None
        self.do(cut)

    def forget(self, namespace: str, key: bytes) -> None:
        """The key, as if it had never been there."""
        self.do(lambda: self._known(namespace).delete(key))

    def _known(self, namespace: str) -> Namespace:
        found = self.find(namespace)
        assert found is not None, namespace
        return found

    def refuse(self, words: str, command: str = "", count: int = 1) -> None:
        """The next `count` of these commands (of any) with these words, whatever they would have answered."""
        self._refusals.append((words, command, count))

    def planned(self, command: str) -> None:
        for place, (words, wanted, count) in enumerate(self._refusals):
            if wanted in ("", command):
                self._refusals[place:place + 1] = [(words, wanted, count - 1)] if count > 1 else []
                raise Refused(words)

    # ------------------------------------------------------------ its thread

    def on_its_thread(self, work: Callable[[], object]) -> None:
        asyncio.run_coroutine_threadsafe(work(), self._loop).result()      # type: ignore[arg-type]

    def do(self, work: Callable[[], T]) -> T:
        """On the thread that serves, between two commands."""
        async def run() -> T:
            return work()
        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def opened(self, connection: _Connection) -> None:
        self._connections.add(connection)

    def ended(self, connection: _Connection) -> None:
        self._connections.discard(connection)


class _Connection(asyncio.Protocol):
    def __init__(self, server: FakeZdb) -> None:
        self._server, self._session = server, Session(server)
        self._got = bytearray()
        self._stalled = False
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.opened(self)
        self._task = asyncio.get_running_loop().create_task(self._safely())

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.ended(self)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._got += data
        self._news.set()

    def abort(self) -> None:
        self._transport.abort()

    async def _safely(self) -> None:
        try:
            await self._serve()
        except Exception as error:
            self._server.bugs.append(error)
            self.abort()

    async def _serve(self) -> None:
        while True:
            try:
                arguments = await self._request()
                await self._server.awake()
                waiting = len(self._got)
                reply = answer(self._session, arguments)
                closes = False
            except Refused as refused:
                reply, closes, waiting = b"-" + refused.words.encode(), refused.closes, 0
            await self._send(reply + b"\r\n")
            if closes:
                self._transport.close()
                return
            if waiting > WAITING_MAX_BYTES:
                return                                 # stalled: nothing more is read

    async def _send(self, reply: bytes) -> None:
        server = self._server
        if server.tear_after is not None:
            reply, server.tear_after = reply[:server.tear_after], None
            self._transport.write(reply)
            self._transport.close()
            raise asyncio.CancelledError
        step = server.dribble or len(reply)
        for at in range(0, len(reply), step):
            self._transport.write(reply[at:at + step])
            if step < len(reply):
                await asyncio.sleep(0)

    async def _request(self) -> list[bytes]:
        count = await self._number(b"*", "Malformed request, array expected")
        if count == 0:
            await self._wedge("Missing arguments")
        if count > ARGUMENTS_MAX:
            await self._wedge("Too many arguments")
        arguments = []
        for _ in range(count):
            size = await self._number(b"$", "Malformed query string")
            if size > ARGUMENT_MAX_BYTES:
                raise Refused("Payload too big", closes=True)
            await self._until(size + 2)
            arguments.append(bytes(self._got[:size]))
            del self._got[:size + 2]
        return arguments

    async def _number(self, mark: bytes, otherwise: str) -> int:
        while (end := self._got.find(b"\n")) < 0:
            await self._more()
        line = bytes(self._got[:end + 1])
        if not line.startswith(mark):
            if mark == b"*":
                raise Refused(otherwise, closes=True)
            await self._wedge(otherwise)
        del self._got[:end + 1]
        return int(line[1:].strip() or b"0")

    async def _wedge(self, words: str) -> None:
        """The original says so and finds its way no more."""
        await self._send(b"-" + words.encode() + b"\r\n")
        raise asyncio.CancelledError

    async def _until(self, size: int) -> None:
        while len(self._got) < size:
            await self._more()

    async def _more(self) -> None:
        self._news.clear()
        await self._news.wait()


@contextlib.contextmanager
def running(count: int = 1, *, ports: list[int] | None = None, admin: str = "", protect: bool = False, mode: str = "mix",
            disk_bytes: int = 1 << 40, datasize: int = 4 << 20) -> Iterator[list[FakeZdb]]:
    """So many servers, started, on one thread of this process."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True, name="fake 0-db")
    thread.start()
    made = [FakeZdb(loop, port, admin=admin, protect=protect, mode=mode, disk_bytes=disk_bytes, datasize=datasize)
            for port in (ports or [0] * count)]
    try:
        for server in made:
            server.start()
        yield made
    finally:
        for server in made:
            server.silent = False
            server.kill()
        asyncio.run_coroutine_threadsafe(_ended(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    for server in made:
        for bug in server.bugs:
            raise bug


async def _ended() -> None:
    """All tasks of the loop have seen their end, and connections that were just being accepted."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def main(arguments: list[str]) -> None:
    """Prints an address a line. Then it takes lines until its input ends, and answers each with "done": kill N, start N, power_cut N,
    flush N, wipe N, silent N on|off, full N on|off (N: of the server, from 0)."""
    options = argparse.ArgumentParser(prog="tests.zdb.server", description=main.__doc__)
    options.add_argument("--count", type=int, default=1)
    options.add_argument("--port", type=int, default=0, help="of the first; the others follow (0: free ones)")
    options.add_argument("--admin", default="")
    options.add_argument("--mode", choices=("mix", "user", "seq"), default="mix")
    options.add_argument("--namespace", default="", help="made in each, with --password")
    options.add_argument("--password", default="")
    given = options.parse_args(arguments)
    ports = [given.port + number if given.port else 0 for number in range(given.count)]
    with running(ports=ports, admin=given.admin, mode=given.mode) as servers:
        for server in servers:
            if given.namespace:
                server.do(partial(server.make, given.namespace, password=given.password, public=not given.password))
            print(server.address, flush=True)
        for line in sys.stdin:
            match line.split():
                case [("kill" | "start" | "power_cut" | "flush" | "wipe") as what, number]:
                    getattr(servers[int(number)], what)()
                case [("silent" | "full") as what, number, ("on" | "off") as how]:
                    setattr(servers[int(number)] if what == "silent" else servers[int(number)].disk, what, how == "on")
                case []:
                    continue
                case _:
                    print(f"not understood: {line.strip()}", file=sys.stderr)
                    continue
            print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
