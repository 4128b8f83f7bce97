"""`s3cfs verify` and `s3cfs migrate` as they are typed: what they print, how they end."""
from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest

from s3cfs import cli
from s3cfs.cli import seam
from s3cfs.errors import ExitCode
from tests.moves.kit import Moving, moving  # noqa: F401 - a fixture


@pytest.fixture
def typed(moving: Moving, monkeypatch: pytest.MonkeyPatch) -> Moving:  # noqa: F811
    authfile = moving.root / "auth.ini"
    authfile.write_text(f"[a]\nstorage-url: {moving.source_url}\nfs-passphrase: secret\n"
                        f"[b]\nstorage-url: {moving.target_url}\nfs-passphrase: secret\n")
    authfile.chmod(0o600)
    monkeypatch.setenv("S3CFS_AUTHFILE", str(authfile))
    monkeypatch.setenv("S3CFS_CACHEDIR", str(moving.root / "cache"))
    return moving


def test_migrate_from_plan_to_end(typed: Moving, capsys: pytest.CaptureFixture[str]):
    pair = [typed.source_url, typed.target_url]
    assert cli.main(["migrate", "--dry-run", *pair]) == 0
    count = len(typed.objects(typed.source_url))
    assert f"{count} objects" in capsys.readouterr().err
    assert cli.main(["migrate", *pair]) == 0
    out, err = capsys.readouterr()
    assert not out and "s3cfs probe" in err
    assert f"{typed.target_url} is whole" in err and f"FROM NOW ON MOUNT {typed.target_url} ONLY" in err
    assert cli.main(["migrate", "--json", "--verify", "data", *pair]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["state"], said["objects"], said["copied"], said["missing"], said["exit_code"]) == ("whole", count, 0, [], 0)
    assert cli.main(["migrate", "--quiet", *pair]) == 0
    assert capsys.readouterr() == ("", "")


def test_migrate_says_what_is_damaged(typed: Moving, capsys: pytest.CaptureFixture[str]):
    pack = typed.source.pack_of("/big")
    typed.damage(pack)
    assert cli.main(["migrate", "--quiet", typed.source_url, typed.target_url]) == ExitCode.DAMAGED
    out, err = capsys.readouterr()
    assert out.startswith(f"{pack}: damaged") and "1 damaged in the source" in err


def test_verify(typed: Moving, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["verify", "--data", typed.source_url]) == 0
    assert f"{len(typed.objects(typed.source_url))} objects" in (said := capsys.readouterr().err) and "all well" in said
    lost = typed.source.pack_of("/big")
    typed.remove(lost)
    listing = typed.root / "missing"
    assert cli.main(["verify", "--missing-file", str(listing), typed.source_url]) == ExitCode.OBJECT_MISSING
    out, err = capsys.readouterr()
    assert out == f"{lost}: missing\n" and "1 missing" in err and listing.read_text() == f"{lost}\n"
    assert cli.main(["verify", "--json", typed.source_url]) == ExitCode.OBJECT_MISSING
    problem, said = map(json.loads, capsys.readouterr().out.splitlines())
    assert problem["problem"]["object"] == lost and said["missing"] == [lost] and said["exit_code"] == 20


@pytest.mark.parametrize("argv, code, text", [
    (["verify", "--parallel", "0", "URL"], 1, "1 to 256"),
    (["verify", "--sample", "0", "URL"], 1, "percentage"),
    (["verify", "--missing-file", "/no/such/folder/x", "URL"], 25, "no such folder"),
    (["verify", "/etc"], 29, ""),
    (["verify", "URL/none"], 12, "no folder|not there|missing"),
    (["migrate", "URL", "URL"], 1, "the same place"),
    (["migrate", "URL", "URL/below"], 1, "lies in the other"),
    (["migrate", "URL"], 1, "TARGET"),
    (["migrate", "--interval", "soon", "URL", "URL2"], 1, "interval"),
    (["migrate", "URL/none", "URL2"], 12, ""),
])
def test_mistakes_are_one_line(typed: Moving, capsys: pytest.CaptureFixture[str], argv: list[str], code: int, text: str):

    urls = {"URL": typed.source_url, "URL2": typed.target_url}
    assert cli.main([urls.get(word, word.replace("URL/", f"{typed.source_url}/")) for word in argv]) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("s3cfs: ") and re.search(text, err), err


@pytest.mark.parametrize("command", ["verify", "migrate"])
def test_interrupted(typed: Moving, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str):
    def stop(*args: Any) -> None:
        raise BaseExceptionGroup("trio's", [KeyboardInterrupt()])

    monkeypatch.setattr(seam, "moves", lambda: SimpleNamespace(verify=stop, migrate=stop))
    urls = [typed.source_url, typed.target_url][:1 if command == "verify" else 2]
    assert cli.main([command, *urls]) == ExitCode.INTERRUPTED
    assert f"the same {command} goes on where it was" in capsys.readouterr().err


