"""Random conversations with the fake and the real 0-db at once: whatever is said, both answer the same. Only where there is a real one.

RSCAN is left out: over several files the original ends early, or says "Internal Error" (the last file is empty, or a restart came between),
where the fake goes on. Nothing of ours uses it.
"""
from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest

from tests.zdb import real, server
from tests.zdb.several import REAL
from tests.zdb.talk import Talk, Told

pytestmark = pytest.mark.skipif(not REAL, reason="no real 0-db (make zdb-real)")

STEPS = 400
DATASIZE = 512 << 10               # the least that it takes: files end often
SAME_LINES = ("name", "entries", "public", "worm", "locked", "password", "data_size_bytes", "data_limits_bytes", "index_size_bytes", "mode",
              "space_available", "data_current_id", "data_current_offset")


class Pair:
    """Connections to both. What a request answers has to be equal; of NSINFO the lines that do not depend on the machine."""

    def __init__(self, ports: list[int]) -> None:
        self.talks = [Talk(port) for port in ports]
        self.cursors: list[tuple[Told, ...]] = []

    def __call__(self, *arguments: str | bytes) -> Told:
        return self.same(arguments, [talk(*arguments) for talk in self.talks])

    def same(self, about: object, answers: list[Told]) -> Told:
        assert answers[0] == answers[1], about
        return answers[0]

    def info(self, namespace: str) -> None:
        self.same(("NSINFO", namespace), [lines(talk("NSINFO", namespace)) for talk in self.talks])

    def cursor_of(self, key: bytes) -> None:
        """Each has its own."""
        found = [talk("KEYCUR", key) for talk in self.talks]
        self.same(("KEYCUR", key), [what if isinstance(what, str) else "" for what in found])
        self.cursors.append(tuple(found))

    def scan(self, cursors: tuple[Told, ...] | None) -> None:
        found: list[Told] = []
        for side, talk in enumerate(self.talks):
            seen: list[Told] = []
            cursor = cursors[side] if cursors else None
            while True:
                answer = talk("SCAN", *([cursor] if isinstance(cursor, bytes) else []))
                match answer:
                    case [bytes(cursor), list(entries)]:
                        seen += entries
                    case _:
                        found.append([*seen, answer])
                        break
        self.same(("SCAN", cursors), found)

    def close(self) -> None:
        for talk in self.talks:
            talk.close()


def lines(answer: Told) -> Told:
    assert isinstance(answer, bytes)
    return [line for line in answer.decode().splitlines() if line.split(": ")[0] in SAME_LINES]


@pytest.mark.parametrize("seed", range(12))
def test_both_answer_the_same(tmp_path, seed):
    chosen = random.Random(seed)
    with contextlib.ExitStack() as stack:
        zdbs: list[server.FakeZdb | real.RealZdb] = [
            stack.enter_context(server.running(1, datasize=DATASIZE))[0],
            stack.enter_context(real.running(Path(REAL), 1, tmp_path, datasize=DATASIZE))[0]]
        pair = Pair([zdb.port for zdb in zdbs])
        for name in ("users", "numbers", "third"):
            pair("NSNEW", name)
        pair("NSSET", "numbers", "mode", "seq")
        try:
            for number in range(STEPS):
                if chosen.random() < 0.01:
                    pair.close()
                    for zdb in zdbs:
                        zdb.kill()
                        zdb.start()
                    pair = Pair([zdb.port for zdb in zdbs])
                step(pair, chosen, number)
        finally:
            pair.close()


def step(pair: Pair, chosen: random.Random, number: int) -> None:
    key = chosen.choice([b"a", b"b", b"c", b"long" * 50, b"", b"\0\r\n", chosen.randrange(40).to_bytes(8, "little")])
    value = bytes([chosen.randrange(3)]) * chosen.choice([0, 1, 5, 300, 60_000])
    name = chosen.choice(["users", "numbers", "third", "default", "none"])
    when = str(1_000_000 + number)
    what = chosen.randrange(100)
    if what < 35:
        pair("SET", key, value, when)
    elif what < 45:
        pair(chosen.choice(["GET", "EXISTS", "CHECK", "LENGTH", "KEYTIME"]), key)
    elif what < 50:
        pair("MGET", key, b"a", b"b")
    elif what < 60:
        pair("DEL", key, when)
    elif what < 66:
        pair.cursor_of(key)
    elif what < 72 and pair.cursors:
        pair.scan(chosen.choice(pair.cursors))
    elif what < 78:
        pair.scan(None)
    elif what < 86:
        pair.cursors.clear()                   # they belong to the namespace
        pair("SELECT", name)
    elif what < 91:
        pair.info(chosen.choice(["users", "numbers", "third"]))
    elif what < 95:
        pair("NSSET", chosen.choice(["users", "numbers"]), *chosen.choice([
            ("maxsize", "100000"), ("maxsize", "0"), ("worm", "1"), ("worm", "0"), ("lock", "1"), ("lock", "0"), ("freeze", "1"),
            ("freeze", "0"), ("mode", "user")]))
    elif what < 97:
        pair("NSJUMP")
    else:
        pair("DBSIZE")
