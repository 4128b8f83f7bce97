"""The commands of a 0-db and what it answers, to the letter (v2.0.7, release build, from its sources; compared in test_conformance.py).

Not there, since nothing here needs them, and said so by an error of our own: WAIT, MIRROR, MASTER, HOOKS, INDEX, DATA, RELOAD, HISTORY.
"""
from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

from tests.zdb import doorkeeper as door
from tests.zdb.doorkeeper import OK, Refused, Session, absent, array, bulk, need, number
from tests.zdb.space import CURSOR, DiskFull, Entry

KEY_MAX = 255
Command = Callable[[Session, list[bytes]], bytes]


def found(session: Session, arguments: list[bytes]) -> Entry | None:
    """The entry of the one key that the command is about."""
    need(arguments, 2)
    if len(arguments[1]) > KEY_MAX:
        raise Refused("Invalid key")
    session.need_thawed()
    return session.here.get(arguments[1])


def value_of(entry: Entry | None) -> bytes:
    if entry is None:
        return bulk(None)
    if entry.value is None:
        raise Refused("Internal Error")
    return bulk(entry.value)


# ---------------------------------------------------------------- values

def set_(session: Session, arguments: list[bytes]) -> bytes:
    if len(arguments) == 4:
        session.need_admin()
    elif len(arguments) != 3:
        raise Refused("Unexpected arguments")
    key, value = arguments[1:3]
    if len(key) > KEY_MAX:
        raise Refused("Key too large")
    session.need_writable()
    here = session.here
    old = here.get(key) if key else None
    if old is not None and here.worm:
        raise Refused("Namespace is protected by worm mode")
    if here.maxsize and here.used + len(value) > here.maxsize + (old.size if old else 0):
        raise Refused("No space left on this namespace")
    if here.sequential and key and old is None:
        raise Refused("Invalid key, only update authorized")
    if not here.sequential and not key:
        raise Refused("Invalid argument, key needed")
    try:
        return bulk(here.put(key, value, number(arguments[3]) if len(arguments) == 4 else None))
    except DiskFull:
        raise Refused("Cannot write data right now") from None


def get(session: Session, arguments: list[bytes]) -> bytes:
    return value_of(found(session, arguments))


def mget(session: Session, arguments: list[bytes]) -> bytes:
    if len(arguments) < 2:
        raise Refused("Invalid arguments")
    if any(len(key) > KEY_MAX for key in arguments[1:]):
        raise Refused("Invalid key")
    session.need_thawed()
    answers = []
    for key in arguments[1:]:
        try:
            answers.append(value_of(session.here.get(key)))
        except Refused as refused:
            answers.append(b"-" + refused.words.encode())
    return array(answers)


def delete(session: Session, arguments: list[bytes]) -> bytes:
    if len(arguments) == 3:
        session.need_admin()
    else:
        need(arguments, 2)
    if len(arguments[1]) > KEY_MAX:
        raise Refused("Invalid key")
    session.need_writable()
    if session.here.get(arguments[1]) is None:
        raise Refused("Key not found")
    if session.here.worm:
        raise Refused("Cannot delete a key when namespace is in worm mode")
    try:
        session.here.delete(arguments[1])
    except DiskFull:
        raise Refused("Cannot delete key (data)") from None
    return OK


def exists(session: Session, arguments: list[bytes]) -> bytes:
    return b":%d" % (found(session, arguments) is not None)


def check(session: Session, arguments: list[bytes]) -> bytes:
    entry = found(session, arguments)
    if entry is None:
        return bulk(None)
    return b":-1" if entry.value is None else b":%d" % (zlib.crc32(entry.value) == entry.crc)


def length(session: Session, arguments: list[bytes]) -> bytes:
    entry = found(session, arguments)
    return bulk(None) if entry is None else b":%d" % entry.size


def keytime(session: Session, arguments: list[bytes]) -> bytes:
    entry = found(session, arguments)
    return bulk(None) if entry is None else b":%d" % entry.time


def keycur(session: Session, arguments: list[bytes]) -> bytes:
    need(arguments, 2)
    session.need_thawed()
    entry = session.here.get(arguments[1])
    if entry is None:
        raise Refused("Key not found")
    return bulk(entry.cursor)


def kscan(session: Session, arguments: list[bytes]) -> bytes:
    raise Refused("Command disabled in release code, not yet available")


def scan(session: Session, arguments: list[bytes], *, backwards: bool = False) -> bytes:
    session.need_thawed()
    cursor = arguments[1] if len(arguments) > 1 else None
    if cursor is not None and len(cursor) != CURSOR.size:
        raise Refused("Invalid key format")
    try:
        entries = session.here.page(cursor, session.server.page_keys, backwards=backwards)
    except KeyError:
        raise Refused("Invalid key format") from None
    if not entries:
        raise Refused("No more data")
    items = [array([bulk(entry.key), b":%d" % entry.size, b":%d" % entry.time]) for entry in entries]
    return array([bulk(entries[-1].cursor), array(items)])


def rscan(session: Session, arguments: list[bytes]) -> bytes:
    return scan(session, arguments, backwards=True)


def dbsize(session: Session, arguments: list[bytes]) -> bytes:
    return b":%d" % len(session.here.keys)


def answer(session: Session, arguments: list[bytes]) -> bytes:
    """To one request. Raises Refused."""
    namespace, server = session.namespace, session.server
    if not any(namespace is one for one in server.disk.namespaces):
        raise Refused("Your active namespace is not available anymore (probably removed).", closes=True)
    command = arguments[0].upper()
    for name, function in COMMANDS:
        if name.startswith(command):
            server.counted[name.decode()] += 1
            server.planned(name.decode())
            return function(session, arguments)
    raise Refused("Command not supported")


COMMANDS: Final[tuple[tuple[bytes, Command], ...]] = (        # in the order in which the original looks
    (b"*", door.asterisk), (b"WAIT", absent), (b"MIRROR", absent), (b"MASTER", absent),
    (b"PING", door.ping), (b"TIME", door.time_), (b"AUTH", door.auth), (b"HOOKS", absent), (b"INDEX", absent), (b"DATA", absent),
    (b"SET", set_), (b"SETX", set_), (b"GET", get), (b"MGET", mget), (b"DEL", delete), (b"EXISTS", exists), (b"CHECK", check),
    (b"SCAN", scan), (b"SCANX", scan), (b"RSCAN", rscan), (b"KSCAN", kscan), (b"HISTORY", absent), (b"KEYCUR", keycur),
    (b"LENGTH", length), (b"KEYTIME", keytime), (b"INFO", door.info), (b"STOP", door.stop),
    (b"DBSIZE", dbsize), (b"NSNEW", door.nsnew), (b"NSDEL", door.nsdel), (b"NSLIST", door.nslist),
    (b"NSSET", door.nsset), (b"NSINFO", door.nsinfo),
    (b"NSJUMP", door.nsjump), (b"SELECT", door.select), (b"RELOAD", absent), (b"FLUSH", door.flush))
