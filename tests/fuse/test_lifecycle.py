"""To the background and back: what the starting command is told, signals, and what survives an orderly end."""
from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from s3cfs import control
from s3cfs.errors import ConfigError, ExitCode
from s3cfs.fuse import lifecycle
from s3cfs.fuse.mounttable import entry_at
from tests.fuse.conftest import REPOSITORY, Mount, until


def daemonise(tmp_path: Path, what: str) -> subprocess.CompletedProcess[str]:
    """A command that daemonises; `what` is the daemon's body."""
    script = f"""
import logging, os, signal, sys, trio
from pathlib import Path
from s3cfs import errors
from s3cfs.fuse import lifecycle
logging.basicConfig(filename={str(tmp_path / "log")!r})
def run(report):
    {what}
try:
    lifecycle.daemonise(run, log_path=Path({str(tmp_path / "log")!r}), on_progress=lambda text: print("...", text))
except errors.S3cfsError as error:
    print(error)
    sys.exit(int(error.exit_code))
"""
    return subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=20)


def test_the_command_ends_when_mounted_and_the_daemon_lives_on(tmp_path: Path) -> None:
    base = tmp_path / "base"
    (base / "mnt").mkdir(parents=True)
    command = [sys.executable, "-m", "tests.fuse.memmount", str(base / "mnt"), str(base / "socket"), "--log", str(base / "log")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid = control.call(str(base / "socket"), "about")["pid"]
    (base / "mnt" / "f").write_text("answers")
    assert os.getsid(pid) == pid and os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.readlink(f"/proc/{pid}/fd/0") == os.devnull
    assert os.readlink(f"/proc/{pid}/fd/1") == os.readlink(f"/proc/{pid}/fd/2") == str(base / "log")
    again = subprocess.run([*command[:-3], str(base / "socket2")], cwd=REPOSITORY, capture_output=True, text=True, timeout=20)
    assert again.returncode == ExitCode.MOUNTPOINT and "mounted there already" in again.stderr.splitlines()[-1]
    os.kill(pid, signal.SIGTERM)
    until(lambda: not Path("/proc", str(pid)).exists(), "the daemon ends")
    assert entry_at(str(base / "mnt")) is None


@pytest.mark.parametrize("what, code, text", [
    ("raise errors.ConfigError('bad option')", ExitCode.CONFIG, "bad option\n"),
    ("report.progress('half'); raise errors.ConfigError('bad')", ExitCode.CONFIG, "... half\nbad\n"),
    ("raise BaseExceptionGroup('x', [BaseExceptionGroup('y', [errors.ConfigError('deep')])])", ExitCode.CONFIG, "deep\n"),
    ("1 / 0", ExitCode.INTERNAL, "internal error: ZeroDivisionError, see LOG\n"),
    ("os.kill(os.getpid(), signal.SIGKILL)", ExitCode.INTERNAL, "the daemon was killed by signal 9 before it had mounted, see LOG\n"),
    ("pass", ExitCode.INTERNAL, "the daemon ended before it had mounted\n"),
    ("sys.exit(7)", ExitCode.INTERNAL, "the daemon ended with 7 before it had mounted, see LOG\n"),
    ("report.mounted(); report.mounted(); 1 / 0", ExitCode.OK, ""),
])
def test_one_line_and_the_exit_code_of_the_daemon(tmp_path: Path, what: str, code: int, text: str) -> None:
    done = daemonise(tmp_path, what)
    assert (done.returncode, done.stdout, done.stderr) == (code, text.replace("LOG", str(tmp_path / "log")), "")
    if "1 / 0" in what:
        until(lambda: "ZeroDivisionError" in (tmp_path / "log").read_text(), "the traceback is in the log")


def test_in_the_foreground_errors_are_what_they_are() -> None:
    def run(report: lifecycle.Report) -> None:
        report.mounted()
        raise BaseExceptionGroup("nursery", [ConfigError("x")])

    with pytest.raises(ConfigError):
        lifecycle.daemonise(run, foreground=True)


def test_the_service_manager_is_told(mount: Mount, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(15)
        daemon = mount(env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert manager.recv(1000) == b"READY=1\nSTATUS=mounted"
        daemon.process.send_signal(signal.SIGTERM)
        assert manager.recv(1000) == b"STOPPING=1"
    assert daemon.wait() == 0


def test_service_manager_absent_or_abstract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not lifecycle.sd_notify(READY=1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0s3cfs-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@s3cfs-test-{os.getpid()}")
        assert lifecycle.extend_timeout(30, "uploading\nmuch")
        assert manager.recv(1000) == b"EXTEND_TIMEOUT_USEC=30000000\nSTATUS=uploading much"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_the_kernel_holds_back_is_handed_over(mount: Mount, number: signal.Signals) -> None:
    """What was written to a file that stays open is with the daemon before the mount lets go of its users."""
    daemon = mount()
    with open(daemon.path / "g", "wb", buffering=0) as still_open:
        for _ in range(100):
            still_open.write(b"x" * 4096)
        daemon.process.send_signal(number)
        until(lambda: not daemon.mounted(), "unmounted though in use")
        until(lambda: daemon.asked("write"), "handed over while the file is still open")
        assert daemon.process.poll() is None
    assert daemon.wait() == 0                                           # as soon as nobody uses it
    assert "served" in daemon.log.read_text()


def test_umount_by_the_kernel_hands_everything_over(mount: Mount) -> None:
    daemon = mount()
    (daemon.path / "f").write_bytes(b"x" * 1_000_000)
    subprocess.run(["umount", daemon.path] if os.geteuid() == 0 else ["fusermount3", "-u", daemon.path], check=True)
    assert daemon.wait() == 0 and "Traceback" not in daemon.log.read_text()


def test_a_waiting_handler_does_not_make_it_unkillable(mount: Mount) -> None:
    daemon = mount(writeback=False)
    daemon.ask("slow", on=True)
    stuck = subprocess.Popen([sys.executable, "-c", f"import os; os.fsync(os.open({str(daemon.path / 'f')!r}, os.O_CREAT | os.O_WRONLY))"],
                             stderr=subprocess.DEVNULL)
    until(lambda: daemon.asked("fsync"), "fsync waits in its handler")
    daemon.process.send_signal(signal.SIGTERM)
    until(lambda: "leaving" in daemon.log.read_text(), "the first signal is seen")
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.wait() == 0 and not daemon.mounted()
    assert stuck.wait(15) != 0


def test_killed_while_a_request_waits(mount: Mount) -> None:
    daemon = mount(writeback=False)
    daemon.ask("slow", on=True)
    stuck = subprocess.Popen([sys.executable, "-c", f"import os; os.fsync(os.open({str(daemon.path / 'f')!r}, os.O_CREAT | os.O_WRONLY))"],
                             stderr=subprocess.DEVNULL)
    until(lambda: daemon.asked("fsync"), "fsync waits in its handler")
    daemon.process.kill()
    assert daemon.wait() == -signal.SIGKILL
    assert stuck.wait(15) != 0


def test_all_tasks_are_dumped(mount: Mount) -> None:
    daemon = mount()
    daemon.process.send_signal(signal.SIGUSR1)
    until(lambda: "thread " in daemon.log.read_text(), "the dump")
    log = daemon.log.read_text()
    assert "watch_signals" in log and "task pyfuse-" in log and "session.py" in log
    (daemon.path / "still").touch()


def test_a_rotated_log_is_opened_again(mount: Mount) -> None:
    daemon = mount()
    daemon.log.rename(daemon.log.with_suffix(".1"))
    daemon.process.send_signal(signal.SIGHUP)
    until(daemon.log.exists, "a new log")
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.wait() == 0 and "leaving" in daemon.log.read_text()
