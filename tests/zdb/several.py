"""Several 0-dbs for a test, fakes or real ones (S3CFS_TEST_ZDB names the binary; `make zdb-real ZDB=path`): the fixture `zdb_servers`."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from s3cfs.backends.zdb.link import Links
from s3cfs.backends.zdb.setup import Server
from tests.zdb import real
from tests.zdb.server import running

NAMESPACE, PASSWORD, ADMIN = "s3cfs-test", "test-password", "test-admin"
REAL = os.environ.get("S3CFS_TEST_ZDB", "")


class Zdb(Protocol):
    """What a test may do to any of them: fakes have more switches (server.py)."""

    port: int

    def start(self) -> None: ...
    def kill(self) -> None: ...
    def hang(self, silent: bool) -> None: ...
    def wipe(self) -> None: ...
    def keys(self, namespace: str) -> list[bytes]: ...
    def flip(self, namespace: str, key: bytes, at: int = -1) -> None: ...


class Servers:
    """Each with the namespace NAMESPACE, which nobody reads or writes without PASSWORD; ADMIN is the administrator's."""

    def __init__(self, zdbs: Sequence[Zdb]) -> None:
        self.zdbs = list(zdbs)

    def __len__(self) -> int:
        return len(self.zdbs)

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{zdb.port}" for zdb in self.zdbs]

    def server(self, number: int, namespace: str = NAMESPACE, password: str = PASSWORD) -> Server:
        """Its settings; `name` is z00, z01 …"""
        return Server(f"z{number:02}", "127.0.0.1", self.zdbs[number].port, namespace, password, admin_password=ADMIN)

    def kill(self, number: int) -> None:
        """As kill -9."""
        self.zdbs[number].kill()

    def start(self, number: int) -> None:
        """Again, on the same port, with what it had."""
        self.zdbs[number].start()

    def hang(self, number: int, silent: bool = True) -> None:
        """It answers nothing until it is told to go on; then it answers what it was asked meanwhile."""
        self.zdbs[number].hang(silent)

    def keys(self, number: int) -> list[bytes]:
        """All that can be read there."""
        return self.zdbs[number].keys(NAMESPACE)

    def flip(self, number: int, key: bytes, at: int = -1) -> None:
        """A bit of a value, where the server keeps it."""
        self.zdbs[number].flip(NAMESPACE, key, at)

    def write_list(self, path: Path, only: Iterable[int] | None = None, *, drain: Iterable[int] = (), data: int = 16, parity: int = 4,
                   domains: int = 0, more: str = "") -> Path:
        """The TOML file that names them (`only` these). `domains`: over so many, in turn. `more`: lines of its own."""
        lines = [f"data = {data}", f"parity = {parity}", more]
        for number in range(len(self)) if only is None else only:
            server = self.server(number)
            lines += ["[[servers]]", f'name = "{server.name}"', f'address = "{server.address}"', f'namespace = "{NAMESPACE}"',
                      f'password = "{PASSWORD}"', f'admin-password = "{ADMIN}"', f"drain = {str(number in drain).lower()}"]
            lines += [f'domain = "d{number % domains}"'] if domains else []
        path.touch(mode=0o600)
        path.write_text("\n".join(lines) + "\n")
        return path


@contextlib.contextmanager
def several(count: int, folder: Path) -> Iterator[Servers]:
    """`folder`: where real ones keep what they have."""
    with contextlib.ExitStack() as stack:
        if REAL:
            zdbs: Sequence[Zdb] = stack.enter_context(real.running(Path(REAL), count, folder, admin=ADMIN))
            for zdb in zdbs:
                _furnish(zdb)
        else:
            fakes = stack.enter_context(running(count, admin=ADMIN))
            for fake in fakes:
                fake.make(NAMESPACE, password=PASSWORD, public=False)
            zdbs = fakes
        yield Servers(zdbs)


def _furnish(zdb: Zdb) -> None:
    links = Links(Server("new", "127.0.0.1", zdb.port, NAMESPACE, admin_password=ADMIN), as_admin=True)
    for words in (("NSNEW", NAMESPACE), ("NSSET", NAMESPACE, "password", PASSWORD), ("NSSET", NAMESPACE, "public", "0")):
        links.call(*words)
    links.close()
