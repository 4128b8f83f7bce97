"""Talking to a running mount: a unix socket with one JSON object a line, never a request through the mount itself.

So `s3cfs stat` answers while the mount hangs, and `s3cfs umount` follows the upload after the mount is gone.

    -> {"op": "flush", "args": {}}
    <- {"progress": {...}}                     any number of times
    <- {"result": {...}}                       or {"error": "one line", "code": 4}

A connection carries one request after the other. If the client goes away, what it asked for is cancelled.
Only root and the owner of the daemon may speak (SO_PEERCRED).

A small file in a registry folder, /run/s3cfs/<major:minor>.json for root, says which socket belongs to which mount.
"""
from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import trio

from s3cfs.errors import ExitCode, NotAMount, S3cfsError, SystemFailure

log = logging.getLogger(__name__)

REQUEST_MAX_BYTES = 64 * 1024
ANSWER_MAX_BYTES = 4 * 1024 * 1024
RECEIVE_BYTES = 16384
CONNECTIONS_MAX = 32
GOODBYE_S = 2.0
IDLE_S = 60.0                    # a client that says nothing for so long is sent away
CONNECT_TIMEOUT_S = 10.0
DRAIN_S = 1.0                    # for requests that are being answered when the server ends
SOCKET_PATH_MAX_BYTES = 100      # of the 108 of sockaddr_un
ROOT_REGISTRY = Path("/run/s3cfs")

Progress = Callable[[Any], Awaitable[None]]
Handler = Callable[[dict[str, Any], Progress], Awaitable[Any]]


