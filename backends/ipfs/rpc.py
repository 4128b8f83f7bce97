"""The RPC of a Kubo node: POST, arguments in the query, and answers that may still fail at their very end.

A command that fails once its answer has begun has sent status 200 by then: it says so in the trailer `X-Stream-Error`, behind the body.
HTTP libraries hide trailers; h11 does not, and opens no connections of its own, so time-outs and progress are ours. Read in go-ipfs-cmds
0.16 (http/), seen with Kubo 0.42. Connections are kept and used again, one request at a time on each.
"""
from __future__ import annotations

import base64
import contextlib
import itertools
import json
import re
import secrets
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlencode

import h11

from s3cfs.backends.progress import lost, moved
from s3cfs.backends.types import Body
from s3cfs.backends.url import Credentials
from s3cfs.errors import ConfigError, Corrupt, Denied, StoreError, StoreFull, Temporary, Unsupported
from s3cfs.limits import KIB, MIB

DEFAULT_PORT = 5001
SLACK_S = 5.0                      # how much longer than the node we wait, so that its own words arrive
PIECE_BYTES = 256 * KIB            # of one send: a socket's time-out counts for the whole of it
ANSWER_MAX_BYTES = 256 * MIB       # a folder of a million entries; more is no answer to anything that is asked here
IDLE_MAX = 16                      # connections that are kept

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?")
_LOCAL = re.compile(r"localhost|127\.\d+\.\d+\.\d+|\[::1\]")
_PART = "Content-Disposition: form-data; name=\"file\"; filename=\"file\"\r\nContent-Type: application/octet-stream\r\n\r\n"


