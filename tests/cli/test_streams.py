"""stdin, stdout and stderr that are closed, full or read by nobody, prompts that end, interrupts: real processes."""
from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from s3cfs.errors import ExitCode
from s3cfs.formats import chunker

ROOT = Path(__file__).parent.parent.parent
S3CFS = [sys.executable, "-m", "s3cfs"]
WITHIN_S = 30.0


def closing(*numbers: int) -> Callable[[], None]:
    def close() -> None:
        for number in numbers:
            os.close(number)
    return close


def run(*argv: str, **how: Any) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "S3CFS_PASSPHRASE": "HUNTER2", **how.pop("env", {})}
    return subprocess.run([*S3CFS, *argv], cwd=ROOT, text=True, check=False, timeout=WITHIN_S, env=env,
                          **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how})


@contextlib.contextmanager
def nobody_reads() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        yield writer
    finally:
        os.close(writer)


@pytest.mark.parametrize("argv", [["version"], ["help"], ["mount", "--help"]])
def test_output_that_cannot_be_written(argv: list[str]):
    done = run(*argv, preexec_fn=closing(1))
    assert (done.returncode, done.stderr) == (ExitCode.SYSTEM, "s3cfs: cannot write to stdout: Bad file descriptor\n")
    with open("/dev/full", "w") as full:
        done = run(*argv, stdout=full)
    assert (done.returncode, done.stderr) == (ExitCode.SYSTEM, "s3cfs: cannot write to stdout: No space left on device\n")
    with nobody_reads() as gone:
        done = run(*argv, stdout=gone)
    assert (done.returncode, done.stderr) == (ExitCode.SYSTEM, "")


def test_without_stderr_the_exit_code_is_what_is_left():
    for closed in ((2,), (0, 2), (0, 1, 2)):
        done = run("nonsense", preexec_fn=closing(*closed))
        assert (done.returncode, done.stdout) == (ExitCode.USAGE, ""), closed
    with open("/dev/full", "w") as full:
        assert run("nonsense", stderr=full).returncode == ExitCode.USAGE


def objects(store: Path) -> list[str]:
    return [str(path.relative_to(store)) for path in store.rglob("*") if path.is_file() and path.name != "probe"]


def test_no_filesystem_whose_recovery_key_nobody_has_seen(tmp_path: Path):
    url = f"local://{tmp_path}"
    with open("/dev/full", "w") as full, nobody_reads() as gone:
        for option, how in (("-q", {"stdout": full}), ("--json", {"stdout": gone}), ("--label=x", {"preexec_fn": closing(1)})):
            done = run("mkfs", option, url, **how)
            assert done.returncode == ExitCode.SYSTEM and "Traceback" not in done.stderr and "made" not in done.stderr
            assert objects(tmp_path) == []
    done = run("mkfs", url)
    assert done.returncode == 0 and done.stdout.count("-") == 8 and sorted(objects(tmp_path)) == ["super/1", "super/1.2"]


def test_a_store_that_refuses_after_the_key_was_shown_leaves_nothing(tmp_path: Path):
    (tmp_path / "super").touch()                   # a file where a folder must be
    done = run("mkfs", f"local://{tmp_path}")
    assert done.returncode not in (0, ExitCode.INTERNAL) and done.stderr.count("s3cfs: ") == 1 and objects(tmp_path) == ["super"]


