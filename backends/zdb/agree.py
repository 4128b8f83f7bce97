"""Whether the replicas of the records say the same (D2), and what makes them: filling those that lack something, and those that are new.

Which servers are replicas follows from the list: a repair replaces those that are not in it any more, that drain, or do not answer. It
goes in three steps, so that whatever was acknowledged is found by every read meanwhile: the roll says who will be the replicas (from
then on a write needs majorities of both sets), all that the old ones know is put on the new ones, the roll says that these are they.
"""
from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from s3cfs.backends.progress import moved
from s3cfs.backends.zdb import commands, looking
from s3cfs.backends.zdb.cluster import Cluster, Member
from s3cfs.backends.zdb.members import ROLL
from s3cfs.backends.zdb.placing import Quorum, replicas_for
from s3cfs.backends.zdb.record import PLACEMENT, Placement, Record, Said, Signer, parse_name, understood
from s3cfs.backends.zdb.replicas import names_of
from s3cfs.backends.zdb.words import Trouble
from s3cfs.errors import Temporary

LEASE = b"s3cfs:repair"            # in a 0-db: who changes the roll
LEASE_S = 60
RENEW_S = 15.0
SETTLES_S = 1.0                    # a SET that was sent before is there, or its sender has been stopped


def keys_of(cluster: Cluster) -> dict[str, int]:
    """Every key that a replica has a record or a tombstone of, and its highest version. Temporary: too few answer to know."""
    members = cluster.replicas()
    outcome = cluster.fanout.all(members, _keys_on)
    needed = Quorum.of(len(cluster.roll.replicas)).read
    if len(outcome.good) < needed:
        raise _too_few(len(outcome.good), needed, outcome.bad.values())
    found: dict[str, int] = {}
    for versions in outcome.good.values():
        for key, version in versions.items():
            found[key] = max(version, found.get(key, 0))
    return found


def _keys_on(member: Member) -> dict[str, int]:
    found: dict[str, int] = {}
    cursor: bytes | None = None
    while (page := commands.scan(member, cursor)) is not None:
        cursor = page.cursor
        for entry in page.entries:
            if (name := parse_name(entry.key)) is not None:
                found[name.key] = max(name.version, found.get(name.key, 0))
        moved()
    return found


@dataclass(slots=True)
class Views:
    """What each replica says of some keys. `away`: those that say nothing, and why."""

    said: dict[str, dict[Member, Said]] = field(default_factory=dict)
    away: dict[Member, Trouble] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Opinion:
    """Of one key: what counts, and who does not say so. `values`: what is to lie on every replica, by its name there: all versions, since
    whoever looks for the highest goes up from the first. `rotten`: who has a value of it that is damaged."""

    record: Record | None
    placement: Placement | None    # of this record's put
    values: Mapping[bytes, bytes] = field(default_factory=dict)
    lacking: tuple[Member, ...] = ()
    rotten: tuple[Member, ...] = ()

    @property
    def agrees(self) -> bool:
        return not (self.lacking or self.rotten)


def views(cluster: Cluster, versions: Mapping[str, int]) -> Views:
    """Every replica, and those that join, asked for some keys, of which these are the highest versions. Temporary: too few of the
    replicas answer to know what counts."""
    names = {key: names_of(key, range(1, highest + 1)) for key, highest in versions.items()}
    asked = [name for each in names.values() for name in each]
    outcome = cluster.fanout.all(cluster.voters(), lambda member: commands.get_many(member, asked))
    found = Views({key: {} for key in versions}, outcome.bad)
    for member, values in outcome.good.items():
        by_name = dict(zip(asked, values, strict=True))
        for key, each in names.items():
            found.said[key][member] = understood({name: by_name[name] for name in each}, cluster.signer)
    needed = Quorum.of(len(cluster.roll.replicas)).read
    there = sum(member in outcome.good for member in cluster.replicas())
    if there < needed:
        raise _too_few(there, needed, found.away.values())
    return found


def opinion(said: Mapping[Member, Said], signer: Signer) -> Opinion:
    """Of what they say of one key."""
    record = max((one.record for one in said.values() if one.record is not None), key=lambda record: record.rank, default=None)
    if record is None:
        return Opinion(None, None)
    of_it = [one.placement for one in said.values() if one.placement is not None and one.placement.of == record.where.object_id]
    placement = max(of_it, key=lambda one: one.rank, default=None)
    values = {name: value for one in said.values() for name, value in one.values.items() if name[:1] != PLACEMENT}
    values |= {item.name: item.encode(signer) for item in (record, placement) if item is not None}
    lacking = tuple(member for member, one in said.items() if any(one.values.get(name) != value for name, value in values.items()))
    return Opinion(record, placement, values, lacking, tuple(member for member, one in said.items() if one.rotten))


