"""A Kubo of ours: the commands of its RPC that `ipfs+rpc://` uses, in memory, behind a socket.

Replies, words and status codes are those that Kubo 0.42.0 gave (docs/ipfs.md says how they were seen); the suite runs on both. What it has
not: a net, HAMT-sharded folders, and the races of its MFS (here every command is one step).

    with KuboServer() as node: open_backend(node.url("x/"))

Things go wrong on demand: `node.faults.append(Fault("block/get", ...))` is for the next call of that command.
"""
from __future__ import annotations

import base64
import json
import re
import socketserver
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, NoReturn
from urllib.parse import parse_qs, urlsplit

from s3cfs.backends.ipfs.car import Archive
from s3cfs.backends.ipfs.cid import RAW, Cid, digest_of
from tests.backends.ipfs.kubo_state import CommandError, Node

DENIED = "Kubo RPC Access Denied: Please provide a valid authorization token as defined in the API.Authorizations configuration."
LATE, BROKEN, CLOSED, STATUS, OTHER = "late", "broken", "closed", "status", "other"


@dataclass(frozen=True, slots=True)
class Fault:
    """For one call of `command`. LATE: the answer comes, then `words` in the trailer. BROKEN: half of it, then the connection ends.
    CLOSED: the connection ends instead of an answer, though the command was carried out (`first`: it was not). STATUS: this one instead.
    OTHER: the answer is `words`."""

    command: str
    kind: str
    words: str = "something broke"
    status: int = 500
    first: bool = False


@dataclass(slots=True)
class Answer:
    body: bytes = b""
    late: str = ""                 # in the trailer


class Call:
    """One request: `argument(0)`, `option("name")`, `file`."""

    def __init__(self, query: str, file: bytes | None) -> None:
        self._query, self.file = parse_qs(query, keep_blank_values=True), file

    @property
    def arguments(self) -> list[str]:
        return self._query.get("arg", [])

    def argument(self, number: int = 0) -> str:
        return self.arguments[number]

    def option(self, name: str, default: str = "") -> str:
        return self._query.get(name, [default])[0]

    def flag(self, name: str) -> bool:
        return self.option(name) == "true"


def version(node: Node, call: Call) -> Answer:
    return obj({"Version": node.version, "Commit": "", "Repo": "18", "System": "amd64/linux", "Golang": "go1.26.8"})


def block_get(node: Node, call: Call) -> Answer:
    return Answer(node.block(Cid.parse(call.argument())))


def block_put(node: Node, call: Call) -> Answer:
    assert call.file is not None and call.option("mhtype") == "sha2-256" and call.option("cid-codec") == "raw"
    cid = Cid(1, RAW, digest_of(call.file))
    node.blocks[cid.digest] = call.file
    return obj({"Key": str(cid), "Size": len(call.file)})


def dag_import(node: Node, call: Call) -> Answer:
    assert call.file is not None
    left = memoryview(call.file)

    def read(count: int) -> bytes:
        nonlocal left
        piece, left = bytes(left[:count]), left[count:]
        return piece

    count = size = 0
    try:
        archive = Archive(read)
        for cid, data in archive:
            node.blocks.setdefault(cid.digest, bytes(data))    # one that is there is not written again, as block/put does
            count, size = count + 1, size + len(data)
    except ValueError as error:
        raise CommandError("unexpected EOF" if count == 0 else f"import failed after block {count}: {error}") from error
    if call.option("pin-roots", "true") == "true":
        raise CommandError("the tests pin by pin/add only")
    return obj({"Stats": {"BlockCount": count, "BlockBytesCount": size}}) if call.flag("stats") else Answer()


def pin_add(node: Node, call: Call) -> Answer:
    cid = Cid.parse(call.argument())
    try:
        for _ in node.walk(cid):
            pass
    except CommandError as error:
        raise CommandError(f"pin: {error}") from error
    if len(call.option("name").encode()) > 255:
        raise CommandError("pin name is longer than 255 bytes")
    node.pins[str(cid)] = call.option("name")          # a second pin of a graph gives the first one its name
    return obj({"Pins": [str(cid)]})


def pin_ls(node: Node, call: Call) -> Answer:
    wanted = call.arguments or list(node.pins)
    for name in wanted:
        if name not in node.pins:
            raise CommandError(f"path '{name}' is not pinned")
    return obj({"Keys": {name: {"Type": "recursive", "Name": node.pins[name] if call.flag("names") else ""} for name in wanted}})


def pin_rm(node: Node, call: Call) -> Answer:
    if call.argument() not in node.pins:
        raise CommandError("not pinned or pinned indirectly")
    del node.pins[call.argument()]
    return obj({"Pins": [call.argument()]})


def files_stat(node: Node, call: Call) -> Answer:
    there = node.find(call.argument())
    if not isinstance(there, Cid):
        return obj({"Hash": str(node.folder_cid(there)), "Size": 0, "CumulativeSize": 4, "Blocks": 0, "Type": "directory"})
    size = len(node.block(there)) if there.codec == RAW else node.node(there).filesize
    return obj({"Hash": str(there), "Size": size, "CumulativeSize": size, "Blocks": 0, "Type": "file"})


def files_cp(node: Node, call: Call) -> Answer:
    node.copy(call.argument(0), call.argument(1), call.flag("parents"), call.flag("force"))
    return Answer()


