"""Figures for Prometheus: what is documented is served, by a server that nobody can keep busy."""
from __future__ import annotations

import re
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
from prometheus_client.parser import text_string_to_metric_families as parsed

from s3cfs.app.metrics import METRICS, STATES, TIERS, Metrics, exposition
from s3cfs.app.status import CACHE_GONE, DAMAGED, DEGRADED, status
from s3cfs.backends.registry import open_backend
from s3cfs.control import scrape
from s3cfs.errors import SystemFailure
from s3cfs.history.health import State
from s3cfs.history.office import Tier
from tests.history.kit import Life, Site, content, write_file
from tests.remote.kit import remote_to
from tests.servers import free_port

DOCUMENT = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()


def told() -> dict[str, Any]:
    """By a filesystem that has done something."""
    found: dict[str, Any] = {}

    async def main(life: Life) -> None:
        async with life.node() as node:
            await write_file(node, b"secret-name", content(1))
            await node.flush()
            found.update(await status(node, url="s3c://host/secret-bucket/", mountpoint="/mnt/secret-place", started=0.0))
    Site().live(main)
    return found


def values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for family in parsed(text) for sample in family.samples}


def test_the_document_has_what_is_served() -> None:
    found = told()
    found["store"]["by_kind"]["errors"] = {"put": {"Temporary": 2}}
    found["store"]["degraded"]["puts"] = {"pack": 1}
    found["lag"]["bound_seconds"] = 60.0
    found["store"]["layers"] = {"pieces": {"stored": 1}}
    rows = re.findall(r"^\| `(s3cfs_[a-z_]+)` \| (\w+) \| (.*?) \| (.*) \|$", DOCUMENT, re.MULTILINE)
    documented = {name: (kind, set(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in rows}
    served = {}
    for family in parsed(exposition(found)):
        name = family.name + ("_total" if family.type == "counter" else "")
        served[name] = (family.type, {label for sample in family.samples for label in sample.labels}, family.documentation)
    layers = {name for name in served if re.match("s3cfs_layer_(?!degraded$)", name)}
    assert layers == {"s3cfs_layer_pieces_stored"}
    assert {name: entry for name, entry in served.items() if name not in layers} == documented
    assert list(documented) == [metric.name for metric in METRICS]


def test_the_figures_are_those_of_stat_and_tell_no_names() -> None:
    found = told()
    text = exposition(found)
    told_values = values(text)
    assert told_values["s3cfs_inodes", ()] == found["files"]["inodes"] == 2
    assert told_values["s3cfs_state", (("state", "ok"),)] == 1 and sum(v for (n, _), v in told_values.items() if n == "s3cfs_state") == 1
    assert told_values["s3cfs_commit_time_seconds", ()] == pytest.approx(found["commit"]["time_ns"] / 1e9)
    puts = found["store"]["by_kind"]["requests"]["put"]
    assert puts and all(told_values["s3cfs_store_requests_total", (("kind", kind), ("operation", "put"))] == n for kind, n in puts.items())
    assert told_values["s3cfs_store_bytes_total", (("direction", "up"), ("kind", "log"))] > 0
    assert told_values["s3cfs_read_only", ()] == 0 and ("s3cfs_lag_bound_seconds", ()) not in told_values
    assert "secret" not in text and text.endswith("\n")
    assert set(STATES) == {*State, CACHE_GONE, DAMAGED, DEGRADED} and set(TIERS) == set(Tier)


def test_layers_tell_what_they_like() -> None:
    found = told()
    found["store"]["layers"] = {
        "odd-one": {"count": 3, "ratio": 0.5, "on": True, "text": "x", "list": [1], "none": None,
                    "by hour": {"late": 7, "why": "y"}, "by-hour": {"late": 8}, "degraded": 'it said "\\no\n"'},
        "degraded": {}}
    text = exposition(found)
    told_values = values(text)
    mine = {name: value for (name, labels), value in told_values.items() if name.startswith("s3cfs_layer_") and not labels}
    assert mine == {"s3cfs_layer_odd_one_count": 3, "s3cfs_layer_odd_one_ratio": 0.5, "s3cfs_layer_odd_one_on": 1,
                    "s3cfs_layer_odd_one_by_hour_late": 7}
    assert told_values["s3cfs_layer_degraded", (("layer", "odd-one"),)] == 1
    assert told_values["s3cfs_layer_degraded", (("layer", "degraded"),)] == 0
    found["version"] = 'a"b\\c\nd'
    assert ("version", 'a"b\\c\nd') in next(labels for name, labels in values(exposition(found)) if name == "s3cfs_info")


def test_lock_and_checker_tell_theirs() -> None:
    found = told()
    backend = open_backend("memory://lock-and-checker", {"consistency-lock": "", "checker": "", "lock-delay": "7"})
    remote = remote_to(backend)
    found["store"]["layers"] = remote.stack.status()
    told_values = {name: value for (name, labels), value in values(exposition(found)).items() if not labels}
    assert told_values["s3cfs_layer_consistency_delay_s"] == told_values["s3cfs_layer_checker_delay_s"] == 7
    assert told_values["s3cfs_layer_checker_spent_requests"] == told_values["s3cfs_layer_checker_seen_stale"] == 0


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_the_page_is_made_once_a_second() -> None:
    made, clock = list[int](), Clock()

    async def stat() -> dict[str, Any] | None:
        made.append(1)
        await trio.lowlevel.checkpoint()
        return known if len(made) > 1 else None

    async def main() -> None:
        page = Metrics(clock, stat).page                   # type: ignore[arg-type]
        assert await page() == ""
        clock.now = 1.0
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(page)
        assert len(made) == 2 and await page() == exposition(known)
        clock.now = 2.1
        await page()
        assert len(made) == 3
    known = told()
    trio.run(main)


# ---------------------------------------------------------------- the server

def served(client: Callable[[int], None], page: Callable[[], str] = lambda: "a 1\n") -> None:
    """`client(port)` in a thread, beside a server."""
    async def text() -> str:
        return page()

    async def main() -> None:
        port = free_port()
        listeners = scrape.bind(f"127.0.0.1:{port}")
        with ExitStack() as stack, trio.fail_after(20):
            for listener in listeners:
                stack.enter_context(listener)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(scrape.serve, listeners, text)
                await trio.to_thread.run_sync(client, port, abandon_on_cancel=True)
                nursery.cancel_scope.cancel()
    trio.run(main)


def said(port: int, request: bytes = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as door:
        door.sendall(request)
        answer = b""
        while more := door.recv(65536):
            answer += more
    return answer


def test_one_page_and_no_other() -> None:
    def client(port: int) -> None:
        whole = said(port)
        head, _, body = whole.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n") and b"Content-Length: 4\r\n" in head and body == b"a 1\n"
        assert b"text/plain; version=0.0.4" in head
        assert said(port, b"HEAD /metrics?x=y HTTP/1.0\r\n\r\n") == head + b"\r\n\r\n"
        for first, code in ((b"GET / HTTP/1.1", b"404"), (b"POST /metrics HTTP/1.1", b"405"), (b"hello", b"400"), (b"\x00\xff", b"400"),
                            (b"GET /metrics HTTP/2.0", b"400"), (b"GET http://x/metrics HTTP/1.1", b"400"),
                            (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 8200, b"400")):
            assert said(port, first + b"\r\n\r\n").startswith(b"HTTP/1.1 " + code), first
    served(client)


def test_a_page_that_cannot_be_made_is_no_end() -> None:
    answers = [ZeroDivisionError, None, "b 2\n"]

    def page() -> str:
        answer = answers.pop(0)
        if isinstance(answer, type):
            raise answer
        return answer or ""

    def client(port: int) -> None:
        assert b"503" in said(port) and b"503" in said(port) and said(port).endswith(b"b 2\n")
    served(client, page)


def test_idle_connections_keep_nobody_out() -> None:
    def client(port: int) -> None:
        with ExitStack() as stack:
            idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(200)]
            assert said(port).endswith(b"a 1\n")
            assert idle[0].recv(10) == b"", "the oldest were closed"
            idle[-1].sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert idle[-1].recv(65536).startswith(b"HTTP/1.1 200"), "the newest are served"
    served(client)


def test_who_is_slow_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "REQUEST_WITHIN_S", 0.05)
    monkeypatch.setattr(scrape, "ANSWER_WITHIN_S", 0.05)

    def client(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as door:
            door.sendall(b"GET /metrics HTTP/1.1\r\n")
            assert door.recv(10) == b"", "no request came"
        with socket.create_connection(("127.0.0.1", port), timeout=10) as door:
            door.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            count = 0
            while more := door.recv(1 << 16):
                count += len(more)
                if count < 1 << 17:
                    threading_pause()
            assert count < 30_000_000, "it did not take the answer in time, and got a part of it"
        with socket.create_connection(("127.0.0.1", port), timeout=10) as door:
            door.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    served(client, lambda: "x" * 30_000_000)


def threading_pause() -> None:
    trio.from_thread.run(trio.sleep, 0.1)


def test_where_it_is_served() -> None:
    port = free_port()
    first = scrape.bind(f"127.0.0.1:{port}")
    assert not scrape.everybodys(first) and not scrape.everybodys([])
    with pytest.raises(SystemFailure, match=rf"metrics cannot be served at 127.0.0.1:{port}: Address already in use"):
        scrape.bind(f"127.0.0.1:{port}")
    with pytest.raises(SystemFailure, match="metrics cannot be served at no.such.host.invalid:1"):
        scrape.bind("no.such.host.invalid:1")
    everywhere = scrape.bind(f"0.0.0.0:{free_port()}")
    assert scrape.everybodys(everywhere)
    for listener in (*first, *everywhere):
        listener.close()
