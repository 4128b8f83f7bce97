"""The servers of a store while it is in use: who they are, how they are, and which of them are chosen.

A list of servers (setup.py) says where a name is reached; the roll (members.py) says who belongs to the store. `Member` is one that stands
in both. Every new connection to it begins with a look at its identity: a server that comes back with an empty disk is another server.
"""
from __future__ import annotations

import random
import secrets
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from s3cfs.backends.zdb import commands, looking
from s3cfs.backends.zdb.degraded import Degraded
from s3cfs.backends.zdb.fanout import Fanout
from s3cfs.backends.zdb.health import Latencies, Node
from s3cfs.backends.zdb.link import CONNECTIONS, Answer, Caller, Connect, Links
from s3cfs.backends.zdb.members import IDENTITY, ROLL, Identity, Roll
from s3cfs.backends.zdb.placing import Candidate, most_in_one_domain, spread
from s3cfs.backends.zdb.record import Signer
from s3cfs.backends.zdb.resp import Argument
from s3cfs.backends.zdb.setup import Server, Setup
from s3cfs.backends.zdb.shard import Code
from s3cfs.backends.zdb.words import Condition, Trouble
from s3cfs.errors import ConfigError

TIMEOUT_S = 20.0                   # of silence, of one call
ASK_S = 2.0                        # the same, of a question how a server is


class Member:
    """A server of the store, to make calls on (`commands` takes it). Its node outlives changes of the list that do not concern it."""

    def __init__(self, number: int, server: Server, node: Node) -> None:
        self.id, self.server, self.node = number, server, node

    def call(self, *arguments: Argument, timeout_s: float | None = None) -> Answer:
        return self.node.call(*arguments, timeout_s=timeout_s)

    @property
    def namespace(self) -> str:
        """In which its data is now (generations.py)."""
        return self.node.links.namespace

    @property
    def domain(self) -> str:
        return self.server.domain

    @property
    def is_draining(self) -> bool:
        return self.server.drain

    @property
    def may_read(self) -> bool:
        """Whether it should be asked before others."""
        return self.node.health.status.condition.may_read and not self.node.is_silent

    @property
    def may_write(self) -> bool:
        """Whether new shards may go there."""
        return self.takes_shards and not self.node.is_silent

    @property
    def takes_shards(self) -> bool:
        """The same, though it may owe an answer for long just now."""
        return self.node.health.status.condition.may_write and not self.server.drain

    @property
    def is_due(self) -> bool:
        """Whether it failed, and it is time to try it again."""
        health = self.node.health
        return not health.status.condition.may_write and health.may_write and not self.node.is_silent

    def __repr__(self) -> str:
        return f"Member({self.id:08x}, {self.server})"