class ControlError(S3cfsError):
    """The daemon's answer was an error: its text, and its exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.exit_code = ExitCode(code) if code in ExitCode._value2member_map_ else ExitCode.INTERNAL


class DaemonGone(S3cfsError):
    """There is no daemon at that socket, or it went away in the middle of an answer."""

    exit_code = ExitCode.NOT_A_MOUNT


# ---------------------------------------------------------------- the server

@contextlib.asynccontextmanager
async def control_server(path: str, handlers: Mapping[str, Handler], *, owner: int | None = None) -> AsyncIterator[None]:
    """Inside, requests on the socket `path` are answered by `handlers`. `owner` is the uid besides root that may speak."""
    owner = os.geteuid() if owner is None else owner
    listener = _listen(path)
    try:
        async with trio.open_nursery() as nursery:
            server = _Server(handlers, owner)
            nursery.start_soon(server.accept, listener, nursery)
            yield
            with trio.move_on_after(DRAIN_S):        # answers that are ready go out
                await server.drained()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:               # the caller's own, not the nursery's wrapping of it
            raise group.exceptions[0] from None
        raise
    finally:
        listener.close()
        with contextlib.suppress(OSError):
            os.unlink(path)


def _listen(path: str) -> trio.socket.SocketType:
    """A listening socket of mode 0600 from its first moment. A file left by a dead daemon is replaced."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    door = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(door.fileno(), 0o600)              # Linux makes the file with the mode of the socket
        with _short(path) as address:
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
    def __init__(self, handlers: Mapping[str, Handler], owner: int) -> None:
        self._handlers = handlers
        self._owner = owner
        self._room = trio.Semaphore(CONNECTIONS_MAX)
        self._answering = 0
        self._idle = trio.Event()

    async def drained(self) -> None:
        """Until no request is being answered."""
        while self._answering:
            self._idle = trio.Event()
            await self._idle.wait()

    async def accept(self, listener: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        while True:
            await self._room.acquire()
            try:
                stream, _ = await listener.accept()
            except OSError as error:                 # out of descriptors: they come back
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


@contextlib.contextmanager
def _short(path: str) -> Iterator[str]:
    """`path` as an address: a long one by way of a descriptor of its folder."""
    if len(os.fsencode(path)) <= SOCKET_PATH_MAX_BYTES:
        yield path
        return
    folder, name = os.path.split(path)
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


# ---------------------------------------------------------------- the client

def call(path: str, op: str, args: Mapping[str, Any] | None = None, on_progress: Callable[[Any], None] | None = None, *,
         timeout_s: float | None = None) -> Any:
    """Ask the daemon and wait for the result. ControlError with its exit code, DaemonGone when nobody is there.

    `timeout_s` bounds the silence between two lines of the answer, not the whole.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.settimeout(CONNECT_TIMEOUT_S)
        try:
            with _short(path) as address:
                door.connect(address)
        except PermissionError:
            raise ControlError("only root and the owner of the mount may do that", ExitCode.ACCESS_DENIED) from None
        except OSError:
            raise DaemonGone("the daemon of this mount does not run any more (umount --lazy clears the mount point)") from None
        door.settimeout(timeout_s)
        try:
            door.sendall(json.dumps({"op": op, "args": dict(args or {})}).encode() + b"\n")
            with door.makefile("rb") as answers:
                while line := answers.readline(ANSWER_MAX_BYTES):
                    answer = json.loads(line)
                    if "error" in answer:
                        raise ControlError(str(answer["error"]), int(answer.get("code", ExitCode.INTERNAL)))
                    if "result" in answer:
                        return answer["result"]
                    if on_progress is not None:
                        on_progress(answer.get("progress"))
        except TimeoutError:
            raise DaemonGone(f"the daemon did not answer within {timeout_s:g} s") from None
        except (OSError, ValueError) as error:
            raise DaemonGone(f"the daemon's answer broke off: {error}") from None
    raise DaemonGone("the daemon ended in the middle of its answer")


# ---------------------------------------------------------------- the registry

@dataclass(frozen=True, slots=True)
class Registration:
    """Who serves a mount. `started` is the process's start in clock ticks, so that a number used again is seen."""

    device: str                  # "major:minor"
    mountpoint: str
    url: str
    socket: str
    pid: int
    started: int

    def alive(self) -> bool:
        return _started(self.pid) == self.started


def registry_folder(uid: int | None = None) -> Path:
    """Where mounts of this user are registered."""
    uid = os.geteuid() if uid is None else uid
    if uid == 0:
        return ROOT_REGISTRY
    if uid == os.geteuid() and os.environ.get("XDG_RUNTIME_DIR"):
        return Path(os.environ["XDG_RUNTIME_DIR"], "s3cfs")
    standard = Path("/run/user", str(uid))
    return standard / "s3cfs" if standard.is_dir() else Path("/tmp", f"s3cfs-{uid}")


def register(device: str, mountpoint: str, url: str, socket_path: str, *, folder: Path | None = None) -> Path:
    """Say that this process serves the mount; returns the file, to be unlinked by `unregister` at the end."""
    folder = folder or registry_folder()
    entry = Registration(device, mountpoint, url, socket_path, os.getpid(), _started(os.getpid()) or 0)
    try:
        folder.mkdir(mode=0o700 if os.geteuid() else 0o755, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.geteuid():     # somebody else's folder in /tmp
            raise SystemFailure(f"registry {folder} belongs to another user")
        for old in _entries(folder):
            if not old.alive():
                unregister(folder / f"{old.device}.json")
        file, new = folder / f"{device}.json", folder / f".{device}.{os.getpid()}"
        new.write_text(json.dumps(asdict(entry)))
        new.rename(file)
    except OSError as error:
        raise SystemFailure(f"registry {folder}: {error.strerror}") from None
    return file


def unregister(file: Path) -> None:
    """Unless another process has put its own there meanwhile."""
    entry = _read(file)
    if entry is None or entry.pid == os.getpid() or not entry.alive():
        file.unlink(missing_ok=True)


def find(mountpoint: str, device: str | None = None) -> Registration:
    """Who serves `mountpoint` (an absolute path), also while it is unmounted already and its daemon still uploads. With `device`,
    from the mount table, just that mount. NotAMount, in one line, when there is nobody. Never touches the mount: it may hang.
    """
    parent, name = os.path.split(mountpoint)
    paths = {mountpoint, os.path.join(os.path.realpath(parent), name)}
    found = [entry for folder in _folders() for entry in _entries(folder)
             if (entry.device == device if device is not None else entry.mountpoint in paths)]
    for entry in found:
        if entry.alive():
            return entry
    if found:
        raise NotAMount(f"{mountpoint}: the daemon of this mount has died (s3cfs umount --lazy clears the mount point)")
    raise NotAMount(f"{mountpoint}: no s3cfs of yours is mounted there")


def _folders() -> list[Path]:
    """Where to look: one's own registry and root's; root looks at everybody's."""
    folders = [registry_folder(), ROOT_REGISTRY]
    if os.geteuid() == 0:
        folders += sorted(Path("/run/user").glob("*/s3cfs")) + sorted(Path("/tmp").glob("s3cfs-[0-9]*"))
    return [folder for folder in dict.fromkeys(folders) if _trusted(folder)]


def _entries(folder: Path) -> Iterator[Registration]:
    try:
        files = sorted(folder.glob("*.json"))
    except OSError:
        return
    for file in files:
        entry = _read(file)
        if entry is not None:
            yield entry


def _read(file: Path) -> Registration | None:
    try:
        return Registration(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _trusted(folder: Path) -> bool:
    """A folder in a place where anybody may make one counts only if it is its supposed owner's."""
    try:
        return folder.parent != Path("/tmp") or folder.stat().st_uid == int(folder.name.removeprefix("s3cfs-"))
    except (OSError, ValueError):
        return False


def _started(pid: int) -> int | None:
    try:
        stat = Path("/proc", str(pid), "stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
