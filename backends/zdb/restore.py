"""Records put back: from replicas that are left, from the last backup (backup.py), and at last from the shards themselves.

A version of a record is written once, so putting back what is missing undoes nothing, and may be done at any time. Where the replicas are
lost, new ones are chosen from the list; until they are filled the roll says that they are coming, and nobody can read or write.

Every shard says of which object it is, how that is cut, and when it was put. So an object that no record knows (it was put after the
backup) gets one from its shards, if it was put after whatever else is known of its key, a deletion included. One that was put at the very
time of what is known is the same, cut anew by a repair. And of an object that was deleted after the backup there is no shard at all.
"""
from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from s3cfs.backends.progress import moved
from s3cfs.backends.zdb import backup, commands, looking
from s3cfs.backends.zdb.backup import Backup, Report, Sheet, Slot
from s3cfs.backends.zdb.cluster import Cluster, Member
from s3cfs.backends.zdb.record import (
    NOWHERE,
    PLACEMENT,
    RECORD,
    TOMBSTONE,
    Placement,
    Record,
    Signer,
    Where,
    decode_placement,
    decode_record,
    understood,
)
from s3cfs.backends.zdb.replicas import Known, Replicas, has_quorum, known_of, names_of, too_few
from s3cfs.backends.zdb.shard import Head, decode_value, name_of, parse_name, parts_of
from s3cfs.backends.zdb.words import Trouble
from s3cfs.errors import ConfigError, StoreError, Temporary

AT_ONCE = 500                      # slots
VERSIONS = 200                     # of a key that are looked at together; see replicas.GAP

_VALUE = struct.Struct(">HBHI")    # of a value that a scan has seen: which server, shard, part, bytes


@dataclass(slots=True)
class Restored:
    """`slots`: records, tombstones and placements that were missing on some replica; `made`: records made from shards; `buried`: those of
    objects that have been deleted since; `broken`: objects of which too few shards are left. `backup`: the one that was used; `why_not`:
    what is wrong with newer ones."""

    slots: int = 0
    buried: int = 0
    made: int = 0
    broken: int = 0
    replicas: int = 0              # that are new
    backup: Backup | None = None
    why_not: tuple[str, ...] = ()


def restore(cluster: Cluster, report: Report, *, replicas_lost: bool = False, scan: bool | None = None) -> Restored:
    """See the module's text. `scan`: make records from shards, too (None: when the replicas are lost). StoreError, Trouble: the next run
    goes on. Temporary, when the records cannot be read and it was not said that the replicas are lost."""
    readable = cluster.open_anyway()
    if not readable and not replicas_lost:
        raise Temporary("restore", "", "too few replicas of the records answer to know what they know; "
                        "--replicas-lost, if those that are missing will never come back")
    return _Restore(cluster, report, readable).run((not readable) if scan is None else scan)


