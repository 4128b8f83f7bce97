"""A client that knows nothing: requests as they are written, replies to the letter. For comparing servers with each other."""
from __future__ import annotations

import socket
from typing import TypeAlias

Told: TypeAlias = "str | bytes | int | None | list[Told]"      # str: "+OK", "-Key not found"; bytes: a bulk string
PATIENCE_S = 20.0


class Talk:
    """One connection. `talk("SET", "key", b"value")` is a request and its reply."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self._file = self._sock.makefile("rb")

    def __call__(self, *arguments: str | bytes) -> Told:
        self.raw(b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in map(encoded, arguments)))
        return self.reply()

    def raw(self, data: bytes) -> None:
        self._sock.sendall(data)

    def reply(self) -> Told:
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError(line)
        kind, rest = line[:1], line[1:-2]
        match kind:
            case b":":
                return int(rest)
            case b"$":
                return None if rest == b"-1" else self._file.read(int(rest) + 2)[:-2]
            case b"*":
                return [self.reply() for _ in range(int(rest))]
        return line[:-2].decode()

    @property
    def is_closed(self) -> bool:
        """Whether the other side ends it, sooner or later."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True

    def is_silent(self, seconds: float = 0.2) -> bool:
        """Whether nothing comes for so long. Nothing can be read afterwards."""
        self._sock.settimeout(seconds)
        try:
            self._file.read(1)
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        self._file.close()
        self._sock.close()


def encoded(word: str | bytes) -> bytes:
    return word.encode() if isinstance(word, str) else word
