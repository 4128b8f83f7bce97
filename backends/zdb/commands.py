"""The commands that we use, by name and with types. All raise Trouble; what is not what the command answers is Trouble too.

A key is 1 to 255 bytes, a value at most 8 MiB. Anything here may be repeated.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

from s3cfs.backends.zdb.link import Caller, Links
from s3cfs.backends.zdb.resp import ARGUMENTS_MAX, Argument, Refusal, Reply
from s3cfs.backends.zdb.words import Condition, Trouble, condition_of

MGET_KEYS = ARGUMENTS_MAX - 1


class Entry(NamedTuple):
    """What a scan tells of a key. `size`: bytes of its value; `time`: seconds since 1970, of its last change."""

    key: bytes
    size: int
    time: int


class Page(NamedTuple):
    """Of a scan. `cursor` begins the next one, also much later: an overwritten key lies behind it (user mode)."""

    cursor: bytes
    entries: Sequence[Entry]


def get(links: Caller, key: bytes, *, timeout_s: float | None = None) -> bytes | None:
    """None: no such key. Nothing has checked the bytes: the server does not."""
    answer = links.call(b"GET", key, timeout_s=timeout_s)
    return answer if answer is None or isinstance(answer, bytes) else _strange(links, "GET", answer)


def get_many(links: Caller, keys: Sequence[bytes], *, timeout_s: float | None = None) -> list[bytes | None]:
    """In the order of `keys`, of which there may be any number; they are small values, since an answer holds MGET_KEYS of them."""
    found: list[bytes | None] = []
    for at in range(0, len(keys), MGET_KEYS):
        part = keys[at:at + MGET_KEYS]
        answer = links.call(b"MGET", *part, timeout_s=timeout_s)
        if not isinstance(answer, list) or len(answer) != len(part):
            _strange(links, "MGET", answer)
        for value in answer:
            if isinstance(value, Refusal):
                raise Trouble(condition_of(value.words), value.words, str(links.server))
            found.append(value if value is None or isinstance(value, bytes) else _strange(links, "MGET", value))
    return found


def put(links: Caller, key: bytes, value: Argument, *, timeout_s: float | None = None) -> None:
    """The same bytes again are written nowhere (the server answers nil), other bytes take the key to the end of a scan."""
    answer = links.call(b"SET", key, value, timeout_s=timeout_s)
    if answer is not None and answer != key:
        _strange(links, "SET", answer)


def delete(links: Caller, key: bytes, *, timeout_s: float | None = None) -> bool:
    """Whether it was there. The space comes back only with the whole namespace; on a full disk this fails."""
    return _done(links, "Key not found", b"DEL", key, timeout_s)


def exists(links: Caller, key: bytes, *, timeout_s: float | None = None) -> bool:
    return _number(links, "EXISTS", key, timeout_s) == 1


def length(links: Caller, key: bytes, *, timeout_s: float | None = None) -> int | None:
    """Bytes of the value by the index, whatever the data file says; None: no such key."""
    return _number(links, "LENGTH", key, timeout_s)


def check(links: Caller, key: bytes, *, timeout_s: float | None = None) -> bool | None:
    """Whether the server's own checksum (CRC32) of the value is right; None: no such key. It reads the value, and sends nothing of it."""
    answer = _number(links, "CHECK", key, timeout_s)
    return None if answer is None else answer == 1


def count(links: Caller, *, timeout_s: float | None = None) -> int:
    answer = links.call(b"DBSIZE", timeout_s=timeout_s)
    return answer if isinstance(answer, int) else _strange(links, "DBSIZE", answer)


def scan(links: Caller, cursor: bytes | None = None, *, timeout_s: float | None = None) -> Page | None:
    """What comes after `cursor` (None: from the beginning), in the order in which it was written; some hundred keys. None: nothing more.

    A page says little of where the data ends: only None does. Deleted keys are not in it. There is no way backwards: RSCAN ends early, or
    fails, when there are several files (v2.0.7, seen).
    """
    for _ in range(1 if cursor is None else 2):        # its two milliseconds may be over before it has looked, and then it says the same
        try:
            answer = links.call(b"SCAN", *([] if cursor is None else [cursor]), timeout_s=timeout_s)
            break
        except Trouble as trouble:
            if not trouble.words.startswith("No more data"):
                raise
    else:
        return None
    match answer:
        case [bytes(following), list(items)]:
            return Page(following, [_entry(links, item) for item in items])
        case _:
            _strange(links, "SCAN", answer)


