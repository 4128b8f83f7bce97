"""Whether the replicas of the records say the same (D2), and what makes them: filling those that lack something, and those that are new.

Which servers are replicas follows from the list: a repair replaces those that are not in it any more, that drain, or do not answer. It
goes in three steps, so that whatever was acknowledged is found by every read meanwhile: the roll says who will be the replicas (from
then on a write needs majorities of both sets), all that the old ones know is put on the new ones, the roll says that these are they.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from s3cfs.backends.progress import moved
from s3cfs.backends.zdb import commands, looking
from s3cfs.backends.zdb.cluster import Cluster, Member
from s3cfs.backends.zdb.placing import Quorum, replicas_for
from s3cfs.backends.zdb.record import Placement, Record, Said, name_of, parse_name, placement_name, understood
from s3cfs.backends.zdb.words import Trouble
from s3cfs.errors import Temporary

VERSIONS = (2, 16, 250)            # of a key that are asked for; more only where the highest of them is there


def keys_of(cluster: Cluster) -> set[str]:
    """Every object that any replica has a record or a tombstone of. Temporary: too few answer to know."""
    members = cluster.replicas()
    outcome = cluster.fanout.all(members, _keys_on)
    needed = Quorum.of(len(cluster.roll.replicas)).read
    if len(outcome.good) < needed:
        raise _too_few(len(outcome.good), needed, outcome.bad.values())
    return set().union(*outcome.good.values())


def _keys_on(member: Member) -> set[str]:
    found: set[str] = set()
    cursor: bytes | None = None
    while (page := commands.scan(member, cursor)) is not None:
        cursor = page.cursor
        found.update(name.key for entry in page.entries if (name := parse_name(entry.key)) is not None)
        moved()
    return found


@dataclass(slots=True)
class Views:
    """What each replica says of some keys. `away`: those that say nothing, and why."""

    said: dict[str, dict[Member, Said]] = field(default_factory=dict)
    away: dict[Member, Trouble] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Opinion:
    """Of one key: what counts, and who does not say so. `rotten`: who has a value of it that is damaged."""

    record: Record | None
    placement: Placement | None    # of this record's put
    lacking: tuple[Member, ...] = ()
    rotten: tuple[Member, ...] = ()

    @property
    def agrees(self) -> bool:
        return not (self.lacking or self.rotten)


def views(cluster: Cluster, keys: Sequence[str]) -> Views:
    """Every replica, and those that join, asked for all of `keys`. Temporary: too few of the replicas answer to know what counts."""
    found = Views()
    left = list(keys)
    for count in VERSIONS:
        if not left:
            break
        _ask(cluster, left, count, found)
        left = [key for key in left if any(said.record is not None and said.record.version == count for said in found.said[key].values())]
    needed = Quorum.of(len(cluster.roll.replicas)).read
    there = sum(member not in found.away for member in cluster.replicas())
    if there < needed:
        raise _too_few(there, needed, found.away.values())
    return found


def _ask(cluster: Cluster, keys: Sequence[str], versions: int, found: Views) -> None:
    names = {key: [*(name_of(key, version, is_tombstone=gone) for version in range(1, versions + 1) for gone in (False, True)),
                   placement_name(key)] for key in keys}
    everyone = [member for member in cluster.voters() if member not in found.away]
    asked = [name for each in names.values() for name in each]
    outcome = cluster.fanout.all(everyone, lambda member: commands.get_many(member, asked))
    for key, each in names.items():
        found.said[key] = {}
        for member, values in outcome.good.items():
            by_name = dict(zip(asked, values, strict=True))
            found.said[key][member] = understood({name: by_name[name] for name in each}, cluster.signer)
    found.away |= outcome.bad


def opinion(said: dict[Member, Said]) -> Opinion:
    """Of what they say of one key."""
    record = max((one.record for one in said.values() if one.record is not None), key=lambda record: record.rank, default=None)
    if record is None:
        return Opinion(None, None)
    of_it = [one.placement for one in said.values() if one.placement is not None and one.placement.of == record.where.object_id]
    placement = max(of_it, key=lambda one: one.rank, default=None)
    lacking = [member for member, one in said.items() if one.record != record or one.placement != placement is not None]
    return Opinion(record, placement, tuple(lacking), tuple(member for member, one in said.items() if one.rotten))


def mend(cluster: Cluster, one: Opinion) -> dict[Member, Trouble]:
    """Put what counts where it is lacking or damaged; what came of those where that failed. Harmless at any time (replicas.py)."""
    if one.record is None:
        return {}
    values = [(item.name, item.encode(cluster.signer)) for item in (one.record, one.placement) if item is not None]

    def put(member: Member) -> None:
        for name, value in values:
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


def begin_change(cluster: Cluster, *, replace_away: bool) -> bool:
    """The first step, if there is anything to change. Whether there are replicas to be filled that were none before. Trouble."""
    chosen = next_replicas(cluster, replace_away=replace_away)
    if set(chosen) == set(cluster.roll.replicas):
        if cluster.roll.coming:
            cluster.write_roll(coming=())
        return False
    if set(chosen) == set(cluster.roll.coming):
        return False
    cluster.write_roll(coming=chosen)
    return True


def end_change(cluster: Cluster) -> int:
    """The last step: how many replicas are new. All keys have been filled in before, without one failure. Trouble."""
    joined = len(cluster.roll.joining)
    if cluster.roll.coming:
        cluster.write_roll(replicas=cluster.roll.coming, coming=())
    return joined


def _too_few(count: int, needed: int, troubles: Iterable[Trouble]) -> Temporary:
    why = next(iter(troubles), None)
    return Temporary("check", "", f"{count} replicas of the records answer, and it takes {needed}{f': {why}' if why else ''}")
