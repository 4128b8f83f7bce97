"""The daemon's end of the control socket."""
from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import trio

from s3cfs.errors import ExitCode, S3cfsError, SystemFailure

from .protocol import REQUEST_MAX_BYTES, short_address

log = logging.getLogger(__name__)

RECEIVE_BYTES = 16384
CONNECTIONS_MAX = 32
GOODBYE_S = 2.0
IDLE_S = 60.0                    # a client that says nothing for so long is sent away
DRAIN_S = 1.0                    # for requests that are being answered when the server ends

Progress = Callable[[Any], Awaitable[None]]
Handler = Callable[[dict[str, Any], Progress], Awaitable[Any]]


@contextlib.asynccontextmanager
async def control_server(path: str, handlers: Mapping[str, Handler], *, owner: int | None = None) -> AsyncIterator[Callable[[], None]]:
    """Inside, requests on the socket `path` are answered by `handlers`. `owner` is the uid besides root that may speak.

    Yields a function to be called now and then: when somebody has removed the socket, it is made again.
    """
    server = _Server(path, handlers, os.geteuid() if owner is None else owner)
    server.listen()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.accept)

            def keep() -> None:
                if not server.reachable():
                    log.warning("the control socket %s was removed; it is made again", path)
                    server.listen()
                    nursery.start_soon(server.accept)

            yield keep
            with trio.move_on_after(DRAIN_S):        # answers that are ready go out
                await server.drained()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:               # the caller's own, not the nursery's wrapping of it
            raise group.exceptions[0] from None
        raise
    finally:
        server.close()


