"""python -m tests.gateway: see the package's text."""
from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import threading
from pathlib import Path

from tests.gateway.clock import HandClock, RealClock
from tests.gateway.control import Server, ask
from tests.gateway.gateway import REMOTE, Gateway
from tests.servers import moto_server, rclone_server, self_signed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gateway", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run one, with a real server behind it, until SIGTERM or SIGINT")
    serve.add_argument("--server", choices=("rclone", "moto"), default="rclone")
    serve.add_argument("--root", type=Path, help="folder of rclone (default: a temporary one)")
    serve.add_argument("--port", type=int, default=0)
    serve.add_argument("--control", type=int, default=0, metavar="PORT")
    serve.add_argument("--tls", type=Path, metavar="FOLDER", help="HTTPS, with a certificate that is made in this folder")
    serve.add_argument("--hand-clock", action="store_true", help="time stands still until `do ADDRESS advance seconds=N`")
    serve.add_argument("--no-create-only", action="store_true", help="as the server behind has it")
    serve.add_argument("--exhaustive", action="store_true", help="as in old projects: other listings up to 100,000 keys")
    do = commands.add_parser("do", help="have a running one do something: " + ", ".join((*REMOTE, "advance")))
    do.add_argument("address", help="of its control endpoint")
    do.add_argument("what", nargs="?", default="")
    do.add_argument("arguments", nargs="*", metavar="NAME=VALUE", help="value as JSON, else as text")
    given = parser.parse_args()
    return _serve(given) if given.command == "serve" else _do(given)


def _serve(given: argparse.Namespace) -> int:
    with contextlib.ExitStack() as stack:
        behind = stack.enter_context(rclone_server(given.root) if given.server == "rclone" else moto_server())
        gateway = stack.enter_context(Gateway(
            behind, clock=HandClock() if given.hand_clock else RealClock(), create_only=not given.no_create_only, port=given.port,
            exhaustive=given.exhaustive, tls=self_signed(given.tls) if given.tls else None))
        control = stack.enter_context(contextlib.closing(Server(gateway, given.control)))
        said = {"url": gateway.url(), "control": control.address, "login": behind.login, "password": behind.password}
        print(json.dumps(said), flush=True)
        ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        ended.wait()
    return 0


def _do(given: argparse.Namespace) -> int:
    arguments = {}
    for item in given.arguments:
        name, _, text = item.partition("=")
        try:
            arguments[name] = json.loads(text)
        except ValueError:
            arguments[name] = text
    try:
        print(json.dumps(ask(given.address, given.what, **arguments), indent=1))
    except (ValueError, OSError) as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
