"""One connection of a client: HTTP/1.1, what the gateway answers by itself, and what it passes on."""
from __future__ import annotations

import http.client
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Protocol, cast
from urllib.parse import parse_qsl, unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from tests.gateway import listing
from tests.gateway.faults import Fault
from tests.gateway.index import BadToken, Entry, Seen
from tests.gateway.upstream import BLOCK, HOP_BY_HOP

if TYPE_CHECKING:
    from tests.gateway.gateway import Gateway, Line

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_PLAIN = ("acl", "policy", "location", "versioning", "lifecycle", "tagging", "cors", "object-lock", "versions")
_PIECES = ("uploads", "uploadId", "partNumber")
MESSAGES = {"SlowDown": "Please reduce your request rate.", "NoSuchKey": "The specified key does not exist.",
            "NotImplemented": "A header you provided implies functionality that is not implemented"}


class Gone(Exception):
    """The connection ends here, without a further byte."""


class Front(Protocol):
    """The server that a handler belongs to."""

    gateway: Gateway


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str
    operation: str
    bucket: str
    key: str                       # of a listing its prefix
    query: dict[str, str]

    @property
    def path(self) -> str:
        return f"{self.bucket}/{self.key}"

    @classmethod
    def of(cls, method: str, target: str) -> Request:
        path, _, text = target.partition("?")
        query = dict(parse_qsl(text, keep_blank_values=True))
        bucket, _, key = unquote(path.lstrip("/")).partition("/")
        operation = "other"
        if key and not any(name in query for name in (*_PIECES, *_PLAIN)):
            operation = {"GET": "get", "HEAD": "head", "PUT": "put", "DELETE": "delete"}.get(method, "other")
        elif method == "POST" and "delete" in query:
            operation = "delete"
        elif method == "GET" and bucket and not key and not any(name in query for name in (*_PIECES, *_PLAIN)):
            operation, key = "list", query.get("prefix", "")
        return cls(method, target, operation, bucket, key, query)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.gateway = cast("Front", self.server).gateway
        self.line: Line = self.gateway.opened(self.connection)
        self.expecting = False

    def finish(self) -> None:
        self.gateway.closed(self.line)
        super().finish()

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            pass                       # the client, or a restart of the gateway, ended it

    def handle_expect_100(self) -> bool:
        self.expecting = True          # the body is asked for once it is wanted
        return True

    def serve(self) -> None:
        request = Request.of(self.command, self.path)
        self.left = int(self.headers.get("Content-Length") or 0)
        self.note = self.gateway.began(self.line, request)
        try:
            self._act(request)
        except Gone:
            self.close_connection = True
        finally:
            self.gateway.ended(self.line)
            self.expecting = False

    do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = serve

    def _act(self, request: Request) -> None:
        if self.line.silent:
            self._say_nothing("silent")
        fault = self._fault("reset", "hang", "throttle", "error", "slow")
        if fault and fault.name == "reset":
            raise Gone
        if fault and fault.name == "hang":
            self._say_nothing("hang")
        if fault and fault.name in ("throttle", "error"):
            after = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
            code = "SlowDown" if fault.name == "throttle" else {503: "ServiceUnavailable"}.get(fault.status, "InternalError")
            self.answer(fault.status, code, headers=after)
            return
        if fault:
            self.gateway.clock.wait(fault.seconds, self.gateway.faults.ended)
        if any(name in request.query for name in _PIECES) or self.headers.get("x-amz-copy-source"):
            self.answer(501, "NotImplemented")
            return
        act = {"list": self._list, "get": self._get, "head": self._get, "put": self._put, "delete": self._delete}
        act.get(request.operation, self._pass_on)(request)

    def _fault(self, *names: str) -> Fault | None:
        """The one that hits this request, noted."""
        fault = self.gateway.choose(self.note.operation, self.note.path, *names)
        if fault:
            self.note.faults.append(fault.name)
        return fault

    def _say_nothing(self, why: str) -> None:
        """Take what the client sends, as a dead connection seems to, and never answer."""
        self.note.faults.append(why)
        self.gateway.faults.ended.wait()
        raise Gone

    def _headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}

    # ------------------------------------------------------------ bodies and answers

    def incoming(self) -> Iterator[bytes]:
        """The request's body; Gone when the client stops in the middle of it."""
        if self.expecting:
            self.expecting = False
            self.send_response_only(100)
            self.end_headers()
        while self.left:
            data = self.rfile.read(min(self.left, BLOCK))
            if not data:
                raise Gone
            self.left -= len(data)
            yield data

    def answer(self, status: int, code: str = "", message: str = "", *, headers: dict[str, str] | None = None,
               body: bytes | None = None) -> None:
        """One of the gateway's own; an error document unless `body` is given."""
        if not self.expecting:                         # else the client keeps its body
            for _ in self.incoming():
                pass
        if body is None:
            message = escape(message or MESSAGES.get(code, code))
            text = (f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message>"
                    "<RequestId>gateway</RequestId></Error>")
            body = text.encode() if code else b""
        self._head(status, {"Content-Type": "application/xml", **({} if status == 204 else {"Content-Length": str(len(body))}),
                            **(headers or {})})
        self._body([b"" if self.command == "HEAD" or status == 204 else body], len(body))

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.note.status = status
        self.send_response_only(status)
        self.send_header("Date", self.date_time_string())
        for name, value in headers.items():
            self.send_header(name, value)
        if self.left and not self.expecting:
            self.send_header("Connection", "close")
        self.end_headers()

    def _body(self, pieces: Iterable[bytes], size: int) -> None:
        """Half of it, and then the end of the connection, where the fault `cut` says so."""
        left = size
        if self.note.operation in ("get", "list") and self.note.status < 300 and self._fault("cut"):
            left = size // 2
        for piece in pieces:
            self.wfile.write(piece[:left])
            left -= len(piece)
            if left < 0:
                raise Gone
        self.wfile.flush()

    def _forward(self, request: Request, body: Iterable[bytes]) -> http.client.HTTPResponse:
        return self.gateway.upstream.send(self.command, self.path, self.headers.items(), body)

    def _relay(self, answer: http.client.HTTPResponse) -> None:
        headers = {name: value for name, value in answer.headers.items() if name.lower() not in (*HOP_BY_HOP, "date", "content-length")}
        size = answer.headers.get("Content-Length")
        if self.command == "HEAD" or answer.status in (204, 304):
            self._head(answer.status, {**headers, **({"Content-Length": size} if size is not None else {})})
            return
        if size is None:
            data = answer.read()
            self._head(answer.status, {**headers, "Content-Length": str(len(data))})
            self._body([data], len(data))
            return
        self._head(answer.status, {**headers, "Content-Length": size})
        self._body(iter(lambda: answer.read(BLOCK), b""), int(size))

    def _pass_on(self, request: Request) -> None:
        with self._forward(request, self.incoming()) as answer:
            self._relay(answer)

    # ------------------------------------------------------------ operations

    def _get(self, request: Request) -> None:
        stale = self._fault("stale")
        seen = self.gateway.index.seen(request.path, stale.seconds if stale else 0)
        if seen is None:
            self._pass_on(request)
        elif seen.entry is None:
            self.answer(404, "NoSuchKey")
        else:
            self._old(seen, seen.entry)

    def _old(self, seen: Seen, entry: Entry) -> None:
        data, status, headers = seen.body or b"", 200, {"ETag": entry.etag, "Last-Modified": self.date_time_string(entry.modified)}
        if found := _RANGE.fullmatch(self.headers.get("Range", "")):
            first, last = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
            if first >= len(data):
                self.answer(416, "InvalidRange")
                return
            status, headers["Content-Range"] = 206, f"bytes {first}-{last}/{len(data)}"
            data = data[first:last + 1]
        self.answer(status, headers={**headers, "Content-Type": "application/octet-stream"}, body=data)

    def _put(self, request: Request) -> None:
        late = self._fault("late")
        body: Iterable[bytes] = self.incoming()
        if late:
            body = [*body]
            self.gateway.clock.wait(late.seconds, self.gateway.faults.ended)
        index, path, size = self.gateway.index, request.path, self.left
        size = sum(len(piece) for piece in body) if isinstance(body, list) else size
        with self.gateway.changing(path):
            if self.gateway.create_only and self.headers.get("If-None-Match") == "*" and index.entry(path):
                self.answer(412, "PreconditionFailed")
                return
            if index.hidden(path):                     # for everybody it is deleted: so it is now
                self.gateway.upstream.delete(request.bucket, request.key)
            before = self.gateway.remembered(request.bucket, request.key)
            with self._forward(request, body) as answer:
                if answer.status < 300:
                    index.put(path, Entry(size, answer.headers.get("ETag", '""'), time.time()), before)
                if self._fault("lost"):
                    raise Gone
                self._relay(answer)

    def _delete(self, request: Request) -> None:
        if request.method != "DELETE":
            self._delete_many(request)
            return
        if not self._spared(request.bucket, request.key):
            with self.gateway.changing(request.path):
                before = self.gateway.remembered(request.bucket, request.key)
                with self._forward(request, self.incoming()) as answer:
                    if answer.status >= 300:
                        self._relay(answer)
                        return
                    self.gateway.index.remove(request.path, before)
        if self._fault("lost"):
            raise Gone
        self.answer(204)

    def _spared(self, bucket: str, key: str) -> bool:
        """Whether a fault keeps it from being deleted, for good or for a while."""
        fault = self.gateway.choose("delete", f"{bucket}/{key}", "stays", "returns")
        if fault is None:
            return False
        self.note.faults.append(fault.name)
        if fault.name == "returns":
            with self.gateway.changing(f"{bucket}/{key}"):
                self.gateway.index.hide(f"{bucket}/{key}", self.gateway.remembered(bucket, key), fault.seconds)
        return True

    def _delete_many(self, request: Request) -> None:
        body = b"".join(self.incoming())
        if refusal := self.gateway.upstream.refusal(self.command, self.path, self._headers(), body):
            self.answer(403, refusal)
            return
        said = []
        for item in ElementTree.fromstring(body).findall("{*}Object"):
            key, status = item.findtext("{*}Key") or "", 204
            if not self._spared(request.bucket, key):
                with self.gateway.changing(f"{request.bucket}/{key}"):
                    before = self.gateway.remembered(request.bucket, key)
                    status = self.gateway.upstream.delete(request.bucket, key)
                    if status < 300:
                        self.gateway.index.remove(f"{request.bucket}/{key}", before)
            said.append(f"<Deleted><Key>{escape(key)}</Key></Deleted>" if status < 300 or status == 404 else
                        f"<Error><Key>{escape(key)}</Key><Code>InternalError</Code><Message>{status}</Message></Error>")
        if self._fault("lost"):
            raise Gone
        text = f'<?xml version="1.0" encoding="UTF-8"?><DeleteResult xmlns="{listing.NAMESPACE}">{"".join(said)}</DeleteResult>'
        self.answer(200, body=text.encode())

    def _list(self, request: Request) -> None:
        if refusal := self.gateway.upstream.refusal(self.command, self.path, self._headers(), b""):
            self.answer(403, refusal)
            return
        stale = self._fault("stale")
        try:
            text = listing.listed(self.gateway, request.bucket, request.query, stale.seconds if stale else 0)
        except listing.TooMany as error:
            self.answer(501, "NotImplemented", str(error))
        except BadToken:
            self.answer(400, "InvalidArgument", "The continuation token provided is incorrect")
        else:
            self.answer(200, body=text.encode())

    def version_string(self) -> str:
        return "Storj"

    def log_message(self, format: str, *args: object) -> None:
        pass
