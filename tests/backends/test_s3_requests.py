"""What goes over the wire for which option, seen from the other side."""
from __future__ import annotations

import contextlib
import socket
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import ConnectionClosedError

from s3cfs import errors
from s3cfs.backends import probe
from s3cfs.backends.registry import open_backend
from s3cfs.backends.s3_sdk import Sdk
from s3cfs.backends.s3c import S3Backend
from tests.backends.answers import Answer, AnsweringServer, error, page
from tests.servers import Server

MIB = 1 << 20
UNSIGNED = "UNSIGNED-PAYLOAD"


def test_path_style_prefix_and_region(server: AnsweringServer) -> None:
    server.backend(sig_region="eu-west-9").put("pack/aa/1-00", b"data")
    asked = server.asked[0]
    assert (asked.method, asked.target) == ("PUT", "/bucket/prefix/pack/aa/1-00")
    assert "/eu-west-9/s3/aws4_request" in asked.headers["authorization"]
    assert asked.headers["host"] == server.host


def test_virtual_addressing(server: AnsweringServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{server.host}")
    backend = open_backend("s3c://store.invalid/bucket/p/", {"no-ssl": "", "addressing": "virtual"}, login="l", password="p")
    backend.put("super/0", b"data")
    assert server.asked[0].target == "http://bucket.store.invalid/p/super/0"


def test_the_proxy_of_the_environment_is_used(server: AnsweringServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{server.host}")
    backend = open_backend("s3c://store.invalid/bucket/", {"no-ssl": "", "payload-signing": "off"}, login="l", password="p")
    backend.put("super/0", b"data")
    assert server.asked[0].target == "http://store.invalid/bucket/super/0"
    assert server.asked[0].headers["x-amz-content-sha256"] == UNSIGNED


def test_storage_class_sse_and_token(server: AnsweringServer) -> None:
    backend = server.backend(storage_class="STANDARD_IA", sse="aws:kms:arn:aws:kms:eu-west-1:1:key/k", session_token="the-token")
    backend.put("pack/aa/1", b"data")
    headers = server.asked[0].headers
    assert headers["x-amz-storage-class"] == "STANDARD_IA"
    assert headers["x-amz-server-side-encryption"] == "aws:kms"
    assert headers["x-amz-server-side-encryption-aws-kms-key-id"] == "arn:aws:kms:eu-west-1:1:key/k"
    assert headers["x-amz-security-token"] == "the-token"
    server.backend(sse="AES256").put("pack/aa/1", b"data")
    assert server.asked[1].headers["x-amz-server-side-encryption"] == "AES256"


def test_checksums_and_signatures(server: AnsweringServer) -> None:
    server.backend(payload_signing="off").put("a/1", b"data")
    server.backend().put("a/2", b"data")
    server.backend(payload_signing="off", upload_checksum="crc32").put("a/3", b"data")
    server.backend(payload_signing="off", upload_checksum="none").put("a/4", b"data")
    server.backend(payload_signing="off", upload_checksum="md5").put("a/5", bytes(2 * MIB))
    server.backend(payload_signing="off").put("a/6", bytes(2 * MIB))
    small, signed, crc, none, md5, large = (asked.headers for asked in server.asked)
    assert small["content-md5"] == "jXd/OF09/siBXSD3SWAm3A=="
    assert small["x-amz-content-sha256"] == UNSIGNED
    assert signed["x-amz-content-sha256"] == "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"
    assert crc["x-amz-checksum-crc32"] == "rfPzYw=="
    assert "content-md5" in md5
    for headers in (signed, crc, none, large):
        assert "content-md5" not in headers
    for headers in (small, signed, none, md5, large):
        assert not any(name.startswith("x-amz-checksum") or name == "x-amz-trailer" for name in headers)
    assert [len(asked.body) for asked in server.asked] == [4, 4, 4, 4, 2 * MIB, 2 * MIB]


def test_large_bodies_wait_to_be_asked_for(server: AnsweringServer) -> None:
    server.backend().put("a/1", bytes(2 * MIB))
    server.backend().put("a/2", bytes(4096))
    server.backend(disable_expect100="").put("a/3", bytes(2 * MIB))
    assert [asked.headers.get("expect") for asked in server.asked] == ["100-continue", None, None]


def test_a_refusal_costs_no_upload(server: AnsweringServer) -> None:
    server.refuse_expect = True
    server.answers = [error(503, "SlowDown", headers={"Retry-After": "5"})]
    with pytest.raises(errors.Throttled) as caught:
        server.backend().put("a/1", bytes(8 * MIB))
    assert caught.value.retry_after == 5
    assert server.asked[0].body == b""


def test_create_only_sends_the_condition(server: AnsweringServer) -> None:
    backend = server.backend()
    with pytest.raises(errors.Unsupported, match="not probed"):
        backend.put("log/1", b"data", only_if_absent=True)
    assert server.asked == []
    server.answers = [error(501, "NotImplemented")]
    assert backend.probe_create_only() is False
    assert server.asked[0].headers["if-none-match"] == "*"
    with pytest.raises(errors.Unsupported, match="has none"):
        backend.put("log/1", b"data", only_if_absent=True)


def test_a_probe_without_an_answer_leaves_it_open(server: AnsweringServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "pause", lambda seconds: None)
    backend = server.backend()
    for answer, kind in ((Answer(500), errors.Temporary), (error(403, "AccessDenied"), errors.Denied),
                         (error(503, "SlowDown"), errors.Throttled)):
        server.answers = [answer]
        with pytest.raises(kind):
            backend.probe_create_only()
        assert backend.capabilities.create_only is None


# ---------------------------------------------------------------- a connection that the server had closed

CLOSED = Answer(closed=True)


def test_a_request_on_a_closed_connection_is_sent_once_more(server: AnsweringServer) -> None:
    backend = server.backend()
    calls: list[tuple[Callable[[], object], Answer]] = [
        (lambda: backend.get("a/1"), Answer(200, b"data")), (lambda: backend.put("a/1", b"data"), Answer(200)),
        (lambda: list(backend.list("a/")), page(["prefix/a/1"])), (lambda: backend.delete("a/1"), Answer(204)),
        (lambda: backend.stat("a/1"), Answer(200, b"data"))]
    for call, then in calls:
        server.answers, server.asked = [CLOSED, then], []
        call()
        assert len(server.asked) == 2
        assert server.asked[0].body == server.asked[1].body
        server.answers, server.asked = [CLOSED], []
        with pytest.raises(errors.Temporary, match="closed the connection"):
            call()
        assert len(server.asked) == 2, "once, not for ever: that is the retry wrapper's"


def test_a_create_only_put_on_a_closed_connection(server: AnsweringServer) -> None:
    """It may have been carried out, so a taken key is read back."""
    taken = error(412, "PreconditionFailed")
    backend = server.backend()
    backend.assume_create_only(True)
    for answers, lost in (([CLOSED, Answer(200)], False), ([CLOSED, taken, Answer(200, b"mine")], False),
                          ([CLOSED, taken, Answer(200, b"another's")], True)):
        server.answers, server.asked = answers, []
        if lost:
            with pytest.raises(errors.Exists):
                backend.put("log/1", b"mine", only_if_absent=True)
        else:
            backend.put("log/1", b"mine", only_if_absent=True)
        assert [asked.headers.get("if-none-match") for asked in server.asked[:2]] == ["*", "*"]
    server.answers, server.asked = [CLOSED, Answer(200)], []
    with pytest.raises(errors.Temporary):
        backend.put("pack/1", bytes(2 * MIB), only_if_absent=True)
    assert len(server.asked) == 1, "a large one would have to be read back whole"


class HangsUp:
    """Answers the first PUT of a connection with 412 and closes the connection when the next request comes: it had decided to.

    The first `together` PUTs are answered together, so that the client has as many connections in its pool.
    """

    def __init__(self, together: int) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.connections = 0
        self._together, self._all = together, threading.Barrier(together)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self.socket.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(peer, self.connections), daemon=True).start()

    def _serve(self, peer: socket.socket, number: int) -> None:
        with peer, peer.makefile("rb") as lines:
            request, length = lines.readline(), 0
            while line := lines.readline().strip():
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            lines.read(length)
            if number <= self._together:
                self._all.wait(10)
            put = request.startswith(b"PUT")
            peer.sendall(b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n" if put
                         else b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndata")
            lines.readline()


def test_a_pool_full_of_dead_connections_costs_one_more_request() -> None:
    """The repeated request must not meet the next connection that the server is about to close."""
    server = HangsUp(4)
    backend = open_backend(f"s3c://{server.host}/bucket/prefix/", {"no-ssl": ""}, login="login", password="password")
    backend.assume_create_only(True)

    def loses(number: int) -> None:
        with pytest.raises(errors.Exists):
            backend.put(f"log/{number}", b"mine", only_if_absent=True)

    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(loses, range(4)))
        loses(5)
        assert backend.get("log/1") == b"data"
    finally:
        backend.close()
        server.socket.close()


def test_the_second_attempt_is_made_by_a_new_client() -> None:
    """Its pool is empty: with others at work the old pool might hand out the next dead connection."""
    made: list[FirstFails] = []

    class FirstFails:
        class meta:
            endpoint_url = "http://x"

        def get_object(self, **arguments: object) -> int:
            if self is made[0]:
                raise ConnectionClosedError(endpoint_url="http://x")
            return made.index(self)

    def make() -> FirstFails:
        made.append(FirstFails())
        return made[-1]

    sdk = Sdk(make)
    assert sdk("get_object", Key="k") == 1
    assert sdk("get_object", Key="k") == 1 and len(made) == 2


def test_ranges_are_asked_for_as_such(server: AnsweringServer) -> None:
    server.answers = [Answer(206, b"0123", {"Content-Range": "bytes 10-13/100"}),
                      Answer(206, b"x" * 90, {"Content-Range": "bytes 10-99/100"}), Answer(200, b"whole")]
    backend = server.backend()
    backend.get("a/1", 10, 4)
    backend.get("a/1", 10)
    backend.get("a/1")
    assert [asked.headers.get("range") for asked in server.asked] == ["bytes=10-13", "bytes=10-", None]


def test_listings_name_no_delimiter_and_no_start(server: AnsweringServer) -> None:
    server.answers = [error(500, "InternalError")]
    with pytest.raises(errors.Temporary):
        next(server.backend().list("log/main/"))
    target = server.asked[0].target
    assert "prefix=prefix%2Flog%2Fmain%2F" in target
    assert "delimiter" not in target
    assert "start-after" not in target


def test_check_is_one_request(server: AnsweringServer) -> None:
    server.answers = [error(500, "InternalError")]
    with pytest.raises(errors.Temporary):
        server.backend().check()
    assert len(server.asked) == 1
    assert "max-keys=1" in server.asked[0].target


def test_credentials_of_the_environment(server: AnsweringServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-the-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    server.backend(login="", password="").put("a/1", b"x")
    server.backend().put("a/2", b"x")
    chain, given = (asked.headers for asked in server.asked)
    assert "Credential=from-the-environment/" in chain["authorization"]
    assert chain["x-amz-security-token"] == "token"
    assert "Credential=login/" in given["authorization"]
    assert "x-amz-security-token" not in given, "a token belongs to its keys"


def test_credentials_of_a_profile(server: AnsweringServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("[storage]\naws_access_key_id = from-the-profile\naws_secret_access_key = secret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "storage")
    server.backend(login="", password="").put("a/1", b"x")
    assert "Credential=from-the-profile/" in server.asked[0].headers["authorization"]
    monkeypatch.setenv("AWS_PROFILE", "missing")
    with pytest.raises(errors.ConfigError, match="missing"):
        server.backend(login="", password="")


@pytest.mark.parametrize("options", [{}, {"payload-signing": "off"}, {"upload-checksum": "md5"}])
def test_a_body_is_never_copied(rclone_s3: Server, options: dict[str, str]) -> None:
    backend = open_backend(rclone_s3.fresh_url(), {**rclone_s3.options, **options}, login=rclone_s3.login, password=rclone_s3.password)
    data = memoryview(bytes(32 * MIB))
    backend.put("warm/up", data[:MIB])
    tracemalloc.start()
    try:
        backend.put("pack/aa/1", data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * MIB
    assert backend.stat("pack/aa/1").size == 32 * MIB
    backend.close()


@pytest.mark.parametrize(("url", "options", "signed"), [
    ("s3c://store.example/bucket/", {}, True),
    ("s3c://store.example/bucket/", {"no-ssl": ""}, True),
    ("s3c://127.0.0.1:9000/bucket/", {"no-ssl": ""}, True),
    ("s3c://store.example/bucket/", {"payload-signing": "off"}, False),
    ("s3://eu-west-1/bucket/", {}, False),                      # a CRC32 instead
    ("s3://eu-west-1/bucket/", {"payload-signing": "on"}, True),
])
def test_whose_bodies_are_signed(url: str, options: dict[str, str], signed: bool) -> None:
    """All that no checksum of their own vouches for: some servers keep what came of a body whose sender died."""
    backend = open_backend(url, options, login="l", password="p")
    assert isinstance(backend, S3Backend) and backend._signed is signed
    backend.close()
