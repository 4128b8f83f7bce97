"""A gateway as Storj's is, on loopback, in front of a real S3 server, which breaks when a test says so.

In a test:

    with rclone_server() as server, Gateway(server, clock=HandClock()) as gateway:
        backend = open_backend(gateway.url("place/"), server.options, login=server.login, password=server.password)
        fault = gateway.stale(30, only="get", key=r"/super/")      # a get shows what was there 30 s ago
        gateway.clock.advance(31)                                  # of a HandClock: no test sleeps
        assert fault.fired == 2
        gateway.clear()

What it is always like:

- a listing whose prefix is neither empty nor ends in '/', or whose delimiter is neither empty nor '/', is answered with 501 NotImplemented
  (`exhaustive=True`: as in old projects, up to 100,000 keys below the last '/', then the same);
- listings come in the order of encrypted keys, part by part of the path: always the same and nothing to do with names; pages go by tokens;
- of several puts with `If-None-Match: *` on one key one wins, whatever the server behind does (`create_only=False`: what it does);
- requests are passed on with their signature, and those it answers by itself are checked for theirs; no multipart uploads, no copies.

The faults are methods of `Gateway`: throttle (429, Retry-After), errors (5xx), slow, hang, reset, lose_answers, late (a put that is
carried out after its caller has gone), cut, stale, deletes_stay, deletes_return; they take conditions (operation, key, how often, how
long, which share) and return a `Fault`, which counts how often it fired. kill_idle, idle_dies_after, restart, down, up are for
connections. `connections`, `notes` (each request with its connection, path, status, faults), `operations` say what happened.

It keeps its own list of what there is: objects that are put past it are read, but listed only after `rescan()`. What is overwritten or
deleted is kept in memory for `remember_s` (300), and `stale` cannot look back further. The clock is real unless it is a HandClock; waits
(slow, late, restart) go by it too.

For a mount in another process: `control.Server(gateway)` and `control.ask(address, "throttle", retry_after=5, count=10)`; or

    python -m tests.gateway serve --server rclone --root FOLDER --tls FOLDER       prints one JSON line: url, control, login, password
    python -m tests.gateway do ADDRESS stale seconds=30 only='["get","list"]' for_s=60
    python -m tests.gateway do ADDRESS                                             its state: connections, requests, faults

`make backends STORE=storj` tries everything on one that does nothing wrong.
"""
from collections.abc import Iterator
from contextlib import contextmanager

from tests.gateway.clock import HandClock, RealClock
from tests.gateway.faults import Fault
from tests.gateway.gateway import Gateway, Note
from tests.servers import rclone_server

__all__ = ["Fault", "Gateway", "HandClock", "Note", "RealClock", "storj_server"]


@contextmanager
def storj_server() -> Iterator[Gateway]:
    """One with a server of its own."""
    with rclone_server() as server, Gateway(server) as gateway:
        yield gateway
