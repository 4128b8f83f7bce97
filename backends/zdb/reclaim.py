"""Give back the space that overwrites and deletes have left behind in a server's namespace: what is alive moves into a new one.

A 0-db only appends, and gives space back only with a whole namespace (facts of v2.0.7: no compaction of it is to be trusted). So:

    1. make the next generation of the namespace: same password, private, user mode, same limit
    2. copy what is alive, in the order in which it was written; then what has come meanwhile, until there is little of it
    3. lock the old one: it can be read, not written. Copy the rest; remove from the new one what has been deleted meanwhile
    4. freeze the old one: nobody reads it any more, who is connected looks for the one in force anew
    5. write the server's identity into the new one, which is then in force (generations.py), and remove the old one

Until 5 the old one is whole and in force, and after it the new one is, whatever ends in between. A lock ends when the server is
restarted; so before 5 the old one's end is compared with what it was when the last copying began, and the identity goes over a connection
that is as old. Between 3 and 5 writes are refused, between 4 and 5 reads too: for as long as the rest takes, seconds at most.

Two at once on one server: the second sees that the mark of the first moves, and leaves. It takes over when that stands still, under a
higher number, so that the first finds its namespace gone and ends.
"""
from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from s3cfs.backends.zdb import commands, generations
from s3cfs.backends.zdb.commands import Entry
from s3cfs.backends.zdb.link import Caller, Links
from s3cfs.backends.zdb.members import IDENTITY
from s3cfs.backends.zdb.setup import Server
from s3cfs.backends.zdb.shard import decode_value, parse_name
from s3cfs.backends.zdb.words import Condition, Trouble
from s3cfs.limits import KIB, MIB

MARK = b"s3cfs:reclaim"            # in a generation that is being made: whose it is, and that he lives
MARK_EVERY_S = 3.0
STILL_S = 30.0                     # a mark that has not moved for so long is a dead man's
DATA_FILE_BYTES = 256 * MIB        # zdb's default for --datasize; no client can ask for it
LITTLE = 200                       # keys that came while the last ones were copied: the old one may be locked
FOLLOW = 3                         # so often as many keys as there are may be copied before: who writes faster than that waits longer
TOGETHER_BYTES = 4 * MIB           # values got in one go,
SMALL_BYTES = 256 * KIB            # of at most this size each

Report = Callable[[str, int, int], None]           # what is being done, keys so far, of how many


class Unwilling(Exception):
    """It cannot be done here, or not now; one line for people. Nothing has changed."""


@dataclass(frozen=True, slots=True)
class Space:
    """Of a server's namespace. `written`: bytes in its files, nearly; `free`: on its disk."""

    namespace: str
    entries: int
    live: int
    written: int
    free: int

    @property
    def garbage(self) -> float:
        """The part of what is written that nobody needs."""
        return max(0.0, 1 - self.live / self.written) if self.written else 0.0


@dataclass(frozen=True, slots=True)
class Reclaimed:
    before: Space
    after: Space
    rotten: tuple[bytes, ...] = ()             # keys whose values were unreadable or damaged: not copied, a repair makes them anew


def space(server: Server, data_file_bytes: int = DATA_FILE_BYTES) -> Space:
    """How much there is to get. Needs an administrator's rights. Raises Unwilling, Trouble."""
    with contextlib.closing(Links(server, as_admin=True)) as admin:
        _numbers(admin)
        return _space(admin, data_file_bytes)


def reclaim(server: Server, report: Report, *, data_file_bytes: int = DATA_FILE_BYTES, sleep: Callable[[float], None] = time.sleep,
            clock: Callable[[], float] = time.monotonic) -> Reclaimed:
    """Do it. Raises Unwilling, and Trouble: then the old generation is in force, and whole, and the next run begins anew."""
    with contextlib.closing(Links(server, as_admin=True)) as admin:
        numbers = _numbers(admin)
        _tidy(admin, numbers, sleep)
        before = _space(admin, data_file_bytes)
        needed = before.live + 2 * data_file_bytes
        if before.free < needed:
            raise Unwilling(f"{server}: its disk has {before.free:,} bytes left, and the copy takes up to {needed:,}")
        name = generations.name_of(server.namespace, max(numbers) + 1)             # never one that somebody may still be making
        _make(admin, before.namespace, name)
        move = _Move(admin, before.namespace, name, report, clock)
        with contextlib.closing(move):
            try:
                move.run()
            except BaseException:
                move.give_up()
                raise
        with contextlib.suppress(Trouble):                         # it stands in nobody's way; the next run removes it
            commands.remove_namespace(admin, before.namespace)
        return Reclaimed(before, _space(admin, data_file_bytes), tuple(sorted(move.rotten)))