def _listen(path: str) -> trio.socket.SocketType:
    """A listening socket of mode 0600 from its first moment. A file left by a dead daemon is replaced."""
    door = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.makedirs(os.path.dirname(path), mode=0o755 if os.geteuid() == 0 else 0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.fchmod(door.fileno(), 0o600)              # Linux makes the file with the mode of the socket
        with short_address(path) as address:
            # trio's bind would resolve the address in a thread of its own; this is a local name
            door_plain = socket.fromfd(door.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
            with door_plain:
                door_plain.bind(address)
        os.chmod(path, 0o600)
        door.listen(CONNECTIONS_MAX)
    except OSError as error:
        door.close()
        raise SystemFailure(f"control socket {path}: {error.strerror}") from None
    return door


class _Server:
    def __init__(self, path: str, handlers: Mapping[str, Handler], owner: int) -> None:
        self._path, self._handlers = path, handlers
        self._owner = owner
        self._room = trio.Semaphore(CONNECTIONS_MAX)
        self._answering = 0
        self._idle = trio.Event()
        self._listener: trio.socket.SocketType | None = None
        self._file: os.stat_result | None = None

    def listen(self) -> None:
        """At the path, from now on there and nowhere else."""
        made = _listen(self._path)
        if self._listener is not None:
            self._listener.close()
        self._listener, self._file = made, os.lstat(self._path)

    def reachable(self) -> bool:
        """Whether the path is still our socket."""
        try:
            return self._file is not None and os.path.samestat(os.lstat(self._path), self._file)
        except OSError:
            return False

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        if self.reachable():                         # else it is somebody else's
            os.unlink(self._path)

    async def drained(self) -> None:
        """Until no request is being answered."""
        while self._answering:
            self._idle = trio.Event()
            await self._idle.wait()

    async def accept(self) -> None:
        """Until the listener of this moment is closed."""
        listener = self._listener
        assert listener is not None
        async with trio.open_nursery() as nursery:
            while True:
                await self._room.acquire()
                try:
                    stream, _ = await listener.accept()
                except trio.ClosedResourceError:
                    self._room.release()
                    return
                except OSError as error:             # out of descriptors: they come back
                    self._room.release()
                    log.warning("control connection lost: %s", error)
                    await trio.sleep(1)
                    continue
                nursery.start_soon(self._connection, stream)

    async def _connection(self, stream: trio.socket.SocketType) -> None:
        try:
            with stream:
                uid = struct.unpack("3i", stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
                if uid not in (0, self._owner):
                    await _send(stream, _failure("only root and the owner of the mount may do that", ExitCode.ACCESS_DENIED))
                    await _say_goodbye(stream)
                    return
                lines = _Lines(stream)
                while True:
                    line = b""
                    with trio.move_on_after(IDLE_S):
                        line = await lines.next()
                    if not line:
                        return
                    self._answering += 1
                    try:
                        answer = await self._answer(stream, lines, line)
                        if answer is None:
                            return
                        await _send(stream, answer)
                    finally:
                        self._answering -= 1
                        self._idle.set()
        except (OSError, trio.ClosedResourceError) as error:
            log.debug("control connection: %s", error)
        finally:
            self._room.release()

    async def _answer(self, stream: trio.socket.SocketType, lines: _Lines, line: bytes) -> dict[str, Any] | None:
        """None when the client has gone meanwhile: then its request was cancelled."""
        answer: dict[str, Any] | None = None

        async def progress(state: Any) -> None:
            with contextlib.suppress(OSError):       # gone: the end of its connection is seen in a moment
                await _send(stream, {"progress": state})

        async def work() -> None:
            nonlocal answer
            answer = await self._run(line, progress)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            await lines.closed()
            nursery.cancel_scope.cancel()
        return answer

    async def _run(self, line: bytes, progress: Progress) -> dict[str, Any]:
        """Every error becomes an answer: a request cannot end the server."""
        try:
            request = json.loads(line)
            name, args = request["op"], request.get("args", {})
            if not isinstance(name, str) or not isinstance(args, dict):
                raise TypeError
        except (ValueError, KeyError, TypeError, AttributeError):
            return _failure('a request is {"op": "...", "args": {...}} on one line', ExitCode.USAGE)
        handler = self._handlers.get(name)
        if handler is None:
            return _failure(f"this mount does not know {name!r}; it knows {', '.join(sorted(self._handlers))}", ExitCode.UNSUPPORTED)
        try:
            return {"result": await handler(args, progress)}
        except S3cfsError as error:
            return _failure(str(error), error.exit_code)
        except OSError as error:
            return _failure(f"{error.filename or name}: {error.strerror or error}", ExitCode.SYSTEM)
        except Exception as error:
            log.exception("control op=%s", name)
            return _failure(f"internal error: {type(error).__name__}, see the log", ExitCode.INTERNAL)


class _Lines:
    """Lines of at most REQUEST_MAX_BYTES; b"" at the end of the connection or when a line is longer."""

    def __init__(self, stream: trio.socket.SocketType) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._ended = False

    async def next(self) -> bytes:
        while b"\n" not in self._buffer:
            if len(self._buffer) > REQUEST_MAX_BYTES or not await self._more():
                return b""
        line, _, rest = self._buffer.partition(b"\n")
        self._buffer = rest
        return bytes(line) or b" "

    async def closed(self) -> None:
        """Return when the client has gone (what it says meanwhile is kept, within the bound)."""
        while len(self._buffer) <= REQUEST_MAX_BYTES and await self._more():
            pass

    async def _more(self) -> bool:
        if not self._ended:
            try:
                data = await self._stream.recv(RECEIVE_BYTES)
            except ConnectionError:
                data = b""
            self._buffer += data
            self._ended = not data
        return not self._ended


def _failure(text: str, code: ExitCode) -> dict[str, Any]:
    return {"error": " ".join(text.splitlines()), "code": int(code)}


async def _send(stream: trio.socket.SocketType, message: dict[str, Any]) -> None:
    data = memoryview(json.dumps(message).encode() + b"\n")
    while data:
        data = data[await stream.send(data):]


async def _say_goodbye(stream: trio.socket.SocketType) -> None:
    """Take what is still coming for a moment: closing over unread bytes would cost the client our last answer."""
    stream.shutdown(socket.SHUT_WR)
    with trio.move_on_after(GOODBYE_S):
        for _ in range(REQUEST_MAX_BYTES // RECEIVE_BYTES):
            if not await stream.recv(RECEIVE_BYTES):
                return