def minds_interrupts() -> None:
    """In a child: whoever runs these tests may ignore SIGINT, as a shell's background job does, and a child would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def on_a_terminal(argv: list[str], typed: list[bytes]) -> tuple[int, str]:
    """The command on a terminal of its own; each of `typed` is written when a prompt is there. Exit code and what was shown."""
    child, terminal = pty.fork()
    if child == 0:
        try:
            os.environ.pop("S3CFS_PASSPHRASE", None)
            minds_interrupts()
            os.chdir(ROOT)
            os.execv(sys.executable, [*S3CFS, *argv])
        finally:
            os._exit(99)
    shown = b""
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            data = os.read(terminal, 4096)
        except OSError:                            # EIO: the other end is closed
            break
        shown += data
        if typed and shown.endswith((b"phrase: ", b"again: ")):
            os.write(terminal, typed.pop(0))
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode(errors="replace")


@pytest.mark.parametrize(("typed", "code", "says"), [
    ([b"\x04"], ExitCode.CONFIG, "no passphrase was given"), ([b"\n"], ExitCode.CONFIG, "no passphrase was given"),
    ([b"a\n", b"\x04"], ExitCode.CONFIG, "no passphrase was given"), ([b"a\n", b"b\n"], ExitCode.CONFIG, "differ"),
    ([b"a\xff\n"], ExitCode.CONFIG, "not UTF-8"), ([b"\x03"], ExitCode.INTERRUPTED, "interrupted"),
    ([b"a\n", b"\x03"], ExitCode.INTERRUPTED, "interrupted"),
])
def test_prompts_that_are_not_answered(tmp_path: Path, typed: list[bytes], code: ExitCode, says: str):
    found, shown = on_a_terminal(["mkfs", f"local://{tmp_path}"], typed)
    assert found == code and shown.splitlines()[-1].startswith("s3cfs: ") and says in shown.splitlines()[-1], shown
    assert "Traceback" not in shown and "internal" not in shown and not objects(tmp_path)


INTERRUPTED_AT_IMPORT = """
import builtins, os, signal, sys
left, real = int(sys.argv.pop(1)), builtins.__import__
def counting(name, globals=None, locals=None, fromlist=(), level=0):
    global left
    if level == 0 and name != "_signal" and (left := left - 1) == 0:
        os.kill(os.getpid(), signal.SIGINT)
    return real(name, globals, locals, fromlist, level)
from s3cfs.__main__ import main
builtins.__import__ = counting
sys.exit(main())
"""


@pytest.mark.parametrize(("argv", "code"), [(["version"], 8), (["fsck", "local:///nowhere"], 32)])
def test_an_interrupt_while_modules_are_imported(argv: list[str], code: int):
    """The first one, somewhere in logging and argparse, inside a command's own."""
    for number in (1, 2, 5, 20, 60):
        done = subprocess.run([sys.executable, "-c", INTERRUPTED_AT_IMPORT, str(number), *argv], cwd=ROOT, text=True, capture_output=True,
                              check=False, timeout=WITHIN_S, preexec_fn=minds_interrupts)
        assert (done.returncode, done.stderr) == (code, "s3cfs: interrupted\n"), (number, done.stderr)


def test_what_the_caller_left_open_is_closed():
    code = ("import os, sys; from s3cfs.cli import streams; streams.note_inherited(); mine = os.open('/dev/null', 0);"
            "os.close(int(sys.argv[2])); again = os.open('/dev/zero', 0); streams.close_inherited(); print(os.path.exists('/proc/self/fd/' "
            "+ sys.argv[1]), os.fstat(mine) is not None, os.fstat(again) is not None)")
    one, two = os.pipe()
    done = subprocess.run([sys.executable, "-c", code, str(one), str(two)], cwd=ROOT, text=True, capture_output=True, check=True,
                          pass_fds=(one, two))
    os.close(one)
    os.close(two)
    assert done.stdout == "False True True\n"


def test_a_chunker_without_its_compiled_part_is_told(tmp_path: Path):
    assert chunker.SLOW == ""
    package = Path(str(sys.modules["pyfastcdc"].__file__)).parent
    slow = tmp_path / "slow" / "pyfastcdc"
    slow.mkdir(parents=True)
    for name in [path.name for path in package.iterdir() if path.name not in ("cy", "__pycache__")]:
        (slow / name).symlink_to(package / name)
    env = {"PYTHONPATH": str(slow.parent)}
    done = run("version", env=env)
    assert done.returncode == 0 and done.stderr.count("\n") == 1 and "compiled part" in done.stderr
    assert "compiled part" in run("version", "--json", env=env).stdout
    (tmp_path / "store").mkdir()
    done = run("mkfs", f"local://{tmp_path}/store", env=env)
    assert done.returncode == 0 and "compiled part" in done.stderr
