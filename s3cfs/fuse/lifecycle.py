"""The daemon's life: going to the background, telling the service manager, signals, and a look at what every task does.

Nothing here knows what the daemon does; `session.serve` is the part in between.
"""
from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import trio

from s3cfs.errors import ExitCode, S3cfsError

log = logging.getLogger(__name__)

REPORT_LINE_MAX_BYTES = 64 * 1024
STACK_FRAMES_MAX = 60


# ---------------------------------------------------------------- the service manager

def sd_notify(**fields: str | int) -> bool:
    """Tell systemd: sd_notify(READY=1, STATUS="mounted"). False when nobody wants to know."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    message = "\n".join(f"{name}={str(value).replace(chr(10), ' ')}" for name, value in fields.items()).encode(errors="replace")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
            door.sendto(message, "\0" + address[1:] if address[0] == "@" else address)
    except OSError as error:
        log.debug("service manager not reached: %s", error)
        return False
    return True


def extend_timeout(seconds: float, status: str = "") -> bool:
    """Ask systemd for more time while a long start or stop goes on; to be repeated before it is over."""
    fields: dict[str, str | int] = {"EXTEND_TIMEOUT_USEC": int(seconds * 1_000_000)}
    if status:
        fields["STATUS"] = status
    return sd_notify(**fields)


# ---------------------------------------------------------------- the background

def only_cause(error: BaseException) -> BaseException:
    """The one exception in the groups that nurseries put around it; a group of several stays as it is."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


