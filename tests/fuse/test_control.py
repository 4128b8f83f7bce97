"""The control socket and the registry of mounts, over real sockets."""
from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from s3cfs import control
from s3cfs.control import Progress
from s3cfs.errors import ExitCode, NotAMount, StoreFull

PID_THAT_NEVER_IS = 2**22 + 1


class Server:
    """Handlers that tests call."""

    def __init__(self) -> None:
        self.cancelled, self.begun = trio.Event(), trio.Event()

    def handlers(self) -> dict[str, control.Handler]:
        return {"echo": self.echo, "count": self.count, "wait": self.wait, "full": self.full, "bug": self.bug}

    async def echo(self, args: dict[str, Any], progress: Progress) -> Any:
        return args

    async def count(self, args: dict[str, Any], progress: Progress) -> Any:
        for number in range(args["to"]):
            await progress({"done": number})
        return args["to"]

    async def wait(self, args: dict[str, Any], progress: Progress) -> Any:
        self.begun.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()

    async def full(self, args: dict[str, Any], progress: Progress) -> Any:
        raise StoreFull("put", "pack/x", "quota")

    async def bug(self, args: dict[str, Any], progress: Progress) -> Any:
        raise ZeroDivisionError


def with_server(path: Path, client: Callable[[Server], Any]) -> Any:
    """Run `client` in a thread beside the server."""
    async def main() -> Any:
        server = Server()
        with trio.fail_after(20):
            async with control.control_server(str(path), server.handlers()):
                return await trio.to_thread.run_sync(client, server, abandon_on_cancel=True)
    return trio.run(main)


def raw(path: Path, data: bytes) -> list[dict[str, Any]]:
    """What is answered to these bytes, until the server ends the connection or it is half closed."""
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(10)
        door.connect(str(path))
        door.sendall(data)
        with door.makefile() as answers:
            return [json.loads(answers.readline()) for _ in range(data.count(b"\n"))]


def test_request_progress_result(tmp_path: Path) -> None:
    path = tmp_path / "s"
    seen: list[Any] = []

    def client(server: Server) -> None:
        assert path.stat().st_mode & 0o7777 == 0o600
        assert control.call(str(path), "echo", {"ü": [1, None]}) == {"ü": [1, None]}
        assert control.call(str(path), "count", {"to": 3}, on_progress=seen.append) == 3

    with_server(path, client)
    assert seen == [{"done": 0}, {"done": 1}, {"done": 2}]
    assert not path.exists()


def test_errors_carry_their_exit_code(tmp_path: Path) -> None:
    path = tmp_path / "s"

    def client(server: Server) -> None:
        for op, code, text in (("full", ExitCode.STORE_FULL, "put pack/x: quota"), ("none", ExitCode.UNSUPPORTED, "does not know 'none'"),
                               ("bug", ExitCode.INTERNAL, "ZeroDivisionError")):
            with pytest.raises(control.ControlError, match=text) as caught:
                control.call(str(path), op)
            assert caught.value.exit_code == code
        assert control.call(str(path), "echo") == {}                 # the server lives on

    with_server(path, client)


def test_nonsense_is_answered_and_long_lines_are_not(tmp_path: Path) -> None:
    path = tmp_path / "s"

    def client(server: Server) -> None:
        answers = raw(path, b'nonsense\n\n[]\n{"op": 1}\n{"op": "echo", "args": 7}\n{"op": "echo"}\n')
        assert [answer.get("code") for answer in answers] == [1, 1, 1, 1, 1, None]
        assert answers[-1] == {"result": {}}
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(10)
            door.connect(str(path))
            try:
                for _ in range(100):
                    door.sendall(b"x" * 65536)
                ended = door.recv(10) == b""
            except OSError:
                ended = True
            assert ended
        assert control.call(str(path), "echo") == {}

    with_server(path, client)


def test_a_client_that_goes_away_cancels_its_request(tmp_path: Path) -> None:
    path = tmp_path / "s"

    def client(server: Server) -> None:
        door = socket.socket(socket.AF_UNIX)
        door.connect(str(path))
        door.sendall(b'{"op": "wait"}\n')
        trio.from_thread.run(server.begun.wait)
        door.close()
        trio.from_thread.run(server.cancelled.wait)
        assert control.call(str(path), "echo") == {}

    with_server(path, client)


def test_silence_is_bounded_for_the_client(tmp_path: Path) -> None:
    def client(server: Server) -> None:
        with pytest.raises(control.NoAnswer, match=rf"process {os.getpid()} .* for 0\.2 s"):
            control.call(str(tmp_path / "s"), "wait", timeout_s=0.2)

    with_server(tmp_path / "s", client)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_only_root_and_the_owner_may_speak(tmp_path: Path) -> None:
    path = tmp_path / "s"
    tmp_path.chmod(0o755)

    def ask_as(uid: int) -> bytes:
        """A connection by somebody else, though the file is made open to all: what counts is who it is."""
        path.chmod(0o666)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.chdir(tmp_path)
                os.setuid(uid)
                with socket.socket(socket.AF_UNIX) as door:
                    door.connect("s")
                    door.sendall(b'{"op": "echo"}\n')
                    os.write(writer, door.recv(1000))
            finally:
                os._exit(0)
        os.close(writer)
        with open(reader, "rb") as answer:
            said = answer.read()
        os.waitpid(child, 0)
        return said

    async def main() -> None:
        async with control.control_server(str(path), Server().handlers(), owner=1234):
            assert await trio.to_thread.run_sync(ask_as, 1234) == b'{"result": {}}\n'
            assert json.loads(await trio.to_thread.run_sync(ask_as, 65534))["code"] == ExitCode.ACCESS_DENIED
            assert await trio.to_thread.run_sync(ask_as, 0) == b'{"result": {}}\n'

    trio.run(main)


