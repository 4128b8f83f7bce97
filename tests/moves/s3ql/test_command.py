"""`s3cfs import s3ql` from end to end: a target that is made, losses, going on, a dry run, refusals."""
from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from s3cfs import cli
from s3cfs.app.node import NodeOptions, open_node
from s3cfs.app.superblocks import read_superblock
from s3cfs.backends.registry import open_backend
from s3cfs.doors import SystemRandomness
from s3cfs.formats.superblock import unlock
from tests.check.kit import doors
from tests.moves.s3ql.kit import Sample
from tests.moves.trees import Tree, differences, tree_of
from tests.remote.kit import ask

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return Sample.at(tmp_path / "s3ql", "zlib")


@pytest.fixture
def run(tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command with those arguments; (exit code, stdout, stderr)."""
    authfile = tmp_path / "authinfo2"
    authfile.write_text(f"[one]\nstorage-url: local://\nfs-passphrase: {sample.passphrase}\n")
    authfile.chmod(0o600)

    def go(*more: str, source: str = sample.url) -> tuple[int, str, str]:
        monkeypatch.setenv("S3CFS_PASSPHRASE", "HUNTER2")
        code = cli.main(["import", "s3ql", "--s3ql-authfile", str(authfile), "--cachedir", str(tmp_path / "cache"), *more, source,
                         f"local://{tmp_path}/target"])
        out, err = capsys.readouterr()
        assert "HUNTER2" not in out + err and str(sample.passphrase) not in out + err
        return code, out, err
    return go


def target(tmp_path: Path) -> tuple[Tree, str]:
    """From the store alone; and the label."""
    url = f"local://{tmp_path}/target"
    found = ask(open_backend(url, {}), read_superblock)
    keyring = unlock(found, passphrase="HUNTER2", random=SystemRandomness())
    trees: list[Tree] = []

    async def main() -> None:
        async with open_node(doors(tmp_path / "look"), open_backend(url, {}), keyring, found, NodeOptions(read_only=True)) as node:
            trees.append(await tree_of(node))
    trio.run(main)
    return trees[0], found.label


def lines(out: str, key: str) -> list[Any]:
    return [line[key] for line in map(json.loads, out.splitlines()) if key in line]


def test_into_a_target_that_is_made_with_losses_and_again_without(tmp_path: Path, sample: Sample, run: Run):
    away = tmp_path / "away"
    sample.object(1).rename(away)
    code, out, err = run("--json")
    result = lines(out, "result")[0]
    assert code == 20 == result["exit_code"] and len(lines(out, "made")) == 1 and lines(out, "made")[0]["recovery_key"]
    lost = [found for found in lines(out, "finding") if found["kind"] == "missing"]
    assert {os.fsencode(found["path"]): found["ranges"] for found in lost} == {
        b"folder/\xff\xfe not utf-8": [[0, 12]], b"copied/folder/\xff\xfe not utf-8": [[0, 12]]}
    assert all(found["text"] == "s3ql_data_1 is not there" for found in lost) and result["findings"]["missing"] == 2
    assert differences(sample.expected, target(tmp_path)[0])
    away.rename(sample.object(1))
    code, out, err = run()
    assert code == 0 and "was made immutable" not in err and "imported" in err and " 1 object" in err
    assert not differences(sample.expected, target(tmp_path)[0])
    code, out, err = run()
    assert code == 1 and "not empty" in err
    assert not list((tmp_path / "cache").glob("s3ql-import-*/*")), "no metadata of S3QL are left on the disk"


def test_a_dry_run_makes_nothing(tmp_path: Path, run: Run):
    code, out, err = run("--dry-run")
    assert code == 0 and out.startswith("would import 60 files, ") and not (tmp_path / "target").exists()


def test_what_cannot_be_read_makes_nothing(tmp_path: Path, sample: Sample, run: Run):
    assert run(source=f"local://{tmp_path}/nowhere")[0] == 12
    (tmp_path / "empty").mkdir()
    assert run(source=f"local://{tmp_path}/empty")[0] == 16
    (tmp_path / "fd").write_text("another")
    assert run("--s3ql-passphrase-fd", str(os.open(tmp_path / "fd", os.O_RDONLY)))[0] == 10
    assert run("--s3ql-cache", str(tmp_path))[0] == 25
    assert run(source=f"local://{tmp_path}/target")[0] == 1
    assert not list((tmp_path / "target").glob("*"))
