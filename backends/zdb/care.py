"""The layer of a mount that looks after its servers: how they are, what the list says now, and objects that are not whole.

What stands between `Remote` and the backend passes through it unchanged. In the background it
  - asks the servers how they are, those that are not well every two seconds,
  - takes over the list when it has changed, or says why not and goes on with the one before,
  - completes the objects of this mount that were stored with fewer shards than they should have, as soon as servers can be written again,
  - repairs all objects (without reading what is there) after the list has changed, and when a server has been away for `rebuild-after`.
  - makes a backup of the records, `backup-every` after the last one, when this mount has put something since (backup.py).
The last three only in a process that has put something: one that only looks (a check, a mount for reading) leaves everything as it is.
"""
from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import trio

from s3cfs.backends.layer import Call, Layer
from s3cfs.backends.types import Body, Degraded
from s3cfs.backends.zdb import backup
from s3cfs.backends.zdb import setup as lists
from s3cfs.backends.zdb.cluster import Cluster, Member
from s3cfs.backends.zdb.repair import Repair
from s3cfs.backends.zdb.replicas import Replicas
from s3cfs.backends.zdb.setup import Setup
from s3cfs.backends.zdb.status import ask, told
from s3cfs.backends.zdb.survey import Rate, Survey, Tally
from s3cfs.errors import ConfigError, S3cfsError, StoreError, Temporary
from s3cfs.limits import MIB

log = logging.getLogger(__name__)

POLL_S = 15.0                      # between two looks at servers that are well,
POLL_ILL_S = 2.0                   # and at those that are not
LIST_S = 2.0
BACKUP_LOOK_S = 600.0              # between two looks whether one is due
AGAIN_S = 60.0                     # an object that could not be made whole is tried again, though nothing has changed
DECISIONS = 200
MEMORY_BYTES = 32 * MIB            # of objects that are built anew
SETTINGS = {
    "repair-rate": 32.0 * MIB,     # bytes a second, 0: as fast as it goes
    "rebuild-after": 900.0,        # seconds, 0: never
    "backup-every": 86_400.0,      # seconds, 0: never
}

T = TypeVar("T")