def _numbers(admin: Links) -> list[int]:
    """Of all generations there are, if we may do anything about them."""
    server = admin.server
    if server.namespace == "default":
        raise Unwilling(f"{server}: the namespace default cannot be removed, so nothing can be got back from it: "
                        "give the server another namespace, under another name in the list, and drain this one")
    try:
        names = commands.namespaces(admin)
    except Trouble as trouble:
        if trouble.condition is not Condition.WRONG_PASSWORD:
            raise
        right = "the admin-password in the list is wrong" if server.admin_password else "the list has no admin-password for it"
        raise Unwilling(f"{server}: {right}: it takes its owner to get space back there, by this command with the password, or by an "
                        "empty server that takes the place of this one (drain it)") from None
    return generations.numbers(names, server.namespace)


def _space(admin: Links, data_file_bytes: int) -> Space:
    server = admin.server
    with contextlib.closing(Links(server)) as links:
        if not commands.exists(links, IDENTITY):
            raise Unwilling(f"{server}: is no server of a store yet")
        info = commands.namespace_info(admin, links.namespace)
        if info["worm"] == "yes":
            raise Unwilling(f"{server}: its namespace is write once (worm), so nothing is left behind in it")
        written = int(info["data_current_id"]) * data_file_bytes + int(info["data_current_offset"])
        return Space(links.namespace, int(info["entries"]), int(info["data_size_bytes"]), written, int(info["data_disk_freespace_bytes"]))


def _tidy(admin: Links, numbers: Sequence[int], sleep: Callable[[float], None]) -> None:
    """Remove what earlier runs have left: newer generations, that never came into force; older ones; and the ice on the one in force.
    Unwilling: somebody is at it."""
    server, newer = admin.server, dict[str, bytes | None]()
    names = [generations.name_of(server.namespace, number) for number in numbers]
    while names:
        seen = _seen(server, names[-1])
        if seen.is_frozen or seen.has_identity:
            break
        newer[names.pop()] = seen.mark
    else:
        return                                                     # none is in force: no server of a store
    if any(newer.values()):
        sleep(STILL_S)
    for name, mark in newer.items():
        commands.set_namespace(admin, name, "lock", "1")           # should the other one be alive after all, it cannot come into force now
        now = _seen(server, name)
        if now.has_identity or now.mark != mark:
            commands.set_namespace(admin, name, "lock", "0")
            raise Unwilling(f"{server}: somebody else is just getting its space back")
        commands.remove_namespace(admin, name)
    *older, current = names
    if seen.is_frozen:
        commands.set_namespace(admin, current, "lock", "0")
    for name in older:
        commands.remove_namespace(admin, name)


class _Seen(NamedTuple):
    """Of a generation."""

    has_identity: bool = False
    mark: bytes | None = None
    is_frozen: bool = False


def _seen(server: Server, name: str) -> _Seen:
    with contextlib.closing(Links(server, namespace=name)) as links:
        try:
            return _Seen(commands.exists(links, IDENTITY), commands.get(links, MARK))
        except Trouble as trouble:
            if trouble.condition is not Condition.FROZEN:
                raise
            return _Seen(is_frozen=True)


def _make(admin: Links, old: str, name: str) -> None:
    """An empty generation that is like the old one to whoever uses it."""
    if not commands.make_namespace(admin, name):
        raise Unwilling(f"{admin.server}: somebody else is just getting its space back")
    info = commands.namespace_info(admin, old)
    if info.get("password") == "yes":
        commands.set_namespace(admin, name, "password", admin.server.password)
        if info.get("public") == "no":
            commands.set_namespace(admin, name, "public", "0")
    if int(info.get("data_limits_bytes", "0")):
        commands.set_namespace(admin, name, "maxsize", info["data_limits_bytes"])
    try:
        commands.set_namespace(admin, name, "mode", "user")
    except Trouble as trouble:
        if "single runtime mode" not in trouble.words:
            raise
    if commands.namespace_info(admin, name).get("mode") != "userkey":
        commands.remove_namespace(admin, name)
        raise Unwilling(f"{admin.server}: makes sequential namespaces only")


