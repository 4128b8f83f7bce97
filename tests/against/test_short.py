"""`make backends` itself, with small bounds: so that it works on the day that somebody has a store to try."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from s3cfs.backends.findings import Findings
from s3cfs.backends.listing_rules import WORKS, ListingRules
from s3cfs.errors import ExitCode
from tests.servers import Server, rclone_s3
from tests.third.install import install

__all__ = ["rclone_s3"]

REPOSITORY = Path(__file__).resolve().parents[2]


def against(*arguments: str | Path, path: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tests.against", *map(str, arguments)], cwd=REPOSITORY, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": path})


@pytest.mark.mount
def test_a_folder_passes_everything(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "of mine").write_bytes(b"mine")
    done = against(f"local://{tmp_path}/store", "--short", "--rounds", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tier T1, no stale answer in 20 rounds" in done.stdout
    lines = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.startswith(("suite ", "crash ", "trip "))}
    assert [int(lines[part][1]) for part in ("suite", "crash", "trip")] == [0, 0, 0]
    assert int(lines["suite"][0]) > 50 and int(lines["crash"][0]) >= 4 and int(lines["trip"][0]) == 2
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["of mine"], "it cleans up, and touches nothing else"


def test_a_server_by_its_authentication_file(rclone_s3: Server, tmp_path: Path) -> None:
    authfile = tmp_path / "auth.ini"
    authfile.write_text(f"[mine]\nstorage-url: {rclone_s3.url()}\nbackend-login: {rclone_s3.login}\n"
                        f"backend-password: {rclone_s3.password}\nbackend-options: no-ssl\n")
    authfile.chmod(0o600)
    url = rclone_s3.url("below/here")
    done = against(url, "--authfile", authfile, "--short", "--only", "trip", "--json", "--pytest=-k kernel")
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["found"] == asdict(Findings(rounds=20, batch_delete=1000, listings=ListingRules(WORKS, True)))
    assert rclone_s3.password not in done.stdout + done.stderr
    assert rclone_s3.root is not None
    assert not [path for path in (rclone_s3.root / rclone_s3.bucket).rglob("below/here/**/*") if path.is_file()], "it cleans up"


def test_memory_passes_what_it_can() -> None:
    done = against("memory://", "--short", "--rounds", "1", "--only", "crash,trip", "--json", "--pytest=-k 'any_moment or trip'")
    assert done.returncode == 0, done.stdout + done.stderr
    parts = {part["part"]: part for part in json.loads(done.stdout)["parts"]}
    assert parts["crash"]["failed"] == 0 and parts["trip"]["passed"] == 1 and parts["trip"]["skipped"] == 1


def test_a_store_of_another_project_that_is_nothing_without_its_layers(tmp_path: Path) -> None:
    """By its entry point; of neither tier, and nothing can be deleted."""
    (tmp_path / "store").mkdir()
    done = against(f"odd://{tmp_path}/store", "--short", "--json", "--only", "suite,trip",
                   "--pytest=-k 'put_is_got or at_once or kernel'", path=str(install(tmp_path / "plugin")))
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert not said["found"]["create_only"] and said["found"]["stale"] == ["it says so itself"] and not said["found"]["may_delete"]
    assert [(part["failed"], part["passed"] > 0) for part in said["parts"]] == [(0, True), (0, True)]
    assert said["left"] and all("nothing can be deleted there" in text for text in said["left"])


@pytest.mark.parametrize(("arguments", "code", "says"), [
    ((), ExitCode.USAGE, "URL"),
    (("nowhere",), ExitCode.USAGE, "not a storage URL"),
    (("local:///no/such/folder",), ExitCode.BUCKET_MISSING, "there is no folder"),
    (("s3c://127.0.0.1:1/bucket", "--options", "no-ssl,nonsense"), ExitCode.CONFIG, "nonsense"),
    (("s3c://127.0.0.1:1/bucket", "--options", "no-ssl"), ExitCode.ACCESS_DENIED, "no credentials found"),
    (("memory://", "--only", "suite,nonsense"), ExitCode.USAGE, "no part 'nonsense'")])
def test_what_is_wrong_is_said_in_one_line(arguments: tuple[str, ...], code: ExitCode, says: str) -> None:
    done = against(*arguments)
    assert done.returncode == code and says in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_a_failure_is_one(tmp_path: Path) -> None:
    """A run without any test, too: the table names it, and the exit code is not 0."""
    done = against(f"local://{tmp_path}", "--only", "suite", "--short", "--pytest=-k no_such_test_anywhere")
    assert done.returncode == 1 and "failed: pytest ended with 5" in done.stdout, done.stdout