class Report:
    """The daemon's line to the command that started it. In the foreground there is nobody, and all of it does nothing."""

    def __init__(self, fd: int | None = None, before_detaching: Callable[[], None] = lambda: None) -> None:
        self._fd = fd
        self._before_detaching = before_detaching

    @property
    def heard(self) -> bool:
        """Whether a command still waits."""
        return self._fd is not None

    def progress(self, text: str) -> None:
        """Something worth showing while the command still waits."""
        self._send({"progress": text})

    def mounted(self, **about: Any) -> None:
        """The command ends with 0, and the daemon lets go of its terminal. Only the first call does something."""
        if self._fd is not None:
            self._before_detaching()
            self._send({"mounted": about})
            self._close()

    def error(self, text: str, code: int) -> None:
        """The command prints this line and ends with this code."""
        self._send({"error": text, "code": code})
        self._close()

    def _send(self, message: dict[str, Any]) -> None:
        if self._fd is not None:
            with contextlib.suppress(BrokenPipeError):       # the command was killed: the daemon goes on
                _write_all(self._fd, json.dumps(message).encode() + b"\n")

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class DaemonFailed(S3cfsError):
    """The daemon ended before it had mounted. Text and exit code are its own."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.exit_code = ExitCode(code) if code in ExitCode._value2member_map_ else ExitCode.INTERNAL


def daemonise(run: Callable[[Report], None], *, foreground: bool = False, log_path: Path | None = None,
              on_progress: Callable[[str], None] = lambda text: None) -> None:
    """Call `run(report)` in a daemon and return when it has called report.mounted(); DaemonFailed when it ended before.

    Nothing that does not survive a fork may exist yet: no threads, no trio, no open SQLite database, no connections.
    Until mounted() the daemon has the terminal's stderr; afterwards stdout and stderr go to `log_path`, or nowhere.
    In the foreground `run` is called here, with its errors as they are, and this returns when it does.
    """
    if foreground:
        _run(run, Report())
        return
    reader, writer = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _be_daemon(run, Report(writer, lambda: detach_output(log_path)), log_path)
    os.close(writer)
    try:
        if _listen_to(reader, child, on_progress):
            return
    except KeyboardInterrupt:                    # the child has a session of its own and hears nothing of a ^C
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        raise
    _, status = os.waitpid(child, 0)
    how = f"was killed by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"ended with {os.waitstatus_to_exitcode(status)}"
    where = f", see {log_path}" if log_path else ""
    raise DaemonFailed(f"the daemon {how} before it had mounted{where}", ExitCode.INTERNAL)


def _listen_to(reader: int, child: int, on_progress: Callable[[str], None]) -> bool:
    """Whether it has mounted; False when it ended without a word."""
    with open(reader, "rb") as lines:
        while line := lines.readline(REPORT_LINE_MAX_BYTES):
            try:
                message = json.loads(line)
            except ValueError:
                break
            if "mounted" in message:
                return True
            if "error" in message:
                os.waitpid(child, 0)
                raise DaemonFailed(message["error"], message["code"])
            on_progress(message["progress"])
    return False


def _run(run: Callable[[Report], None], report: Report) -> None:
    try:
        run(report)
    except BaseExceptionGroup as group:
        raise only_cause(group) from None


def _be_daemon(run: Callable[[Report], None], report: Report, log_path: Path | None) -> NoReturn:
    """The child's whole life: nothing of the caller's stack is ever returned to."""
    code = int(ExitCode.INTERNAL)
    try:
        os.setsid()
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.close(null)
        _run(run, report)
        code = int(ExitCode.OK)
        report.error("the daemon ended before it had mounted", int(ExitCode.INTERNAL))
    except S3cfsError as error:
        code = int(error.exit_code)
        log.log(logging.DEBUG if report.heard else logging.ERROR, "%s", error)     # said once: by the command, or here
        report.error(str(error), code)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(ExitCode.INTERNAL)
    except KeyboardInterrupt:
        code = int(ExitCode.INTERRUPTED)
        report.error("interrupted", code)
    except BaseException as error:
        log.exception("the daemon ends with an error nobody expected")
        where = f", see {log_path}" if log_path else ""
        report.error(f"internal error: {type(error).__name__}{where}", code)
    finally:
        with contextlib.suppress(Exception):
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def detach_output(log_path: Path | None) -> None:
    """stdout and stderr to the log, or nowhere; also used to reopen a rotated log."""
    sys.stdout.flush()
    sys.stderr.flush()
    target = os.open(log_path or os.devnull, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(fd, data):]
        except BlockingIOError:
            select.select([], [fd], [])


# ---------------------------------------------------------------- signals

async def watch_signals(*, leave: Callable[[], None], reload: Callable[[], None]) -> None:
    """Until cancelled. SIGTERM and SIGINT: `leave` (again and again, if they come again); SIGHUP: `reload`;
    SIGUSR1: what every task and thread does, into the log. To run from before the mount until after the last upload.
    """
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1) as signals:
        async for number in signals:
            log.info("signal=%s", signal.Signals(number).name)
            try:
                if number == signal.SIGUSR1:
                    log.warning("all tasks and threads:\n%s", "\n".join(dump_tasks()))
                elif number == signal.SIGHUP:
                    reload()
                else:
                    leave()
            except Exception:
                log.exception("signal=%s failed", signal.Signals(number).name)


def reopen_logs() -> None:
    """After a rotation: every handler that writes to a named file opens it again at its next line."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.acquire()
            try:
                if handler.stream:
                    handler.stream.close()
                handler.stream = handler._open()
            finally:
                handler.release()


def dump_tasks() -> list[str]:
    """Lines that show the stack of every trio task and of every thread."""
    lines: list[str] = []
    root = trio.lowlevel.current_root_task()
    pending = [(root, 0)] if root else []
    while pending:
        task, depth = pending.pop()
        indent = "  " * depth
        lines.append(f"{indent}task {task.name}")
        summary = traceback.StackSummary.extract(task.iter_await_frames(), limit=STACK_FRAMES_MAX, lookup_lines=True)
        lines += [f"{indent}  {frame.filename}:{frame.lineno} {frame.name}: {frame.line}" for frame in summary]
        pending += [(child, depth + 1) for nursery in task.child_nurseries for child in nursery.child_tasks]
    for ident, frame_now in sys._current_frames().items():
        lines.append(f"thread {ident}")
        lines += [f"  {frame.filename}:{frame.lineno} {frame.name}: {frame.line}"
                  for frame in traceback.extract_stack(frame_now, limit=STACK_FRAMES_MAX)]
    return lines