def test_long_paths_and_left_over_sockets(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 100) / ("b" * 100)
    folder.mkdir(parents=True)
    path = folder / "control.sock"
    for _ in range(2):
        with_server(path, lambda server: control.call(str(path), "echo"))
        path.touch()                                                 # as if left by a dead daemon
    with pytest.raises(control.DaemonGone):
        control.call(str(path), "echo")
    with pytest.raises(control.DaemonGone):
        control.call(str(tmp_path / "none"), "echo")


def test_errors_of_the_body_come_out_bare(tmp_path: Path) -> None:
    async def main() -> None:
        async with control.control_server(str(tmp_path / "s"), {}):
            raise StoreFull("put", "x")

    with pytest.raises(StoreFull):
        trio.run(main)


# ---------------------------------------------------------------- the registry

@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(control.registry, "ROOT_REGISTRY", tmp_path / "run")
    return tmp_path / "run"


def test_a_mount_is_found_by_device_or_while_it_uploads(registry: Path) -> None:
    file = control.register("0:77", "/mnt/x", "s3c://h/b", "/state/control.sock", folder=registry)
    assert list(registry.glob("*.json")) == [file]
    found = control.find("/mnt/x", "0:77")
    assert (found.socket, found.pid, found.url) == ("/state/control.sock", os.getpid(), "s3c://h/b") and found.alive()
    assert control.find("/mnt/x") == found                           # not in the mount table any more
    (registry.parent / "link").symlink_to("/mnt")
    assert control.find(f"{registry.parent}/link/x") == found
    with pytest.raises(NotAMount, match="no s3cfs of yours"):
        control.find("/mnt/y")
    with pytest.raises(NotAMount, match="no s3cfs of yours"):
        control.find("/mnt/x", "0:78")
    control.unregister(file)
    assert not file.exists()


def test_a_device_is_used_again_while_the_daemon_before_still_uploads(registry: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        started = control.registry._started(other.pid)
        file = control.register("0:77", "/mnt/new", "u", "s", folder=registry)
        entry = {**json.loads(file.read_text()), "pid": other.pid, "started": started, "mountpoint": "/mnt/old"}
        (registry / f"0:77-{entry['namespace']}-{other.pid}.json").write_text(json.dumps(entry))
        control.register("0:77", "/mnt/new", "u", "s", folder=registry)
        for device in ("0:77", None):
            assert control.find("/mnt/new", device).pid == os.getpid() and control.find("/mnt/old", device).pid == other.pid
        other.communicate(b"\n")


def test_dead_daemons_are_recognised(registry: Path) -> None:
    file = control.register("0:77", "/mnt/x", "u", "s", folder=registry)
    entry = json.loads(file.read_text())
    for change in ({"pid": PID_THAT_NEVER_IS}, {"started": entry["started"] - 1}):
        file.write_text(json.dumps({**entry, **change}))
        with pytest.raises(NotAMount, match="has died"):
            control.find("/mnt/x", "0:77")
        with pytest.raises(NotAMount):
            control.find("/mnt/x")
    (registry / "torn.json").write_text("{")
    control.register("0:99", "/mnt/y", "u", "s", folder=registry)
    assert not file.exists()                                         # swept by the next one


def test_another_daemons_entry_is_left_alone(registry: Path) -> None:
    file = control.register("0:77", "/mnt/x", "u", "s", folder=registry)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        started = control.registry._started(other.pid)
        file.write_text(json.dumps({**json.loads(file.read_text()), "pid": other.pid, "started": started}))
        control.unregister(file)
        assert file.exists()
        other.communicate(b"\n")
    control.unregister(file)
    assert not file.exists()


def listening(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    made.listen()
    return made


def test_sockets_that_dead_daemons_left_are_swept(registry: Path) -> None:
    """Also those of pid namespaces that are gone, where a number tells nothing: nobody listens."""
    registry.mkdir()
    ours = Path(control.socket_path(registry))
    dead = ours.with_name(ours.name.replace(str(os.getpid()), str(PID_THAT_NEVER_IS)))
    alive, gone = registry / f"1-{PID_THAT_NEVER_IS}.sock", registry / f"2-{PID_THAT_NEVER_IS}.sock"
    ours.touch()
    listening(dead).close()
    listening(gone).close()
    with listening(alive):
        control.register("0:77", "/mnt/x", "u", str(ours), folder=registry)
        assert ours.exists() and alive.exists() and not dead.exists() and not gone.exists()


def test_a_process_of_another_pid_namespace_is_not_dead(registry: Path) -> None:
    """Containers that share /run: the number of the other's process says nothing here. It is found as long as it listens."""
    path = registry / f"1-{PID_THAT_NEVER_IS}.sock"
    file = control.register("0:77", "/mnt/x", "u", str(path), folder=registry)
    file.write_text(json.dumps({**json.loads(file.read_text()), "pid": PID_THAT_NEVER_IS, "namespace": "1"}))
    with listening(path):
        control.unregister(control.register("0:99", "/mnt/y", "u", "s", folder=registry))
        assert control.find("/mnt/x", "0:77").socket == str(path) and path.exists()
    with pytest.raises(NotAMount, match="has died"):
        control.find("/mnt/x", "0:77")
