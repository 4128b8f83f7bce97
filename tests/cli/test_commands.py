"""The commands: what they hand to the floors below, what they print, how they end.

`s3cfs.app` and `s3cfs.control` are replaced at the seam (tests/mount runs the real ones); everything above is real.
"""
from __future__ import annotations

import contextlib
import json
import os
import re
import stat as stat_module
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from s3cfs import cli
from s3cfs.cli import commands, exitcodes, progress, seam
from s3cfs.cli.style import Style
from s3cfs.config import OPTIONS, Secret
from s3cfs.errors import (
    AlreadyMounted,
    BucketMissing,
    CacheUnusable,
    Damaged,
    Denied,
    ExitCode,
    NewerFormat,
    S3cfsError,
    WrongPassphrase,
)

URL = "local:///srv/store"
ROOT = Path(__file__).parent.parent.parent
S3CFS = [sys.executable, "-m", "s3cfs"]


@dataclass
class Below:
    """What was asked of the floors below, and what they answer."""

    asked: list[tuple[Any, ...]] = field(default_factory=list)
    answer: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.asked.append((*args, kwargs) if kwargs else args)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer(*args, **kwargs) if callable(self.answer) else self.answer


@pytest.fixture
def below(monkeypatch: pytest.MonkeyPatch) -> Below:
    made = Below()
    monkeypatch.setattr(seam, "app", lambda: SimpleNamespace(mkfs=made, mount=made, fsck=made, dump=made))
    monkeypatch.setattr(seam, "write_back", lambda path: None)
    monkeypatch.setattr(seam, "served", lambda path: SimpleNamespace(pid=2**22 + 1, here=True, socket=f"{path}.sock", url=URL,
                                                                     mountpoint=path))
    monkeypatch.setattr(seam, "call", made)
    monkeypatch.setattr(seam, "asked", lambda socket, op: contextlib.nullcontext(lambda progress: made(socket, op, {})))
    monkeypatch.setenv("S3CFS_PASSPHRASE", "HUNTER2")
    return made


def test_mkfs_prints_the_recovery_key_on_stdout_alone(below: Below, capsys: pytest.CaptureFixture[str]):
    made = SimpleNamespace(fs_id="ab12", recovery_key="KEY-KEY", location=URL)

    def answer(settings: Any, **options: Any) -> Any:
        options["show"](made)
        return made
    below.answer = answer
    assert cli.main(["mkfs", "--label", "home", URL]) == 0
    (settings, options), = below.asked
    del options["show"]
    assert settings.url == URL and options == {"label": "home", "plain": False, "passphrase": Secret("HUNTER2")}
    out, err = capsys.readouterr()
    assert out == "KEY-KEY\n" and "ab12" in err and "HUNTER2" not in out + err
    made.recovery_key = None
    assert cli.mkfs_main(["--plain", "--json", URL]) == 0
    assert below.asked[-1][1]["passphrase"] is None
    assert json.loads(capsys.readouterr().out) == {"fs_id": "ab12", "location": URL, "recovery_key": None}


