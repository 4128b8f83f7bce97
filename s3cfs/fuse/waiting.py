"""Requests that wait: how many may, and the end of those whose caller is being killed.

pyfuse3 has a task for each request, and stops reading when `max_tasks` of them wait. The kernel's own limits bound what comes without
a caller (`max_background`: writes of its cache, reads ahead); everything else has one thread that waits for it. So there is a task for
all of the former, and for `most` of the latter. What is more fails with EAGAIN, if it is of a kind that may wait for long; the others
(look-ups, attributes, listings, removals ...) always find a task.

A FUSE_INTERRUPT ends in libfuse, which pyfuse3 does not ask. But a caller that is being killed shows in /proc: SIGKILL is pending for
its thread. The wait for room is looked after like this, since nothing has been done then; what has begun is not broken off.
"""
from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import trio
from pyfuse3 import FUSEError

LOOK_S = 0.5
LOOKS_AT_ONCE = 200                  # at 20 us each
SIGKILL_PENDING = 1 << 8


class Waiting:
    """`count` of those that are being handled and may wait, at most `most`."""

    def __init__(self, most: int) -> None:
        self.most, self.count = most, 0
        self._callers: dict[trio.CancelScope, int] = {}

    def come(self) -> None:
        """EAGAIN when too many are there; else `count` them until they `go`."""
        if self.count >= self.most:
            raise FUSEError(errno.EAGAIN)
        self.count += 1

    def go(self) -> None:
        self.count -= 1

    async def for_caller(self, wait: Callable[[], Awaitable[None]], thread: int) -> None:
        """Await it, and raise EINTR when this thread is killed meanwhile. 0: a caller of another pid namespace, not known."""
        scope = trio.CancelScope()
        self._callers[scope] = thread
        try:
            with scope:
                await wait()
        finally:
            del self._callers[scope]
        if scope.cancelled_caught:
            raise FUSEError(errno.EINTR)

    async def look_after(self) -> None:
        """Until cancelled: see whose callers are being killed, some at a time."""
        while True:
            await trio.sleep(LOOK_S)
            for scope in list(self._callers)[:LOOKS_AT_ONCE]:
                thread = self._callers.pop(scope)
                self._callers[scope] = thread          # the next look begins with those that were not looked at
                if being_killed(thread):
                    scope.cancel()


def being_killed(thread: int) -> bool:
    """Whether SIGKILL is pending for it (any signal that ends the process becomes that), or it is gone."""
    if thread <= 0:
        return False
    try:
        with open(f"/proc/{thread}/status", "rb") as status:
            for line in status:
                if line.startswith(b"SigPnd:"):
                    return bool(int(line.split()[1], 16) & SIGKILL_PENDING)
    except OSError:
        return True
    return False
