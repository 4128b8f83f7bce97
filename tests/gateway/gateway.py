"""The gateway itself: its life, its connections, and the faults that a test asks for."""
from __future__ import annotations

import contextlib
import os
import secrets
import socket
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.gateway.clock import Clock, HandClock, RealClock
from tests.gateway.faults import Fault, Faults
from tests.gateway.handler import Handler, Request
from tests.gateway.index import Entry, Index
from tests.gateway.upstream import Upstream
from tests.servers import Server

EXHAUSTIVE_LIMIT = 100_000
NOTES = 100_000
LOCKS = 256
ANSWERED_WITHIN_S = 0.2            # between the last byte of an answer and the end of its thread's work


@dataclass(slots=True, eq=False)
class Line:
    """A connection of a client."""

    number: int
    socket: socket.socket
    idle_since: float
    busy: bool = False
    silent: bool = False               # takes everything and answers nothing


@dataclass(slots=True)
class Note:
    """One request."""

    at: float                          # by the gateway's clock
    line: int
    method: str
    operation: str
    path: str                          # bucket/key; of a listing bucket/prefix
    target: str
    status: int = 0                    # 0: no answer
    faults: list[str] = field(default_factory=list)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], gateway: Gateway) -> None:
        self.gateway = gateway
        super().__init__(address, Handler)

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        if self.gateway.tls is not None:               # the handshake is the handler's, in its thread
            connection = self.gateway.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not self.gateway.ending:
            self.gateway.errors_inside.append(repr(client_address))
            super().handle_error(request, client_address)


