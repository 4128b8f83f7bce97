"""The first look at the servers of a list: who answers, whose store they are, what is wrong with each. And making a store, mkfs's part.

Connections of this look are its own: those that a mount works on check who the server is on their own (cluster.py).
"""
from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from s3cfs.backends.zdb import commands
from s3cfs.backends.zdb.fanout import Fanout, Outcome, Round
from s3cfs.backends.zdb.link import Links
from s3cfs.backends.zdb.members import IDENTITY, ROLL, Identity, Roll, fresh_ids
from s3cfs.backends.zdb.placing import Candidate, Quorum, replicas_for, spread
from s3cfs.backends.zdb.record import STORE_ID_BYTES, Signer
from s3cfs.backends.zdb.setup import Server, Setup
from s3cfs.backends.zdb.words import Condition, Trouble
from s3cfs.errors import BucketMissing, ConfigError, Temporary

SETTLE_S = 1.0                     # for how long those that have not answered are waited for, when enough have

Open = Callable[[Server], Links]


@dataclass(frozen=True, slots=True)
class Face:
    """What a server shows: its namespace, and whose it is. `roll`: as it lies there."""

    identity: Identity | None
    roll: bytes | None
    entries: int


@dataclass(slots=True)
class Looked:
    faces: dict[str, Face] = field(default_factory=dict)               # by name
    troubles: dict[str, Trouble] = field(default_factory=dict)
    roll: Roll | None = None

    def first_trouble(self) -> Trouble:
        """Of the mistakes the likeliest cause, before what may pass by itself."""
        return min(self.troubles.values(), key=lambda trouble: trouble.condition.passes)


def face_of(links: Links, secret: str) -> Face:
    """Trouble for a server that can be none of a store."""
    server = links.server
    try:
        identity, roll = commands.get_many(links, [IDENTITY, ROLL])
    except Trouble as trouble:
        if trouble.condition is not Condition.NO_NAMESPACE:
            raise
        raise Trouble(trouble.condition, f"there is no namespace {server.namespace} ({trouble.words})", str(server)) from None
    info = commands.own_info(links)
    if info.get("mode") != "userkey":
        raise Trouble(Condition.WRONG_MODE, f"the namespace {links.namespace} is in mode {info.get('mode', '?')}", str(server))
    entries = info.get("entries", "0")
    return Face(identity_of(identity, server, secret), roll, int(entries) if entries.isdigit() else 0)


def identity_of(value: bytes | None, server: Server, secret: str) -> Identity | None:
    """Trouble for what is none."""
    try:
        return None if value is None else Identity.decode(value, secret)
    except ValueError as error:
        raise Trouble(Condition.STRANGER, f"what lies there {error}", str(server)) from None
    except PermissionError as error:
        raise Trouble(Condition.STRANGER, f"its identity {error}: is `secret` in the list that of the store?", str(server)) from None


def look(setup: Setup, fanout: Fanout, open_links: Open, *, at_all: bool = False) -> Looked:
    """Ask every server of the list. Ends when the roll is known for sure and the others have had their moment; `at_all`: not before the
    last one. Raises nothing: what is wrong stands in the answer."""
    looked = Looked()
    made: Round[str, Face] = fanout.round()
    links = {server.name: open_links(server) for server in setup.everyone}
    for name, one in links.items():
        made.start(name, partial(face_of, one, setup.secret))
    silence = None
    while (done := made.next(silence)) is not None:
        if done.trouble is not None:
            looked.troubles[done.name] = done.trouble
        elif done.value is not None:
            looked.faces[done.name] = done.value
        looked.roll = roll_of(looked.faces, setup.secret)
        if not at_all and looked.roll is not None and is_sure(looked):
            silence = SETTLE_S
    for server in setup.everyone:
        if server.name in made.pending:
            looked.troubles[server.name] = Trouble(Condition.TIMED_OUT, "has not answered yet", str(server))
    for one in links.values():
        one.close()
    return looked


