"""The gateway's control endpoint, for a mount in another process: GET / says its state, POST / a JSON object {"do": NAME, ...} does it."""
from __future__ import annotations

import json
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from tests.gateway.gateway import Gateway


class _Control(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._say(200, self._gateway.state())

    def do_POST(self) -> None:
        try:
            asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            self._say(200, self._gateway.do(asked.pop("do", ""), **asked))
        except (ValueError, TypeError, AttributeError) as error:
            self._say(400, {"error": str(error)})

    @property
    def _gateway(self) -> Gateway:
        return cast("Server", self.server).gateway

    def _say(self, status: int, what: Any) -> None:
        body = json.dumps(what).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, gateway: Gateway, port: int = 0) -> None:
        self.gateway = gateway
        super().__init__(("127.0.0.1", port), _Control)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def close(self) -> None:
        self.shutdown()
        self.server_close()


def ask(address: str, do: str = "", **arguments: Any) -> Any:
    """What `Gateway.do` returns, in another process; without `do` its state. ValueError with the other side's words."""
    data = json.dumps({"do": do, **arguments}).encode() if do else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Plain())
    with opener.open(f"http://{address}/", data=data) as answer:
        said = json.load(answer)
        if answer.status != 200:
            raise ValueError(said.get("error", said))
        return said


class _Plain(urllib.request.HTTPErrorProcessor):
    """Errors are answers."""

    def http_response(self, request: Any, response: Any) -> Any:
        return response
