"""Puts objects until it is killed: a program (`python -m tests.against.sender`, with what it needs as JSON on its standard input).

Prints `begun KEY` before each put and `done KEY` after it.
"""
from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.places import Place


def body(key: str, size: int) -> bytes:
    return (key.encode() * (size // len(key) + 1))[:size]


def main() -> None:
    told = json.load(sys.stdin)
    place = Place(told["place"], told["options"], told["login"], told["password"], create_only=told["create_only"], sole=told["sole"])
    backend = place.seen(Path(told["state"]), told["url"])
    backend.assume_create_only(place.create_only)
    for key in told["keys"]:
        data = body(key, told["size"])
        print("begun", key, flush=True)
        backend.put(key, data, only_if_absent=place.create_only)
        print("done", key, flush=True)
    backend.close()                    # the layers of one have an event loop of their own


if __name__ == "__main__":
    main()
