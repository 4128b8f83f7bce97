"""A store of this process, lent to another one: `memory://` has no other way to be used by a process that is going to be killed."""
from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.managers import BaseManager
from typing import Any

from s3cfs.backends.base import PROBE_ROUNDS, Backend, Body, Capabilities, Degraded, ObjectInfo

Where = tuple[str, int, str]           # address, port and a word that opens it (hex)


class _Lent:
    """A backend in calls that can be carried over: no properties, no iterators."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        for name in ("get", "put", "stat", "delete", "delete_many", "probe_create_only", "assume_create_only", "check"):
            setattr(self, name, getattr(backend, name))

    def capabilities(self) -> Capabilities:
        return self._backend.capabilities

    def list(self, prefix: str) -> list[ObjectInfo]:
        return list(self._backend.list(prefix))

    def folders(self, prefix: str) -> Sequence[str]:
        return [*self._backend.folders(prefix)]


@contextlib.contextmanager
def lent(backend: Backend) -> Iterator[Where]:
    """`borrow` reaches it as long as this lasts; each thread over there has a connection and a thread here."""
    class Manager(BaseManager):
        pass

    adapter, word = _Lent(backend), secrets.token_bytes(16)
    Manager.register("backend", callable=lambda: adapter, exposed=[name for name in dir(adapter) if not name.startswith("_")])
    server: Any = Manager(("127.0.0.1", 0), word).get_server()
    thread = threading.Thread(target=_serve, args=(server,), daemon=True)
    thread.start()
    try:
        yield (*server.address, word.hex())
    finally:
        server.stop_event.set()
        thread.join()


def _serve(server: Any) -> None:
    with contextlib.suppress(SystemExit):          # its way to end
        server.serve_forever()


class Borrowed(Backend):
    """The other end."""

    def __init__(self, where: Where) -> None:
        class Manager(BaseManager):
            pass

        Manager.register("backend")
        manager: Any = Manager((where[0], where[1]), bytes.fromhex(where[2]))
        manager.connect()
        self._lent: Any = manager.backend()

    @property
    def capabilities(self) -> Capabilities:
        found: Capabilities = self._lent.capabilities()
        return found

    @property
    def location(self) -> str:
        return "a store of another process"

    def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        data: bytes = self._lent.get(key, offset, size)
        return data

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> Degraded | None:
        answer: Degraded | None = self._lent.put(key, bytes(data), only_if_absent)
        return answer

    def stat(self, key: str) -> ObjectInfo:
        found: ObjectInfo = self._lent.stat(key)
        return found

    def delete(self, key: str) -> None:
        self._lent.delete(key)

    def delete_many(self, keys: Sequence[str]) -> None:
        self._lent.delete_many(list(keys))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter(self._lent.list(prefix))

    def folders(self, prefix: str) -> Iterator[str]:
        return iter(self._lent.folders(prefix))

    def probe_create_only(self, rounds: int = PROBE_ROUNDS) -> bool:
        return bool(self._lent.probe_create_only(rounds))

    def assume_create_only(self, holds: bool) -> None:
        self._lent.assume_create_only(holds)

    def check(self) -> None:
        self._lent.check()
