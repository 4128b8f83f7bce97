"""Putting an object: its shards on distinct servers, all at once, and what is done when some of these do not take them.

A shard that is refused, or is late, goes to a spare server where there is one. Done when all are acknowledged; or when `acknowledgements`
of them are and the rest is silent: then the answer is Degraded, and a repair completes it. With too few of them it is put anew,
with the code for the servers that are left. Nothing reads what an attempt that failed left behind: each has an object id of its own.
"""
from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from s3cfs.backends.types import Body
from s3cfs.backends.zdb import commands
from s3cfs.backends.zdb.cluster import Cluster, Member
from s3cfs.backends.zdb.fanout import Round
from s3cfs.backends.zdb.placing import narrowed
from s3cfs.backends.zdb.record import NOWHERE, OBJECT_ID_BYTES, Where
from s3cfs.backends.zdb.shard import Code, Head, code_for, cut, encode_values, names_of
from s3cfs.backends.zdb.words import Condition, Trouble
from s3cfs.errors import StoreError, StoreFull, Temporary

ATTEMPTS = 4
SILENCE_S = 2.0                    # nothing has moved for so long: what is left is late
SPARE_S = 0.1                      # no shard is late before that
TAIL_S = 2.0                       # when enough are acknowledged, the rest has so long, whatever moves
DROP_S = 1.0                       # of silence: nobody waits longer for shards to be deleted


@dataclass(frozen=True, slots=True)
class Written:
    """`weak`: what it lacks, in one line; "": nothing."""

    where: Where
    weak: str


class _Attempt:
    """One object id, one code."""

    def __init__(self, cluster: Cluster, head: Head, payloads: list[Body], enough: int) -> None:
        self.cluster, self.head, self.payloads, self.enough = cluster, head, payloads, enough
        self.acknowledged: dict[int, Member] = {}
        self.sent: dict[int, Member] = {}              # to whom last, where nobody acknowledged
        self.troubles: dict[Member, Trouble] = {}
        self.kept: dict[int, Member] | None = None     # when it has ended: whose shards count

    def run(self, members: list[Member]) -> bool:
        """Whether enough were acknowledged."""
        chosen = self.cluster.choose(members, len(self.payloads))
        spares = [member for member in members if member not in chosen]
        made: Round[tuple[int, Member], None] = self.cluster.fanout.round()

        def send(index: int, member: Member) -> None:
            self.sent[index] = member
            made.start((index, member), partial(self._send, index, member))

        def spare(index: int) -> bool:
            taken = [*self.acknowledged.values(), *self.sent.values()]
            for member in self.cluster.choose(spares, 1, taken):
                spares.remove(member)
                send(index, member)
                return True
            return False

        for index, member in enumerate(chosen):
            send(index, member)
        late_s = self.cluster.latencies.delay_s(max(len(payload) for payload in self.payloads))
        delay: float | None = time.monotonic() + max(SPARE_S, late_s)
        until: float | None = None
        twice: list[tuple[int, Member]] = []           # acknowledged, when another had been quicker
        while made.pending and len(self.acknowledged) < len(self.payloads):
            if len(self.acknowledged) >= self.enough and until is None:
                until = time.monotonic() + TAIL_S
            done = made.next(SILENCE_S, until=min((end for end in (delay, until) if end is not None), default=None))
            if done is None:
                if delay is None or time.monotonic() < delay:
                    if 2 * len(self.acknowledged) < len(self.payloads) and until is None:
                        continue                       # when most are silent it is the net, or we: the links know when to give up
                    break                              # they are late, and no more is to be had
                delay = None
                for index in [index for index in self.sent if index not in self.acknowledged]:
                    spare(index)
                continue
            index, member = done.name
            if done.trouble is None:
                if self.acknowledged.setdefault(index, member) is not member:
                    twice.append((index, member))
            else:
                self.troubles[member] = done.trouble
                if index not in self.acknowledged and not any(index == other for other, _ in made.pending):
                    spare(index)
        done_well = len(self.acknowledged) >= self.enough
        self.kept = {**self.sent, **self.acknowledged} if done_well else {}
        while (done := made.next(until=time.monotonic())) is not None:
            twice.append(done.name)                    # those that end after this remove themselves
        made.abandon()
        for index, member in [*twice, *self.acknowledged.items()]:
            if self.kept.get(index) is not member:
                self.cluster.fanout.start(partial(self._remove, index, member))
        return done_well

    def _send(self, index: int, member: Member) -> None:
        for name, value in encode_values(replace(self.head, shard=index), self.payloads[index]):
            commands.put(member, name, value)
        if self.kept is not None:
            self._remove(index, member)

    def _remove(self, index: int, member: Member) -> None:
        """Delete what another server has, or what belongs to no object, after all."""
        if self.kept is not None and self.kept.get(index) is not member:
            with suppress(Trouble):                    # a repair finds it
                for name in names_of(self.head.object_id, index, self.head.shard_bytes):
                    commands.delete(member, name)

    def where(self) -> Where:
        count = len(self.payloads)
        holders = {**self.sent, **self.acknowledged}
        servers = tuple(holders[index].id if index in holders else NOWHERE for index in range(count))
        return Where(self.head.object_id, *self.head.code, servers, frozenset(range(count)) - self.acknowledged.keys())


