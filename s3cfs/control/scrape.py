"""One page of text over HTTP, for who comes by and reads it (Prometheus): `GET /metrics`, and nothing else.

By hand, since there is nothing to HTTP here: of a request only the first line matters, each connection carries one, and what comes
beyond the bounds is not waited for. Whoever is slow or says nothing holds up himself: the oldest connection gives way to the newest.
"""
from __future__ import annotations

import ipaddress
import logging
import re
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

import trio

from s3cfs.errors import SystemFailure

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 16
BACKLOG = 512                      # connections that come at once and are soon looked at
REQUEST_MAX_BYTES = 8 * 1024
REQUEST_WITHIN_S = 5.0
ANSWER_WITHIN_S = 10.0
GOODBYE_S = 1.0
NO_DESCRIPTORS_S = 1.0
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_REQUEST = re.compile(rb"([A-Z]{1,16}) (/[\x21-\x7e]*) HTTP/1\.[01]\r\n")

Page = Callable[[], Awaitable[str]]       # "" when there is nothing to tell now


def bind(address: str) -> list[socket.socket]:
    """Listening sockets at HOST:PORT, one for each address that HOST has. SystemFailure, in one line, where that cannot be."""
    host, _, port = address.rpartition(":")
    bound: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, _, _, place in dict.fromkeys(found):
            listener = socket.socket(family, kind)
            bound.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(place)
            listener.listen(BACKLOG)
    except OSError as error:
        for listener in bound:
            listener.close()
        raise SystemFailure(f"metrics cannot be served at {address}: {error.strerror or error}") from None
    return bound


def everybodys(listeners: Sequence[socket.socket]) -> bool:
    """Whether others than this machine reach one of them."""
    return not all(ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback for listener in listeners)


async def serve(listeners: Sequence[socket.socket], page: Page) -> None:
    """Until cancelled. The listeners stay open."""
    server = _Server(page)
    async with trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(server.accept, trio.socket.from_stdlib_socket(listener.dup()))


class _Server:
    def __init__(self, page: Page) -> None:
        self._page = page
        self._open: OrderedDict[trio.CancelScope, None] = OrderedDict()       # a connection each, the oldest first

    async def accept(self, listener: trio.socket.SocketType) -> None:
        with listener:
            async with trio.open_nursery() as nursery:
                while True:
                    try:
                        stream, _ = await listener.accept()
                    except OSError as error:               # out of descriptors: they come back
                        log.debug("metrics: %s", error)
                        await trio.sleep(NO_DESCRIPTORS_S)
                        continue
                    while len(self._open) >= CONNECTIONS_MAX:
                        self._open.popitem(last=False)[0].cancel()
                    scope = trio.CancelScope()
                    self._open[scope] = None
                    nursery.start_soon(self._connection, stream, scope)

    async def _connection(self, stream: trio.socket.SocketType, scope: trio.CancelScope) -> None:
        try:
            with stream, scope:
                await self._talk(stream)
        except OSError as error:
            log.debug("metrics: %s", error)
        finally:
            self._open.pop(scope, None)

    async def _talk(self, stream: trio.socket.SocketType) -> None:
        request = b""
        with trio.move_on_after(REQUEST_WITHIN_S):
            request = await _head(stream)
        if not request:
            return
        left = memoryview(await self._answer(request))
        with trio.move_on_after(ANSWER_WITHIN_S):
            while left:
                left = left[await stream.send(left):]
        stream.shutdown(socket.SHUT_WR)
        with trio.move_on_after(GOODBYE_S):                # closing over unread bytes would cost the client our answer
            for _ in range(4):
                if not await stream.recv(REQUEST_MAX_BYTES):
                    break

    async def _answer(self, request: bytes) -> bytes:
        found = _REQUEST.match(request)
        if not found or not request.endswith(b"\r\n\r\n"):
            return _response("400 Bad Request", "not a request that is understood here\n")
        method, path = found[1], found[2].partition(b"?")[0]
        if path != b"/metrics":
            return _response("404 Not Found", "there is /metrics only\n")
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", "GET it\n", "Allow: GET, HEAD\r\n")
        try:
            text = await self._page()
        except Exception:                                  # the mount goes on, and so does this
            log.exception("metrics could not be made")
            text = ""
        if not text:
            return _response("503 Service Unavailable", "nothing can be told now: the mount begins or ends\n")
        whole = _response("200 OK", text)
        return whole if method == b"GET" else whole[:whole.index(b"\r\n\r\n") + 4]


async def _head(stream: trio.socket.SocketType) -> bytes:
    """All up to the empty line; what came, if that is too much; b"" when the client went before."""
    data = bytearray()
    while b"\r\n\r\n" not in data:
        if len(data) > REQUEST_MAX_BYTES:
            return bytes(data)
        more = await stream.recv(REQUEST_MAX_BYTES + 1 - len(data))
        if not more:
            return b""
        data += more
    return bytes(data[:data.index(b"\r\n\r\n") + 4])


def _response(status: str, text: str, more: str = "") -> bytes:
    body = text.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n{more}Connection: close\r\n\r\n"
    return head.encode() + body