class _Move:
    """From the namespace `old` into `name`, which is new."""

    def __init__(self, admin: Links, old: str, name: str, report: Report, clock: Callable[[], float]) -> None:
        self._admin, self._old_name, self._name, self._report, self._clock = admin, old, name, report, clock
        self.rotten: set[bytes] = set()
        self._old = Links(admin.server, namespace=old)
        self._new = Links(admin.server, namespace=name)
        self._last = Links(admin.server, namespace=name, connections=1, greet=self._once)
        self._met = False
        self._owner, self._beats, self._beat_at = secrets.token_hex(8), 0, float("-inf")
        self._done, self._of = 0, 0

    def close(self) -> None:
        for links in (self._old, self._new, self._last):
            links.close()

    def run(self) -> None:
        self._beat()
        cursor = self._followed()
        commands.exists(self._last, IDENTITY)                      # its connection is there from now on
        self._set_old("lock", "1")
        end = self._end()
        for page in self._pages(self._old, cursor):
            self._copy(page.entries)
        self._strike()
        identity = commands.get(self._old, IDENTITY)
        self._set_old("freeze", "1")
        if identity is None or self._end() != end:
            raise Unwilling(f"{self._admin.server}: was written to though it was locked (restarted?); try again")
        commands.put(self._last, IDENTITY, identity)
        with contextlib.suppress(Trouble):                         # the next run copies it nowhere
            commands.delete(self._new, MARK)

    def _once(self, caller: Caller) -> None:
        """Of the connection that the identity goes over: a second one would know nothing of a restart."""
        if self._met:
            raise Trouble(Condition.UNREACHABLE, "the connection broke, or the server was restarted", str(caller.server))
        self._met = True

    def _set_old(self, name: str, value: str) -> None:
        commands.set_namespace(self._admin, self._old_name, name, value)

    def _end(self) -> tuple[str, str]:
        """Where the next SET or DEL would be written."""
        info = commands.namespace_info(self._admin, self._old_name)
        return info["data_current_id"], info["data_current_offset"]

    def give_up(self) -> None:
        """After an error: all as it was, unless it is another's by now, or the server cannot be reached: then the next run does it."""
        with contextlib.suppress(Trouble):
            mark = commands.get(self._new, MARK)
            if mark and mark.startswith(self._owner.encode()) and not commands.exists(self._new, IDENTITY):
                self._set_old("lock", "0")
                commands.remove_namespace(self._admin, self._name)

    def _beat(self) -> None:
        if self._clock() - self._beat_at >= MARK_EVERY_S:
            self._beats, self._beat_at = self._beats + 1, self._clock()
            commands.put(self._new, MARK, f"{self._owner} {self._beats}".encode())

    def _pages(self, links: Links, cursor: bytes | None) -> Iterator[commands.Page]:
        while (page := commands.scan(links, cursor)) is not None:
            yield page
            cursor = page.cursor
            self._beat()

    def _keys(self, links: Links) -> Iterator[bytes]:
        return (entry.key for page in self._pages(links, None) for entry in page.entries)

    def _followed(self) -> bytes | None:
        """Copy all that there is, while it changes, until there is little more or it does not help; where the rest begins."""
        self._of = commands.count(self._old)
        cursor: bytes | None = None
        for page in self._pages(self._old, None):
            self._copy(page.entries)
            cursor = page.cursor
            is_near = len(page.entries) <= LITTLE and commands.count(self._old) - commands.count(self._new) - len(self.rotten) <= LITTLE
            if is_near or self._done > FOLLOW * self._of:
                break
        return cursor

    def _copy(self, entries: Sequence[Entry]) -> None:
        for part in _together([entry for entry in entries if entry.key not in (IDENTITY, MARK)]):
            for key, value in zip(part, self._values(part), strict=True):
                if value is not None and self._is_whole(key, value):
                    commands.put(self._new, key, value)
                    self.rotten.discard(key)
                self._done += 1
                self._beat()
            self._report("copying", min(self._done, self._of), self._of)

    def _values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        try:
            return commands.get_many(self._old, keys) if len(keys) > 1 else [commands.get(self._old, keys[0])]
        except Trouble as trouble:
            if trouble.condition is not Condition.DAMAGED:
                raise
        if len(keys) > 1:
            return [value for key in keys for value in self._values([key])]
        self.rotten.add(keys[0])
        return [None]

    def _is_whole(self, key: bytes, value: bytes) -> bool:
        """A copy has a new checksum of the server's: rot that it would have noticed must not be hidden by it."""
        if parse_name(key):
            try:
                decode_value(value, key)
            except ValueError:
                if not commands.check(self._old, key):
                    self.rotten.add(key)
                    return False
        return True

    def _strike(self) -> None:
        """Remove from the new one what is not in the old one any more. Where both have as many keys, there is none."""
        if commands.count(self._new) - 1 == commands.count(self._old) - 1 - len(self.rotten):      # the mark; the identity
            return
        there = {MARK, *self._keys(self._old)}
        for key in [key for key in self._keys(self._new) if key not in there]:
            commands.delete(self._new, key)
            self._beat()


def _together(entries: Sequence[Entry]) -> Iterator[list[bytes]]:
    """The keys in their order, in parts to be got in one go."""
    part: list[bytes] = []
    size = 0
    for key, length, _ in entries:
        if part and (length > SMALL_BYTES or size + length > TOGETHER_BYTES or len(part) == commands.MGET_KEYS):
            yield part
            part, size = [], 0
        part.append(key)
        size += length
        if length > SMALL_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