def write(cluster: Cluster, key: str, data: Body, time_ns: int) -> Written:
    """StoreFull, Denied, Temporary: too few servers take it."""
    wanted = code_for(len(data), cluster.code)
    failed: dict[Member, Trouble] = {}                 # they had their chance
    attempt: _Attempt | None = None
    has_asked = False
    for _ in range(ATTEMPTS):
        members = [member for member in cluster.writable() if member not in failed]
        code = narrowed(wanted, len(members))
        if code is None and not has_asked:             # what they were is not what they are
            has_asked = True
            cluster.ask_again()
            members = [member for member in cluster.writable() if member not in failed]
            code = narrowed(wanted, len(members))
        if code is None:
            break
        if attempt is None or attempt.head.code != code:
            payloads = cut(data, code)
        enough = min(code.k + cluster.setup.acknowledgements - cluster.setup.data, code.k + code.m)
        attempt = _Attempt(cluster, Head(secrets.token_bytes(OBJECT_ID_BYTES), code, len(data), time_ns, key), payloads, enough)
        if attempt.run(members):
            return Written(attempt.where(), _weakness(attempt, wanted))
        late = set(attempt.sent.values()) - set(attempt.acknowledged.values())
        failed |= {member: Trouble(Condition.TIMED_OUT, "is late", str(member.server)) for member in late} | attempt.troubles
    raise _too_few(cluster, key, wanted, failed)


def _weakness(attempt: _Attempt, wanted: Code) -> str:
    code, missing = attempt.head.code, len(attempt.payloads) - len(attempt.acknowledged)
    said = []
    if missing:
        said.append(f"{missing} of {len(attempt.payloads)} {'copies' if code.k == 1 else 'shards'} are missing")
    if code != wanted:
        said.append(f"it is cut {code.k} + {code.m} and not {wanted.k} + {wanted.m}, for want of servers")
    return " and ".join(said)


def _too_few(cluster: Cluster, key: str, code: Code, failed: Mapping[Member, Trouble]) -> StoreError:
    """In the words of what keeps most of them from taking it."""
    conditions = []
    words = ""
    for member in cluster.holders():
        trouble, status = failed.get(member), member.node.health.status
        condition = trouble.condition if trouble is not None else status.condition
        if not member.may_write or trouble is not None:
            conditions.append(condition)
            words = str(trouble) if trouble is not None else words or f"{member.server}: {status.words or condition.value}"
    left = len(cluster.holders()) - len(conditions)
    text = f"{left} of {len(cluster.holders())} servers take new objects, and it takes {1 + code.m} at least; {words}"
    if conditions and all(condition in (Condition.LOW_SPACE, Condition.DISK_FULL) for condition in conditions):
        return StoreFull("put", key, text)
    return Temporary("put", key, text)


def drop(cluster: Cluster, where: Where, size: int) -> None:
    """Delete the shards, as far as that goes: what is left a repair finds."""
    shard_bytes = -(-size // where.data)
    made: Round[int, None] = cluster.fanout.round()

    def one(index: int, member: Member) -> None:
        for name in names_of(where.object_id, index, shard_bytes):
            commands.delete(member, name)

    for index, number in enumerate(where.servers):
        member = cluster.member(number)
        if member is not None and member.may_read:
            made.start(index, partial(one, index, member))
    while made.next(DROP_S) is not None:
        pass