def mend(cluster: Cluster, one: Opinion) -> dict[Member, Trouble]:
    """Put what counts where it is lacking or damaged; what came of those where that failed. Harmless at any time (replicas.py)."""
    def put(member: Member) -> None:
        for name, value in one.values.items():
            commands.put(member, name, value)

    return cluster.fanout.all({*one.lacking, *one.rotten}, put).bad


# ---------------------------------------------------------------- who the replicas are

def next_replicas(cluster: Cluster, *, replace_away: bool) -> tuple[int, ...]:
    """Who they should be by the list as it is, those that are and can stay first. Never fewer than there are or should be."""
    setup, roll = cluster.setup, cluster.roll
    ids = {name: number for number, name in roll.names.items() if (member := cluster.member(number)) is not None
           and (member.may_read or not replace_away or number in roll.coming)}
    chosen = looking.choose_replicas(setup, ids, roll.coming or roll.replicas)
    enough = min(replicas_for(setup.parity), len(roll.replicas))
    spare = [number for number in roll.replicas if number not in chosen and (member := cluster.member(number)) is not None
             and not member.is_draining]
    return (*chosen, *spare[:max(0, enough - len(chosen))])


def wants_change(cluster: Cluster, *, replace_away: bool) -> bool:
    """Whether servers are to be admitted, or the replicas to be others than they are."""
    roll = cluster.roll
    is_new = any(roll.id_of(server.name) is None for server in cluster.setup.everyone)
    return is_new or bool(roll.coming) or set(next_replicas(cluster, replace_away=replace_away)) != set(roll.replicas)


def begin_change(cluster: Cluster, *, replace_away: bool) -> None:
    """The first step. Whoever calls it has the lease. Trouble."""
    chosen = next_replicas(cluster, replace_away=replace_away)
    coming = () if set(chosen) == set(cluster.roll.replicas) else chosen
    if set(coming) != set(cluster.roll.coming):
        cluster.write_roll(coming=coming)


def end_change(cluster: Cluster, epoch: int) -> int:
    """The last step: how many replicas are new. All keys have been filled in before, without one failure, since the roll has this epoch;
    if it has another one by now, nothing is done. Whoever calls it has the lease. Trouble."""
    joined = len(cluster.roll.joining)
    if not cluster.roll.coming or not is_in_force(cluster, epoch):
        return 0
    cluster.write_roll(replicas=cluster.roll.coming, coming=())
    return joined


def is_in_force(cluster: Cluster, epoch: int) -> bool:
    """Whether the newest roll is of this epoch: the servers are asked."""
    cluster.heed(cluster.fanout.all(cluster.voters(), lambda member: commands.get(member, ROLL)).good.values())
    return cluster.roll.epoch == epoch


class Lease:
    """Who may write rolls. A 0-db has no compare-and-set; so whoever wants it writes his mark on all who vote, and has it if a moment later
    it is still there on a majority. One that has not changed for a minute, by the servers' own clocks, is a dead man's."""

    def __init__(self, cluster: Cluster, stop: threading.Event) -> None:
        self._cluster, self._stop, self._mark = cluster, stop, secrets.token_hex(8).encode()
        self._count = 0

    def take(self) -> bool:
        """False: somebody else has it."""
        outcome = self._cluster.fanout.all(self._cluster.voters(), self._held_by_another)
        if any(outcome.good.values()):
            return False
        self.renew()
        self._stop.wait(SETTLES_S)
        return self.is_mine()

    def _held_by_another(self, member: Member) -> bool:
        value, age = commands.get(member, LEASE), commands.age(member, LEASE)
        return value is not None and not value.startswith(self._mark) and (age is None or age < LEASE_S)

    def renew(self) -> None:
        self._count += 1
        value = b"%s %d" % (self._mark, self._count)       # another one each time: else the server would not note the time
        self._cluster.fanout.all(self._cluster.voters(), lambda member: commands.put(member, LEASE, value))

    def is_mine(self) -> bool:
        values = self._cluster.fanout.all(self._cluster.voters(), lambda member: commands.get(member, LEASE)).good
        having = {member.id for member, value in values.items() if value is not None and value.startswith(self._mark)}
        return all(2 * sum(number in having for number in voters) > len(voters) for voters in self._cluster.roll.voters)

    def give_back(self) -> None:
        def drop(member: Member) -> None:
            if (commands.get(member, LEASE) or b"").startswith(self._mark):
                commands.delete(member, LEASE)

        self._cluster.fanout.all(self._cluster.voters(), drop)


def _too_few(count: int, needed: int, troubles: Iterable[Trouble]) -> Temporary:
    why = next(iter(troubles), None)
    return Temporary("check", "", f"{count} replicas of the records answer, and it takes {needed}{f': {why}' if why else ''}")
