"""A tiny HTTP server on loopback that answers what a test tells it to, byte for byte as S3 does, and keeps what it was asked.

For what the real servers at hand cannot produce: a skewed clock, a bucket in another region, 503 with Retry-After, a transfer that
breaks off. As a plain HTTP proxy (HTTP_PROXY) it also shows what would have gone to a host that does not exist.
"""
from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from s3cfs.backends.base import Backend
from s3cfs.backends.registry import open_backend


@dataclass(frozen=True, slots=True)
class Answer:
    """`announced`: a Content-Length other than the body's (the connection is closed after the body). `silent`: no answer at all."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    announced: int | None = None
    silent: bool = False
    closed: bool = False           # the connection is closed instead of an answer, as by a server that had done with it


@dataclass(frozen=True, slots=True)
class Asked:
    method: str
    target: str
    headers: dict[str, str]        # names in lower case
    body: bytes


def error(status: int, code: str, message: str = "", more: str = "", headers: dict[str, str] | None = None) -> Answer:
    """An S3 error document."""
    body = (f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>{more}'
            "<RequestId>4442587FB7D0A2F9</RequestId></Error>")
    return Answer(status, body.encode(), {"Content-Type": "application/xml", **(headers or {})})


def page(keys: list[str], token: str = "") -> Answer:
    """One page of ListObjectsV2."""
    more = "<IsTruncated>false</IsTruncated>"
    if token:
        more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
    contents = "".join(f"<Contents><Key>{key}</Key><Size>1</Size></Contents>" for key in keys)
    body = f'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{more}{contents}</ListBucketResult>'
    return Answer(200, body.encode(), {"Content-Type": "application/xml"})


class AnsweringServer:
    """`answers` are given in order; the last one is given for ever."""

    def __init__(self, port: int) -> None:
        self.host = f"127.0.0.1:{port}"
        self.answers: list[Answer] = [Answer()]
        self.asked: list[Asked] = []
        self.refuse_expect = False         # answer "Expect: 100-continue" at once instead of asking for the body
        self.ended = threading.Event()
        self._lock = threading.Lock()

    def next_answer(self, asked: Asked) -> Answer:
        with self._lock:
            self.asked.append(asked)
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def backend(self, *, login: str = "login", password: str = "password", **options: str) -> Backend:
        given = {name.replace("_", "-"): value for name, value in options.items()}
        return open_backend(f"s3c://{self.host}/bucket/prefix/", {"no-ssl": "", **given}, login=login, password=password)


@contextmanager
def answering() -> Iterator[AnsweringServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_answer(self, body: bytes) -> None:
            answer = server.next_answer(Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            if answer.closed:
                self.close_connection = True
                return
            if answer.silent:
                server.ended.wait(30)
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body) if answer.announced is None else answer.announced))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)
            if answer.announced is not None:
                self.close_connection = True

        def handle_expect_100(self) -> bool:
            if not server.refuse_expect:
                return super().handle_expect_100()
            self.handle_one_answer(b"")
            self.close_connection = True
            return False

        def do_PUT(self) -> None:
            self.handle_one_answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

        do_GET = do_HEAD = do_DELETE = do_POST = do_PUT

        def version_string(self) -> str:
            return "answers"

        def log_message(self, format: str, *args: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    server = AnsweringServer(httpd.server_port)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        httpd.shutdown()
        httpd.server_close()
        thread.join()
