"""Whether the replicas of the records say the same (D2), and what makes them: filling those that lack something, and those that are new.

Which servers are replicas follows from the list: a repair replaces those that are not in it any more, that drain, or do not answer. It
goes in three steps, so that whatever was acknowledged is found by every read meanwhile: the roll says who will be the replicas (from
then on a write needs majorities of both sets), all that the old ones know is put on the new ones, the roll says that these are they.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from s3cfs.backends.progress import moved
from s3cfs.backends.zdb import commands, looking
from s3cfs.backends.zdb.cluster import Cluster, Member
from s3cfs.backends.zdb.placing import Quorum, replicas_for
from s3cfs.backends.zdb.record import PLACEMENT, Placement, Record, Said, Signer, parse_name, understood
from s3cfs.backends.zdb.replicas import names_of
from s3cfs.backends.zdb.words import Trouble
from s3cfs.errors import Temporary


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
