"""One object made whole again.

A repair reads the shards (nobody else notices rot: a 0-db gives flipped bits back as good ones), builds those anew that are missing,
damaged, or on servers that drain or are gone, and says in a *placement* where they are now. It never touches the record, which is the
matter of put and delete: a placement that comes after an object was put anew or deleted is of another object id, and is ignored.
Shards have the same bytes under the same key wherever they are, so two repairs at once only do the same thing twice.

INVARIANT Z1: no pass takes away a shard of a live object that a placement named within the last hour (GRACE_S). What a repair leaves
behind, since it moved a shard or coded the object anew, goes in a later pass: no repair takes away what another, beside it, relies on.
And no placement is written by one that has looked longer ago than STALE_S (a machine that slept), since it may say what is long past.
"""
from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from s3cfs.backends.types import Body
from s3cfs.backends.zdb import commands
from s3cfs.backends.zdb.cluster import Member
from s3cfs.backends.zdb.coder import Coder
from s3cfs.backends.zdb.record import NOWHERE, Placement, Where
from s3cfs.backends.zdb.replicas import Known, Replicas
from s3cfs.backends.zdb.shard import OBJECT_ID_BYTES, Code, Head, code_for, cut, encode_values, names_of
from s3cfs.backends.zdb.state import Look, Spend, State, head_of, is_there, looked, note, read_shard
from s3cfs.backends.zdb.words import Trouble
from s3cfs.errors import Temporary

GRACE_S = 3600.0
STALE_S = 600.0
ROUNDS = 4                         # for an object that changes while it is looked at

def _stored_bytes(found: Known) -> int:
    """Of all shards, about."""
    return found.record.size * (found.where.data + found.where.parity) // found.where.data


def _is_over(found: Known) -> bool:
    """A deletion of which nothing is left to do."""
    return not found.is_there and found.placement is not None and not any(found.placement.where.servers)


def _write(member: Member, head: Head, payload: Body) -> None:
    for name, value in encode_values(head, payload):
        try:
            commands.put(member, name, value)
        except Trouble as trouble:
            if not trouble.condition.may_read:
                raise
            commands.delete(member, name)                  # what lies there cannot be read, not even to be compared
            commands.put(member, name, value)


def _drop(member: Member, head: Head) -> bool:
    """Whether there was anything of it."""
    return sum(commands.delete(member, name) for name in names_of(head.object_id, head.shard, head.shard_bytes)) > 0


@dataclass(frozen=True, slots=True)
class Mended:
    """What came of one object. `trouble`: what was wrong, in one line, or None; `left`: what still is."""

    what: str                      # "object", "deletion" or "nothing"
    size: int = 0
    trouble: str | None = None
    left: str | None = None
    lost: bool = False
    shards: int = 0                # that were written


