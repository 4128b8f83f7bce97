"""A store on several 0-dbs, with a list that other processes can read: for `make backends STORE=zdb` and mounted filesystems."""
from __future__ import annotations

import contextlib
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from s3cfs.backends.registry import open_backend
from tests.zdb.several import REAL, Servers, several

SERVERS, DATA, PARITY = (20, 16, 4) if REAL else (7, 4, 2)


@dataclass
class ZdbStore:
    """As tests/servers.py has its servers. `path`: the list."""

    path: Path
    servers: Servers
    options: Mapping[str, str] = field(default_factory=dict)
    login: str = ""
    password: str = ""

    def url(self, prefix: str = "") -> str:
        return f"zdb://{self.path}" + (f"/{prefix}" if prefix else "")

    def fresh_url(self) -> str:
        """A place in the store that nothing else uses."""
        return self.url(f"t-{secrets.token_hex(6)}/")


@contextlib.contextmanager
def zdb_server(count: int = SERVERS, data: int = DATA, parity: int = PARITY) -> Iterator[ZdbStore]:
    """Made, and empty."""
    with tempfile.TemporaryDirectory(prefix="s3cfs-zdb-") as folder, several(count, Path(folder)) as servers:
        path = servers.write_list(Path(folder) / "zdb.toml", data=data, parity=parity, domains=data)
        with contextlib.closing(open_backend(f"zdb://{path}")) as backend:
            backend.create()
        yield ZdbStore(path, servers)
