"""Talking to a running mount: a unix socket with one JSON object a line, never a request through the mount itself.

So `s3cfs stat` answers while the mount hangs, and `s3cfs umount` follows the upload after the mount is gone.

    -> {"op": "flush", "args": {}}
    <- {"progress": {...}}                     any number of times
    <- {"result": {...}}                       or {"error": "one line", "code": 4}

A connection carries one request after the other. If the client goes away, what it asked for is cancelled.
Only root and the owner of the daemon may speak (SO_PEERCRED).

A small file in a registry folder, /run/s3cfs/<major:minor>.json for root, says which socket belongs to which mount.

protocol.py: what both ends agree on; server.py: the daemon's end; client.py: a command's; registry.py: who serves what.
"""
from __future__ import annotations

from .client import asked, call
from .protocol import ControlError, DaemonGone, NoAnswer
from .registry import Registration, find, register, registry_folder, socket_path, unfinished, unregister
from .server import Handler, Progress, control_server

__all__ = [
    "ControlError", "DaemonGone", "Handler", "NoAnswer", "Progress", "Registration", "asked", "call", "control_server", "find",
    "register", "registry_folder", "socket_path", "unfinished", "unregister",
]
