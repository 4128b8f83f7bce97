"""The way from `Remote` to a backend: its layers, the topmost first, and the lines below them.

Above a store's own layers stand those of the project: `settling`, unless its answers are known never to be old, and `pieces`.
"""
from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import trio

from s3cfs.backends.base import Backend
from s3cfs.backends.layer import Layer, Originals, Store
from s3cfs.backends.pieces import HEAD_BYTES, Pieces
from s3cfs.backends.settling import Settling
from s3cfs.doors import Doors
from s3cfs.errors import ConfigError

from .lines import Lines

log = logging.getLogger(__name__)


class Stack:
    def __init__(self, backend: Backend, doors: Doors, folder: str) -> None:
        """`folder`: the backend's own, when it keeps state; else ""."""
        self.lines = Lines(backend, doors)
        self.top: Store = self.lines
        self.layers: list[Layer] = []              # the topmost first
        self.originals = Originals()
        self._doors = doors
        self._ended: dict[str, str] = {}           # layers whose background work ended by an error, and which

        def add(layer: Layer) -> None:
            layer.originals = self.originals
            layer.stand_on(self.top, doors, folder)
            self.layers.insert(0, layer)
            self.top = layer

        for layer in reversed(backend.layers()):
            add(layer)
        if self.top.capabilities.linearizable is not True:
            add(Settling())
        largest = self.top.capabilities.largest_object_bytes
        if largest is not None and largest < HEAD_BYTES:
            raise ConfigError(f"{backend.location} takes objects of {largest} bytes at most: too little for a filesystem")
        add(Pieces())
        if len({layer.name for layer in self.layers}) < len(self.layers):
            raise ConfigError(f"{backend.location} asks for layers of the same name: {', '.join(layer.name for layer in self.layers)}")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Inside, the layers do their background work. It has begun when this yields."""
        failure: BaseException | None = None
        async with trio.open_nursery() as nursery:
            for layer in self.layers:
                await nursery.start(self._run, layer)
            try:
                yield
            except (Exception, KeyboardInterrupt) as error:      # by hand past the nursery, which would make a group of it
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _run(self, layer: Layer, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            if layer.keeps_state:
                self._doors.disk.makedirs(layer.state)           # in one step with `started`: nobody has asked for anything yet
            await layer.run()
        except Exception as error:
            log.exception("the background work of layer %s has ended", layer.name)
            self._ended[layer.name] = f"its background work has ended: {type(error).__name__}: {error}"

    # ------------------------------------------------------------ what people see and change

    def status(self) -> dict[str, dict[str, Any]]:
        """By name of the layer; those that have nothing to tell are left out."""
        told: dict[str, dict[str, Any]] = {}
        for layer in self.layers:
            try:
                said = dict(layer.status())
            except Exception as error:                           # a third party's bug is no reason to tell nothing of the rest
                said = {"degraded": f"its status cannot be told: {type(error).__name__}: {error}"}
            if layer.name in self._ended:
                said["degraded"] = self._ended[layer.name]
            if said:
                told[layer.name] = said
        return told

    def settings(self, name: str | None = None) -> dict[str, dict[str, str]]:
        """By name of the layer: of one, or of all that have any. ConfigError when there is none of that name."""
        if name is not None:
            return {name: dict(self._layer(name).settings())}
        return {layer.name: dict(layer.settings()) for layer in self.layers if layer.settings()}

    def decisions(self, name: str) -> list[dict[str, Any]]:
        """Of one layer, the oldest first. ConfigError when there is none of that name."""
        return [dict(entry) for entry in self._layer(name).decisions()]

    def told(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Everything that those of these layers tell which are there: {"settings", "status", "decisions"} by name."""
        status, there = self.status(), {layer.name for layer in self.layers}
        return {name: {"settings": self.settings(name)[name], "status": status.get(name, {}), "decisions": self.decisions(name)}
                for name in names if name in there}

    def change_each(self, names: Sequence[str], changes: Mapping[str, str]) -> None:
        """Each of the changes by whichever of these layers has that setting, in an order in which they are taken, if there is one.
        ConfigError when none has it (then nothing is changed), or one is refused."""
        known = {setting: layer.name for layer in reversed(self.layers) if layer.name in names for setting in layer.settings()}
        for setting in changes:
            if setting not in known:
                raise ConfigError(f"there is no setting {setting!r}; there are {', '.join(known) or 'none'}")
        left = dict(changes)
        while left:
            refused: ConfigError | None = None
            before = len(left)
            for setting, value in list(left.items()):
                try:
                    self.change(known[setting], {setting: value})
                    del left[setting]
                except ConfigError as error:
                    refused = error
            if refused is not None and len(left) == before:
                raise refused

    def change(self, name: str, changes: Mapping[str, str]) -> None:
        """Take settings of one layer over. ConfigError when there is no such layer or setting (then nothing is changed), or it refuses."""
        layer = self._layer(name)
        known = layer.settings()
        for setting in changes:
            if setting not in known:
                has = f"; it has {', '.join(known)}" if known else ""
                raise ConfigError(f"layer {name} has no setting {setting!r}{has}")
        for setting, value in changes.items():
            try:
                layer.change(setting, value)
            except ConfigError:
                raise
            except Exception as error:
                log.exception("layer %s: %s could not be changed", name, setting)
                raise ConfigError(f"layer {name}: {setting} could not be changed: {type(error).__name__}: {error}") from error
            log.info("layer %s: %s is %s now", name, setting, value)

    def _layer(self, name: str) -> Layer:
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise ConfigError(f"this store has no layer {name!r}; it has {', '.join(layer.name for layer in self.layers)}")
