"""What a running mount answers on its control socket (s3cfs/control): a method an operation."""
from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import trio

from s3cfs.control import Handler, Progress
from s3cfs.errors import NotAMount, S3cfsError, UsageError
from s3cfs.fuse.lifecycle import only_cause

from .node import Node
from .status import DAMAGED, DEGRADED, state_of, status

CALM = ("ok", "read-only", DAMAGED, DEGRADED)     # states that keep nothing from the store
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(slots=True)
class Life:
    """How far a mount is. Once `ended` is set, `failure` says what is not in the store, and why."""

    url: str
    mountpoint: str
    started: float                     # monotonic
    node: Node | None = None
    ended: trio.Event = field(default_factory=trio.Event)
    failure: S3cfsError | None = None

    async def status(self) -> dict[str, Any] | None:
        """None: it is still starting."""
        return None if self.node is None else await status(self.node, url=self.url, mountpoint=self.mountpoint, started=self.started)


class Answers:
    def __init__(self, life: Life) -> None:
        self._life = life

    def handlers(self) -> dict[str, Handler]:
        return {"ping": self._ping, "stat": self._stat, "flush": self._flush, "drop-cache": self._drop_cache,
                "log-level": self._log_level, "layer": self._layer, "layers": self._layers, "wait": self._wait}

    def _running(self) -> Node:
        if self._life.node is None:
            raise NotAMount("the mount is still starting")
        return self._life.node

    async def _ping(self, args: dict[str, Any], progress: Progress) -> dict[str, Any]:
        return {"pid": os.getpid()}

    async def _stat(self, args: dict[str, Any], progress: Progress) -> dict[str, Any]:
        return await status(self._running(), url=self._life.url, mountpoint=self._life.mountpoint, started=self._life.started)

    async def _flush(self, args: dict[str, Any], progress: Progress) -> dict[str, Any]:
        node = self._running()
        async with _reporting(node, progress, "bringing changes to the store"):
            await node.flush()
        return {"commit": node.writer.tip.n if node.writer else node.tip.n}

    async def _drop_cache(self, args: dict[str, Any], progress: Progress) -> dict[str, Any]:
        node = self._running()
        before = node.cache.used_bytes
        await node.drop_cache()
        return {"freed_bytes": before - node.cache.used_bytes}

    async def _log_level(self, args: dict[str, Any], progress: Progress) -> dict[str, Any]:
        level = str(args.get("level", "")).upper()
        if level not in LEVELS:
            raise UsageError("the level is debug, info, warning or error")
        logging.getLogger().setLevel(level)
        return {"level": level.lower()}

    async def _layer(self, args: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """Settings of the store's layers, of one or of all, after the `changes` to that one."""
        name, changes = args.get("layer"), args.get("changes") or {}
        if not isinstance(name, str | None) or not isinstance(changes, dict) or (changes and name is None):
            raise UsageError('args are {"layer": NAME or null, "changes": {SETTING: VALUE, ...}}')
        stack = self._running().remote.stack
        if name is not None:
            stack.change(name, {str(setting): str(value) for setting, value in changes.items()})
        return {"layers": stack.settings(name)}

    async def _layers(self, args: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """Everything that some of the store's layers tell (those that are not there are left out), after the `changes` to any of them."""
        names, changes = args.get("names"), args.get("changes") or {}
        if not isinstance(names, list) or not isinstance(changes, dict):
            raise UsageError('args are {"names": [NAME, ...], "changes": {SETTING: VALUE, ...}}')
        stack = self._running().remote.stack
        found = stack.told(names)
        if found and changes:
            stack.change_each(names, {str(setting): str(value) for setting, value in changes.items()})
            found = stack.told(names)
        return {"layers": found}

    async def _wait(self, args: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """After an unmount: the answer comes when all is in the store, or is known not to come there; the process ends right after."""
        async with _reporting(self._running(), progress, "bringing changes to the store"):
            await self._life.ended.wait()
        if self._life.failure is not None:
            raise self._life.failure
        return {}


@contextlib.asynccontextmanager
async def _reporting(node: Node, progress: Progress, text: str) -> AsyncIterator[None]:
    """Progress lines while something is brought to the store: bytes done of what there was."""
    total = max(1, node.lag_bytes())

    async def report() -> None:
        while True:
            left = node.lag_bytes()
            state, message = state_of(node)
            trouble = f" ({state}: {message})" if message and state not in CALM else ""
            await progress({"done": max(0, total - left), "total": total, "unit": "bytes", "text": text + trouble})
            await node.doors.clock.sleep(0.3)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(report)
            yield
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:        # what the work raised, not the nursery's wrapping of it
        raise only_cause(group) from None