class Gateway:
    """See the package's text. Of the faults each method says what it does; all take the same conditions:

    only=("get", "list")   operations: get, head, put, delete, list, other
    key=r"/pack/"          a regular expression, searched in bucket/key, of a listing in bucket/prefix
    count=3, for_s=60      how often, how long (by the gateway's clock)
    share=0.2              of the requests that fit (random, from the gateway's seed)
    younger_s=10           only keys that were put or deleted less than so long ago
    """

    def __init__(self, server: Server, *, clock: Clock | None = None, create_only: bool = True, exhaustive: bool = False,
                 exhaustive_limit: int = EXHAUSTIVE_LIMIT, remember_s: float = 300.0, page_keys: int = 1000,
                 tls: tuple[Path, Path] | None = None, port: int = 0, seed: int = 1) -> None:
        self.server, self.upstream = server, Upstream(server.host, server.login, server.password)
        self.clock = clock or RealClock()
        self.create_only, self.exhaustive, self.exhaustive_limit, self.page_keys = create_only, exhaustive, exhaustive_limit, page_keys
        self.tls: ssl.SSLContext | None = None
        if tls is not None:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(*map(str, tls))
            self.tls.set_alpn_protocols(["http/1.1"])
        self.index = Index(self.clock.now, remember_s)
        self.faults = Faults(self.clock, seed)
        self.notes: deque[Note] = deque(maxlen=NOTES)          # requests, oldest first
        self.operations: Counter[str] = Counter()
        self.connections = 0                                   # that were ever made
        self.lines: set[Line] = set()
        self.errors_inside: list[str] = []                     # of the gateway itself: a test may look that there is none
        self.ending = False
        self._lock = threading.Lock()
        self._locks = [threading.Lock() for _ in range(LOCKS)]
        self._port, self._idle_s = port, float("inf")
        self._http: _Server | None = None
        self.rescan()
        self.up()

    # ------------------------------------------------------------ life

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def options(self) -> dict[str, str]:
        return {"no-ssl": ""} if self.tls is None else {}

    @property
    def login(self) -> str:
        return self.server.login

    @property
    def password(self) -> str:
        return self.server.password

    def url(self, prefix: str = "", scheme: str = "storjs3") -> str:
        return f"{scheme}://{self.host}/{self.server.bucket}/{prefix}"

    def fresh_url(self, scheme: str = "storjs3") -> str:
        """A place in the bucket that nothing else uses."""
        return self.url(f"t-{secrets.token_hex(6)}/", scheme)

    def rescan(self) -> None:
        """Look anew what the server behind has: after objects were put there past the gateway."""
        bucket, root = self.server.bucket, self.server.root
        self.index.load(self.upstream.objects(bucket) if root is None else _files(root, bucket))

    def up(self) -> None:
        """Listen (again, on the same port)."""
        if self._http is None:
            self._http = _Server(("127.0.0.1", self._port), self)
            self._port = self._http.server_port
            threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def down(self) -> None:
        """Connections are dropped in whatever they are doing, new ones refused, until `up`."""
        http, self._http = self._http, None
        if http is not None:
            http.shutdown()
            http.server_close()
        self._drop(lambda line: True)

    def restart(self, down_s: float = 0.0) -> None:
        """Dropped, refused for so long by the gateway's clock, and back. Returns when it is back."""
        self.down()
        self.clock.wait(down_s, self.faults.ended)
        self.up()

    def close(self) -> None:
        self.ending = True
        self.faults.clear()
        self.down()

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ faults

    def throttle(self, retry_after: float | None = 1.0, status: int = 429, **when: Any) -> Fault:
        """429 (or 503) SlowDown, with Retry-After unless that is None. Nothing is carried out."""
        return self._add("throttle", when, retry_after=retry_after, status=status)

    def errors(self, status: int = 500, **when: Any) -> Fault:
        """5xx. Nothing is carried out."""
        return self._add("error", when, status=status)

    def slow(self, seconds: float, **when: Any) -> Fault:
        """Each waits before anything is done."""
        return self._add("slow", when, seconds=seconds)

    def hang(self, **when: Any) -> Fault:
        """The request is taken and never answered nor carried out. The connection stays open until `clear`."""
        return self._add("hang", when)

    def reset(self, **when: Any) -> Fault:
        """The connection is closed instead of an answer; nothing is carried out."""
        return self._add("reset", when)

    def lose_answers(self, **when: Any) -> Fault:
        """Puts and deletions are carried out, and the connection is closed instead of an answer."""
        return self._add("lost", when)

    def late(self, seconds: float, **when: Any) -> Fault:
        """Puts are taken and carried out only so much later, whether or not the client still waits: a zombie."""
        return self._add("late", when, seconds=seconds)

    def cut(self, **when: Any) -> Fault:
        """Half of the body of an answer under the full Content-Length, then the end of the connection."""
        return self._add("cut", when)

    def stale(self, seconds: float, **when: Any) -> Fault:
        """get, head and list show the state of so many seconds ago (at most `remember_s`)."""
        return self._add("stale", {"only": ("get", "head", "list"), **when}, seconds=seconds)

    def deletes_stay(self, **when: Any) -> Fault:
        """Deletions are answered as done, and nothing is deleted."""
        return self._add("stays", when)

    def deletes_return(self, seconds: float, **when: Any) -> Fault:
        """Deletions are answered as done and seem to be, and after so many seconds the object is there again."""
        return self._add("returns", when, seconds=seconds)

    def _add(self, name: str, when: dict[str, Any], **more: Any) -> Fault:
        when = dict(when)
        for_s, only = when.pop("for_s", None), when.pop("only", ())
        return self.faults.add(Fault(name, only=(only,) if isinstance(only, str) else tuple(only), **when, **more), for_s)

    def end(self, fault: Fault) -> None:
        """It is over."""
        self.faults.end(fault)

    def clear(self) -> None:
        """No fault is on; what waits for the sake of one goes on."""
        self._idle_s = float("inf")
        self.faults.clear()

    def kill_idle(self, silently: bool = True) -> int:
        """Connections that do nothing now die: silently (they take a request and never answer it) or by being closed. How many.

        One whose answer has just gone counts, though its thread may not have come to its end yet: it is waited for.
        """
        until = time.monotonic() + ANSWERED_WITHIN_S
        while self._any_busy() and time.monotonic() < until:
            time.sleep(0.001)
        if not silently:
            return self._drop(lambda line: not line.busy)
        with self._lock:
            idle = [line for line in self.lines if not line.busy]
            for line in idle:
                line.silent = True
        return len(idle)

    def _any_busy(self) -> bool:
        with self._lock:
            return any(line.busy for line in self.lines)

    def idle_dies_after(self, seconds: float) -> None:
        """From now on a connection that was idle for so long is dead, silently."""
        self._idle_s = seconds

    # ------------------------------------------------------------ what the handlers call

    def opened(self, connection: socket.socket) -> Line:
        with self._lock:
            self.connections += 1
            line = Line(self.connections, connection, self.clock.now())
            self.lines.add(line)
        return line

    def closed(self, line: Line) -> None:
        with self._lock:
            self.lines.discard(line)

    def began(self, line: Line, request: Request) -> Note:
        now = self.clock.now()
        note = Note(now, line.number, request.method, request.operation, request.path, request.target)
        with self._lock:
            line.busy = True
            line.silent = line.silent or now - line.idle_since >= self._idle_s
            self.notes.append(note)
            self.operations[request.operation] += 1
        return note

    def ended(self, line: Line) -> None:
        with self._lock:
            line.busy, line.idle_since = False, self.clock.now()

    def choose(self, operation: str, path: str, *names: str) -> Fault | None:
        changed = self.index.changed(path)
        return self.faults.choose(names, operation, path, None if changed is None else self.clock.now() - changed)

    def changing(self, path: str) -> threading.Lock:
        """Held while a key is put or deleted: what was there before is known, and of a race for a new key one wins."""
        return self._locks[hash(path) % LOCKS]

    def remembered(self, bucket: str, key: str) -> bytes | None:
        """The bytes that are about to be overwritten or deleted."""
        there = self.index.remember_s > 0 and self.index.entry(f"{bucket}/{key}")
        return self.upstream.get(bucket, key) if there else None

    def _drop(self, which: Any) -> int:
        with self._lock:
            dropped = [line for line in self.lines if which(line)]
        for line in dropped:
            with contextlib.suppress(OSError):
                line.socket.shutdown(socket.SHUT_RDWR)
        return len(dropped)

    # ------------------------------------------------------------ for other processes

    def state(self) -> dict[str, Any]:
        with self._lock:
            statuses = Counter(str(note.status) for note in self.notes)
            return {"host": self.host, "connections": self.connections, "open": len(self.lines), "operations": dict(self.operations),
                    "statuses": dict(statuses), "faults": [fault.said() for fault in self.faults.on], "now": self.clock.now(),
                    "errors": [*self.errors_inside]}

    def do(self, what: str, **arguments: Any) -> Any:
        """A method by its name, as the control endpoint has it."""
        if what == "advance" and isinstance(self.clock, HandClock):
            self.clock.advance(**arguments)
            return None
        if what not in REMOTE:
            raise ValueError(f"{what!r} is none of {', '.join(REMOTE)}")
        done = getattr(self, what)(**arguments)
        return done.said() if isinstance(done, Fault) else done


REMOTE = ("throttle", "errors", "slow", "hang", "reset", "lose_answers", "late", "cut", "stale", "deletes_stay", "deletes_return", "clear",
          "kill_idle", "idle_dies_after", "restart", "down", "up", "rescan", "state")


def _files(root: Path, bucket: str) -> Iterator[tuple[str, Entry]]:
    """What lies in the folder of `rclone serve s3`: a listing of it takes minutes for 250,000 objects."""
    base = str(root / bucket)
    for folder, _, names in os.walk(base):
        for name in names:
            found = os.stat(os.path.join(folder, name))
            yield f"{bucket}{folder[len(base):]}/{name}", Entry(found.st_size, '""', found.st_mtime)
