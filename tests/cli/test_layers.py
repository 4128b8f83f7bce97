"""`s3cfs ctl consistency` and `ctl checker`: what is asked of a mount, and what is shown of its answer."""
from __future__ import annotations

import json
from typing import Any

import pytest

from s3cfs import cli
from s3cfs.errors import ExitCode

from .test_commands import Below, below  # noqa: F401  (fixture)

DECISIONS = [{"time": 0.0, "what": "delay", "from": 20.0, "to": 40.5, "why": "an answer was old, 33.0 s after the change", "kind": "pack"},
             {"time": 1.0, "what": "setting", "setting": "lock-delay", "from": "20", "to": "40", "why": "told so"},
             {"time": 2.0, "what": "repair", "key": "pack/aa/1", "kind": "pack", "why": "it is not in the store:\x1b put again"}]
CHECKER = {"status": {"delay_s": 40.5, "looks": 12345, "seen": {"well": 3, "stale": 0, "ghost": 1}, "done": {"there": 0}},
           "settings": {"check-sample": "0.1"}, "decisions": DECISIONS}
LOCK = {"status": {"delay_s": 40.5, "waiting": 2}, "settings": {"lock-mode": "block"}, "decisions": []}


def test_consistency(below: Below, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    below.answer = {"layers": {"consistency": LOCK, "checker": CHECKER}}
    assert cli.main(["ctl", "consistency", "/m", "lock-delay=5", "check-sample=0"]) == 0
    assert below.asked[-1][:3] == ("/m.sock", "layers", {"names": ["consistency", "checker"],
                                                         "changes": {"lock-delay": "5", "check-sample": "0"}})
    assert capsys.readouterr().out.splitlines() == [
        "consistency", "  delay s                40.5", "  waiting                2", "  lock-mode              block",
        "checker", "  delay s                40.5", "  looks                  12,345", "  seen                   well 3, ghost 1",
        "  done                   nothing", "  check-sample           0.1"]
    assert cli.main(["ctl", "consistency", "--quiet", "/m", "lock-delay=5"]) == 0 and not capsys.readouterr().out
    assert cli.main(["ctl", "consistency", "--json", "/m"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"]["consistency"] == {"status": LOCK["status"], "settings": LOCK["settings"]}
    assert cli.main(["ctl", "consistency", "/m", "lock-delay"]) == ExitCode.USAGE
    assert "SETTING=VALUE" in capsys.readouterr().err
    assert cli.main(["ctl", "checker", "/m", "--last", "-1"]) == ExitCode.USAGE and "--last" in capsys.readouterr().err


@pytest.mark.parametrize(("last", "shown"), [(None, 3), ("2", 2), ("0", 0), ("100", 3)])
def test_checker(below: Below, capsys: pytest.CaptureFixture[str], last: str | None, shown: int) -> None:  # noqa: F811
    below.answer = {"layers": {"checker": CHECKER}}
    argv = ["ctl", "checker", "/m", *(["--last", last] if last else [])]
    assert cli.main(argv) == 0
    assert below.asked[-1][:3] == ("/m.sock", "layers", {"names": ["checker"], "changes": {}})
    out = capsys.readouterr().out
    lines: list[Any] = out.splitlines()
    decisions = lines[lines.index("decisions") + 1:] if shown else []
    assert len(decisions) == shown and "\x1b" not in out and ("no decisions" in out) == (not shown)
    said = ["delay 20 s -> 40.5 s: an answer was old, 33.0 s after the change (pack)", "lock-delay 20 -> 40: told so",
            "pack/aa/1: it is not in the store:  put again"]
    assert [line.split("  ", 2)[2] for line in decisions] == said[3 - shown:]
    assert cli.main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {**CHECKER, "decisions": DECISIONS[3 - shown:]}


def test_a_mount_without_them_says_so(below: Below, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    below.answer = {"layers": {}}
    for action, says in (("consistency", "/m has neither consistency lock nor checker"), ("checker", "/m has no checker")):
        assert cli.main(["ctl", action, "/m"]) == ExitCode.CONFIG
        err = capsys.readouterr().err
        assert says in err and err.count("\n") == 1


def test_stat_shows_what_a_layer_says_or_its_summary(below: Below, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    zdb = {"summary": "20 are\x1b well", "servers": [{}]}
    below.answer = {"store": {"layers": {"pieces": {"stored": 1234, "seen": {"well": 1}}, "zdb": zdb}}}
    assert cli.main(["stat", "/m"]) == 0
    out = capsys.readouterr().out
    assert "layer pieces   stored 1,234\n" in out and "layer zdb      20 are  well\n" in out
