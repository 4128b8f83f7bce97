"""Threads of the store: whoever waits for one hears of its end once, whatever comes in between."""
from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from s3cfs.doors import OwnThreads


def test_an_interrupt_while_a_thread_begins_ends_it_once(monkeypatch: pytest.MonkeyPatch):
    """As ^C does it on a busy machine: the thread has begun, and whoever began it does not get to know."""
    go, ends = threading.Event(), list[int]()
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        if thread.name == "store":
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)

    async def main() -> None:
        threads = OwnThreads()
        with pytest.raises(KeyboardInterrupt):
            await threads.run(go.wait, ended=lambda: ends.append(1))
        assert ends == [1]
        go.set()
        await trio.testing.wait_all_tasks_blocked(0.05)            # the thread's own end comes in meanwhile
        assert ends == [1]

    trio.run(main)
