"""A real Kubo, from a program that somebody has built: its own folder, no net, started and ended by pid.

What it is asked goes by `urllib` and its command line, not by our own RPC: this is the other side.
"""
from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.servers import free_port, running

TOKEN = "token-of-the-tests"
NO_NET: Mapping[str, Any] = {"Addresses.Swarm": [], "Addresses.Gateway": [], "Bootstrap": [], "Routing.Type": "none",
                             "AutoConf.Enabled": False, "Discovery.MDNS.Enabled": False}


class Refusal(Exception):
    """The node said no; its words."""


class KuboNode:
    """`program` in `folder`; `environ` is added to its own (credentials of a bucket). Not started yet."""

    def __init__(self, program: str, folder: Path, environ: Mapping[str, str] | None = None) -> None:
        self.program, self.folder, self.port = program, folder, free_port()
        self._environ = {**os.environ, **(environ or {}), "IPFS_PATH": str(folder / "repo"), "HOME": str(folder)}
        self.token = ""
        self._process: subprocess.Popen[bytes]
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def repository(self) -> Path:
        return self.folder / "repo"

    def init(self, spec: Mapping[str, Any] | None = None, **settings: Any) -> None:
        """Make its repository; `spec`: its Datastore.Spec, in place of flatfs. Settings: `A__B` stands for A.B."""
        self.command("init", "--empty-repo")
        config = self.config(**settings)
        if spec is not None:
            config["Datastore"]["Spec"] = spec
            template = self.folder / "config"
            template.write_text(json.dumps(config))
            shutil.rmtree(self.repository)
            self.command("init", "--empty-repo", str(template))
            self.config(**settings)

    def config(self, **settings: Any) -> dict[str, Any]:
        """Change its configuration; gives all of it."""
        path = self.repository / "config"
        found: dict[str, Any] = json.loads(path.read_text())
        given = {name.replace("__", "."): value for name, value in settings.items()}
        for name, value in {**NO_NET, "Addresses.API": f"/ip4/127.0.0.1/tcp/{self.port}", **given}.items():
            *above, last = name.split(".")
            at = found
            for part in above:
                at = at.setdefault(part, {})
            at[last] = value
        path.write_text(json.dumps(found))
        return found

    def require_token(self) -> None:
        """From its next start on."""
        self.token = TOKEN
        self.config(API__Authorizations={"s3cfs": {"AuthSecret": f"bearer:{TOKEN}", "AllowedPaths": ["/api/v0"]}})

    def command(self, *arguments: str, data: bytes | None = None, check: bool = True) -> bytes:
        """`ipfs ARGUMENTS`, without a daemon: what it printed."""
        done = subprocess.run([self.program, *arguments], env=self._environ, input=data, capture_output=True)
        if check and done.returncode:
            raise Refusal(done.stderr.decode(errors="replace"))
        return done.stdout + (b"" if check else done.stderr)

    @contextlib.contextmanager
    def daemon(self, *, offline: bool = True) -> Iterator[KuboNode]:
        """Offline, or believing that there may be others (it listens nowhere and knows nobody). When this is entered its port answers,
        and its RPC does, too."""
        with _environment(self._environ), running(
                [self.program, "daemon", *(["--offline"] if offline else [])], self.port, self.folder / "log") as process:
            self._process = process
            self.rpc("version")
            yield self

    def kill(self) -> None:
        """As a power cut that spares the system."""
        self._process.kill()
        self._process.wait()

    def rpc(self, command: str, *arguments: str, file: bytes | None = None, **options: str) -> bytes:
        """Refusal. An error in the trailer is not seen: compare what came."""
        query = urllib.parse.urlencode([*(("arg", one) for one in arguments), *((k.replace("_", "-"), v) for k, v in options.items())])
        body, headers = b"", {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if file is not None:
            head = b"--b0undary\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file\"\r\n\r\n"
            body = head + file + b"\r\n--b0undary--\r\n"
            headers["Content-Type"] = "multipart/form-data; boundary=b0undary"
        url = f"http://127.0.0.1:{self.port}/api/v0/{command}?{query}"
        request = urllib.request.Request(url, data=body, headers=headers, method="POST")
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as answer:
                found: bytes = answer.read()
                return found
        except urllib.error.HTTPError as error:
            raise Refusal(error.read().decode(errors="replace")) from error

    def lines(self, command: str, *arguments: str, file: bytes | None = None, **options: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.rpc(command, *arguments, file=file, **options).splitlines()]

    # ------------------------------------------------------------ what tests ask

    def blocks(self, root: str) -> set[str]:
        """CIDs of the root and all below, by the node's own walk."""
        return {root, *(line["Ref"] for line in self.lines("refs", root, recursive="true", unique="true", offline="true"))}

    def collect(self) -> list[str]:
        """repo/gc: the CIDs of what is gone."""
        return [line["Key"]["/"] for line in self.lines("repo/gc")]

    def add(self, data: bytes, **options: str) -> str:
        return str(self.lines("add", file=data, quieter="true", **options)[-1]["Hash"])

    def pins(self) -> dict[str, str]:
        """CID -> name, of all recursive ones."""
        found = json.loads(self.rpc("pin/ls", type="recursive", names="true"))["Keys"] or {}
        return {cid: pin["Name"] for cid, pin in found.items()}


@contextlib.contextmanager
def _environment(environ: Mapping[str, str]) -> Iterator[None]:
    """`running` hands its own environment on."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def version_of(program: str) -> str:
    """RuntimeError, one line: it is no Kubo."""
    try:
        done = subprocess.run([program, "version", "--number"], capture_output=True, text=True)
    except OSError as error:
        raise RuntimeError(f"{program}: {error.strerror}") from error
    if done.returncode:
        raise RuntimeError(f"{program} is no Kubo: {done.stderr.strip()}")
    return done.stdout.strip()
