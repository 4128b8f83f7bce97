"""What both ends agree on: bounds, addresses, and how an error looks to whoever asked."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from s3cfs.errors import ExitCode, S3cfsError

REQUEST_MAX_BYTES = 64 * 1024
ANSWER_MAX_BYTES = 4 * 1024 * 1024
SOCKET_PATH_MAX_BYTES = 100      # of the 108 of sockaddr_un


class ControlError(S3cfsError):
    """The daemon's answer was an error: its text, and its exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.exit_code = ExitCode(code) if code in ExitCode._value2member_map_ else ExitCode.INTERNAL


class DaemonGone(S3cfsError):
    """There is no daemon at that socket, or it went away in the middle of an answer."""

    exit_code = ExitCode.NOT_A_MOUNT


class NoAnswer(S3cfsError):
    """The daemon is there and says nothing: stopped, or much too busy."""

    exit_code = ExitCode.NO_ANSWER


@contextlib.contextmanager
def short_address(path: str) -> Iterator[str]:
    """`path` as an address: a long one by way of a descriptor of its folder."""
    if len(os.fsencode(path)) <= SOCKET_PATH_MAX_BYTES:
        yield path
        return
    folder, name = os.path.split(path)
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)
