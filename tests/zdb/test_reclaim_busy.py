"""Writers that never stop, and a server that moves under them again and again: nobody ever reads anything but what he wrote last."""
from __future__ import annotations

import contextlib
import random
import threading

import pytest

from s3cfs.backends.zdb import commands, reclaim
from s3cfs.backends.zdb.link import Links
from s3cfs.backends.zdb.setup import Server
from s3cfs.backends.zdb.words import Condition, Trouble
from tests.zdb.test_reclaim import FILE, all_of, begin

WRITERS = 3
PASSING = {Condition.READ_ONLY, Condition.FROZEN, Condition.GONE, Condition.NO_NAMESPACE}


class Writer(threading.Thread):
    """On keys of its own."""

    def __init__(self, server: Server, number: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._server, self._number, self._stop_event = server, number, stop
        self._chance = random.Random(number)
        self.content: dict[bytes, bytes] = {}
        self.refused = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with contextlib.closing(Links(self._server)) as links:
                while not self._stop_event.is_set():
                    self._step(links)
        except BaseException as error:
            self.error = error

    def _step(self, links: Links) -> None:
        key = b"%d-%d" % (self._number, self._chance.randrange(100))
        value = self._chance.randbytes(self._chance.choice((0, 10, 3000)))
        what = self._chance.random()
        while not self._stop_event.is_set():
            try:
                if what < 0.5:
                    commands.put(links, key, value)
                    self.content[key] = value
                elif what < 0.7:
                    commands.delete(links, key)
                    self.content.pop(key, None)
                else:
                    assert commands.get(links, key) == self.content.get(key)
                return
            except Trouble as trouble:
                assert trouble.condition in PASSING, trouble
                self.refused += 1


@pytest.mark.parametrize("rounds", [1, pytest.param(40, marks=pytest.mark.soak)])
def test_writers_never_see_it(zdb_servers, rounds: int):
    server: Server = zdb_servers(1).server(0)
    begin(server)
    stop = threading.Event()
    writers = [Writer(server, number, stop) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(rounds):
            reclaim.reclaim(server, lambda *said: None, data_file_bytes=FILE)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert [writer.error for writer in writers] == [None] * WRITERS
    content: dict[bytes, bytes] = {}
    for writer in writers:
        content |= writer.content
    assert all_of(server) == content