def roll_of(faces: Mapping[str, Face], secret: str) -> Roll | None:
    """The newest roll of the store that most of them belong to."""
    stores = Counter(face.identity.store_id for face in faces.values() if face.identity is not None)
    if not stores:
        return None
    store_id = stores.most_common(1)[0][0]
    signer, found = Signer(store_id, secret), []
    for face in faces.values():
        if face.roll is not None and face.identity is not None and face.identity.store_id == store_id:
            try:
                found.append(Roll.decode(face.roll, signer))
            except ValueError:
                continue               # damaged: the others have it
    return max(found, key=lambda roll: roll.rank, default=None)


def is_sure(looked: Looked) -> bool:
    """A newer roll would lie on a majority of the replicas of this one."""
    if looked.roll is None:
        return False
    heard = {face.identity.server_id for face in looked.faces.values() if face.identity is not None}
    return len(heard & set(looked.roll.replicas)) >= Quorum.of(len(looked.roll.replicas)).read


def sure(setup: Setup, looked: Looked) -> Roll:
    """The roll, for working with it. One clear line where that cannot be."""
    if looked.roll is None:
        if looked.troubles and len(looked.troubles) >= len(looked.faces):
            raise _all_in_all(setup, looked)
        if any(face.identity for face in looked.faces.values()):
            raise Temporary("open", "", "the servers belong to a store that was never made to the end, or few of them answer: mkfs goes on")
        raise BucketMissing("open", "", f"there is no store on the servers of {setup.path} yet: mkfs makes it")
    if not is_sure(looked):
        raise _all_in_all(setup, looked)
    return looked.roll


def _all_in_all(setup: Setup, looked: Looked) -> Exception:
    count = len(setup.everyone)
    if not looked.troubles:
        said = (f"the servers of {setup.path} are not those that have the records: is one missing in it? (If these are lost for good: "
                "s3cfs zdb restore)")
        return Trouble(Condition.STRANGER, said).as_error("open", "")
    trouble = looked.first_trouble()
    said = f"{len(looked.troubles)} of {count} servers of {setup.path} cannot be used, too few are left; {trouble}"
    return Trouble(trouble.condition, said).as_error("open", "")


def judged(server: Server, face: Face, roll: Roll) -> int | None:
    """The id under which a server belongs to the store of this roll. None: it is empty, and may be made a new one of it. Trouble."""
    found = face.identity
    if found is None:
        if roll.id_of(server.name) is not None:
            raise Trouble(Condition.STRANGER, "is empty, and was a server of this store: is its disk mounted? If its data is lost for "
                          "good, give it a new name in the list", str(server))
        if face.entries:
            raise Trouble(Condition.STRANGER, f"its namespace {server.namespace} holds {face.entries} keys of somebody else", str(server))
        return None
    if found.store_id != roll.store_id:
        other, ours = found.store_id.hex()[:8], roll.store_id.hex()[:8]
        raise Trouble(Condition.STRANGER, f"belongs to another store ({other}, not {ours})", str(server))
    if found.name != server.name:
        raise Trouble(Condition.STRANGER, f"is {found.name} of this store, not {server.name}: a name stays with its data", str(server))
    return found.server_id


def make(setup: Setup, fanout: Fanout, open_links: Open) -> None:
    """Make a store on the servers of the list, or what is missing of one; all of them have to answer. If there is one, nothing is done."""
    looked = look(setup, fanout, open_links, at_all=True)
    if looked.roll is not None:
        _refuse_strangers(setup, looked, looked.roll)
        return
    if looked.troubles:
        trouble = looked.first_trouble()
        raise Trouble(trouble.condition, f"{len(looked.troubles)} of {len(setup.everyone)} servers cannot be used, and a store is made "
                      f"on all of them; {trouble}").as_error("create", "")
    stores = {face.identity.store_id: name for name, face in looked.faces.items() if face.identity is not None}
    if len(stores) > 1:
        first, second, *_ = stores.values()
        raise ConfigError(f"{setup.path}: the servers {first} and {second} belong to two different stores")
    for server in setup.everyone:
        face = looked.faces[server.name]
        if face.identity is None and face.entries:
            raise ConfigError(f"{setup.path}: {server}: its namespace {server.namespace} holds {face.entries} keys of somebody else")
    store_id = next(iter(stores), None) or secrets.token_bytes(STORE_ID_BYTES)
    ids = fresh_ids([server.name for server in setup.everyone], store_id)
    replicas = choose_replicas(setup, ids)
    roll = Roll(store_id, 1, {number: name for name, number in ids.items()}, replicas, (), secrets.token_hex(4))
    _write(setup, fanout, open_links, ids, roll)


