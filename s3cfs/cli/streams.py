"""stdin, stdout and stderr as a command may find them: closed, full, without a reader, in a locale that lacks the letters.

What is lost of stdout is an error with a line of its own: an output that ends in the middle must not pass for a whole one. What is
lost of stderr is not: there is nobody to tell.
"""
from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import Any

from s3cfs.errors import SystemFailure

_inherited: dict[int, os.stat_result] = {}


class OutputLost(SystemFailure):
    """stdout does not take what a command prints."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write to stdout: {error.strerror}")
        self.nobody_reads = error.errno == errno.EPIPE


class _Stdout(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputLost(error) from None


def open_all() -> None:
    """Give descriptors 0 to 2 something to stand on, so that no other file gets their numbers, and make stdout say what it lost."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # stdout is opened for reading: each write to it fails
            os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)
    before = sys.stdout
    if before is sys.__stdout__:                                   # not a test's, and not done already
        made = io.TextIOWrapper(io.BufferedWriter(_Stdout(1, "w", closefd=False)), encoding=before.encoding if before else "utf-8",
                                errors="backslashreplace")
        made.reconfigure(line_buffering=made.isatty())
        sys.stdout = made


def note_inherited() -> None:
    """At the start of a process: which descriptors it got from its caller, besides 0 to 2."""
    with contextlib.suppress(OSError):
        for number in map(int, os.listdir("/proc/self/fd")):
            with contextlib.suppress(OSError):                    # the one that listed them
                _inherited[number] = os.fstat(number)


def close_inherited() -> None:
    """What the caller left open is not a daemon's: a shell's lock, the end of a pipe on whose other end somebody waits."""
    for number, noted in _inherited.items():
        with contextlib.suppress(OSError):
            if number > 2 and os.path.samestat(os.fstat(number), noted):      # --passphrase-fd is closed already
                os.close(number)
    _inherited.clear()


def keep_stdout() -> None:
    """What was printed is where it was to go, on the disk if it is a file; OutputLost else."""
    sys.stdout.flush()
    try:
        os.fsync(sys.stdout.fileno())
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise OutputLost(error) from None                     # all others: a pipe, a terminal, a test's


def drop_stdout() -> None:
    """Keep the interpreter from failing again when it flushes at exit."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