class Cluster:
    """See the module's text. For several threads. Makes no request before `opened` is first asked for."""

    def __init__(self, setup: Setup, *, timeout_s: float = TIMEOUT_S, connections: int = CONNECTIONS,
                 connect: Connect = socket.create_connection, chance: random.Random | None = None) -> None:
        self.setup, self._timeout_s, self._connections, self._connect = setup, timeout_s, connections, connect
        self.chance = chance or random.SystemRandom()
        self.fanout, self.latencies = Fanout(), Latencies()
        self.writer = secrets.randbits(63)
        self.degraded = Degraded()
        self.strangers: dict[str, Trouble] = {}                        # names of the list that are no members, and why
        self._lock = threading.RLock()
        self._roll: Roll | None = None
        self._roll_value = b""                         # as it is written
        self._members: dict[int, Member] = {}

    # ------------------------------------------------------------ opening

    def create(self) -> None:
        """Make the store; mkfs's. What is there stays, and servers that are new in the list are admitted."""
        looking.make(self.setup, self.fanout, self._open)
        self.opened()
        self.admit()

    def opened(self) -> Roll:
        """The roll; the first look at the servers, if none was taken."""
        with self._lock:
            if self._roll is None:
                looked = looking.look(self.setup, self.fanout, self._open)
                self.learn(looking.sure(self.setup, looked))
                self._judge(looked)
            assert self._roll is not None
            return self._roll

    def open_anyway(self) -> bool:
        """For a restore: look at all servers, and go by the newest roll, be its replicas there or not. Whether a read quorum of these is.
        BucketMissing, Temporary: no server knows the store."""
        with self._lock:
            looked = looking.look(self.setup, self.fanout, self._open, at_all=True)
            if looked.roll is None:
                looking.sure(self.setup, looked)
            else:
                self.learn(looked.roll)
                self._judge(looked)
            return looking.is_sure(looked)

    def _judge(self, looked: looking.Looked) -> None:
        """Note which servers of the list are not what they should be: members in their health, others as strangers."""
        assert self._roll is not None
        for server in self.setup.everyone:
            face, trouble = looked.faces.get(server.name), looked.troubles.get(server.name)
            try:
                if face is not None and looking.judged(server, face, self._roll) is None:
                    trouble = Trouble(Condition.STRANGER, "is new and not admitted yet", str(server))
            except Trouble as met:
                trouble = met
            number = self._roll.id_of(server.name)
            if trouble is not None and number is not None:
                self._members[number].node.health.failed(trouble)
            elif trouble is not None:
                self.strangers[server.name] = trouble

    def mistakes(self) -> list[str]:
        """What is wrong and will not pass by itself, a line each: for who looks at the log of a mount."""
        said = [str(trouble) for trouble in self.strangers.values()]
        for member in self:
            status = member.node.health.status
            if not (status.condition.passes or status.condition.may_read):
                said.append(f"{member.server}: {status.words}")
        staying = {member.id: member.domain for member in self.holders() if not member.is_draining}
        shards = sum(self.code)
        most = most_in_one_domain(spread([Candidate(*item) for item in staying.items()], shards, self.chance), staying)
        if len(set(staying.values())) > 1 and most > self.code.m:
            said.append(f"{most} of the {shards} shards of an object lie in one domain: if that fails, more than {self.code.m} are gone")
        return said

    def _open(self, server: Server) -> Links:
        return Links(server, self._timeout_s, 1, connect=self._connect)

    def _node(self, number: int, server: Server) -> Node:
        links = Links(server, self._timeout_s, self._connections, greet=partial(self._greet, number, server), connect=self._connect)
        return Node(links, self.latencies)

    def _greet(self, number: int, server: Server, caller: Caller) -> None:
        """Trouble, if the server at the other end is not the one whose data we look for."""
        roll = self._roll
        assert roll is not None
        found = commands.get(caller, IDENTITY)
        if found != Identity(roll.store_id, number, server.name).encode(self.setup.secret):
            looking.judged(server, looking.Face(looking.identity_of(found, server, self.setup.secret), None, 0), roll)
            raise Trouble(Condition.STRANGER, "has another id than the store knows", str(server))

    # ------------------------------------------------------------ who there is

    @property
    def is_open(self) -> bool:
        """Whether the servers have been looked at: before that `roll`, and all that needs it, makes requests."""
        return self._roll is not None

    @property
    def roll(self) -> Roll:
        return self._roll or self.opened()

    @property
    def signer(self) -> Signer:
        return Signer(self.roll.store_id, self.setup.secret)

    @property
    def servers(self) -> Mapping[int, Member]:
        """All members that the list has, by id."""
        self.opened()
        return self._members

    @property
    def code(self) -> Code:
        """Of new objects, where there are enough servers."""
        return Code(self.setup.data, self.setup.parity)

    def member(self, number: int) -> Member | None:
        """None: no such server in the list (any more)."""
        return self.servers.get(number)

    def replicas(self) -> list[Member]:
        """The replicas of the records that can be asked, the most promising first."""
        return self.in_order(self._members[number] for number in self.roll.replicas if number in self._members)

    def voters(self) -> list[Member]:
        """All that records are written to: the replicas, and those that join them."""
        return self.replicas() + [self._members[number] for number in self.roll.joining if number in self._members]

    def heed(self, values: Iterable[bytes | None]) -> bool:
        """Go by the newest of these rolls, as they lie on servers, if it is newer than ours. Whether there was one."""
        found = []
        for value in {value for value in values if value is not None and value != self._roll_value}:
            with suppress(ValueError):                 # a damaged one says nothing
                found.append(Roll.decode(value, self.signer))
        return bool(found) and self.learn(max(found, key=lambda roll: roll.rank))

    def in_order(self, members: Iterable[Member]) -> list[Member]:
        """The quickest first, with some chance in it so that not always the same have the work. Those that failed, and those that are later
        with an answer just now than others are as a rule, come last."""
        late_s = self.latencies.delay_s(0)
        ranks = {member: (not member.may_read, member.node.links.silent_s > late_s,
                          member.node.health.status.latency_s * self.chance.uniform(0.5, 2.0), self.chance.random()) for member in members}
        self._try_again(ranks)
        return sorted(ranks, key=lambda member: ranks[member])

    def holders(self) -> list[Member]:
        """Servers for shards: those of the list that are no [[meta]] ones."""
        names = {server.name for server in self.setup.servers}
        return [member for member in self.servers.values() if member.server.name in names]

    def writable(self) -> list[Member]:
        """Those that new shards may go to. A server that owes an answer for long is not among them: but where more than `parity` do, it is
        the work, and they are."""
        members = self.holders()
        self._try_again(members)
        silent = [member for member in members if member.takes_shards and not member.may_write]
        return [member for member in members if member.may_write or (len(silent) > self.setup.parity and member in silent)]

    def _try_again(self, members: Iterable[Member]) -> None:
        """Ask those that failed how they are, when it is time, and let nobody wait for that."""
        for member in members:
            if member.is_due:
                member.node.health.begins()            # so that others leave it alone
                self.fanout.start(partial(_poll, member))

    def ask_again(self) -> None:
        """The same at once, and wait for it: there are too few others."""
        self.fanout.all([member for member in self.holders() if not member.may_write], lambda member: member.node.poll(timeout_s=ASK_S))

    def choose(self, members: Sequence[Member], count: int, taken: Iterable[Member] = ()) -> list[Member]:
        """`count` of them, or as many as there are, in random order: domains even, those that have other shards of the object counted."""
        by_id = {member.id: member for member in members}
        rooms = {member.id: _room(member) for member in members}
        most = max((room for room in rooms.values() if room is not None), default=1.0)
        candidates = [Candidate(member.id, member.domain, rooms[member.id] or most) for member in members]
        return [by_id[number] for number in spread(candidates, count, self.chance, {member.id: member.domain for member in taken})]

    # ------------------------------------------------------------ changes

    def learn(self, roll: Roll) -> bool:
        """Go by this roll, if it is newer than ours. Whether it was."""
        with self._lock:
            if self._roll is not None and roll.rank <= self._roll.rank:
                return False
            self._go_by(roll)
            return True

    def _go_by(self, roll: Roll | None) -> None:
        self._roll = roll
        if roll is not None:
            self._roll_value = roll.encode(self.signer)
            self._assemble()

    def take_over(self, setup: Setup) -> None:
        """Go by a changed list, while calls run. ConfigError: it is for another store; the old one stays in force."""
        if setup.secret != self.setup.secret:
            raise ConfigError(f"{setup.path}: the secret of a store stays as it is")
        with self._lock:
            self.setup = setup
            if self._roll is not None:
                self.strangers.clear()
                self._assemble()

    def _assemble(self) -> None:
        """Members from list and roll; nodes of those whose settings are the same stay."""
        assert self._roll is not None
        before, members = self._members, {}
        for server in self.setup.everyone:
            number = self._roll.id_of(server.name)
            if number is None:
                continue
            old = before.get(number)
            if old is not None and _reach(old.server) == _reach(server):
                old.server = server                    # its domain, or whether it drains, may be another
                members[number] = old
            else:
                members[number] = Member(number, server, self._node(number, server))
        self._members = members
        for number, old in before.items():
            if members.get(number) is not old:
                old.node.close()

    def admit(self) -> list[Member]:
        """Give servers of the list that are new and empty an identity, and write them into the roll. Those that are not what they should be
        are in `strangers` afterwards. Trouble: the roll could not be written."""
        ids = self.welcome()
        if ids:
            self.write_roll(names={**self.roll.names, **ids})
        return [self._members[number] for number in ids if number in self._members]

    def welcome(self) -> dict[int, str]:
        """The first half of it: ids and names of those that have an identity and do not stand in the roll yet."""
        found, troubles = looking.welcome(self.setup, self.opened(), self.fanout, self._open)
        for name in found.values():
            self.strangers.pop(name, None)
        self.strangers.update(troubles)
        return found

    def write_roll(self, *, names: Mapping[int, str] | None = None, replicas: Iterable[int] | None = None,
                   coming: Iterable[int] | None = None, without_old: bool = False) -> Roll:
        """The next roll, on a majority of all who vote by the old one and by the new one, and on whom else it reaches. Trouble.

        One process at a time does that (a repair); of two at once the later one has to find out that its change is not in. `without_old`:
        the replicas are lost for good, and a majority of those that come instead is enough.
        """
        old = self.roll
        new = replace(old, epoch=old.epoch + 1, names=old.names if names is None else names, mark=secrets.token_hex(4),
                      replicas=old.replicas if replicas is None else tuple(replicas),
                      coming=old.coming if coming is None else tuple(coming))
        value = new.encode(self.signer)
        with self._lock:                               # members that are new in it are reached too
            before = self._roll
            self._go_by(new)
        members = dict(self._members)
        outcome = self.fanout.all(members, lambda number: commands.put(members[number], ROLL, value))
        for voters in (new.coming or new.replicas,) if without_old else (*old.voters, *new.voters):
            reached = sum(number in outcome.good for number in voters)
            if 2 * reached <= len(voters):
                with self._lock:
                    if self._roll is new:
                        self._go_by(before)
                trouble = next(iter(outcome.bad.values()), Trouble(Condition.UNREACHABLE, "they are not in the list"))
                raise Trouble(trouble.condition, f"{reached} of {len(voters)} replicas took the new roll, not a majority; {trouble}")
        return new

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self.servers.values()))

    def close(self) -> None:
        for member in self._members.values():
            member.node.close()
        self.fanout.close()


def _poll(member: Member) -> None:
    member.node.poll()


def _room(member: Member) -> float | None:
    """Bytes; None: not known. Never 0: who may be written is for others to say."""
    space = member.node.health.status.space
    return None if space is None else max(1.0, float(space.room))


def _reach(server: Server) -> tuple[object, ...]:
    return server.name, server.host, server.port, server.namespace, server.password