class Refused(Exception):
    """The node's answer is an error. `status` of HTTP, 200 where it came in the trailer; `words` are its own."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(status, words)
        self.status, self.words = status, words


class Address(NamedTuple):
    host: str                      # as in the URL, IPv6 in brackets
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        found = _HOST.fullmatch(text)
        if not found or not 0 < int(found[2] or DEFAULT_PORT) < 65536:
            raise ConfigError(f"ipfs+rpc://{text}: expected ipfs+rpc://HOST[:PORT]/PREFIX/ (port {DEFAULT_PORT} unless it is given)")
        return cls(found[1], int(found[2] or DEFAULT_PORT))

    @property
    def is_local(self) -> bool:
        """Of this machine, by its name: what is sent there passes no net."""
        return bool(_LOCAL.fullmatch(self.host))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def authorization(credentials: Credentials) -> str:
    """The header's value: `bearer` as login means that the password is a token (`bearer:TOKEN` in the node's API.Authorizations)."""
    if not credentials.login:
        return ""
    if credentials.login.lower() == "bearer":
        return f"Bearer {credentials.password}"
    return "Basic " + base64.b64encode(f"{credentials.login}:{credentials.password}".encode()).decode()


class Rpc:
    """Calls of one node; by several threads at once."""

    def __init__(self, address: Address, timeout_s: float, *, authorization: str = "", tls: ssl.SSLContext | None = None,
                 connect: Callable[..., socket.socket] = socket.create_connection) -> None:
        self.address, self._timeout_s, self._authorization, self._tls, self._connect = address, timeout_s, authorization, tls, connect
        self._idle: list[_Link] = []
        self._lock = threading.Lock()
        self._closed = False

    def __call__(self, command: str, *arguments: str, file: Iterable[Body] | None = None, again: bool = True, **options: str) -> bytes:
        """The answer's body, whole. `file`: its pieces, sent as the request's one file, which they can be but once. `again`: ask once more
        if a kept connection turns out to be dead, which is not for what must happen once only. Options: `_` stands for `-`.

        Raises Refused, OSError, h11.ProtocolError: `errors` makes ours of them.
        """
        named = {name.replace("_", "-"): value for name, value in options.items()}
        if file is None:
            named.setdefault("timeout", f"{self._timeout_s:g}s")       # not where it would count what is sent
        target = f"/api/v0/{command}?" + urlencode([*(("arg", argument) for argument in arguments), *named.items()])
        headers = [("Host", str(self.address)), ("User-Agent", "s3cfs")]
        body: Iterable[Body] = ()
        if file is None:
            headers.append(("Content-Length", "0"))
        else:
            boundary = secrets.token_hex(16)                           # random, since what is sent may be anybody's
            body = itertools.chain([f"--{boundary}\r\n{_PART}".encode()], file, [f"\r\n--{boundary}--\r\n".encode()])
            headers += [("Transfer-Encoding", "chunked"), ("Content-Type", f"multipart/form-data; boundary={boundary}")]
        if self._authorization:
            headers.append(("Authorization", self._authorization))
        request = h11.Request(method="POST", target=target, headers=headers)
        link = self._link()
        try:
            try:
                answer = link.exchange(request, body)
            except (OSError, h11.ProtocolError):
                if file is not None or not (again and link.kept and not link.answered):
                    raise
                link.close()
                lost()
                link = self._new_link()
                answer = link.exchange(request, body)
        except Refused:
            self._keep(link)
            raise
        except BaseException:
            link.close()
            raise
        self._keep(link)
        return answer

    def json(self, command: str, *arguments: str, **more: Any) -> dict[str, Any]:
        """The answer's one object. Corrupt when it is none."""
        found = self.lines(command, *arguments, **more)
        if len(found) != 1:
            raise Corrupt("", "", f"{self.address} answered {command} with {len(found)} objects instead of one")
        return found[0]

    def lines(self, command: str, *arguments: str, **more: Any) -> list[dict[str, Any]]:
        """The objects of the answer, one a line."""
        answer = self(command, *arguments, **more)     # outside: errors of TLS are ValueErrors, too
        try:
            found = [json.loads(line) for line in answer.splitlines() if line.strip()]
        except ValueError:
            found = [None]
        if not all(isinstance(item, dict) for item in found):
            raise Corrupt("", "", f"{self.address} answered {command} with something else than JSON: is this a Kubo's RPC?")
        return found

    @contextlib.contextmanager
    def errors(self, operation: str, key: str) -> Iterator[None]:
        """What a call raises becomes an error of the store."""
        try:
            yield
        except Refused as error:
            raise self._translate(error, operation, key) from error
        except Corrupt as error:
            error.operation, error.key = operation, key
            raise
        except (h11.ProtocolError, OSError) as error:
            raise Temporary(operation, key, f"{self.address}: {self._trouble(error)}") from error

    def close(self) -> None:
        with self._lock:
            idle, self._idle, self._closed = self._idle, [], True
        for link in idle:
            link.close()

    def _link(self) -> _Link:
        while True:
            with self._lock:
                link = self._idle.pop() if self._idle else None
            if link is None:
                return self._new_link()
            if not link.has_ended():
                return link
            link.close()

    def _new_link(self) -> _Link:
        connection = self._connect((self.address.host.strip("[]"), self.address.port), self._timeout_s + SLACK_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            try:
                connection = self._tls.wrap_socket(connection, server_hostname=self.address.host.strip("[]"))
            except BaseException:
                connection.close()
                raise
        return _Link(connection)

    def _keep(self, link: _Link) -> None:
        with self._lock:
            if not self._closed and len(self._idle) < IDLE_MAX and link.may_go_on():
                self._idle.append(link)
                return
        link.close()

    def _trouble(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer within {self._timeout_s + SLACK_S:g} s"
        return getattr(error, "strerror", None) or str(error) or type(error).__name__

    def _translate(self, error: Refused, operation: str, key: str) -> StoreError:
        words = f"{self.address}: {error.words}"
        if error.status in (401, 403):
            return Denied(operation, key, f"{words} (backend-login is the user, or bearer where backend-password is a token; the node's "
                                          f"API.Authorizations must allow /api/v0)")
        if error.status in (404, 405, 501):
            return Unsupported(operation, key, f"{words}: this is no Kubo's RPC, or an old one")
        if "no space left" in error.words or "quota exceeded" in error.words:
            return StoreFull(operation, key, words)
        return Temporary(operation, key, words)


class _Link:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket, self._http = connection, h11.Connection(h11.CLIENT)
        self.kept = False              # it has answered something before
        self.answered = False          # something of the answer to this request came

    def exchange(self, request: h11.Request, body: Iterable[Body]) -> bytes:
        self.answered = False
        try:
            self._send(request)
            for piece in body:
                view = memoryview(piece)
                for at in range(0, len(view), PIECE_BYTES):
                    self._send(h11.Data(data=view[at:at + PIECE_BYTES]))     # type: ignore[arg-type]  # passed through as it is
                    moved()
            self._send(h11.EndOfMessage())
        except ConnectionError:                        # who refuses does not read all of it, and may have said why
            with contextlib.suppress(OSError, h11.ProtocolError):
                self._answer()
            raise
        return self._answer()

    def _send(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> None:
        for piece in self._http.send_with_data_passthrough(event) or ():
            self._socket.sendall(piece)

    def _answer(self) -> bytes:
        """The body of an answer that is none of an error, else Refused."""
        status, body, size, late = 0, list[bytes](), 0, ""
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                data = self._socket.recv(PIECE_BYTES)
                if not data:
                    raise h11.RemoteProtocolError("the connection ended before the answer did")
                self.answered = True
                self._http.receive_data(data)
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body.append(bytes(event.data))
                size += len(event.data)
                moved()
                if size > ANSWER_MAX_BYTES:
                    raise h11.RemoteProtocolError("the answer does not end")
            elif isinstance(event, h11.EndOfMessage):
                late = next((value.decode("utf-8", "replace") for name, value in event.headers if name == b"x-stream-error"), "")
                break
        if status != 200 or late:
            said = _words(status, b"".join(body))
            raise Refused(status, f"{late}: {said}" if late and said.startswith('"') else late or said)
        return b"".join(body)

    def may_go_on(self) -> bool:
        self.kept = True
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    def has_ended(self) -> bool:
        """Whatever can be read while nothing was asked is its end."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        self._socket.close()


def _words(status: int, body: bytes) -> str:
    """`{"Message": ...}`, or plain text from what stands before the commands. One line."""
    text = body[:2000].decode("utf-8", "replace")
    with contextlib.suppress(ValueError):
        found = json.loads(body)
        if isinstance(found, dict) and isinstance(found.get("Message"), str):
            text = found["Message"]
    return " ".join(text.split())[:500] or f"HTTP status {status}"
