"""The way from `Remote` to a backend: its layers, the topmost first, and the lines below them."""
from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import trio

from s3cfs.backends.base import Backend
from s3cfs.backends.layer import Layer, Store
from s3cfs.doors import Doors
from s3cfs.errors import ConfigError

from .lines import Lines

log = logging.getLogger(__name__)


class Stack:
    def __init__(self, backend: Backend, doors: Doors, folder: str) -> None:
        """`folder`: the backend's own, when it keeps state; else ""."""
        self.lines = Lines(backend, doors)
        self.layers: tuple[Layer, ...] = tuple(backend.layers())
        self.top: Store = self.lines
        for layer in reversed(self.layers):
            layer.stand_on(self.top, doors, folder)
            self.top = layer

    async def run(self) -> None:
        """The layers' background work, until cancelled."""
        async with trio.open_nursery() as nursery:
            for layer in self.layers:
                nursery.start_soon(self._run, layer)

    async def _run(self, layer: Layer) -> None:
        try:
            await layer.run()
        except Exception:
            log.exception("the background work of layer %s has ended", layer.name)

    def status(self) -> Mapping[str, Mapping[str, Any]]:
        return {layer.name: layer.status() for layer in self.layers}

    def settings(self) -> Mapping[str, Mapping[str, str]]:
        return {layer.name: layer.settings() for layer in self.layers}

    def change(self, name: str, setting: str, value: str) -> None:
        """ConfigError when there is no such layer, or when it refuses."""
        for layer in self.layers:
            if layer.name == name:
                layer.change(setting, value)
                return
        raise ConfigError(f"this store has no layer {name!r}")