def _entry(links: Caller, item: Reply) -> Entry:
    if isinstance(item, list) and len(item) == 3:
        key, size, when = item
        if isinstance(key, bytes) and isinstance(size, int) and isinstance(when, int):
            return Entry(key, size, when)
    _strange(links, "SCAN", item)


def namespace_info(links: Caller, namespace: str, *, timeout_s: float | None = None) -> Mapping[str, str]:
    """What the server says of a namespace, as it says it. Needs no password."""
    answer = links.call(b"NSINFO", namespace, timeout_s=timeout_s)
    if not isinstance(answer, bytes):
        _strange(links, "NSINFO", answer)
    lines = (line.partition(": ") for line in answer.decode("utf-8", "replace").splitlines())
    return {name.strip(): value.strip() for name, colon, value in lines if colon}


def own_info(links: Links, *, timeout_s: float | None = None) -> Mapping[str, str]:
    """The same of the one that these calls go to, wherever that is by now (generations.py)."""
    namespace = links.namespace
    try:
        return namespace_info(links, namespace, timeout_s=timeout_s)
    except Trouble:
        if links.namespace == namespace:
            raise
    return namespace_info(links, links.namespace, timeout_s=timeout_s)


def now(links: Caller, *, timeout_s: float | None = None) -> int:
    """Seconds since 1970 by the server's own clock, which is the one of `Entry.time`."""
    answer = links.call(b"TIME", timeout_s=timeout_s)
    match answer:
        case [bytes(seconds), bytes()] if seconds.isdigit():
            return int(seconds)
    return _strange(links, "TIME", answer)


def age(links: Caller, key: bytes, *, timeout_s: float | None = None) -> int | None:
    """Seconds since its value last changed, by the server's own clock; None: no such key."""
    changed = _number(links, "KEYTIME", key, timeout_s)
    return None if changed is None else max(0, now(links, timeout_s=timeout_s) - changed)


def namespaces(links: Caller, *, timeout_s: float | None = None) -> list[str]:
    answer = links.call(b"NSLIST", timeout_s=timeout_s)
    if not isinstance(answer, list):
        _strange(links, "NSLIST", answer)
    return [name.decode("utf-8", "surrogateescape") for name in answer if isinstance(name, bytes)]


def make_namespace(links: Caller, namespace: str, *, timeout_s: float | None = None) -> bool:
    """Whether it was made; False: it was there. Administrators only."""
    return _done(links, "This namespace is not available", b"NSNEW", namespace, timeout_s)


def set_namespace(links: Caller, namespace: str, name: str, value: str, *, timeout_s: float | None = None) -> None:
    """maxsize, password ("*": none), public, worm, mode, lock, freeze. Administrators only."""
    links.call(b"NSSET", namespace, name, value, timeout_s=timeout_s)


def remove_namespace(links: Caller, namespace: str, *, timeout_s: float | None = None) -> bool:
    """With all that is in it; the disk has the space back at once. False: there was none. Administrators only."""
    return _done(links, "This namespace doesn't exists", b"NSDEL", namespace, timeout_s)


def _done(links: Caller, unless: str, command: bytes, name: Argument, timeout_s: float | None) -> bool:
    """False: the server refuses it with these words."""
    try:
        links.call(command, name, timeout_s=timeout_s)
    except Trouble as trouble:
        if trouble.words.startswith(unless):
            return False
        raise
    return True


def _number(links: Caller, command: str, key: bytes, timeout_s: float | None) -> int | None:
    answer = links.call(command, key, timeout_s=timeout_s)
    return answer if answer is None or isinstance(answer, int) else _strange(links, command, answer)


def _strange(links: Caller, command: str, answer: object) -> NoReturn:
    said = type(answer).__name__ if not isinstance(answer, int) else str(answer)
    raise Trouble(Condition.STRANGE, f"answers {command} with something else ({said})", str(links.server))