class _Restore:
    def __init__(self, cluster: Cluster, report: Report, readable: bool) -> None:
        self._cluster, self._report, self._readable = cluster, report, readable
        self._replicas = Replicas(cluster)
        self._done = Restored()
        self._known: set[bytes] = set()                # ids of objects that have a record
        self._targets: dict[Member, None] = {}         # that have taken everything so far
        self._bad: list[Trouble] = []

    def run(self, scan: bool) -> Restored:
        if not self._readable:
            self._choose()
        voters, coming = self._cluster.voters(), self._cluster.roll.coming
        self._targets = dict.fromkeys(member for member in voters if self._readable or member.id in coming)
        sources = [member for member in self._cluster.replicas() if member.may_read]
        for member in sources:
            self._fill(_slots_on(member, self._cluster.signer, self._bad), f"records of {member.server.name}")
        self._from_backup()
        if scan:
            self._from_shards()
        if not self._readable:
            self._cluster.write_roll(replicas=self._cluster.roll.coming, coming=(), without_old=True)
        return self._done

    def _choose(self) -> None:
        """New replicas, which are coming from now on."""
        cluster = self._cluster
        new = cluster.welcome()
        names = {**cluster.roll.names, **new}
        there = cluster.fanout.all(list(cluster), lambda member: commands.count(member)).good
        ids = {member.server.name: member.id for member in there} | {name: number for number, name in new.items()}
        left = [number for number in cluster.roll.replicas if number in ids.values()]
        chosen = looking.choose_replicas(cluster.setup, ids, left)
        if not chosen:
            what = "[[meta]] servers" if cluster.setup.meta else "servers"
            raise ConfigError(f"{cluster.setup.path}: none of its {what} answers, so the records have no place to go")
        self._done.replicas = len(set(chosen) - set(left))
        cluster.write_roll(names=names, coming=chosen, without_old=True)

    # ------------------------------------------------------------ slots

    def _fill(self, slots: Iterable[Slot], what: str, total: int | None = None) -> None:
        """Put them where they are missing. Temporary: too few of the targets take them."""
        done = 0
        for some in _batches(slots, AT_ONCE):
            for name, value in some:
                self._known.update(_objects_of(name, value, self._cluster.signer))
            outcome = self._cluster.fanout.all(self._targets, partial(_fill, slots=some, signer=self._cluster.signer))
            self._done.slots += max(outcome.good.values(), default=0)
            for member, trouble in outcome.bad.items():
                del self._targets[member]
                self._bad.append(trouble)
            roll, having = self._cluster.roll, {member.id for member in self._targets}
            if not (has_quorum(having, roll) if self._readable else 2 * len(having & set(roll.coming)) > len(roll.coming)):
                raise too_few("restore", "", len(having), len(roll.coming or roll.replicas) // 2 + 1, self._bad)
            done += len(some)
            self._report(what, done, total)

    def _from_backup(self) -> None:
        known = backup.backups(self._cluster)
        used, troubles = backup.newest_readable(self._cluster, known)
        self._done.backup, self._done.why_not = used, tuple(str(trouble) for trouble in troubles)
        if used is not None:
            self._fill(backup.slots(self._cluster, used.sheets), "the backup", used.slots)

    # ------------------------------------------------------------ shards

    def _from_shards(self) -> None:
        found = _Shards(list(self._cluster), self._report)
        objects = found.objects(self._known)
        if self._done.backup is None:
            self._from_lost_backups(found)
        for number, (head, where) in enumerate(objects):
            self._report("shards that no record knows", number, None)
            if head.key != backup.KEY:
                if where is None:
                    self._done.broken += 1
                else:
                    self._make(head, where, found)
        if self._done.backup is not None:
            self._bury(found, self._done.backup)

    def _bury(self, found: _Shards, used: Backup) -> None:
        """Objects of the backup that have been deleted since: what knew of that is lost, but their shards are gone."""
        for name, value in backup.slots(self._cluster, used.sheets):
            if name[:1] != RECORD:
                continue
            record = decode_record(name, value, self._cluster.signer)
            if found.is_gone(record.where) and (known := self._look(record.key)) is not None and known.is_there:
                if known.record.where.object_id == record.where.object_id and found.is_gone(known.where):
                    tombstone = replace(record, version=record.version + 1, is_tombstone=True, writer=self._cluster.writer)
                    self._fill([(tombstone.name, tombstone.encode(self._cluster.signer))], "records of deleted objects")
                    self._replicas.forget(record.key)
                    self._done.buried += 1

    def _from_lost_backups(self, found: _Shards) -> None:
        """Nobody knows of a backup any more: by their shards."""
        sheets: dict[int, list[Sheet]] = {}
        for head, where in found.objects(self._known):
            if head.key == backup.KEY and where is not None:
                sheets.setdefault(head.stamp, []).append(Sheet(head.size, where))
        for stamp in sorted(sheets, reverse=True):
            try:
                ordered = sorted(sheets[stamp], key=lambda sheet: backup.read_sheet(self._cluster, sheet)[0].number)
                self._fill(backup.slots(self._cluster, ordered), "a backup that nobody knew")
            except StoreError as error:
                self._done.why_not += (str(error),)
            else:
                self._done.backup = Backup(stamp, 0, tuple(ordered))
                return

    def _make(self, head: Head, where: Where, found: _Shards) -> None:
        """A record or a placement of an object that none knows; neither, if it is older than what is known, or the same and less of it."""
        known = self._look(head.key)
        if known is not None and known.is_there and known.record.time_ns == head.stamp:
            if found.missing(known.where) <= found.missing(where):
                return
            revision = known.placement.revision + 1 if known.placement else 1
            made: Record | Placement = Placement(head.key, known.record.where.object_id, revision, where, head.stamp, self._cluster.writer)
        elif known is None or known.record.time_ns < head.stamp:
            version = known.record.version + 1 if known else 1
            made = Record(head.key, version, False, head.size, where, head.stamp, self._cluster.writer)
        else:
            return
        self._fill([(made.name, made.encode(self._cluster.signer))], "records made from shards")
        self._replicas.forget(head.key)
        self._done.made += 1

    def _look(self, key: str) -> Known | None:
        """What is known of it by now. The targets, where nobody else can be asked, have all the same."""
        if self._readable:
            return self._replicas.read(key)
        names = names_of(key, range(1, VERSIONS + 1))
        values = commands.get_many(next(iter(self._targets)), names)
        return known_of([understood(dict(zip(names, values, strict=True)), self._cluster.signer)])


def _batches(slots: Iterable[Slot], count: int) -> Iterator[list[Slot]]:
    left = iter(slots)
    while some := list(islice(left, count)):
        yield some


def _slots_on(member: Member, signer: Signer, bad: list[Trouble]) -> Iterator[Slot]:
    """Records, tombstones and placements of a replica, those that are whole. One that fails has been asked for what it has."""
    cursor: bytes | None = None
    try:
        while (page := commands.scan(member, cursor)) is not None:
            cursor = page.cursor
            names = [entry.key for entry in page.entries if entry.key[:1] in (RECORD, TOMBSTONE, PLACEMENT)]
            for name, value in zip(names, commands.get_many(member, names), strict=True):
                if value is not None and _is_whole(name, value, signer):
                    yield name, value
    except Trouble as trouble:
        bad.append(trouble)


def _is_whole(name: bytes, value: bytes, signer: Signer) -> bool:
    try:
        signer.unseal(name, value)
    except ValueError:
        return False
    return True


def _objects_of(name: bytes, value: bytes, signer: Signer) -> Iterator[bytes]:
    """The ids of the objects that it speaks of."""
    with suppress(ValueError, struct.error):
        if name[:1] == PLACEMENT:
            placement = decode_placement(name, value, signer)
            yield placement.where.object_id
            yield placement.of
        else:
            yield decode_record(name, value, signer).where.object_id


def _fill(member: Member, slots: list[Slot], signer: Signer) -> int:
    """Put what is missing, or damaged, or older (of placements: they have revisions). How many."""
    there = commands.get_many(member, [name for name, _ in slots])
    put = 0
    for (name, value), before in zip(slots, there, strict=True):
        if before is None or not _is_whole(name, before, signer) or _is_newer(name, value, before, signer):
            commands.put(member, name, value)
            put += 1
    return put


def _is_newer(name: bytes, value: bytes, before: bytes, signer: Signer) -> bool:
    if name[:1] != PLACEMENT or value == before:
        return False
    return decode_placement(name, value, signer).rank > decode_placement(name, before, signer).rank


class _Shards:
    """What lies on all servers: nine bytes a value, some 350 for an object of 16 + 4 with its entry."""

    def __init__(self, members: list[Member], report: Report) -> None:
        self._members = members
        self._values: dict[bytes, bytearray] = {}
        self._scanned: set[int] = set()
        for number, member in enumerate(members):
            report(f"keys of {member.server.name}", number, len(members))
            with suppress(Trouble):
                self._scan(number, member)

    def _scan(self, number: int, member: Member) -> None:
        cursor: bytes | None = None
        while (page := commands.scan(member, cursor)) is not None:
            cursor = page.cursor
            moved()
            for entry in page.entries:
                if (name := parse_name(entry.key)) is not None:
                    object_id, shard, part = name
                    self._values.setdefault(object_id, bytearray()).extend(_VALUE.pack(number, shard, part, entry.size))
        self._scanned.add(member.id)

    def missing(self, where: Where) -> int:
        """How many of its shards."""
        there = {shard for _, shard, _, _ in _VALUE.iter_unpack(self._values.get(where.object_id, b""))}
        return where.data + where.parity - len(there)

    def is_gone(self, where: Where) -> bool:
        """For sure: no server has any shard of it, and no more of those that had some are missing than could be lost."""
        away = sum(number not in self._scanned for number in where.servers if number != NOWHERE)
        return where.object_id not in self._values and away <= where.parity

    def objects(self, but: Collection[bytes]) -> Iterator[tuple[Head, Where | None]]:
        """All but those ids. None: too few of its shards are there. One of which no value can be read is left out."""
        for object_id, packed in self._values.items():
            if object_id not in but:
                values = list(_VALUE.iter_unpack(packed))
                head = self._head(object_id, values)
                if head is not None:
                    yield head, self._where(head, values)

    def _head(self, object_id: bytes, values: list[tuple[int, int, int, int]]) -> Head | None:
        """By the smallest of its values that is whole."""
        for number, shard, part, _ in sorted(values, key=lambda value: value[3]):
            name = name_of(object_id, shard, part)
            with suppress(Trouble, ValueError):
                value = commands.get(self._members[number], name)
                if value is not None:
                    return decode_value(value, name)[0]
        return None

    def _where(self, head: Head, values: list[tuple[int, int, int, int]]) -> Where | None:
        count, parts = sum(head.code), parts_of(head.shard_bytes)
        servers = [NOWHERE] * count
        for shard in range(count):
            for number in {number for number, of, _, _ in values if of == shard}:
                if len({part for at, of, part, _ in values if (at, of) == (number, shard)}) == parts:
                    servers[shard] = self._members[number].id
        if count - servers.count(NOWHERE) < head.code.k:
            return None
        return Where(head.object_id, *head.code, tuple(servers))
