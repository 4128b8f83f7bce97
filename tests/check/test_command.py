"""`s3cfs fsck` from end to end, on a filesystem in a folder."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from s3cfs import cli
from s3cfs.app.local import folder_name, locked
from s3cfs.app.node import Node, NodeOptions, open_node
from s3cfs.app.superblocks import read_superblock
from s3cfs.backends.base import Backend
from s3cfs.backends.registry import open_backend
from s3cfs.doors import SystemDisk, SystemRandomness
from s3cfs.formats.superblock import unlock
from tests.check.kit import World, doors
from tests.remote.kit import ask


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[str, Backend, Path]:
    """(URL, store, local state) of a filesystem with a file in it."""
    url = f"local://{tmp_path}/store"
    monkeypatch.setenv("S3CFS_PASSPHRASE", "HUNTER2")
    assert cli.main(["mkfs", "--label", "home", url]) == 0
    monkeypatch.setenv("S3CFS_PASSPHRASE", "HUNTER2")             # it was taken out of the environment
    backend = open_backend(url, {})
    found = ask(backend, read_superblock)
    keyring = unlock(found, passphrase="HUNTER2", random=SystemRandomness())
    state = tmp_path / "cache" / folder_name(found, url)
    state.parent.mkdir()

    async def main() -> None:
        async with open_node(doors(state), backend, keyring, found, NodeOptions()) as node:
            await work(node)

    async def work(node: Node) -> None:
        await World.write(node, 1, b"file", SystemRandomness().bytes(300_000))
    trio.run(main)
    capsys.readouterr()
    return url, backend, state


def fsck(monkeypatch: pytest.MonkeyPatch, *argv: str, passphrase: str = "HUNTER2") -> int:
    monkeypatch.setenv("S3CFS_PASSPHRASE", passphrase)
    return cli.main(["fsck", *argv])


def test_from_end_to_end(made: tuple[str, Backend, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    url, backend, state = made
    cachedir = ("--cachedir", str(state.parent))
    assert fsck(monkeypatch, "--full", *cachedir, url) == 0
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("no errors (") and "HUNTER2" not in err
    assert fsck(monkeypatch, "--no-cache", "--full", url) == 0
    key = next(info.key for info in backend.list("pack/"))
    backend.delete(key)
    capsys.readouterr()
    assert fsck(monkeypatch, *cachedir, url) == 4
    out, err = capsys.readouterr()
    assert f"pack {key}: missing: it is not in the store" in out and "missing: /file bytes 0-" in out and "uncorrected" in err
    assert fsck(monkeypatch, "--json", *cachedir, url) == 4
    *problems, result = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert result["exit_code"] == 4 and result["counts"]["problems"] == len(problems) > 1
    assert {frozenset(problem["problem"]) for problem in problems} == {
        frozenset(("check", "severity", "text", "object", "file", "repairable"))}
    assert problems[1]["problem"]["file"]["path"] == "/file"
    assert fsck(monkeypatch, "--repair", *cachedir, url) == 1
    assert "corrected: pack " in capsys.readouterr().out
    assert fsck(monkeypatch, "--no-cache", "--full", url) == 0


def test_what_keeps_it_from_looking(made: tuple[str, Backend, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                    tmp_path: Path) -> None:
    url, backend, state = made
    cachedir = ("--cachedir", str(state.parent))

    def one_line(code: int, word: str, *argv: str, passphrase: str = "HUNTER2") -> None:
        assert fsck(monkeypatch, *argv, passphrase=passphrase) == code
        out, err = capsys.readouterr()
        assert (out + err).count("\n") == 1 or "(1 problems)" in err
        assert word in out + err and "Traceback" not in err
    one_line(8, "wrong passphrase", *cachedir, url, passphrase="other")
    one_line(8, "nowhere", *cachedir, f"local://{tmp_path}/nowhere")
    (tmp_path / "empty").mkdir()
    one_line(8, "no s3cfs filesystem", *cachedir, f"local://{tmp_path}/empty")
    one_line(16, "URL", *cachedir)
    with locked(SystemDisk(str(state)), "mounted", lambda text: None):
        one_line(8, "in use on this machine", *cachedir, url)
        assert fsck(monkeypatch, "--no-cache", url) == 0
        capsys.readouterr()
    data = backend.get("super/1")
    backend.delete("super/1")
    backend.delete("super/1.2")
    one_line(12, "every superblock is missing", *cachedir, url)
    backend.put("super/1", data[:100] + b"X" + data[101:])
    one_line(12, "super/1 is damaged", *cachedir, url)


def test_local_state_that_is_not_there_is_not_made(made: tuple[str, Backend, Path], monkeypatch: pytest.MonkeyPatch,
                                                   tmp_path: Path) -> None:
    url, _, _ = made
    assert fsck(monkeypatch, "--cachedir", str(tmp_path / "elsewhere"), url) == 0
    assert not (tmp_path / "elsewhere").exists()
