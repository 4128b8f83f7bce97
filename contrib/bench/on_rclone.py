"""Run a command with a store in its environment: a bucket on a real S3 server (`rclone serve s3`) of this machine.

    python -m contrib.bench.on_rclone contrib/bench/run.sh

Sets STORE (a storage URL), STORE_DIR (where its objects lie, to measure what is stored) and S3CFS_AUTHFILE.
"""
from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.servers import rclone_server


def main(argv: list[str]) -> int:
    with rclone_server() as server, tempfile.TemporaryDirectory() as folder:
        url = server.url("bench/")
        options = ",".join(f"{name}={value}" if value else name for name, value in server.options.items())
        auth = Path(folder, "auth.ini")
        auth.touch(mode=0o600)
        auth.write_text(f"[bench]\nstorage-url: {url}\nbackend-login: {server.login}\nbackend-password: {server.password}\n"
                        f"backend-options: {options}\n")
        environment = {**os.environ, "STORE": url, "STORE_DIR": str(server.root), "S3CFS_AUTHFILE": str(auth)}
        return subprocess.run(["sh", *argv], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
