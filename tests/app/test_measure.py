"""`s3cfs probe --hours` on real stores: it measures, keeps its report, ends when it is told to, and leaves nothing behind."""
from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from s3cfs.app import measure
from s3cfs.backends.listing_rules import NAMES, REFUSED, ListingRules, listing_rules
from s3cfs.backends.measuring import Measurement, Plan, Tally, report
from s3cfs.backends.registry import open_backend
from s3cfs.config import Secret, Settings
from s3cfs.config.settings import parse_backend_options
from s3cfs.doors import Doors, TrioThreads
from s3cfs.errors import ConfigError, SystemFailure
from tests.backends.measuring.stale import Clock, Seeded
from tests.e2e.kit import until
from tests.gateway import Gateway
from tests.remote.kit import AtOnce, NoDisk, virtual_time
from tests.servers import Server, moto_s3, rclone_s3  # noqa: F401  (fixtures)

SECONDS = 2.0
QUICK: dict[str, Any] = {"seconds": SECONDS, "rate": 6000.0, "traffic": 1 << 40, "object_bytes": 100_000}


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_real_server(moto_s3: Server, tmp_path: Path) -> None:  # noqa: F811
    url = moto_s3.fresh_url()
    settings = Settings(url, str(tmp_path), moto_s3.login, Secret(moto_s3.password), moto_s3.options)
    file, told = tmp_path / "report.json", list[dict[str, Any]]()
    result = measure(settings, about={"tier": "T1"}, report_file=str(file), progress=lambda event: told.append(dict(event)), **QUICK)
    measured = result.measured
    assert result.complete and result.unwritten is None and measured["hours"] == pytest.approx(SECONDS / 3600, abs=1e-4)
    assert all(measured["shown"]["put"][view]["count"] and measured["shown"]["put"][view]["late"] == 0 for view in ("get", "stat", "list"))
    assert measured["throughput"]["put_mb_s"]["count"] and not measured["wrong"] and not any(measured["troubles"].values())
    kept = json.loads(file.read_text())
    assert kept["measured"] == json.loads(json.dumps(measured)) and kept["complete"] and (kept["tier"], kept["store"]) == ("T1", url)
    assert told[-1]["unit"] == "seconds" and told[-1]["total"] == SECONDS
    backend = moto_s3.open(url)
    assert list(backend.list("")) == []
    backend.close()


def test_storj_that_shows_what_was_true_twenty_seconds_ago(rclone_s3: Server) -> None:  # noqa: F811
    """Through the fake gateway, in virtual time, over real connections."""
    mock = virtual_time()
    clock = Clock(mock)

    class Virtual:
        def now(self) -> float:
            return clock.monotonic()

        def wait(self, seconds: float, ended: object) -> None:
            raise AssertionError("nobody waits")
    tally, plan = Tally(), Plan(240, rate=120, traffic=0)
    with Gateway(rclone_s3, clock=Virtual()) as gateway:
        url = gateway.url("long/")
        backends = [open_backend(url, rclone_s3.options, login=rclone_s3.login, password=rclone_s3.password) for _ in range(3)]
        for name in NAMES:
            backends[0].put(f"probe/names/{name}", b"x")
        assert listing_rules(backends[0], "probe/names/") == ListingRules(REFUSED, False)
        backends[0].delete_many([f"probe/names/{name}" for name in NAMES])
        gateway.stale(20, only=["get", "head"], key="here/")
        gateway.throttle(retry_after=7, count=1, only="put")
        gateway.errors(500, count=2, only="head")
        resets = gateway.reset(count=3, only="get")

        async def main() -> None:
            doors = Doors(clock, Seeded(1), TrioThreads(), NoDisk(), store_threads=AtOnce())
            await Measurement(doors, backends[0], backends[1:], plan, tally).run(trio.Event())
        trio.run(main, clock=mock)
        for backend in backends:
            assert list(backend.list("")) == []
            backend.close()
        assert gateway.errors_inside == []
    told = report(tally, plan)
    for change in ("put", "overwrite", "delete"):
        found = told["shown"][change]["get"]
        assert found["count"] == found["late"] >= 2 and 20 <= found["p50"] <= found["max"] <= 25, change
        assert told["shown"][change]["list"]["late"] == 0
    assert told["troubles"] == {"throttled": 1, "server": 2, "broken": resets.fired, "corrupt": 0, "other": 0} and resets.fired == 3
    assert told["retry_after_s"]["max"] == 7
    options = parse_backend_options(told["suggested"]["options"], "test")
    assert "consistency-lock" in options and float(options["lock-delay"]) >= 1.5 * 20
    open_backend(url, {**rclone_s3.options, **options}, login="l", password="p").close()      # the lock takes them


def test_it_ends_early_when_it_is_told_to(tmp_path: Path) -> None:
    store, file = tmp_path / "store", tmp_path / "report.json"
    store.mkdir()
    command = [sys.executable, "-m", "s3cfs", "probe", "--json", "--quiet", "--hours", "5", "--rate", "6000", "--traffic", "0",
               "--report", str(file), f"local://{store}"]

    def nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_DFL)           # who runs these tests in the background ignores it

    def keys() -> list[Path]:
        return list(store.glob("probe/long-*"))            # empty folders stay
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=nohup) as process:
        try:
            before = until(keys, "it measures")
            process.send_signal(signal.SIGHUP)
            until(lambda: len(keys()) > len(before) + 10, "it goes on")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    told = json.loads(out)
    assert process.returncode == 8 and "ended early" in err and "Traceback" not in err
    assert told["tier"] == "T1" and told["complete"] is False and 0 < told["measured"]["hours"] < 0.1 and told["measured"]["requests"] > 0
    assert json.loads(file.read_text())["measured"] == told["measured"]
    assert not files(store)


def local(folder: Path) -> Settings:
    folder.mkdir(exist_ok=True)
    return Settings(f"local://{folder}", str(folder))


def test_a_report_is_gone_on_with(tmp_path: Path) -> None:
    file, settings = tmp_path / "report.json", local(tmp_path / "store")
    how = {**QUICK, "traffic": 0, "rate": 2000.0}
    first = measure(settings, about={}, report_file=str(file), **{**how, "seconds": 0.3})
    again = measure(settings, about={}, report_file=str(file), **{**how, "seconds": 0.6})
    assert again.measured["requests"] > first.measured["requests"] > 0 and again.measured["hours"] == pytest.approx(0.6 / 3600, abs=1e-4)
    assert measure(settings, about={}, report_file=str(file), **{**how, "seconds": 0.6}).measured["changes"] == again.measured["changes"]
    assert [path.name for path in files(tmp_path)] == [file.name]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', '{"schema": 1, "store": "local:///elsewhere", "began": "", "raw": {}}',
                                  '{"schema": 1, "store": "STORE", "began": "", "raw": {"shown": {"put": {}}}}'])
def test_what_is_no_report_is_left_alone(tmp_path: Path, text: str) -> None:
    file, settings = tmp_path / "notes", local(tmp_path / "store")
    file.write_text(text.replace("STORE", settings.url))
    with pytest.raises(ConfigError, match="is no report about local://"):
        measure(settings, about={}, report_file=str(file), **QUICK)
    assert file.read_text() == text.replace("STORE", settings.url) and not files(tmp_path / "store")


def test_a_report_that_cannot_be_written_is_told_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(SystemFailure, match="cannot write the report"):
        measure(local(tmp_path / "store"), about={}, report_file=str(tmp_path / "none" / "report"), **QUICK)
    assert not files(tmp_path)
