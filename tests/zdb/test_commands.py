"""`s3cfs zdb` from end to end: what is printed, as text and as JSON, and how it ends."""
from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from s3cfs import cli
from s3cfs.backends.zdb import survey
from s3cfs.cli import seam
from s3cfs.errors import ExitCode
from tests.cli.test_commands import Below, below  # noqa: F401 - a fixture
from tests.zdb.caring import Store
from tests.zdb.several import Servers


@pytest.fixture
def store(zdb_servers: Callable[[int], Servers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("S3CFS_CACHEDIR", str(tmp_path / "cache"))
    made = Store(zdb_servers(7), tmp_path, only=range(6))
    made.fill()
    yield made
    made.close()


def zdb(store: Store, action: str, *options: str) -> int:
    return cli.main(["zdb", action, *options, f"zdb://{store.path}"])


def test_status(store: Store, capsys: pytest.CaptureFixture[str]):
    assert zdb(store, "status") == 0
    out = capsys.readouterr().out
    assert "objects in 4 + 2 shards, done with 6 of them; 6 servers" in out and "z03" in out and "ok, replica" in out
    assert "records: 5 of 5 replicas answer; reading needs 3, writing 3" in out and "test-password" not in out
    store.servers.kill(3)
    store.write_list(range(7))
    assert zdb(store, "status", "--json") == ExitCode.STORE_UNREACHABLE
    told = json.loads(capsys.readouterr().out)
    by_name = {one["name"]: one for one in told["servers"]}
    assert by_name["z03"]["condition"] == "unreachable" and by_name["z06"]["words"] == "is new and not admitted yet"
    assert "2 of 7 servers cannot be used" in told["degraded"] and not by_name["z03"]["may_read"] and by_name["z00"]["may_write"]
    assert zdb(store, "status") == ExitCode.STORE_UNREACHABLE
    assert "connection refused" in capsys.readouterr().out


def test_status_of_servers_with_which_nothing_can_be_done(store: Store, capsys: pytest.CaptureFixture[str]):
    for number in range(4):
        store.servers.kill(number)
    assert zdb(store, "status", "--json") == ExitCode.STORE_UNREACHABLE
    told = json.loads(capsys.readouterr().out)
    assert [one["condition"] for one in told["servers"]] == ["unreachable"] * 4 + ["ok"] * 2 and "too few are left" in told["degraded"]
    assert zdb(store, "status") == ExitCode.STORE_UNREACHABLE
    assert "z00     127.0.0.1  unreachable" in capsys.readouterr().out


def test_status_of_a_mount_is_what_its_layer_says(below: Below, store: Store, capsys: pytest.CaptureFixture[str]):  # noqa: F811
    from s3cfs.backends.zdb.care import Care
    below.answer = {"layers": {"zdb": {"settings": {}, "status": dict(Care(store.backend.replicas).status()), "decisions": []}}}
    assert cli.main(["zdb", "status", "/m"]) == 0
    assert below.asked[-1][:3] == ("/m.sock", "layers", {"names": ["zdb"], "changes": {}}) and "z03" in capsys.readouterr().out
    unopened = dict(Care(store.another().replicas).status())
    below.answer = {"layers": {"zdb": {"settings": {}, "status": unopened, "decisions": []}}}
    assert cli.main(["zdb", "status", "/m"]) == ExitCode.STORE_UNREACHABLE
    assert capsys.readouterr().err == "s3cfs: status: no server has been looked at yet\n"
    below.answer = {"layers": {}}
    assert cli.main(["zdb", "status", "/m"]) == ExitCode.USAGE and "not on a set of 0-dbs" in capsys.readouterr().err


def test_check_and_repair(store: Store, capsys: pytest.CaptureFixture[str]):
    assert zdb(store, "check", "--data") == 0
    assert capsys.readouterr().err.startswith("4 objects: all well")
    flipped, lost = store.flip("pack/large0", 2), store.lose("pack/large1", 4)
    assert zdb(store, "check") == ExitCode.DAMAGED
    assert capsys.readouterr().out == f"pack/large1: weak: of 6 shards 1 missing (z{lost:02})\n"
    assert zdb(store, "check", "--data", "--json") == ExitCode.DAMAGED
    *findings, result = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    text = f"of 6 shards 1 damaged (z{flipped:02})"
    assert {"finding": {"object": "pack/large0", "what": "weak", "text": text, "mended": False}} in findings
    assert (result["weak"], result["objects"], result["exit_code"]) == (2, 4, ExitCode.DAMAGED)
    assert zdb(store, "repair", "--rate", "1GiB", "--parallel", "2") == 0
    out, err = capsys.readouterr()
    assert f"pack/large0: weak: {text}; mended\n" in out and "4 objects: all well (2 mended, 2 shards written)" in err
    assert zdb(store, "check", "--data", "--quiet") == 0 and capsys.readouterr() == ("", "")


def test_what_is_lost_is_said_so(store: Store, capsys: pytest.CaptureFixture[str]):
    for index in (0, 1, 2):
        store.flip("pack/large0", index)
    assert zdb(store, "check") == 0
    assert zdb(store, "repair") == ExitCode.OBJECT_MISSING
    out, err = capsys.readouterr()
    assert "pack/large0: lost: of 6 shards 3 damaged" in out and "1 lost" in err


def test_a_repair_that_was_interrupted_goes_on(store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(survey, "BATCH", 1)
    for key in store.content:
        store.lose(key, 1)
    kept, seen = survey.Survey._note, []

    def note(self: survey.Survey, key: str, *rest: object) -> None:
        seen.append(key)
        if len(seen) == 3:
            raise KeyboardInterrupt
        kept(self, key, *rest)                     # type: ignore[arg-type]

    with monkeypatch.context() as context:
        context.setattr(survey.Survey, "_note", note)
        assert zdb(store, "repair", "--parallel", "1") == ExitCode.INTERRUPTED
    assert "the same command goes on where it was" in capsys.readouterr().err and seen == sorted(store.content)[:3]
    assert zdb(store, "repair") == 0
    assert "4 objects: all well (3 mended" in (err := capsys.readouterr().err) and "2 by an earlier run" in err
    assert zdb(store, "repair") == 0 and "earlier" not in capsys.readouterr().err


def test_what_cannot_be(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def one_line(code: ExitCode, word: str, *argv: str) -> None:
        capsys.readouterr()
        assert cli.main(["zdb", *argv]) == code
        out, err = capsys.readouterr()
        assert not out and word in err and len(err.splitlines()) == 1 and "test-password" not in err, err

    one_line(ExitCode.USAGE, "--rate", "repair", "--rate", "fast", f"zdb://{store.path}")
    one_line(ExitCode.USAGE, "--rate 0", "repair", "--rate", "0", f"zdb://{store.path}")
    one_line(ExitCode.CONFIG, "is no set of 0-dbs", "repair", f"local://{tmp_path}/store")
    one_line(ExitCode.CONFIG, "cannot read the list", "status", f"zdb://{tmp_path}/none.toml")
    one_line(ExitCode.NOT_A_MOUNT, str(tmp_path), "check", str(tmp_path))
    for number in range(4):
        store.servers.kill(number)
    one_line(ExitCode.STORE_UNREACHABLE, "too few are left", "repair", f"zdb://{store.path}")
    assert seam.zdb()


def test_reclaim(store: Store, capsys: pytest.CaptureFixture[str]):
    store.put("pack/gone", 400_000)
    store.backend.delete("pack/gone")
    del store.content["pack/gone"]
    assert zdb(store, "reclaim", "--dry-run", "--data-file-size", "4MiB", "--json") == 0
    said = [json.loads(line)["server"] for line in capsys.readouterr().out.splitlines()]
    assert [one["name"] for one in said] == [f"z0{number}" for number in range(6)] and all(one["after"] is None for one in said)
    assert all(one["before"]["namespace"] == "s3cfs-test" and one["before"]["live"] < one["before"]["written"] for one in said)

    assert zdb(store, "reclaim", "--server", "z02", "--server", "z04", "--min-garbage", "1", "--data-file-size", "1MiB") == 0
    out = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in out] == ["z02:", "z04:"] and all("namespace s3cfs-test-g1" in line for line in out)
    assert store.reads_right() and store.reads_right(store.backend)
    assert zdb(store, "reclaim", "--server", "z02", "--min-garbage", "60%") == 0
    assert "now in" not in capsys.readouterr().out                # there is less than that

    store.path.write_text(store.path.read_text().replace('admin-password = "test-admin"', ""))
    assert zdb(store, "reclaim", "--server", "z01") == ExitCode.UNSUPPORTED
    line, = capsys.readouterr().out.splitlines()
    assert "the list has no admin-password for it: it takes its owner" in line
    store.servers.kill(5)
    assert zdb(store, "reclaim", "--server", "z05") == ExitCode.STORE_UNREACHABLE
    assert "what is there is as it was" in capsys.readouterr().out
    for wrong in (("--server", "z99"), ("--min-garbage", "101"), ("--data-file-size", "much")):
        assert zdb(store, "reclaim", *wrong) in (ExitCode.USAGE, ExitCode.CONFIG)
        assert len(capsys.readouterr().err.splitlines()) < 4


def test_backup_and_restore(store: Store, capsys: pytest.CaptureFixture[str]):
    assert zdb(store, "restore") == 0
    assert "there is no backup that can be read" in capsys.readouterr().err
    assert zdb(store, "backup") == 0
    assert "4 records in 1 objects" in capsys.readouterr().err
    assert zdb(store, "backup", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["slots"] == 4 and len(made["sheets"]) == 1
    assert zdb(store, "restore", "--scan", "--json") == 0
    done = json.loads(capsys.readouterr().out)
    assert done == {"slots": 0, "made": 0, "buried": 0, "broken": 0, "replicas": 0, "backup_ns": made["time_ns"], "unreadable_backups": []}
    replicas = [int(name.removeprefix("z")) for number, name in store.backend.cluster.roll.names.items()
                if number in store.backend.cluster.roll.replicas]
    for number in replicas[:3]:
        store.servers.kill(number)
    assert zdb(store, "restore") == ExitCode.STORE_UNREACHABLE
    err = capsys.readouterr().err
    assert "--replicas-lost" in err and "Traceback" not in err