def files_rm(node: Node, call: Call) -> Answer:
    wrong = [words for path in call.arguments if (words := node.remove(path, call.flag("force")))]
    return Answer(b"".join(json.dumps(words).encode() + b"\n" for words in wrong), "can't remove some files" if wrong else "")


def files_flush(node: Node, call: Call) -> Answer:
    there = node.find(call.argument())
    return obj({"Cid": str(there if isinstance(there, Cid) else node.folder_cid(there))})


def repo_gc(node: Node, call: Call) -> Answer:
    return Answer(b"".join(json.dumps({"Key": {"/": str(cid)}}).encode() + b"\n" for cid in node.collect()))


def obj(value: object) -> Answer:
    return Answer(json.dumps(value).encode() + b"\n")


COMMANDS: dict[str, Callable[[Node, Call], Answer]] = {
    "version": version, "repo/gc": repo_gc,
    "block/get": block_get, "block/put": block_put, "dag/import": dag_import, "pin/add": pin_add, "pin/ls": pin_ls, "pin/rm": pin_rm,
    "files/stat": files_stat, "files/cp": files_cp, "files/rm": files_rm, "files/flush": files_flush,
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: KuboServer

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        self._plain(405, "405 - Method Not Allowed")

    def do_POST(self) -> None:
        parts = urlsplit(self.path)
        command = parts.path.removeprefix("/api/v0/")
        if not self.server.allows(self.headers.get("Authorization", ""), parts.path):
            return self._plain(403, DENIED, close=True)            # what was sent is not read
        file = self._file()
        if command not in COMMANDS:
            return self._plain(404, "404 page not found")
        fault = self.server.fault(command)
        if fault and fault.kind == STATUS:
            return self._plain(fault.status, fault.words)
        if not (fault and fault.kind == CLOSED and fault.first):
            self.server.note(command, parts.query)
            try:
                with self.server.lock:
                    answer = COMMANDS[command](self.server.node, Call(parts.query, file))
            except CommandError as error:
                answer = Answer(json.dumps({"Message": str(error), "Code": 0, "Type": "error"}).encode() + b"\n")
                return self._chunks(500, answer)
        if fault and fault.kind == CLOSED:
            self.close_connection = True
            return None
        if fault and fault.kind == LATE:
            answer.late = fault.words
        if fault and fault.kind == OTHER:
            answer.body = fault.words.encode()
        return self._chunks(200, answer, broken=bool(fault and fault.kind == BROKEN))

    def _file(self) -> bytes | None:
        """The request's one file, out of a multipart body that came in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            assert self.headers["Content-Length"] == "0"
            return None
        body = bytearray()
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        boundary = re.search(r"boundary=(\S+)", self.headers["Content-Type"])
        assert boundary
        mark = b"--" + boundary[1].encode()
        _, part, end = bytes(body).split(mark)
        assert end == b"--\r\n" and b"filename=" in part
        return part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")

    def _plain(self, status: int, text: str, close: bool = False) -> None:
        body = text.encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        if close:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _chunks(self, status: int, answer: Answer, broken: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Trailer", "X-Stream-Error")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        body = answer.body[:len(answer.body) // 2] if broken else answer.body
        for at in range(0, len(body), 32768):
            piece = body[at:at + 32768]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        if broken:
            self.close_connection = True
            return
        self.wfile.write(b"0\r\n" + (f"X-Stream-Error: {answer.late}\r\n".encode() if answer.late else b"") + b"\r\n")

    def version_string(self) -> str:
        return "kubo/0.42.0"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def send_error(self, *args: Any) -> NoReturn:
        raise AssertionError(args)


class KuboServer(socketserver.ThreadingTCPServer):
    """`authorizations`: "bearer:TOKEN" or "basic:USER:PASSWORD" -> the paths that it may ask for; none: everybody may everything."""

    options: Mapping[str, str] = {}    # as a Server of tests/servers.py has it: to be reached as anybody
    login = password = ""
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128           # a connection that finds it full is tried again a second later

    def __init__(self, authorizations: dict[str, list[str]] | None = None, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.node, self.lock, self.faults = Node(), threading.Lock(), list[Fault]()
        self.connections = 0
        self.asked: list[tuple[str, str]] = []                         # command and query, in their order
        self._authorizations = {_header(secret): paths for secret, paths in (authorizations or {}).items()}
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def url(self, prefix: str = "") -> str:
        return f"ipfs+rpc://127.0.0.1:{self.server_address[1]}/{prefix}"

    def allows(self, header: str, path: str) -> bool:
        return not self._authorizations or any(path.startswith(start) for start in self._authorizations.get(header, ()))

    def fault(self, command: str) -> Fault | None:
        with self.lock:
            found = next((fault for fault in self.faults if fault.command == command), None)
            if found:
                self.faults.remove(found)
            return found

    def note(self, command: str, query: str) -> None:
        with self.lock:
            self.asked.append((command, query))

    def commands(self) -> list[str]:
        return [command for command, _ in self.asked]

    def __enter__(self) -> KuboServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


def _header(secret: str) -> str:
    kind, _, rest = secret.partition(":")
    return f"Bearer {rest}" if kind == "bearer" else "Basic " + base64.b64encode(rest.encode()).decode()
