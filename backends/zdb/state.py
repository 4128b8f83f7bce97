"""How the shards of one object are: looked at, one by one, wherever they should be."""
from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from s3cfs.backends.types import Body
from s3cfs.backends.zdb import commands
from s3cfs.backends.zdb.cluster import Cluster, Member
from s3cfs.backends.zdb.record import NOWHERE, Where
from s3cfs.backends.zdb.replicas import Known
from s3cfs.backends.zdb.shard import Code, Head, decode_value, names_of

Spend = Callable[[int], None]


class State(enum.Enum):
    """Of one shard. The value is for people, of several of them."""

    FINE = "well"
    MISSING = "missing"
    DAMAGED = "damaged"
    AWAY = "on a server that does not answer"
    GONE = "on a server that is gone"
    DRAINS = "on a server that drains"             # it is well, and has to move


def head_of(found: Known, index: int, where: Where | None = None) -> Head:
    """Of a shard, of what the placement says if nothing else is said."""
    record, where = found.record, where or found.where
    return Head(where.object_id, Code(where.data, where.parity), record.size, record.time_ns, record.key, index)


@dataclass(slots=True)
class Look:
    """What there is of an object. `payloads`: of shards that were read and are whole."""

    where: Where
    states: dict[int, State] = field(default_factory=dict)
    payloads: dict[int, Body] = field(default_factory=dict)

    @property
    def code(self) -> Code:
        return Code(self.where.data, self.where.parity)

    def of(self, *states: State) -> list[int]:
        return sorted(index for index, state in self.states.items() if state in states)

    @property
    def can_be_read(self) -> bool:
        return len(self.of(State.FINE, State.DRAINS)) >= self.where.data

    @property
    def is_lost(self) -> bool:
        """It could not be read either if every server answered."""
        return len(self.of(State.FINE, State.DRAINS, State.AWAY)) < self.where.data

    def trouble(self, cluster: Cluster) -> str | None:
        """One line; None: nothing is wrong."""
        parts = []
        for state in (State.MISSING, State.DAMAGED, State.AWAY, State.GONE):
            if indices := self.of(state):
                servers = sorted({cluster.roll.names.get(self.where.servers[index], "") for index in indices} - {""})
                parts.append(f"{len(indices)} {state.value}" + (f" ({', '.join(servers)})" if servers else ""))
        if not parts:
            return None
        return f"of {len(self.where.servers)} shards {', '.join(parts)}" + ("" if self.can_be_read else f"; {self.where.data} are needed")


DAMAGED: Body = b"damaged"        # stands for a payload that is not what it was


def looked(cluster: Cluster, found: Known, *, deep: bool, spend: Spend = lambda size: None) -> Look:
    """At every shard. `deep`: read them, else only ask whether they are there. `spend` is told of bytes that were read."""
    look = Look(found.where)
    members: dict[int, Member] = {}
    for index, number in enumerate(look.where.servers):
        member = cluster.member(number)
        if member is None:
            look.states[index] = State.MISSING if number == NOWHERE else State.GONE
        elif not member.node.health.may_read:              # one that is only slow is waited for
            look.states[index] = State.AWAY
        else:
            members[index] = member
    work = read_shard if deep else _present
    outcome = cluster.fanout.all(members, lambda index: work(members[index], head_of(found, index)))
    for index, trouble in outcome.bad.items():
        look.states[index] = State.DAMAGED if trouble.condition.may_read else State.AWAY
    for index, payload in outcome.good.items():
        note(cluster, look, index, payload, spend)
    if not deep:
        look.payloads.clear()
    return look


def note(cluster: Cluster, look: Look, index: int, payload: Body | None, spend: Spend) -> None:
    """What was read (or not) of a shard."""
    if payload is None or payload is DAMAGED:
        look.states[index] = State.MISSING if payload is None else State.DAMAGED
        return
    member = cluster.member(look.where.servers[index])
    look.states[index] = State.DRAINS if member is not None and member.is_draining else State.FINE
    look.payloads[index] = payload
    spend(len(payload))


def read_shard(member: Member, head: Head) -> Body | None:
    """The payload of a shard; None: a part of it, or all, is missing. DAMAGED."""
    parts: list[Body] = []
    for name in names_of(head.object_id, head.shard, head.shard_bytes):
        value = commands.get(member, name)
        if value is None:
            return None
        try:
            said, payload = decode_value(value, name)
        except ValueError:
            return DAMAGED
        if (said.code, said.size, said.key) != (head.code, head.size, head.key):
            return DAMAGED
        parts.append(payload)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _present(member: Member, head: Head) -> Body | None:
    """b"": every part of it is there, by the server's index."""
    return b"" if is_there(member, head, all) else None


def is_there(member: Member, head: Head, judge: Callable[[Iterator[bool]], bool] = any) -> bool:
    """Whether any part of the shard is, or all are."""
    return judge(commands.exists(member, name) for name in names_of(head.object_id, head.shard, head.shard_bytes))
