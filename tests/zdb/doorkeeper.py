"""Who may do what in the fake 0-db, and its commands about that: passwords, namespaces, information. To the letter, as answers.py."""
from __future__ import annotations

import hashlib
import secrets
import time
from typing import TYPE_CHECKING

from tests.zdb.space import Namespace

if TYPE_CHECKING:
    from tests.zdb.server import FakeZdb

NAMESPACE_MAX = 128
OK = b"+OK"


class Refused(Exception):
    """An error reply. `closes`: and then the connection."""

    def __init__(self, words: str, *, closes: bool = False) -> None:
        self.words, self.closes = words, closes
        super().__init__(words)


class Session:
    """What the server knows of a connection."""

    def __init__(self, server: FakeZdb) -> None:
        self.server = server
        self.namespace: Namespace | None = server.default
        self.writable = not server.protect
        self.admin = not server.admin
        self.nonce = ""

    # ------------------------------------------------------------ checks, in the order and the words of the original

    @property
    def here(self) -> Namespace:
        assert self.namespace is not None
        return self.namespace

    def need_admin(self) -> None:
        if not self.admin:
            raise Refused("Permission denied")

    def need_thawed(self) -> None:
        if self.here.locked == "freeze":
            raise Refused("Namespace is temporarily frozen (read-write disabled)")

    def need_writable(self) -> None:
        if not self.writable:
            raise Refused("Namespace is in read-only mode")
        self.need_thawed()
        if self.here.locked:
            raise Refused("Namespace is temporarily locked (read-only)")

    def named(self, argument: bytes, missing: str = "Namespace not found") -> Namespace:
        if len(argument) > NAMESPACE_MAX:
            raise Refused("Namespace too long")
        namespace = self.server.find(text(argument))
        if namespace is None:
            raise Refused(missing)
        return namespace


def need(arguments: list[bytes], count: int) -> None:
    if len(arguments) != count:
        raise Refused("Unexpected arguments")
    if not all(arguments):
        raise Refused("Invalid argument")


def text(argument: bytes) -> str:
    return argument.decode("utf-8", "surrogateescape")


def bulk(data: bytes | None) -> bytes:
    return b"$-1" if data is None else b"$%d\r\n%b" % (len(data), data)


def array(items: list[bytes]) -> bytes:
    return b"\r\n".join([b"*%d" % len(items), *items])


def number(argument: bytes) -> int:
    """As atoll: what begins like one, else 0."""
    digits = ""
    for letter in text(argument).strip():
        if not (letter.isdecimal() or (letter in "+-" and not digits)):
            break
        digits += letter
    return int(digits) if digits.strip("+-") else 0


def auth(session: Session, arguments: list[bytes]) -> bytes:
    admin = session.server.admin
    if len(arguments) == 2:
        if not admin:
            raise Refused("Authentication disabled")
        need(arguments, 2)
        if len(arguments[1]) > 128:
            raise Refused("Password too long")
        if text(arguments[1]) != admin:
            raise Refused("Access denied")
        session.admin = True
        return OK
    need(arguments, 3)
    if not b"SECURE".startswith(arguments[1].upper()):
        raise Refused("Only SECURE extra method supported")
    if b"CHALLENGE".startswith(arguments[2].upper()):
        session.nonce = secrets.token_hex(8)
        return b"+" + session.nonce.encode()
    if not admin:
        raise Refused("Authentication disabled")
    right = proof(session, arguments[2], admin)
    session.nonce = ""
    if not right:
        raise Refused("Access denied")
    session.admin = True
    return OK


def proof(session: Session, hashed: bytes, password: str) -> bool:
    if not session.nonce:
        raise Refused("No CHALLENGE requested, secure authentication not available")
    if len(hashed) != 40:
        raise Refused("Invalid hash length")
    return hashed.decode() == hashlib.sha1(f"{session.nonce}:{password}".encode()).hexdigest()


def select(session: Session, arguments: list[bytes]) -> bytes:
    if len(arguments) < 2:
        raise Refused("Invalid argument")
    namespace = session.named(arguments[1])
    writable = True
    if namespace.password:
        if len(arguments) == 2:
            if not namespace.public:
                raise Refused("Namespace protected and private")
            writable = False
        elif len(arguments) == 3:
            if len(arguments[2]) > 255:
                raise Refused("Password too long")
            if text(arguments[2]) != namespace.password:
                raise Refused("Access denied")
        elif len(arguments) == 4:
            if not b"SECURE".startswith(arguments[2].upper()):
                raise Refused("Only SECURE extra method supported")
            if not proof(session, arguments[3], namespace.password):
                raise Refused("Access denied")
        else:
            raise Refused("Too many arguments")
    session.namespace, session.writable = namespace, writable
    return OK


def ping(session: Session, arguments: list[bytes]) -> bytes:
    return b"+PONG"


