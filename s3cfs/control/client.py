"""A command's end of the control socket."""
from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from typing import Any

from s3cfs.errors import ExitCode

from .protocol import ANSWER_MAX_BYTES, ControlError, DaemonGone, short_address

CONNECT_TIMEOUT_S = 10.0


def call(path: str, op: str, args: Mapping[str, Any] | None = None, on_progress: Callable[[Any], None] | None = None, *,
         timeout_s: float | None = None) -> Any:
    """Ask the daemon and wait for the result. ControlError with its exit code, DaemonGone when nobody is there.

    `timeout_s` bounds the silence between two lines of the answer, not the whole.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.settimeout(CONNECT_TIMEOUT_S)
        try:
            with short_address(path) as address:
                door.connect(address)
        except PermissionError:
            raise ControlError("only root and the owner of the mount may do that", ExitCode.ACCESS_DENIED) from None
        except OSError:
            raise DaemonGone("the daemon of this mount does not run any more (umount --lazy clears the mount point)") from None
        door.settimeout(timeout_s)
        try:
            door.sendall(json.dumps({"op": op, "args": dict(args or {})}).encode() + b"\n")
            with door.makefile("rb") as answers:
                while line := answers.readline(ANSWER_MAX_BYTES):
                    answer = json.loads(line)
                    if "error" in answer:
                        raise ControlError(str(answer["error"]), int(answer.get("code", ExitCode.INTERNAL)))
                    if "result" in answer:
                        return answer["result"]
                    if on_progress is not None:
                        on_progress(answer.get("progress"))
        except TimeoutError:
            raise DaemonGone(f"the daemon did not answer within {timeout_s:g} s") from None
        except (OSError, ValueError) as error:
            raise DaemonGone(f"the daemon's answer broke off: {error}") from None
    raise DaemonGone("the daemon ended in the middle of its answer")
