"""`s3cfs probe --hours`: what it takes, and how its report looks."""
from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from s3cfs import cli
from s3cfs.backends.findings import Findings
from s3cfs.backends.listing_rules import REFUSED, ListingRules
from s3cfs.backends.measuring import Plan, Tally, report
from s3cfs.cli import measured, seam
from s3cfs.cli.progress import Progress
from s3cfs.errors import ExitCode, SystemFailure, Throttled

URL = "local:///srv/store"


def a_tally() -> Tally:
    tally = Tally(measured_s=5400.0, did_not_take=2)
    for view, delay in (("get", 2.5), ("list", 0.0)):
        shown = tally.of("put", view)
        shown.delays.add(delay, 99)
        shown.delays.add(44.25)
        shown.settled.merge(shown.delays)
    tally.of("delete", "get").came_back = 3
    hour = tally.hour(13 * 3_600_000_000_000)
    hour.counts.update(changes=1234, requests=50_000, ghosts=5)
    hour.delays.merge(tally.of("put", "get").delays)
    tally.note_trouble(hour, Throttled("put", "probe/x", "slow down", 30.0))
    hour.put_mb_s.add(12.34)
    hour.put_s.add(0.68)
    tally.answered("get", 0.045)
    return tally


PLAN = Plan(5400)


def test_the_table() -> None:
    told = "\n".join(measured.lines(json.loads(json.dumps(report(a_tally(), PLAN)))))
    for line in ("measured for 1 h 30 min, 60 requests a minute: 1,234 changes, 50,000 requests",
                 "after   by    count  late  p50  p90   p99   max  never  came back",
                 "put     get     100   100  2.5  2.5   2.5  44.2      0          0",
                 "put     list    100     1    0    0     0  44.2      0          0",
                 "delete  get       0     0    -    -     -     -      0          3",
                 "13      1,234    50,000   100  2.5  2.5  2.5  44.2       5        1    0       0      12.3         -",
                 "ghosts: 2 deletes were acknowledged and did not take", "ghosts: what was deleted came back, seen by get 3 times",
                 "failed: 1 429 or 503", "Retry-After was 30 s in the middle, 30 s at most", "the last one: put probe/x: slow down",
                 "put of 8.00 MiB, 1 times: 12.3 MB/s in the middle", "get 45 and 45",
                 "backend-options: consistency-lock,lock-delay=3.8,lock-delay-least=3.8,lock-delay-most=67"):
        assert line.replace(" ", "") in told.replace(" ", ""), f"{line}\n{told}"
    assert max(map(len, told.splitlines())) < 160


def found(**what: Any) -> SimpleNamespace:
    findings = Findings(create_only=True, listings=ListingRules(REFUSED, False), **what)
    return SimpleNamespace(tier="T1", before=None, noted=False, found=findings)


def commanded(monkeypatch: pytest.MonkeyPatch, result: Any, *, may_delete: bool = True) -> list[dict[str, Any]]:
    asked: list[dict[str, Any]] = []

    def measure(settings: Any, **how: Any) -> Any:
        asked.append(how)
        return result
    below = SimpleNamespace(probe=lambda settings, **how: found(may_delete=may_delete), measure=measure)
    monkeypatch.setattr(seam, "app", lambda: below)
    return asked


def test_what_is_asked_for_and_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    result = SimpleNamespace(measured=report(a_tally(), PLAN), complete=True, unwritten=None)
    asked = commanded(monkeypatch, result)
    assert cli.main(["probe", "--hours", "0.5", "--rate", "120", "--traffic", "1G", "--object", "64MiB", "--report", "r.json", URL]) == 0
    how = asked.pop()
    assert {name: how[name] for name in ("seconds", "rate", "traffic", "object_bytes", "report_file")} == {
        "seconds": 1800.0, "rate": 120.0, "traffic": 1 << 30, "object_bytes": 1 << 26, "report_file": f"{tmp_path}/r.json"}
    out = capsys.readouterr().out
    assert "refuses a listing whose prefix does not end in '/'; keys come in no order of their names" in out and "measured for 1 h" in out
    assert how["about"]["listings"] == {"part_of_name": "refused", "in_order": False}

    assert cli.main(["probe", "--hours", "2", "--traffic", "0", "--json", URL]) == 0
    assert asked.pop()["traffic"] == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tier"] == "T1" and told["complete"] is True and told["measured"]["changes"] == 1234

    result.complete = False
    assert cli.main(["probe", "--hours", "2", URL]) == ExitCode.INTERRUPTED
    result.unwritten = SystemFailure("cannot write the report")
    assert cli.main(["probe", "--hours", "2", URL]) == ExitCode.SYSTEM
    assert "measured for" in capsys.readouterr().out, "told all the same"


def test_a_store_that_keeps_everything_is_not_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = commanded(monkeypatch, None, may_delete=False)
    assert cli.main(["probe", "--hours", "1", URL]) == ExitCode.UNSUPPORTED and not asked
    caught = capsys.readouterr()
    assert "nothing can be deleted" in caught.out and "would leave all that it writes" in caught.err


@pytest.mark.parametrize(("args", "says"), [
    (["--rate", "3"], "--rate is for the long measurement"), (["--report", "x"], "--report is for"), (["--hours", "0"], "leaves no time"),
    (["--hours", "-1"], "not a number between"), (["--hours", "nan"], "not a number between"), (["--hours", "x"], "'x' is not a number"),
    (["--hours", "1", "--rate", "0"], "--rate: '0' is not a number between 1 and 60000"),
    (["--hours", "1", "--traffic", "5"], "has no unit"), (["--hours", "1", "--object", "0"], "not between 1B and 1.00 GiB"),
    (["--hours", "1", "--object", "2G"], "not between 1B and 1.00 GiB")])
def test_what_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], args: list[str], says: str) -> None:
    asked = commanded(monkeypatch, None)
    assert cli.main(["probe", *args, URL]) == ExitCode.USAGE and not asked
    err = capsys.readouterr().err
    assert says in err and len(err.splitlines()) == 1


def test_progress_in_time() -> None:
    progress = Progress(quiet=True)
    progress({"done": 0, "total": 7200, "unit": "seconds", "text": "measuring"})
    assert progress.line({"done": 90.0, "total": 7200, "unit": "seconds"}) == "measuring: 1 min 30 s of 2 h 00 min, 1 %, 1 h 58 min left"