class Care(Layer):
    """See the module's text."""

    name = "zdb"

    def __init__(self, replicas: Replicas, password: str = "") -> None:
        """`password`: of servers for which the list has none."""
        self._replicas, self._cluster, self._password = replicas, replicas.cluster, password
        self._settings: dict[str, float] = dict(SETTINGS)
        self._decisions: deque[Mapping[str, Any]] = deque(maxlen=DECISIONS)
        self._stamp = _stamp_of(self._cluster.setup.path)
        self._list_error = ""
        self._completed = 0                            # objects
        self._known = 0                                # objects that were not whole at the last look
        self._judged = False                           # the servers have been looked at once
        self._well: frozenset[int] = frozenset()       # servers that could be written at the last look
        self._repair_wanted = ""                       # why; "": none is
        self._repair: Mapping[str, Any] = {}           # how far the one that runs is
        self._last_repair = ""                         # what came of the one before
        self._away_since: dict[int, float] = {}        # servers that cannot be read, by clock.monotonic()
        self._rebuilt_without: frozenset[int] = frozenset()        # those of them that were away when all was repaired
        self._writes = False
        self._unsaved = False                          # something was put since the last backup
        self._last_backup: float | None = None         # seconds since 1970
        self._changed = trio.Event()
        self._stop = threading.Event()

    async def put(self, key: str, data: Body, only_if_absent: bool, call: Call) -> Degraded | None:
        answer = await self.below.put(key, data, only_if_absent, call)
        self._unsaved = True
        if not self._writes:
            self._writes = True
            self._wake()
        return answer

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                for work in (self._poll, self._watch_list, self._complete, self._repair_all, self._back_up):
                    nursery.start_soon(work)
        finally:
            self._stop.set()

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Given up when the mount ends; its links are closed then, and it ends too."""
        return await self.doors.store_threads.run(function, *arguments, ended=lambda: None)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # ------------------------------------------------------------ servers

    async def _poll(self) -> None:
        clock = self.doors.clock
        last_of_all = float("-inf")
        while True:
            everyone = clock.monotonic() - last_of_all >= POLL_S
            if everyone:
                last_of_all = clock.monotonic()
            try:
                await self._in_thread(self._ask, everyone)
            except S3cfsError as error:                # no store yet, or too few of its servers answer: whoever uses it is told
                log.debug("the servers cannot be looked at: %s", error)
            else:
                self._judge()
            await clock.sleep(POLL_ILL_S)

    def _ask(self, everyone: bool) -> None:
        ask(self._cluster, [member for member in self._cluster if everyone or not _is_well(member)])

    def _judge(self) -> None:
        """What follows from how they are."""
        if not self._judged and (why := _left_over(self._cluster)):
            self._want_repair(why)
        self._judged = True
        members = list(self._cluster)
        well = frozenset(member.id for member in members if _is_well(member))
        known, self._known = self._known, len(self._cluster.degraded)
        if well - self._well or self._known > known:
            self._wake()
        self._well = well
        after, now = self._settings["rebuild-after"], self.doors.clock.monotonic()
        away = {member.id for member in members if not member.node.health.status.condition.may_read}
        self._away_since = {number: self._away_since.get(number, now) for number in away}
        self._rebuilt_without &= away                  # one that was back and goes again counts anew
        long = {number for number, since in self._away_since.items() if now - since > after}
        if after and long - self._rebuilt_without and not self._repair:
            names = sorted(self._cluster.roll.names[number] for number in long)
            self._want_repair(f"away for longer than {after:g} s: {', '.join(names)}")

    # ------------------------------------------------------------ the list

    async def _watch_list(self) -> None:
        path = self._cluster.setup.path
        while True:
            await self.doors.clock.sleep(LIST_S)
            stamp = await self._in_thread(_stamp_of, path)
            if stamp is not None and stamp != self._stamp:
                self._stamp = stamp
                what, self._list_error = await self._in_thread(self._take_over, path)
                if self._list_error:
                    log.warning("the list of servers is not taken over: %s", self._list_error)
                    self._decide("list", f"not taken over: {self._list_error}")
                elif what:
                    log.info("the list of servers has changed: %s", what)
                    self._decide("list", what)
                    self._want_repair(f"the list has changed: {what}")

    def _take_over(self, path: str) -> tuple[str, str]:
        """What has changed ("": nothing), and why it cannot be taken over."""
        before = self._cluster.setup
        try:
            found = lists.read(path, self._password)
            if found == before:
                return "", ""
            self._cluster.take_over(found)
        except ConfigError as error:
            return "", str(error)
        return _difference(before, found), ""

    def _decide(self, what: str, why: str) -> None:
        self._decisions.append({"time": self.doors.clock.time_ns() / 1e9, "what": what, "why": why})

    # ------------------------------------------------------------ objects

    async def _complete(self) -> None:
        """Those of this mount that are less safe than they should be."""
        while True:
            changed = self._changed
            if self._writes and self._cluster.degraded:
                await self._in_thread(self._complete_some)
            with trio.move_on_after(AGAIN_S):
                await changed.wait()

    def _complete_some(self) -> None:
        rate = Rate(self._rate, self._stop)
        for key, why in self._cluster.degraded.all().items():
            if self._stop.is_set():
                return
            repair = Repair(self._replicas, deep="damaged" in why, replace_away=False, spend=rate.take)
            try:
                done = repair.mend(key)
            except StoreError as error:
                log.debug("%s is not whole yet: %s", key, error)
                return                                 # too few replicas: later
            if done.left is None:
                self._cluster.degraded.forget(key)
                self._completed += 1

    @property
    def _rate(self) -> int | None:
        return int(self._settings["repair-rate"]) or None

    def _want_repair(self, why: str) -> None:
        self._repair_wanted = why
        self._wake()

    async def _repair_all(self) -> None:
        while True:
            changed = self._changed
            if self._writes and self._repair_wanted:
                why, self._repair_wanted = self._repair_wanted, ""
                self._decide("repair", why)
                try:
                    self._last_repair = (await self._in_thread(self._survey, why)).verdict()
                except StoreError as error:
                    self._last_repair, self._repair_wanted = f"ended early: {error}", why
                finally:
                    self._repair = {}
                log.info("repair (%s): %s", why, self._last_repair)
                self._decide("repaired", self._last_repair)
            with trio.move_on_after(AGAIN_S):
                await changed.wait()

    def _survey(self, why: str) -> Tally:
        away = frozenset(member.id for member in self._cluster if not member.node.health.status.condition.may_read)

        def progress(event: Mapping[str, Any]) -> None:
            self._repair = {"why": why, "done": event["done"], "total": event["total"]}

        progress({"done": 0, "total": None})
        done = Survey(self._replicas, mend=True, deep=False, hands=1, rate=Rate(self._rate, self._stop), memory_bytes=MEMORY_BYTES,
                      progress=progress, stop=self._stop).run()
        self._rebuilt_without = away
        return done

    # ------------------------------------------------------------ the records

    async def _back_up(self) -> None:
        while True:
            await self.doors.clock.sleep(BACKUP_LOOK_S)
            every = self._settings["backup-every"]
            if every and self._unsaved:
                try:
                    self._last_backup = await self._in_thread(self._time_of_backup, every)
                except S3cfsError as error:
                    self._decide("backup", f"not made: {error}")

    def _time_of_backup(self, every_s: float) -> float:
        """Of the last one; of the one that is made now, if that is due."""
        def report(what: str, done: int, total: int | None) -> None:
            if self._stop.is_set():
                raise Temporary("backup", "", "the mount ends")

        time_ns = self.doors.clock.time_ns
        newest = next(iter(backup.backups(self._cluster)), None)
        if newest is None or time_ns() - newest.time_ns >= every_s * 1e9:
            self._unsaved = False
            try:
                newest = backup.back_up(self._cluster, report, time_ns)
            except BaseException:
                self._unsaved = True
                raise
            self._decide("backup", f"{newest.slots:,} records in {len(newest.sheets)} objects")
        return newest.time_ns / 1e9

    # ------------------------------------------------------------ what people see and change

    def status(self) -> Mapping[str, Any]:
        own = {"waiting": len(self._cluster.degraded), "completed": self._completed, "list_error": self._list_error or None,
               "repair": self._repair or None, "last_repair": self._last_repair or None, "last_backup": self._last_backup}
        if not self._cluster.is_open:
            return {**own, "summary": "no server has been looked at yet"}
        found = told(self._cluster)
        servers, records = found["servers"], found["records"]
        worst = found.pop("degraded") or (f"{own['waiting']:,} objects have fewer shards than they should" if own["waiting"] else "") or (
            f"the list of servers is not taken over: {self._list_error}" if self._list_error else "")
        well = f"{len(servers)} servers are well, {records['up']} of {records['replicas']} replicas of the records answer"
        repair = f"; repairing, {self._repair['done']:,} of {self._repair['total'] or '?'} objects" if self._repair else ""
        return {**found, **own, "summary": (worst or well) + repair, **({"degraded": worst} if worst else {})}

    def settings(self) -> Mapping[str, str]:
        return {name: f"{value:.10g}" for name, value in self._settings.items()}

    def change(self, setting: str, value: str) -> None:
        if setting not in SETTINGS:
            super().change(setting, value)
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number < 1 << 40:
            raise ConfigError(f"{setting} is a number that is not negative, not {value!r}")
        self._settings[setting] = number

    def decisions(self) -> Sequence[Mapping[str, Any]]:
        return list(self._decisions)


def _is_well(member: Member) -> bool:
    return member.node.health.status.condition.may_write


def _left_over(cluster: Cluster) -> str:
    """What is to be done since the list was changed while nobody looked, or a repair has not ended; "": nothing."""
    roll, members = cluster.roll, {member.id: member for member in cluster}
    if new := [server.name for server in cluster.setup.everyone if roll.id_of(server.name) is None]:
        return f"new in the list: {', '.join(new)}"
    if old := [roll.names[number] for number in roll.replicas if number not in members or members[number].is_draining]:
        return f"they have records, and go: {', '.join(old)}"
    return "the replicas of the records are being changed" if roll.coming else ""


def _stamp_of(path: str) -> tuple[int, int, int] | None:
    """Changes with the file; None: there is none for now (an editor may be at it)."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _difference(before: Setup, after: Setup) -> str:
    """In one line, without a secret."""
    old, new = ({server.name: server for server in setup.everyone} for setup in (before, after))
    drained = [name for name in new if name in old and new[name].drain and not old[name].drain]
    changed = [name for name in new if name in old and new[name] != old[name] and name not in drained]
    parts = [("added", [name for name in new if name not in old]), ("gone", [name for name in old if name not in new]),
             ("drain", drained), ("changed", changed)]
    told = [f"{what} {', '.join(names)}" for what, names in parts if names]
    return "; ".join(told) or "its general settings"