def time_(session: Session, arguments: list[bytes]) -> bytes:
    seconds, micros = divmod(time.time_ns() // 1000, 1_000_000)
    return array([bulk(b"%d" % seconds), bulk(b"%d" % micros)])


def info(session: Session, arguments: list[bytes]) -> bytes:
    return bulk("\n".join([
        "# server", "server_name: 0-db (zdb)", "server_revision: 2.0.7", "engine_revision: 2.0.7",
        f"instance_id: {session.server.instance}", "",
        "# internals", "sequential_key_size: 8", "data_version: 3", "index_version: 4", ""]).encode())


def stop(session: Session, arguments: list[bytes]) -> bytes:
    raise Refused("Unauthorized")


def asterisk(session: Session, arguments: list[bytes]) -> bytes:
    raise Refused("This is not a valid command")


def absent(session: Session, arguments: list[bytes]) -> bytes:
    raise Refused(f"(fake) {text(arguments[0])} is not in this server")


# ---------------------------------------------------------------- namespaces

def nsnew(session: Session, arguments: list[bytes]) -> bytes:
    session.need_admin()
    need(arguments, 2)
    if len(arguments[1]) > NAMESPACE_MAX:
        raise Refused("Namespace too long")
    name = text(arguments[1])
    if name in (".", "..", "default") or "/" in name:
        raise Refused("This name is not allowed")
    if session.server.find(name) is not None:
        raise Refused("This namespace is not available")
    if not session.server.disk.free:
        raise Refused("Could not create namespace")
    session.server.make(name)
    return OK


def nsdel(session: Session, arguments: list[bytes]) -> bytes:
    session.need_admin()
    need(arguments, 2)
    if len(arguments[1]) > NAMESPACE_MAX:
        raise Refused("Namespace too long")
    if arguments[1] == b"default":
        raise Refused("Cannot remove default namespace")
    namespace = session.named(arguments[1], "This namespace doesn't exists")
    if namespace is session.here:
        raise Refused("Cannot remove namespace you're currently using.")
    session.server.disk.namespaces.remove(namespace)
    return OK


def nslist(session: Session, arguments: list[bytes]) -> bytes:
    return array([bulk(namespace.name.encode("utf-8", "surrogateescape")) for namespace in session.server.disk.namespaces])


def nsjump(session: Session, arguments: list[bytes]) -> bytes:
    session.need_admin()
    session.here.jump()
    return OK


def nsset(session: Session, arguments: list[bytes]) -> bytes:
    session.need_admin()
    need(arguments, 4)
    if len(arguments[1]) > NAMESPACE_MAX:
        raise Refused("Namespace too long")
    if len(arguments[2]) > 256 or len(arguments[3]) > 63:
        raise Refused("Argument too long")
    namespace = session.named(arguments[1])
    name, value = text(arguments[2]), text(arguments[3])
    on = value[0] == "1"
    if name == "mode":
        if session.server.mode != "mix":
            raise Refused("This server instance is configured to use a single runtime mode")
        if not namespace.is_fresh:
            raise Refused("Cannot change mode of used namespace")
        if value not in ("user", "seq"):
            raise Refused("Invalid property value (expected: user, seq)")
        namespace.sequential = value == "seq"
    elif name in ("lock", "freeze"):
        namespace.locked = name if on else ""
    elif namespace.name == "default":
        raise Refused("Cannot update default namespace")
    elif name == "maxsize":
        namespace.maxsize = number(arguments[3])
    elif name == "password":
        namespace.password = "" if value == "*" else value
    elif name == "public":
        namespace.public = on
    elif name == "worm":
        namespace.worm = on
    else:
        raise Refused("Invalid property")
    return OK


def nsinfo(session: Session, arguments: list[bytes]) -> bytes:
    need(arguments, 2)
    namespace = session.named(arguments[1])
    yes = {True: "yes", False: "no"}
    free = session.server.disk.free
    index = sum(64 + len(key) for key in namespace.keys)
    lines = [
        "# namespace", f"name: {namespace.name}", f"entries: {len(namespace.keys)}", f"public: {yes[namespace.public]}",
        f"worm: {yes[namespace.worm]}", f"locked: {yes[bool(namespace.locked)]}", f"password: {yes[bool(namespace.password)]}",
        f"data_size_bytes: {namespace.used}", f"data_size_mb: {namespace.used / (1 << 20):.2f}",
        f"data_limits_bytes: {namespace.maxsize}", f"index_size_bytes: {index}", f"index_size_kb: {index / 1024:.2f}",
        f"next_internal_id: 0x{int.from_bytes(namespace.slots.to_bytes(8, 'little'), 'big'):08x}",
        f"mode: {'sequential' if namespace.sequential else 'userkey'}",
        *(f"stats_{kind}_{name}: 0" for kind in ("index", "data") for name in ("io_errors", "io_error_last", "faults"))]
    if namespace.maxsize:
        lines.append(f"space_available: {(namespace.maxsize - namespace.used) % (1 << 64)}")
    for kind in ("index", "data"):
        lines += [f"{kind}_disk_freespace_bytes: {free}", f"{kind}_disk_freespace_mb: {free / (1 << 20):.2f}"]
    if session.admin:
        lines += [f"data_path: /fake/data/{namespace.name}", f"data_active: /fake/data/{namespace.name}/d{namespace.file}",
                  f"index_path: /fake/index/{namespace.name}", f"index_active: /fake/index/{namespace.name}/i{namespace.file}",
                  f"data_current_id: {namespace.file}", f"data_current_offset: {namespace.data_end}"]
    return bulk(("\n".join(lines) + "\n").encode("utf-8", "surrogateescape"))


def flush(session: Session, arguments: list[bytes]) -> bytes:
    """It is said to be done, and nothing is."""
    if session.here.public or not session.here.password:
        raise Refused("Flushing public namespace denied")
    return OK


