"""Servers that are killed, or hang, in the middle of writing: what was acknowledged is there afterwards, for a new machine, on those left.

On fakes, and on real ones under `make zdb-real`.
"""
from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from s3cfs.backends.base import Backend
from s3cfs.backends.registry import open_backend
from s3cfs.errors import Temporary
from tests.zdb.several import Servers

WRITERS = 4
ATTEMPTS = 5                               # of each object, as Remote makes them


def written(backend: Backend, key: str, data: bytes) -> None:
    for attempt in range(ATTEMPTS):
        try:
            backend.put(key, data)
            return
        except Temporary:
            if attempt == ATTEMPTS - 1:
                raise


def write_while(servers: Servers, url: str, objects: int, disaster, seed: int) -> dict[str, bytes]:
    """What was acknowledged; `disaster` comes when a third of it was."""
    chance, lock, there, third = random.Random(seed), threading.Lock(), dict[str, bytes](), threading.Event()
    bodies = {f"pack/{number % 7}/{number}": chance.randbytes(chance.choice([10, 3000, 50_000, 400_000])) for number in range(objects)}
    with closing(open_backend(url)) as backend, ThreadPoolExecutor(WRITERS) as pool:
        def one(key: str) -> None:
            written(backend, key, bodies[key])
            with lock:
                there[key] = bodies[key]
                if len(there) * 3 >= objects:
                    third.set()

        writing = [pool.submit(one, key) for key in bodies]
        assert third.wait(60)
        disaster()
        for each in writing:
            each.result()
        assert len(there) == objects, "the writing went on"
    return there


def compare(url: str, there: dict[str, bytes]) -> None:
    with closing(open_backend(url)) as machine:
        machine.check()
        assert {info.key: info.size for info in machine.list("")} == {key: len(data) for key, data in there.items()}
        for key, data in there.items():
            assert machine.get(key) == data


@pytest.mark.parametrize(("count", "data", "parity", "objects"), [
    (7, 4, 2, 30), pytest.param(20, 16, 4, 200, marks=pytest.mark.soak), pytest.param(24, 16, 4, 200, marks=pytest.mark.soak)])
def test_servers_are_killed_while_objects_are_written(zdb_servers, tmp_path, seed, count, data, parity, objects):
    servers = zdb_servers(count)
    url = f"zdb://{servers.write_list(tmp_path / 'zdb.toml', data=data, parity=parity, domains=5)}"
    with closing(open_backend(url)) as backend:
        backend.create()
    victims = random.Random(seed).sample(range(count), parity)
    there = write_while(servers, url, objects, lambda: [servers.kill(victim) for victim in victims], seed)
    compare(url, there)


@pytest.mark.soak
def test_servers_hang_while_objects_are_written(zdb_servers, tmp_path, seed):
    servers = zdb_servers(20)
    url = f"zdb://{servers.write_list(tmp_path / 'zdb.toml', domains=5)}"
    with closing(open_backend(url)) as backend:
        backend.create()
    victims = random.Random(seed).sample(range(20), 4)
    there = write_while(servers, url, 200, lambda: [servers.hang(victim, True) for victim in victims], seed)
    compare(url, there)
    for victim in victims:
        servers.hang(victim, False)
    compare(url, there)
