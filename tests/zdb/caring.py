"""A store on several 0-dbs for the tests of its care: what lies where, how to damage it, and how it is looked after."""
from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from s3cfs.backends.zdb import setup as lists
from s3cfs.backends.zdb.backend import ZdbBackend
from s3cfs.backends.zdb.cluster import Cluster
from s3cfs.backends.zdb.record import Where
from s3cfs.backends.zdb.repair import Mended, Repair
from s3cfs.backends.zdb.shard import names_of
from s3cfs.backends.zdb.status import ask
from s3cfs.backends.zdb.survey import Finding, Survey, Tally
from tests.zdb.several import Servers

SMALL, LARGE = 100, 200_000        # copied whole; cut in shards by 4 + 2
TIMEOUT_S = 20.0


class Store:
    """`servers` under a list in `folder`; a new `backend` whenever another process shall look."""

    def __init__(self, servers: Servers, folder: Path, *, data: int = 4, parity: int = 2, only: Iterable[int] | None = None) -> None:
        self.servers, self.path, self._data, self._parity = servers, folder / "zdb.toml", data, parity
        self.opened: list[ZdbBackend] = []
        self.content: dict[str, bytes] = {}
        self._looker: ZdbBackend | None = None
        self.write_list(only)
        self.backend = self.another()
        self.backend.create()

    def write_list(self, only: Iterable[int] | None = None, drain: Iterable[int] = ()) -> None:
        self.servers.write_list(self.path, only, drain=drain, data=self._data, parity=self._parity)
        self._looker = None

    def another(self, timeout_s: float = TIMEOUT_S) -> ZdbBackend:
        """As another process, or another machine, sees it."""
        setup = lists.read(str(self.path))
        self.opened.append(ZdbBackend(Cluster(setup, timeout_s=timeout_s, chance=random.Random(len(self.opened)))))
        return self.opened[-1]

    def close(self) -> None:
        for backend in self.opened:
            backend.close()

    # ------------------------------------------------------------ objects

    def put(self, key: str, size: int, seed: int = 1) -> None:
        self.content[key] = random.Random(f"{key} {seed}").randbytes(size)
        self.backend.put(key, self.content[key])

    def fill(self, count: int = 2) -> None:
        for number in range(count):
            self.put(f"pack/large{number}", LARGE)
            self.put(f"log/small{number}", SMALL)

    def reads_right(self, backend: ZdbBackend | None = None) -> bool:
        backend = backend or self.another()
        return all(backend.get(key) == data for key, data in self.content.items())

    @property
    def looker(self) -> ZdbBackend:
        """For looks by the tests themselves."""
        if self._looker is None:
            self._looker = self.another()
        return self._looker

    def where(self, key: str) -> Where:
        known = self.looker.replicas.read(key)
        assert known is not None
        return known.where

    def number(self, server_id: int) -> int:
        """Which of the servers has this id."""
        name = self.backend.cluster.roll.names.get(server_id) or self.looker.cluster.roll.names[server_id]
        return int(name.removeprefix("z"))

    def shards(self, key: str) -> Iterator[tuple[int, int, list[bytes]]]:
        """(index, number of the server, the keys of its values), of every shard that the placement names."""
        where, size = self.where(key), len(self.content[key])
        for index, server_id in enumerate(where.servers):
            if server_id:
                yield index, self.number(server_id), names_of(where.object_id, index, -(-size // where.data))

    def whole(self, key: str) -> int:
        """How many shards are where the placement says."""
        return sum(set(names) <= set(self.servers.keys(number)) for _, number, names in self.shards(key))

    def flip(self, key: str, index: int) -> int:
        """One bit of one shard; the number of its server."""
        number, names = next((number, names) for shard, number, names in self.shards(key) if shard == index)
        self.servers.flip(number, names[0])
        return number

    def lose(self, key: str, index: int) -> int:
        """One shard; the number of its server."""
        number, names = next((number, names) for shard, number, names in self.shards(key) if shard == index)
        backend = self.another()
        member = next(member for member in backend.cluster if member.server.name == f"z{number:02}")
        for name in names:
            member.call(b"DEL", name)
        return number

    # ------------------------------------------------------------ care

    def mend(self, key: str, *, deep: bool = True, replace_away: bool = True, backend: ZdbBackend | None = None) -> Mended:
        backend = backend or self.another()
        backend.check()
        ask(backend.cluster, list(backend.cluster))
        return Repair(backend.replicas, deep=deep, replace_away=replace_away).mend(key)

    def survey(self, *, mend: bool, deep: bool = True, found: list[Finding] | None = None) -> Tally:
        backend = self.another()
        backend.check()
        ask(backend.cluster, list(backend.cluster))
        report = found if found is not None else []
        return Survey(backend.replicas, mend=mend, deep=deep, hands=2, report=report.append).run()
