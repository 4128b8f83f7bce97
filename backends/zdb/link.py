"""Connections to one 0-db, and calls on them.

A connection has a state at the other side (which namespace, with which rights), so a new one says who it is before its first call. On one
connection there is one request at a time: v2.0.7 stalls when more than 8 KiB of requests wait (seen); many things at once need several
connections. Passwords go as the answer to a challenge, never in clear.

How long a call may take is about silence: `timeout_s` without a byte, here or there. What breaks is repeated once on a new connection, as
every command of ours may be (SET of the same bytes, DEL, all that reads). A silent server is not asked again: its caller decides.
"""
from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeAlias

from s3cfs.backends.progress import lost, moved
from s3cfs.backends.zdb import generations
from s3cfs.backends.zdb.members import IDENTITY
from s3cfs.backends.zdb.resp import Argument, Ended, Nonsense, Reader, Refusal, Reply, encode
from s3cfs.backends.zdb.setup import Server
from s3cfs.backends.zdb.words import Condition, Trouble, condition_of
from s3cfs.limits import MIB

CONNECTIONS = 4                    # to one server at once
TIMEOUT_S = 30.0
CONNECT_S = 5.0                    # a connection that is not there by then
PIECE_BYTES = 1 * MIB              # received at once at most, so that a long value shows that it moves
KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))

Connect = Callable[[tuple[str, int], float], socket.socket]
Answer: TypeAlias = bytes | int | list[Reply] | None               # a reply that is no refusal


class Caller(Protocol):
    """Something that a command can be called on: `Links`, or one connection while it is being greeted."""

    @property
    def server(self) -> Server: ...

    def call(self, *arguments: Argument, timeout_s: float | None = None) -> Answer: ...


Greet = Callable[[Caller], None]