def _refuse_strangers(setup: Setup, looked: Looked, roll: Roll) -> None:
    """There is a store: is it this list's?"""
    if not is_sure(looked) and not looked.troubles:
        ours = next(name for name, face in looked.faces.items() if face.identity is not None)
        raise ConfigError(f"{setup.path}: the server {ours} belongs to a store whose other servers are not in the list")
    for server in setup.everyone:
        if server.name in looked.faces:
            try:
                judged(server, looked.faces[server.name], roll)
            except Trouble as trouble:
                raise ConfigError(f"{setup.path}: {trouble}") from None


def welcome(setup: Setup, roll: Roll, fanout: Fanout, open_links: Open) -> tuple[dict[int, str], dict[str, Trouble]]:
    """Give servers of the list that are new and empty an identity. Ids and names of those that have one and do not stand in the roll; by
    name, what is wrong with others that do not stand there."""
    new = tuple(server for server in setup.everyone if roll.id_of(server.name) is None)
    if not new:
        return {}, {}
    looked = look(Setup(setup.path, new, secret=setup.secret), fanout, open_links, at_all=True)
    found, troubles = dict[int, str](), dict(looked.troubles)
    for server in new:
        if (face := looked.faces.get(server.name)) is None:
            continue
        try:
            number = judged(server, face, roll)
            if number is None:
                number = fresh_ids([server.name], roll.store_id, [*roll.names, *found], secrets.token_bytes(8))[server.name]
                links = open_links(server)
                commands.put(links, IDENTITY, Identity(roll.store_id, number, server.name).encode(setup.secret))
                links.close()
            found[number] = server.name
        except Trouble as trouble:
            troubles[server.name] = trouble
    return found, troubles


def choose_replicas(setup: Setup, ids: Mapping[str, int], keep: Sequence[int] = ()) -> tuple[int, ...]:
    """Which servers hold the records: those of [[meta]], or as many as make a majority outlive `parity`, in as many domains. `keep`:
    those that are and stay."""
    if setup.meta:
        return tuple(ids[server.name] for server in setup.meta if server.name in ids and not server.drain)
    staying = [server for server in setup.servers if server.name in ids and not server.drain]
    domains = {ids[server.name]: server.domain for server in staying}
    kept = {number: domains[number] for number in keep if number in domains}
    wanted = replicas_for(setup.parity) - len(kept)
    candidates = [Candidate(number, domain) for number, domain in domains.items()]
    return (*kept, *spread(candidates, max(0, wanted), secrets.SystemRandom(), kept))


def _write(setup: Setup, fanout: Fanout, open_links: Open, ids: Mapping[str, int], roll: Roll) -> None:
    value = roll.encode(Signer(roll.store_id, setup.secret))
    links = {server.name: open_links(server) for server in setup.everyone}
    identities = {name: Identity(roll.store_id, ids[name], name).encode(setup.secret) for name in links}

    def all_of(work: Callable[[Links, bytes], object]) -> None:
        outcome: Outcome[str, object] = fanout.all(links, lambda name: work(links[name], identities[name]))
        for trouble in outcome.bad.values():
            raise trouble.as_error("create", "")

    def is_itself(one: Links, identity: bytes) -> None:
        if commands.get(one, IDENTITY) != identity:
            raise Trouble(Condition.STRANGER, "is the same namespace as another server of the list", str(one.server))

    try:
        all_of(lambda one, identity: commands.put(one, IDENTITY, identity))
        all_of(is_itself)
        all_of(lambda one, _: commands.put(one, ROLL, value))
    finally:
        for one in links.values():
            one.close()