class Repair:
    """Of one object at a time, on as many threads as want it. `spend(bytes)` is called for what is read and written, and may wait;
    `room(bytes)` is held while so many are in memory, and may wait, too."""

    def __init__(self, replicas: Replicas, *, deep: bool, replace_away: bool, spend: Spend = lambda size: None,
                 room: Callable[[int], contextlib.AbstractContextManager[None]] = lambda size: contextlib.nullcontext(),
                 time_ns: Callable[[], int] = time.time_ns) -> None:
        """`replace_away`: shards on servers that do not answer are built anew elsewhere; else they are waited for."""
        self._replicas, self._cluster = replicas, replicas.cluster
        self._deep, self._spend, self._room, self._time_ns = deep, spend, room, time_ns
        self._thread = threading.local()
        self._absent = (State.MISSING, State.DAMAGED, State.GONE, State.DRAINS, *((State.AWAY,) if replace_away else ()))

    def seen(self, key: str) -> Mended:
        """As `mend`, and mends nothing."""
        return self._done(key, self._seen)

    def mend(self, key: str) -> Mended:
        """Temporary: too few replicas of the records answer."""
        return self._done(key, self._mended)

    def _done(self, key: str, work: Callable[[Known], Mended]) -> Mended:
        found, done, shards = self._read(key), Mended("nothing"), 0
        for _ in range(ROUNDS):
            if found is None or _is_over(found):
                break
            done = work(found)
            shards += done.shards
            if done.left is None:
                break
            before, found = found, self._read(key)
            if found is not None and (found.record, found.where) == (before.record, before.where):
                break                                      # else it was put anew, deleted, or mended by somebody while we looked
        return replace(done, shards=shards)

    def _read(self, key: str) -> Known | None:
        self._thread.looked_ns = self._time_ns()
        return self._replicas.read(key)

    def _seen(self, found: Known) -> Mended:
        if found.record.is_tombstone:
            calls = self._remains(found)
            outcome = self._cluster.fanout.all(calls, lambda call: is_there(call[0], head_of(found, call[2], call[1])))
            names = sorted({member.server.name for (member, _, _), there in outcome.good.items() if there})
            left = f"shards are left on {', '.join(names)}" if names else None
            return Mended("deletion", trouble=left, left=left)
        with self._room(_stored_bytes(found)):
            look = looked(self._cluster, found, deep=self._deep, spend=self._spend)
        trouble = look.trouble(self._cluster) or self._narrow(found)
        return Mended("object", found.record.size, trouble, trouble, look.is_lost)

    def _mended(self, found: Known) -> Mended:
        if found.record.is_tombstone:
            return self._finish(found)
        with self._room(2 * _stored_bytes(found)):
            return self._mend(found)

    def _mend(self, found: Known) -> Mended:
        look = looked(self._cluster, found, deep=self._deep, spend=self._spend)
        trouble, size = look.trouble(self._cluster) or self._narrow(found), found.record.size
        if not look.can_be_read:
            return Mended("object", size, trouble, trouble, look.is_lost)
        code = code_for(size, self._cluster.code)
        if trouble is not None and self._narrow(found) and len(self._cluster.writable()) >= code.k + code.m:
            return self._code_anew(found, look, code, trouble)
        moves = look.of(State.DRAINS)
        built = self._build(found, look)
        self._tidy(found)
        left = look.trouble(self._cluster) or self._narrow(found)
        if stuck := look.of(State.DRAINS):
            stay = f"{len(stuck)} cannot leave servers that drain, since there is no other server for them"
            left = f"{left}; {stay}" if left else f"of {len(look.where.servers)} shards {stay}"
        if trouble is None and moves:
            trouble = f"of {len(look.where.servers)} shards {len(moves)} {State.DRAINS.value}"
        return Mended("object", size, trouble, left, shards=built)

    # ------------------------------------------------------------ shards

    def _build(self, found: Known, look: Look) -> int:
        """Put what is not where it should be onto servers that have none of it, and say so. How many shards were written; `look` is as it
        is afterwards."""
        where, servers, refused, written = look.where, list(look.where.servers), set[int](), 0
        while wanted := look.of(*self._absent):
            targets = self._targets(look, servers, wanted, refused)
            payloads = self._payloads(found, look, sorted(targets))
            if not targets or payloads is None:
                break
            outcome = self._cluster.fanout.all(targets, partial(self._send, found, targets, payloads))
            for index in outcome.good:
                servers[index] = targets[index].id
                look.states[index] = State.FINE
                self._spend(len(payloads[index]))
                written += 1
            refused.update(targets[index].id for index in outcome.bad)
        unsure = frozenset(index for index in where.unsure if look.states[index] is not State.FINE)
        if tuple(servers) != where.servers or unsure != where.unsure:
            self._place(found, replace(where, servers=tuple(servers), unsure=unsure))
        return written

    @staticmethod
    def _send(found: Known, targets: Mapping[int, Member], payloads: Mapping[int, Body], index: int) -> None:
        _write(targets[index], head_of(found, index), payloads[index])

    def _targets(self, look: Look, servers: Sequence[int], wanted: Sequence[int], refused: Collection[int]) -> dict[int, Member]:
        """Where shards go: to the server that ought to have it, if that takes it; else to one that has no other shard of the object."""
        targets: dict[int, Member] = {}
        for index in wanted:
            member = self._cluster.member(servers[index])
            its_own = member is not None and look.states[index] in (State.MISSING, State.DAMAGED)
            if member is not None and its_own and member.may_write and member.id not in refused:
                targets[index] = member
        others = [index for index in wanted if index not in targets]
        taken = [member for index in look.states if index not in others and (member := self._cluster.member(servers[index])) is not None]
        candidates = [member for member in self._cluster.writable() if member.id not in {*refused, *servers}]
        chosen = self._cluster.choose(candidates, len(others), taken)
        return {**targets, **dict(zip(others, chosen, strict=False))}

    def _payloads(self, found: Known, look: Look, wanted: Sequence[int]) -> Mapping[int, Body] | None:
        """The bytes of the shards wanted: as they are, or built from k others. None: there are too few (then `look` says so)."""
        coder, have = Coder(*look.code), look.payloads
        if not self._deep:
            readable = look.of(State.FINE, State.DRAINS)
            self._read_some(found, look, [index for index in wanted if index in readable], len(wanted))      # what only has to move
            if not have.keys() >= set(wanted):
                self._read_some(found, look, readable, coder.k - len(have))
        build = [index for index in wanted if index not in have]
        if build and len(have) < coder.k:
            return None
        return {**have, **(coder.rebuild(have, build, coder.shard_bytes(found.record.size)) if build else {})}

    def _read_some(self, found: Known, look: Look, indices: Sequence[int], count: int) -> None:
        """`count` of these shards, or as many of them as can be read, after a look that read nothing."""
        order = [index for index in indices if index not in look.payloads]
        while order and count > 0:
            take, order = order[:count], order[count:]
            members = {index: member for index in take if (member := self._cluster.member(look.where.servers[index])) is not None}
            outcome = self._cluster.fanout.all(members, partial(self._fetch, found, members))
            for index in take:
                if index in outcome.good:
                    note(self._cluster, look, index, outcome.good[index], self._spend)
                    count -= index in look.payloads
                else:
                    look.states[index] = State.AWAY

    @staticmethod
    def _fetch(found: Known, members: Mapping[int, Member], index: int) -> Body | None:
        return read_shard(members[index], head_of(found, index))

    # ------------------------------------------------------------ another code

    def _narrow(self, found: Known) -> str | None:
        """What to say of an object of a narrower code than the list asks for."""
        code, where = code_for(found.record.size, self._cluster.code), found.where
        return f"in {where.data} + {where.parity} shards, not {code.k} + {code.m}" if where.parity < code.m or where.data < code.k else None

    def _code_anew(self, found: Known, look: Look, code: Code, trouble: str) -> Mended:
        """Under an object id of its own. The old shards stay until the placement is old enough."""
        cluster, size = self._cluster, found.record.size
        shards = self._payloads(found, look, range(look.where.data))
        if shards is None:
            return Mended("object", size, trouble, look.trouble(cluster) or trouble, look.is_lost)
        data = b"".join(shards[index] for index in range(look.where.data))[:size]
        members = cluster.choose(cluster.writable(), code.k + code.m)
        where = Where(secrets.token_bytes(OBJECT_ID_BYTES), code.k, code.m, tuple(member.id for member in members))
        if len(members) < code.k + code.m:
            return Mended("object", size, trouble, trouble)
        payloads = cut(data, code)

        def send(index: int) -> None:
            _write(members[index], head_of(found, index, where), payloads[index])

        outcome = cluster.fanout.all(range(len(members)), send)
        if outcome.bad:
            for index in outcome.good:
                with contextlib.suppress(Trouble):
                    _drop(members[index], head_of(found, index, where))        # what stays is garbage
            return Mended("object", size, trouble, trouble)
        self._spend(_stored_bytes(found))
        self._place(found, where)
        return Mended("object", size, trouble, shards=len(members))

    # ------------------------------------------------------------ what is left behind

    def _place(self, found: Known, where: Where) -> None:
        revision = found.placement.revision + 1 if found.placement is not None else 1
        record = found.record
        if abs(self._time_ns() - self._thread.looked_ns) > STALE_S * 1e9:
            raise Temporary("repair", record.key, "too much time has passed since it was looked at")
        self._replicas.place(Placement(record.key, record.where.object_id, revision, where, self._time_ns(), self._cluster.writer))

    def _tidy(self, found: Known) -> None:
        """Drop what the record names, and the placement does not any more."""
        placement = found.placement
        if placement is None or self._time_ns() - placement.time_ns < GRACE_S * 1e9:
            return
        for _, index, number in set(_places(found.record.where)) - set(_places(placement.where)):
            member = self._cluster.member(number)
            if member is not None and member.node.health.may_read:
                with contextlib.suppress(Trouble):
                    _drop(member, head_of(found, index, found.record.where))

    def _finish(self, found: Known) -> Mended:
        """A deletion: every shard goes, if it has not gone with it. A placement without servers says that none is left."""
        calls = self._remains(found)
        outcome = self._cluster.fanout.all(calls, lambda call: _drop(call[0], head_of(found, call[2], call[1])))
        names, where = sorted({member.server.name for member, _, _ in outcome.bad}), found.record.where
        if not names:
            self._place(found, replace(where, servers=(NOWHERE,) * len(where.servers), unsure=frozenset()))
        were = sorted({member.server.name for (member, _, _), there in outcome.good.items() if there})
        return Mended("deletion", trouble=f"shards were left on {', '.join(were)}" if were else None,
                      left=f"shards may be left on {', '.join(names)}" if names else None)

    def _remains(self, found: Known) -> set[tuple[Member, Where, int]]:
        """Where shards of a deleted object may be, on servers of the list."""
        return {(member, where, index) for where in (found.record.where, found.where) for _, index, number in _places(where)
                if (member := self._cluster.member(number)) is not None}


def _places(where: Where) -> Iterator[tuple[bytes, int, int]]:
    return ((where.object_id, index, number) for index, number in enumerate(where.servers) if number != NOWHERE)
