"""A Kubo of ours: the commands of its RPC that `ipfs+rpc://` uses, in memory, behind a socket.

Replies, words and status codes are those that Kubo 0.42.0 gave (docs/ipfs.md says how they were seen); the suite runs on both. What it has
not: a net, HAMT-sharded folders, and the races of its MFS (here every command is one step).

    with KuboServer() as node: open_backend(node.url("x/"))

Things go wrong on demand: `node.faults.append(Fault("block/get", ...))` is for the next call of that command.
"""
from __future__ import annotations

import base64
import contextlib
import json
import re
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, NoReturn
from urllib.parse import parse_qs, urlsplit

from s3cfs.backends.ipfs import dag
from s3cfs.backends.ipfs.car import Archive
from s3cfs.backends.ipfs.cid import DAG_PB, RAW, Cid, digest_of

DENIED = "Kubo RPC Access Denied: Please provide a valid authorization token as defined in the API.Authorizations configuration."
LATE, BROKEN, CLOSED, STATUS, OTHER = "late", "broken", "closed", "status", "other"


class CommandError(Exception):
    """Answered with status 500 and JSON."""


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


Folder = dict[str, "Cid | Folder"]


@dataclass(slots=True)
class Node:
    """What a node holds."""

    blocks: dict[bytes, bytes] = field(default_factory=dict)          # by digest
    pins: dict[str, str] = field(default_factory=dict)                # CID -> name; all recursive
    root: Folder = field(default_factory=dict)                        # of MFS
    version: str = "0.42.0"

    # ------------------------------------------------------------ blocks

    def block(self, cid: Cid) -> bytes:
        if cid.digest not in self.blocks:
            raise CommandError(f"block was not found locally (offline): ipld: could not find {cid}")
        return self.blocks[cid.digest]

    def node(self, cid: Cid) -> dag.Node:
        try:
            return dag.decode_node(self.block(cid))
        except ValueError as error:
            raise CommandError("protobuf: (PBNode) invalid wireType, expected 2, got 5") from error

    def walk(self, cid: Cid) -> Iterator[Cid]:
        """It and all below. What is missing is an error; raw blocks are not looked at otherwise."""
        yield cid
        if cid.codec == RAW:
            self.block(cid)
            return
        for link in self.node(cid).links:
            yield from self.walk(link.cid)

    def collect(self) -> list[Cid]:
        """repo/gc: what neither a pin nor MFS names goes. Of a pin what is missing ends it; of MFS it does not."""
        kept = {cid.digest for name in self.pins for cid in self.walk(Cid.parse(name))}
        for cid in [self.folder_cid(self.root), *self.everything(self.root)]:
            kept.add(cid.digest)
            with contextlib.suppress(CommandError):
                kept.update(below.digest for below in self.walk(cid))
        gone = [digest for digest in self.blocks if digest not in kept]
        for digest in gone:
            del self.blocks[digest]
        return [Cid(1, RAW, digest) for digest in gone]

    # ------------------------------------------------------------ MFS

    def everything(self, folder: Folder) -> Iterator[Cid]:
        for there in folder.values():
            if isinstance(there, Cid):
                yield there
            else:
                yield from self.everything(there)

    def folder_cid(self, folder: Folder) -> Cid:
        """A folder is a block too, made here when somebody asks; version 0, as Kubo makes it unless it is told otherwise."""
        links = []
        for name, there in sorted(folder.items()):
            cid = there if isinstance(there, Cid) else self.folder_cid(there)
            links.append(dag.Link(name, cid, len(self.blocks.get(cid.digest, b""))))
        data = dag.encode_node(dag.Node(dag.DIRECTORY, tuple(links)))
        cid = Cid(0, DAG_PB, digest_of(data))
        self.blocks[cid.digest] = data
        return cid

    def find(self, path: str) -> Cid | Folder:
        """What is there; errors as MFS has them. What is opened is read: a root that is missing is an error."""
        there: Cid | Folder = self.root
        for name in parts(path):
            if isinstance(there, Cid):
                raise CommandError(f"cannot access {path.lstrip('/')}: Not a directory")
            if name not in there:
                raise CommandError("file does not exist")
            there = there[name]
        if isinstance(there, Cid):
            self.node(there) if there.codec == DAG_PB else self.block(there)
        return there

    def copy(self, source: str, path: str, make: bool, force: bool) -> None:
        cid = Cid.parse(source.removeprefix("/ipfs/"))
        try:
            self.block(cid)
        except CommandError as error:
            raise CommandError(f"cp: cannot get node from path {source}: {error}") from error
        folder, (*above, last) = self.root, parts(path)
        for name in above:
            if name not in folder and not make:
                raise CommandError(f"cp: cannot put node in path {path}: file does not exist")
            below = folder.setdefault(name, {})
            if isinstance(below, Cid):
                raise CommandError("file already exists")
            folder = below
        if force:
            if isinstance(folder.get(last), dict):
                raise CommandError(f"cp: cannot unlink existing file: not a file: {path}")
            folder.pop(last, None)
        if last in folder:
            raise CommandError(f"cp: cannot put node in path {path}: directory already has entry by that name")
        folder[last] = cid

    def remove(self, path: str, force: bool) -> str:
        """"", or what is wrong. By force anything goes, unread."""
        *above, last = parts(path)
        try:
            folder = self.find("/".join(above))
            assert isinstance(folder, dict)
            if not force and not isinstance(self.find(path), Cid):
                return f"{path}: path is a directory, use -r to remove directories"
        except CommandError as error:
            return f"{path}: {error}"
        folder.pop(last, None)
        return ""

    def files(self, folder: Folder | None = None, prefix: str = "") -> dict[str, Cid]:
        """Path -> root, of all."""
        found: dict[str, Cid] = {}
        for name, there in (self.root if folder is None else folder).items():
            found |= {f"{prefix}/{name}": there} if isinstance(there, Cid) else self.files(there, f"{prefix}/{name}")
        return found


def parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


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

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128           # a connection that finds it full is tried again a second later

    def __init__(self, authorizations: dict[str, list[str]] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
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