class _Connection:
    """One, after its greeting. Not for several threads."""

    def __init__(self, server: Server, sock: socket.socket, timeout_s: float, sign: Callable[[], None]) -> None:
        """`sign` is called whenever a byte has gone or come."""
        self.server, self._sock, self._timeout_s, self._sign = server, sock, timeout_s, sign
        self._reader = Reader(self._receive)
        self.is_introduced = False
        self.namespace = ""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)

    def introduce(self, as_admin: bool, namespace: str | None, greet: Greet | None) -> None:
        """Say who we are. As an administrator nothing is selected: who uses a namespace cannot remove it. None: the one in force."""
        server = self.server
        if as_admin:
            try:
                self.call("AUTH", "SECURE", self._answer(server.admin_password))
            except Trouble as trouble:
                if not trouble.words.startswith("Authentication disabled"):        # then everybody is an administrator
                    raise
        elif namespace:
            self._select(namespace)
        else:
            generations.enter(server.namespace, self._namespaces, self._select, lambda: self.call("EXISTS", IDENTITY) == 1)
        if greet:
            greet(self)
        self.is_introduced = True

    def _select(self, namespace: str) -> None:
        self.call("SELECT", namespace, *(("SECURE", self._answer(self.server.password)) if self.server.password else ()))
        self.namespace = namespace

    def _namespaces(self) -> list[str]:
        answer = self.call("NSLIST")
        if not isinstance(answer, list):
            raise Nonsense(f"{type(answer).__name__} as a list of namespaces")
        return [name.decode("utf-8", "surrogateescape") for name in answer if isinstance(name, bytes)]

    def _answer(self, password: str) -> str:
        challenge = self.call("AUTH", "SECURE", "CHALLENGE")
        if not isinstance(challenge, bytes):
            raise Nonsense(f"{challenge!r} as a challenge")
        return hashlib.sha1(challenge + b":" + password.encode()).hexdigest()      # its protocol, not our choice

    def call(self, *arguments: Argument, timeout_s: float | None = None) -> Answer:
        """Raises Trouble for what the server refuses; and Ended, Nonsense, OSError, after which the connection is of no use."""
        self._sock.settimeout(self._timeout_s if timeout_s is None else timeout_s)
        for buffer in encode(arguments):
            view, at = memoryview(buffer).cast("B"), 0
            while at < len(view):
                at += self._sock.send(view[at:])
                self._sign()
        reply = self._reader.reply()
        if self._reader.holds_more:
            raise Nonsense("more than one reply to one request")
        if isinstance(reply, Refusal):
            raise Trouble(condition_of(reply.words), reply.words, str(self.server))
        return reply

    def _receive(self, room: memoryview) -> int:
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)      # a 0-db sends a list in pieces, the next after our ACK
        count = self._sock.recv_into(room[:PIECE_BYTES])
        self._sign()
        return count

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has come while nobody asked, as the end of the connection would."""
        self._sock.setblocking(False)
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)      # wakes a thread that waits for it
        self._sock.close()


class Links:
    """Up to `connections` at once to one server, made when they are needed. For several threads.

    `as_admin`: with the administrator's password, and in the default namespace. Otherwise in the `namespace` given, or the one that
    holds the server's data now (generations.py). `greet` is called on each new connection, before anything else is; if it raises Trouble,
    the connection is closed, and who wanted it gets that.
    """

    def __init__(self, server: Server, timeout_s: float = TIMEOUT_S, connections: int = CONNECTIONS, *, as_admin: bool = False,
                 namespace: str | None = None, greet: Greet | None = None, connect: Connect = socket.create_connection,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.server, self.timeout_s = server, timeout_s
        self._as_admin, self._pinned, self._greet = as_admin, namespace, greet
        self.namespace = namespace or server.namespace # that of the newest connection: cursors of another one are worth nothing
        self._connect, self._clock = connect, clock
        self._room = threading.Condition()
        self._free = connections
        self._idle: list[_Connection] = []             # the one that was used last is used first
        self._busy: set[_Connection] = set()
        self._signs: dict[int, float] = {}             # of each thread with a call under way: when it last saw a byte go or come
        self._gave_up_at = -1.0                        # when one of them last gave up after a silence
        self._closed = False

    def call(self, *arguments: Argument, timeout_s: float | None = None) -> Answer:
        """The answer to one command. Raises Trouble. Errors inside an answer of many stay there, as `Refusal`.

        `timeout_s`: of silence. ValueError: the server would not take it (resp.py).
        """
        patience = self.timeout_s if timeout_s is None else timeout_s
        with self._place():
            try:
                return self._once(arguments, patience)
            except _Broken:
                lost()
            try:
                return self._once(arguments, patience)
            except _Broken as error:
                raise error.trouble from error.__cause__

    def _once(self, arguments: Sequence[Argument], patience: float) -> Answer:
        """Raises Trouble, or _Broken when it may be tried once more."""
        connection, usable = self._taken() or self._made(patience), False
        with self._room:
            self._busy.add(connection)
            closed = self._closed
        try:
            if closed:
                raise self._trouble(Condition.UNREACHABLE, "closed")
            if not connection.is_introduced:
                connection.introduce(self._as_admin, self._pinned, self._greet)
                self.namespace = connection.namespace
            answer = connection.call(*arguments, timeout_s=patience)
            usable = True
            return answer
        except Trouble as trouble:
            if trouble.condition is Condition.GONE:
                raise _Broken(trouble) from trouble
            usable = connection.is_introduced and trouble.condition not in generations.LEFT
            raise
        except TimeoutError as error:
            self._gave_up_at = self._clock()
            raise self._trouble(Condition.TIMED_OUT, f"no answer for {patience:g} s") from error
        except (Ended, OSError) as error:
            raise _Broken(self._trouble(Condition.UNREACHABLE, _said(error))) from error
        except Nonsense as error:
            raise self._trouble(Condition.STRANGE, f"answers with {error}") from error
        finally:
            self._back(connection, usable)

    def _made(self, patience: float) -> _Connection:
        server, within = self.server, min(CONNECT_S, patience)
        try:
            return _Connection(server, self._connect((server.host, server.port), within), patience, self._sign)
        except TimeoutError as error:
            self._gave_up_at = self._clock()
            raise self._trouble(Condition.UNREACHABLE, f"no connection to {server.address} within {within:g} s") from error
        except OSError as error:
            raise self._trouble(Condition.UNREACHABLE, f"no connection to {server.address}: {_said(error)}") from error

    def _back(self, connection: _Connection, usable: bool) -> None:
        with self._room:
            self._busy.discard(connection)
            if usable and not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    @property
    def silent_s(self) -> float:
        """For how long a call under way has not seen a byte; of several the longest; 0.0: there is none."""
        now = self._clock()
        return max((now - sign for sign in list(self._signs.values())), default=0.0)

    def _sign(self) -> None:
        self._signs[threading.get_ident()] = self._clock()
        moved()

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """Wait for one of the connections to be free. When a call on one is given up after a silence, so are those that wait here: each
        would wait for the same silence anew, one after the other."""
        since = self._clock()
        with self._room:
            while not self._free and not self._closed and self._gave_up_at <= since:
                self._room.wait()
            if self._closed:
                raise self._trouble(Condition.UNREACHABLE, "closed")
            if self._gave_up_at > since:
                raise self._trouble(Condition.TIMED_OUT, "no answer to others that asked before")
            self._free -= 1
            self._signs[threading.get_ident()] = self._clock()
        try:
            yield
        finally:
            with self._room:
                del self._signs[threading.get_ident()]
                self._free += 1
                self._room.notify_all()

    def _taken(self) -> _Connection | None:
        while True:
            with self._room:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if connection.is_quiet:
                return connection
            connection.close()

    def _trouble(self, condition: Condition, words: str) -> Trouble:
        return Trouble(condition, words, str(self.server))

    def close(self) -> None:
        """Calls that wait for an answer end with Trouble soon."""
        with self._room:
            self._closed = True
            connections, self._idle = [*self._idle, *self._busy], []
            self._room.notify_all()
        for connection in connections:
            connection.close()


class _Broken(Exception):
    """The connection is gone and with it the answer: the call may be made once more. `trouble`: what to say if it may not."""

    def __init__(self, trouble: Trouble) -> None:
        self.trouble = trouble
        super().__init__(str(trouble))


def _said(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__
