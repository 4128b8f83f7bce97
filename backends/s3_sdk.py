"""The SDK's client, and a fresh one when the server closes connections behind its back.

Some servers (MinIO) answer a create-only PUT with 412 without reading its body, and close the connection right after. It is back in the
pool by then, and whether the next request on it notices in time is a matter of microseconds: "closed the connection in the middle of
the request". So such a request is sent once more, by a new client: its pool is empty, so its connection is fresh.
"""
from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ConnectionClosedError


class Sdk:
    """Calls of one S3 client, by name. Thread-safe."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._client = make()
        self._lock = threading.Lock()
        self.endpoint: str = self._client.meta.endpoint_url

    def once(self, name: str, **arguments: Any) -> Any:
        """One request. A connection that was closed under it leaves a new client behind, and the error is raised."""
        client = self._client
        try:
            return getattr(client, name)(**arguments)
        except ConnectionClosedError:
            self._renew(client)
            raise

    def __call__(self, name: str, **arguments: Any) -> Any:
        """For requests that may be repeated: once more after such an error. A body must be able to `seek`."""
        try:
            return self.once(name, **arguments)
        except ConnectionClosedError:
            if "Body" in arguments:
                arguments["Body"].seek(0)
            return self.once(name, **arguments)

    def _renew(self, worn: Any) -> None:
        """Requests under way go on with the old one, which goes with the last of them."""
        with self._lock:
            if self._client is worn:
                self._client = self._make()

    def close(self) -> None:
        self._client.close()
