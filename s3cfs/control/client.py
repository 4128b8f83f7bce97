"""A command's end of the control socket."""
from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from s3cfs.errors import ExitCode

from .protocol import ANSWER_MAX_BYTES, ControlError, DaemonGone, NoAnswer, short_address

CONNECT_TIMEOUT_S = 10.0


def call(path: str, op: str, args: Mapping[str, Any] | None = None, on_progress: Callable[[Any], None] | None = None, *,
         timeout_s: float | None = None) -> Any:
    """Ask the daemon and wait for the result. ControlError with its exit code, DaemonGone when nobody is there.

    `timeout_s` bounds the silence before the answer, or between two lines of it, not the whole; NoAnswer then.
    """
    with asked(path, op, args) as answer:
        return answer(on_progress, timeout_s)


@contextlib.contextmanager
def asked(path: str, op: str, args: Mapping[str, Any] | None = None) -> Iterator[Callable[..., Any]]:
    """As `call`, in two steps: inside, the request is with the daemon; the function waits for its result (on_progress, timeout_s).

    So an answer is not missed that the daemon gives while something else is done: it may end right after.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.settimeout(CONNECT_TIMEOUT_S)
        try:
            with short_address(path) as address:
                door.connect(address)
            door.sendall(json.dumps({"op": op, "args": dict(args or {})}).encode() + b"\n")
        except PermissionError:
            raise ControlError("only root and the owner of the mount may do that", ExitCode.ACCESS_DENIED) from None
        except TimeoutError:                                  # as many wait already as may
            raise _no_answer(door, CONNECT_TIMEOUT_S) from None
        except OSError:
            raise DaemonGone("the daemon of this mount does not run any more (umount --lazy clears the mount point)") from None

        def answer(on_progress: Callable[[Any], None] | None = None, timeout_s: float | None = None) -> Any:
            door.settimeout(timeout_s)
            try:
                return _answer(door, on_progress)
            except TimeoutError:
                raise _no_answer(door, timeout_s or 0) from None
            except (OSError, ValueError) as error:
                raise DaemonGone(f"the daemon's answer broke off: {error}") from None

        yield answer


def _answer(door: socket.socket, on_progress: Callable[[Any], None] | None) -> Any:
    with door.makefile("rb") as lines:
        while line := lines.readline(ANSWER_MAX_BYTES):
            answer = json.loads(line)
            if "error" in answer:
                raise ControlError(str(answer["error"]), int(answer.get("code", ExitCode.INTERNAL)))
            if "result" in answer:
                return answer["result"]
            if on_progress is not None:
                on_progress(answer.get("progress"))
    raise DaemonGone("the daemon ended in the middle of its answer")


def _no_answer(door: socket.socket, waited_s: float) -> NoAnswer:
    pid = struct.unpack("3i", door.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    return NoAnswer(f"process {pid or '?'} behind this mount has not answered for {waited_s:g} s: it is stopped (kill -CONT) or overloaded")
