"""Run a command with a store in its environment, on servers of this machine that are started for it.

    python -m contrib.bench.on_store KIND contrib/bench/run.sh

    rclone      a bucket on a real S3 server (`rclone serve s3`)
    ipfs        the same, as IPFS blocks
    zdb         twenty 0-dbs, 16 + 4: real ones where S3CFS_TEST_ZDB names the binary, else the fakes of the tests, in this one process

Sets STORE (a storage URL), STORE_DIR (where its objects lie, to measure what is stored) and S3CFS_AUTHFILE.
"""
from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.servers import rclone_server
from tests.zdb.several import several

SERVERS = 20


@contextlib.contextmanager
def _bucket(scheme: str) -> Iterator[Mapping[str, str]]:
    with rclone_server() as server, tempfile.TemporaryDirectory() as folder:
        url = server.url("bench/").replace("s3c://", f"{scheme}://")
        options = ",".join(f"{name}={value}" if value else name for name, value in server.options.items())
        auth = Path(folder, "auth.ini")
        auth.touch(mode=0o600)
        auth.write_text(f"[bench]\nstorage-url: {url}\nbackend-login: {server.login}\nbackend-password: {server.password}\n"
                        f"backend-options: {options}\n")
        yield {"STORE": url, "STORE_DIR": str(server.root), "S3CFS_AUTHFILE": str(auth)}


@contextlib.contextmanager
def _zdbs() -> Iterator[Mapping[str, str]]:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder, several(SERVERS, Path(folder, "zdb")) as servers:
        path = servers.write_list(Path(folder, "zdb.toml"))
        yield {"STORE": f"zdb://{path}", "STORE_DIR": folder}


KINDS: Mapping[str, Callable[[], contextlib.AbstractContextManager[Mapping[str, str]]]] = {
    "rclone": lambda: _bucket("s3c"), "ipfs": lambda: _bucket("ipfs+s3"), "zdb": _zdbs}


def main(argv: list[str]) -> int:
    kind, *command = argv
    with KINDS[kind]() as said:
        return subprocess.run(["sh", *command], env={**os.environ, **said}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
