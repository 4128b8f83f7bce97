"""Real S3 servers on loopback, started and ended by pid: `rclone serve s3` (ignores create-only: tier T2) and `moto_server` (tier T1).

As pytest fixtures, one of each a session:   from tests.servers import moto_s3, rclone_s3   (in a conftest.py)
Anywhere else, benchmarks too:               with rclone_server() as server: open_backend(server.url("x/"), server.options, ...)

Both check signatures, so a wrong key or secret is refused as a real store would. A server dies with the process that started
it, also when that is killed. Ports are free ones; ready means that the socket answers.
"""
from __future__ import annotations

import contextlib
import ctypes
import datetime
import ipaddress
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import boto3
import pytest

from s3cfs.backends.base import Backend
from s3cfs.backends.registry import open_backend

READY_WITHIN_S = 30.0
END_WITHIN_S = 10.0
START_ATTEMPTS = 3
BUCKET = "s3cfs-test"
PR_SET_PDEATHSIG = 1


class Store(Protocol):
    """What a test needs to know of a store: a server of this file, or a place that somebody has (tests/places.py)."""

    @property
    def options(self) -> Mapping[str, str]: ...
    @property
    def login(self) -> str: ...
    @property
    def password(self) -> str: ...
    def fresh_url(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. `options` are backend options that reach it; `root` is rclone's folder (buckets are folders in it)."""

    kind: str
    host: str                      # host:port
    login: str
    password: str = field(repr=False)
    pid: int
    create_only: bool
    options: dict[str, str]
    root: Path | None = None
    bucket: str = BUCKET

    def url(self, prefix: str = "") -> str:
        return f"s3c://{self.host}/{self.bucket}/{prefix}"

    def fresh_url(self) -> str:
        """A place in the bucket that nothing else uses."""
        return self.url(f"t-{secrets.token_hex(6)}/")

    def open(self, url: str = "", **changes: str) -> Backend:
        """A backend on this server, at a fresh place unless a URL is given; `changes`: login, password."""
        known = {"login": self.login, "password": self.password, **changes}
        return open_backend(url or self.fresh_url(), self.options, **known)


def program(name: str) -> str:
    """A program of this Python environment, else of the PATH."""
    here = Path(sysconfig.get_path("scripts")) / name
    found = str(here) if here.exists() else shutil.which(name)
    if not found:
        raise RuntimeError(f"{name} is not installed: the tests need it (make setup)")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def running(command: Sequence[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process, once its port answers; ended by pid at the end."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=_die_with_parent)
    try:
        until = time.monotonic() + READY_WITHIN_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command[0]} did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)       # between two looks at the socket; readiness itself is what is waited for
        yield process
    finally:
        process.terminate()
        try:
            process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def rclone_server(root: Path | None = None, *, tls: bool = False, port: int = 0, extra: Sequence[str] = ()) -> Iterator[Server]:
    """`rclone serve s3` on a folder (a temporary one unless given; what it holds stays when it was given)."""
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="s3cfs-rclone-")))
        root = root or work / "store"
        (root / BUCKET).mkdir(parents=True, exist_ok=True)
        login, password = "test-login", "test-password-0123456789"
        options = {"no-ssl": ""}
        flags: list[str] = []
        if tls:
            certificate, key = self_signed(work)
            flags = ["--cert", str(certificate), "--key", str(key)]
            options = {"ssl-ca-path": str(certificate)}
        for attempt in range(START_ATTEMPTS):
            at = port or free_port()
            command = [program("rclone"), "serve", "s3", str(root), "--addr", f"127.0.0.1:{at}", "--auth-key", f"{login},{password}",
                       "--config", "/dev/null", "--poll-interval", "0", *flags, *extra]
            try:
                process = stack.enter_context(running(command, at, work / "log"))
                break
            except RuntimeError:       # somebody took the port between our look and its bind
                if attempt == START_ATTEMPTS - 1:
                    raise
        yield Server("rclone", f"127.0.0.1:{at}", login, password, process.pid, False, options, root)


# moto looks whether the key is taken and writes then, in threads: under load two of a race would win, and the probe be right to call it T2.
MOTO = """
import sys, threading
from moto.s3.responses import S3Response
from moto.server import main
lock, put_object = threading.Lock(), S3Response.put_object
def one_at_a_time(self):
    with lock:
        return put_object(self)
S3Response.put_object = one_at_a_time
main(sys.argv[1:])
"""


@contextlib.contextmanager
def moto_server(*, port: int = 0) -> Iterator[Server]:
    """`moto_server` with one user who may do everything in S3, and with authentication switched on."""
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="s3cfs-moto-")))
        for attempt in range(START_ATTEMPTS):
            at = port or free_port()
            try:
                process = stack.enter_context(running([sys.executable, "-c", MOTO, "-H", "127.0.0.1", "-p", str(at)], at, work / "log"))
                break
            except RuntimeError:
                if attempt == START_ATTEMPTS - 1:
                    raise
        endpoint = f"http://127.0.0.1:{at}"
        session = boto3.session.Session(aws_access_key_id="setup", aws_secret_access_key="setup", region_name="us-east-1")
        iam: Any = session.client("iam", endpoint_url=endpoint)
        iam.create_user(UserName="s3cfs")
        iam.put_user_policy(UserName="s3cfs", PolicyName="all", PolicyDocument=(
            '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'))
        key = iam.create_access_key(UserName="s3cfs")["AccessKey"]
        s3: Any = session.client("s3", endpoint_url=endpoint)
        s3.create_bucket(Bucket=BUCKET)
        request = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", data=b"0", method="POST",
                                         headers={"Content-Type": "text/plain"})
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).close()
        yield Server("moto", f"127.0.0.1:{at}", key["AccessKeyId"], key["SecretAccessKey"], process.pid, True, {"no-ssl": ""})


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Certificate and key for 127.0.0.1 and localhost, valid for a day."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "s3cfs test")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))])
    certificate = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
                   .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
                   .not_valid_after(now + datetime.timedelta(days=1)).add_extension(names, critical=False)
                   .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256()))
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return paths


@pytest.fixture(scope="session")
def rclone_s3() -> Iterator[Server]:
    with rclone_server() as server:
        yield server


@pytest.fixture(scope="session")
def rclone_tls() -> Iterator[Server]:
    with rclone_server(tls=True) as server:
        yield server


@pytest.fixture(scope="session")
def moto_s3() -> Iterator[Server]:
    with moto_server() as server:
        yield server