def test_mkfs_without_passphrase_or_terminal(below: Below, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.delenv("S3CFS_PASSPHRASE")
    assert cli.main(["mkfs", URL]) == ExitCode.CONFIG
    assert "passphrase is needed" in capsys.readouterr().err and not below.asked


def test_mount_hands_on_everything(below: Below, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    below.answer = 0
    monkeypatch.chdir(tmp_path)
    assert cli.main(["mount", "--sync", "remote", "--cachesize", "2G", "--compress", "none", "--no-allow-other",
                     "-o", "ro,nosuid,sync=local", "-o", "allow_other,cachedir=/x", URL, "mnt"]) == 0
    (settings, mountpoint, options), = below.asked
    assert mountpoint == str(tmp_path / "mnt") and settings.cachedir == options.cachedir == "/x"
    assert (options.sync, options.cache_size, options.compress, options.read_only) == ("remote", 2 << 30, None, True)
    assert options.allow_other is False and options.fuse_options == ("nosuid",)


def test_every_mount_option_is_an_argument(below: Below):
    sample = {"DIR": "/x", "SIZE": "100M", "HOW": "zstd-9", "WHERE": "remote", "TIME": "9s", "N[:HASH]": "12:0123abcd", "FILE": "/y",
              "LEVEL": "debug", "WHICH": "stock", "[HOST:]PORT": "9095"}
    below.answer = 0
    assert cli.main(["mount", URL, "/m"]) == 0
    default = below.asked[-1][2]
    for option in OPTIONS:
        for name in (option.name, *option.aliases):
            assert cli.main(["mount", f"--{name}", *([] if option.flag else [sample[option.metavar]]), URL, "/m"]) == 0
            assert getattr(below.asked[-1][2], option.field) != getattr(default, option.field), name
        if option.flag:
            assert cli.main(["mount", f"--{option.opposite}", URL, "/m"]) == 0
            assert getattr(below.asked[-1][2], option.field) in (False, "no")


@pytest.mark.parametrize(("error", "own", "by_mount", "by_fsck"), [
    (WrongPassphrase("wrong passphrase"), 10, 32, 8), (BucketMissing("list", "", "no b"), 12, 32, 8),
    (Denied("get", "k", "no"), 11, 32, 8),
    (Damaged("pack/aa/1-bb: damaged"), 19, 32, 12), (CacheUnusable("x"), 21, 32, 8), (AlreadyMounted("x"), 24, 32, 8),
    (NewerFormat("x"), 18, 32, 8),
    (KeyboardInterrupt(), 8, 8, 32), (ExceptionGroup("g", [ValueError("v"), WrongPassphrase("wrong passphrase")]), 10, 32, 8),
    (OSError(5, "Input/output error", "/cache/x"), 2, 2, 8), (ZeroDivisionError("HUNTER2"), 4, 4, 8),
])
def test_one_line_and_one_code(below: Below, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                               error: BaseException, own: int, by_mount: int, by_fsck: int):
    import tempfile
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    below.answer = error
    assert cli.main(["mount", URL, "/m"]) == own
    err = capsys.readouterr().err
    assert err.startswith("s3cfs: ") and err.count("\n") == 1 and "HUNTER2" not in err and "Traceback" not in err
    assert cli.mount_main([URL, "/m", "-o", "rw"]) == by_mount
    assert cli.main(["fsck", URL]) == by_fsck == cli.fsck_main([URL])
    if isinstance(error, ZeroDivisionError):
        file = Path(re.search(r"/\S+\.log", err)[0])                   # type: ignore[index]
        assert stat_module.S_IMODE(file.stat().st_mode) == 0o600 and "ZeroDivisionError" in file.read_text()


def test_debug_shows_the_traceback(below: Below, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("S3CFS_DEBUG", "1")
    below.answer = WrongPassphrase("wrong passphrase")
    assert cli.main(["mount", URL, "/m"]) == 10
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(("argv", "message"), [
    (["mound"], "no command 'mound'"), (["mount", URL], "MOUNTPOINT"), (["mount", "--passphrase=HUNTER2", URL, "/m"], "secrets never"),
    (["mount", "--bogus=HUNTER2", URL, "/m"], "unknown option --bogus "), (["mount", URL, "/m", "HUNTER2"], "1 argument"),
    (["stat", "--jso", "/m"], "unknown option --jso"),
    (["ctl", "flsh", "/m"], "flsh"), (["ctl", "log-level", "/m", "loud"], "loud"), (["debug", "dump", URL], "which object"),
    (["mkfs", "--label", "a\nb", URL], "--label"),
])
def test_wrong_calls(below: Below, capsys: pytest.CaptureFixture[str], argv: list[str], message: str):
    assert cli.main(argv) == 1
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1 and "HUNTER2" not in err and not below.asked


def test_mount_helper(below: Below, capsys: pytest.CaptureFixture[str]):
    below.answer = 0
    assert cli.mount_main([URL, "/m", "-sfnv", "-o", "rw,bogus"]) == 0 and not below.asked        # -f: nothing is mounted
    assert URL in capsys.readouterr().out
    assert cli.mount_main([URL, "/m", "-n", "-t", "s3cfs", "-o", "rw,_netdev,allow_other,noexec"]) == 0
    options = below.asked[-1][2]
    rights = ("suid", "dev") if os.geteuid() == 0 else ()           # what mount(8) means and does not say
    assert options.allow_other and options.fuse_options == (*rights, "noexec")
    assert cli.mount_main([URL, "/m", "-o", "rw,nosuid,nodev"]) == 0 and below.asked[-1][2].fuse_options == ("nosuid", "nodev")
    below.answer = int(ExitCode.NO_FILESYSTEM)
    assert cli.mount_main([URL, "/m"]) == 32
    assert cli.mount_main([URL, "/m", "-o", "bogus"]) == 1
    assert cli.mount_main([URL, "/m", "-N", "/nowhere/ns"]) == 2


def test_fsck_hands_on_and_answers(below: Below, capsys: pytest.CaptureFixture[str]):
    @dataclass
    class Problem:
        path: str
        offset: int

        def __str__(self) -> str:
            return f"{self.path}: damaged\nat {self.offset}"

    def answer(settings: Any, options: Any, report: Callable[[Any], None], told: Any) -> Any:
        report(Problem("/a", 7))
        return SimpleNamespace(counts={"damaged_chunks": 1}, exit_code=4)
    below.answer = answer
    assert cli.main(["fsck", "--full", "--repair", "--cachedir", "/c", URL]) == 4
    out, err = capsys.readouterr()
    assert out == "/a: damaged at 7\n" and err == "errors left uncorrected (1 damaged chunks)\n"
    options = below.asked[-1][1]
    assert (options.full, options.repair, options.cachedir, options.automatic) == (True, True, "/c", False)
    assert cli.fsck_main(["-a", "-f", "-C3", "-T", "--no-cache", "--json", URL]) == 4
    options = below.asked[-1][1]
    assert (options.full, options.repair, options.cachedir, options.automatic) == (True, True, None, True)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"problem": {"path": "/a", "offset": 7}}, {"counts": {"damaged_chunks": 1}, "exit_code": 4}]
    assert cli.fsck_main(["-Z", URL]) == 16 == cli.main(["fsck"]) == cli.main(["fsck", "nonsense"])


def test_ctl_and_umount(below: Below, capsys: pytest.CaptureFixture[str]):
    below.answer = {}
    for argv, op, args in ((["ctl", "flush", "/m"], "flush", {}), (["ctl", "drop-cache", "/m"], "drop-cache", {}),
                           (["ctl", "log-level", "/m", "debug"], "log-level", {"level": "debug"}),
                           (["ctl", "layer", "/m"], "layer", {"layer": None, "changes": {}}),
                           (["ctl", "layer", "/m", "lock", "a=1", "b=x=y", "c="], "layer",
                            {"layer": "lock", "changes": {"a": "1", "b": "x=y", "c": ""}}),
                           (["umount", "/m"], "wait", {})):
        assert cli.main(argv) == 0
        assert below.asked[-1][:3] == ("/m.sock", op, args)
    before = len(below.asked)
    assert cli.umount_main(["/m", "-l"]) == 0 and len(below.asked) == before        # detached already: there is nothing to ask for
    below.answer = KeyboardInterrupt()
    assert cli.main(["umount", "/m"]) == 8 == cli.umount_main(["/m"])
    assert "nothing is lost" in capsys.readouterr().err


def test_ctl_layer_shows_the_settings(below: Below, capsys: pytest.CaptureFixture[str]):
    below.answer = {"layers": {"lock": {"wait": "5", "mode": "strict"}, "shards": {}}}
    assert cli.main(["ctl", "layer", "/m"]) == 0
    assert capsys.readouterr().out == "lock: wait=5, mode=strict\nshards: no settings\n"
    assert cli.main(["ctl", "layer", "--json", "/m", "lock", "wait=5"]) == 0
    assert json.loads(capsys.readouterr().out) == below.answer
    below.answer = {"layers": {}}
    assert cli.main(["ctl", "layer", "/m"]) == 0
    assert capsys.readouterr().out == "no layer of this store has settings\n"
    asked = len(below.asked)
    for change in ("wait", "=5", ""):
        assert cli.main(["ctl", "layer", "/m", "lock", change]) == ExitCode.USAGE
        assert "SETTING=VALUE" in capsys.readouterr().err
    assert len(below.asked) == asked


def test_nothing_mounted(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    for argv in (["stat"], ["umount"], ["umount", "--lazy"], ["ctl", "flush"]):
        assert cli.main([*argv, str(tmp_path)]) == ExitCode.NOT_A_MOUNT
        err = capsys.readouterr().err
        assert str(tmp_path) in err and err.count("\n") == 1


def stat_sample() -> dict[str, Any]:
    """The example of docs/stat.md."""
    text = (ROOT / "docs" / "stat.md").read_text()
    found: dict[str, Any] = json.loads(re.search(r"```json\n(.*?)```", text, re.DOTALL)[1])     # type: ignore[index]
    return found


def test_stat(below: Below, capsys: pytest.CaptureFixture[str]):
    below.answer = stat_sample()
    assert cli.main(["stat", "--json", "/m"]) == 0
    assert json.loads(capsys.readouterr().out) == below.answer
    assert cli.main(["stat", "/m"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    for text in (URL.split(":")[0], "1.84 times smaller", "3.1 s", "4.00 MiB not yet in the store", "118 put", "process 4711",
                 "38 get, 112 put"):
        assert text in out, out
    below.answer = {"schema": 1, "state": "waiting", "message": "no room", "mountpoint": "/m\nn", "warnings": ["slow"],
                    "store": {"last_error": "the disk\x1b of the store is full"},
                    "damage": {"last": [{"path": "/a\x1bb", "start": 0, "end": 10, "pack": "1-aa", "what": "missing"}]}}
    assert cli.main(["stat", "/m"]) == 0
    out = capsys.readouterr().out
    for text in ("waiting: no room", "the disk  of the store is full", "/a b bytes 0-9", "slow", "/m n,"):
        assert text in out, out
    below.answer = {"schema": 1}                                     # a process of another version tells less: still no crash
    assert cli.main(["stat", "/m"]) == 0


def test_dump(below: Below, capsys: pytest.CaptureFixture[str]):
    below.answer = {"kind": "pack", "entries": [{"id": b"\x01\x02", "name": "a\x1b[2Jb"}], "empty": []}
    assert cli.main(["debug", "dump", "s3c://h/bucket/log/x/super/1"]) == 0
    settings, key, rows = below.asked[-1]
    assert (settings.url, key, rows) == ("s3c://h/bucket/log/x", "super/1", {"rows": False})
    out = capsys.readouterr().out
    assert "id: 0102" in out and "\x1b" not in out
    assert cli.main(["debug", "dump", "--json", "--rows", URL, "pack/aa/1-bb"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "pack" and below.asked[-1][1:] == ("pack/aa/1-bb", {"rows": True})


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_help_of_every_command(name: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["help", name]) == 0
    text = capsys.readouterr().out
    assert cli.main([name, "--help"]) == 0
    assert capsys.readouterr().out == text and text.startswith(f"usage: s3cfs {name}")
    if name not in ("help", "version"):
        assert "examples:" in text and "exit codes" in text


def test_help_names_every_option_with_its_default(capsys: pytest.CaptureFixture[str]):
    cli.main(["help", "mount"])
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    for option in OPTIONS:
        assert f"--{option.name} " in text and option.help in text and (option.flag or f"(default: {option.shown})" in text)


class Screen:
    def __init__(self, terminal: bool) -> None:
        self.terminal, self.text = terminal, ""

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...


def run_progress(**options: Any) -> Screen:
    now = [0.0]
    screen = Screen(options.pop("terminal", False))
    shown = progress.Progress(stream=screen, clock=lambda: now[0], **options)           # type: ignore[arg-type]
    with shown:
        for _ in range(65):
            shown({"done": now[0] * 1024**2, "total": 100 * 1024**2, "unit": "bytes", "text": "upload"})
            now[0] += 1
    return screen


def test_progress_in_plain_lines_every_30_seconds():
    assert run_progress().text.splitlines() == [
        "upload: 30.0 MiB of 100 MiB, 30 %, 1.00 MiB/s, 1 min 10 s left", "upload: 60.0 MiB of 100 MiB, 60 %, 1.00 MiB/s, 40 s left"]


def test_progress_on_a_terminal_and_not():
    text = run_progress(terminal=True).text
    assert "\n" not in text and text.count("\r") > 50 and text.endswith(" \r")
    assert run_progress(quiet=True).text == ""
    lines: list[Mapping[str, Any]] = [json.loads(line) for line in run_progress(as_json=True, terminal=True).text.splitlines()]
    assert [line["progress"]["done"] for line in lines] == [30 * 1024**2, 60 * 1024**2]


def test_colours(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdout", Screen(True))
    monkeypatch.setenv("TERM", "xterm")
    assert Style.of_stdout().on
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Style.of_stdout().on


def test_exit_codes_are_documented_and_unique():
    text = (ROOT / "docs" / "exit-codes.md").read_text()
    rows = {int(code): meaning for code, meaning in re.findall(r"^\| (\d+) \| `\w+` \| (.*?) \|$", text, re.MULTILINE)}
    assert rows == {int(code): exitcodes.MEANING[code] for code in ExitCode}
    assert len(set(ExitCode)) == len(ExitCode.__members__)


def test_every_option_is_documented():
    text = (ROOT / "docs" / "configuration.md").read_text()
    for option in OPTIONS:
        assert f"| `{option.name}` | `{option.variable}` |" in text, option.name


def test_a_real_process(tmp_path: Path):
    """No traceback, no secret in the message, quiet when the reader has gone; and starting is cheap."""
    def run(*argv: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*S3CFS, *argv], cwd=ROOT, capture_output=True, text=True, check=False, **more)
    done = run("mount", "s3c://joe:HUNTER2@host/bucket", "/m")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "HUNTER2" not in done.stderr and not done.stdout
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
            done = subprocess.run([*S3CFS, "version"], cwd=ROOT, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == "" and done.returncode == ExitCode.SYSTEM
    done = subprocess.run([sys.executable, "-X", "importtime", *S3CFS[1:], "version"], cwd=ROOT, capture_output=True, text=True,
                          check=True)
    assert "s3cfs 0." in done.stdout
    assert not re.search(r"\| +(trio|boto3|botocore|pyfuse3|apsw)$", done.stderr, re.MULTILINE)


def test_an_error_without_text_still_says_something(below: Below, capsys: pytest.CaptureFixture[str]):
    below.answer = S3cfsError()
    assert cli.main(["mount", URL, "/m"]) == 4
    assert capsys.readouterr().err == "s3cfs: S3cfsError\n"
