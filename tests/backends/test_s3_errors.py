"""Every mistake and every mishap has its own error and one line that says what to change."""
from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from s3cfs import errors
from s3cfs.backends.base import Backend
from s3cfs.backends.registry import open_backend
from tests.backends.answers import Answer, AnsweringServer, error, page
from tests.servers import Server, free_port

OPERATIONS: dict[str, Callable[[Backend], object]] = {
    "get": lambda backend: backend.get("log/1"),
    "put": lambda backend: backend.put("log/1", b"data"),
    "stat": lambda backend: backend.stat("log/1"),
    "delete": lambda backend: backend.delete("log/1"),
    "list": lambda backend: list(backend.list("log/")),
    "check": lambda backend: backend.check(),
}
SECRET = "wrong-secret-0123456789"


def failure(backend: Backend, operation: str) -> errors.StoreError:
    with pytest.raises(errors.StoreError) as caught:
        OPERATIONS[operation](backend)
    backend.close()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert SECRET not in str(caught.value)
    return caught.value


@pytest.fixture(params=["rclone_s3", "moto_s3"])
def real(request: pytest.FixtureRequest) -> Server:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Server)
    return found


# ---------------------------------------------------------------- real servers

@pytest.mark.parametrize("operation", OPERATIONS)
def test_unknown_key(real: Server, operation: str) -> None:
    found = failure(real.open(login="nobody-at-all"), operation)
    assert type(found) is errors.Denied
    assert "backend-login" in str(found)
    assert found.exit_code is errors.ExitCode.ACCESS_DENIED


@pytest.mark.parametrize("operation", OPERATIONS)
def test_wrong_secret(real: Server, operation: str) -> None:
    found = failure(real.open(password=SECRET), operation)
    assert type(found) is errors.Denied
    assert "backend-password" in str(found)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_missing_bucket(real: Server, operation: str) -> None:
    found = failure(real.open(real.url().replace(real.bucket, "no-such-bucket")), operation)
    assert type(found) is errors.BucketMissing
    assert "'no-such-bucket'" in str(found)
    assert not found.retryable


@pytest.mark.parametrize("operation", OPERATIONS)
def test_closed_port(operation: str) -> None:
    found = failure(open_backend(f"s3c://127.0.0.1:{free_port()}/b/", {"no-ssl": ""}, login="l", password=SECRET), operation)
    assert type(found) is errors.Temporary
    assert "refuses the connection" in str(found)


def test_a_damaged_upload_is_noticed_by_the_store(rclone_s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = rclone_s3.open()
    monkeypatch.setattr("s3cfs.backends.s3c.checksum", lambda *data, **how: {"ContentMD5": "AAAAAAAAAAAAAAAAAAAAAA=="})
    with pytest.raises(errors.Corrupt, match="damaged on their way"):
        backend.put("log/1", b"data")
    with pytest.raises(errors.NotFound):
        backend.get("log/1")


def test_unknown_host() -> None:
    found = failure(open_backend("s3c://no-such-host.invalid/b/", login="l", password="p"), "check")
    assert type(found) is errors.Temporary
    assert "no-such-host.invalid cannot be resolved" in str(found)


def test_untrusted_certificate(rclone_tls: Server) -> None:
    found = failure(open_backend(rclone_tls.url(), login=rclone_tls.login, password=rclone_tls.password), "check")
    assert type(found) is errors.Temporary
    assert "TLS failure" in str(found)
    assert "ssl-ca-path" in str(found)


def test_a_folder_of_certificates(rclone_tls: Server, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(Path(rclone_tls.options["ssl-ca-path"]).read_text())
    (tmp_path / "README").write_text("no certificate")
    backend = open_backend(rclone_tls.fresh_url(), {"ssl-ca-path": str(tmp_path)}, login=rclone_tls.login, password=rclone_tls.password)
    backend.check()
    backend.close()


def test_tls_to_a_plain_port_and_plain_to_a_tls_port(rclone_s3: Server, rclone_tls: Server) -> None:
    found = failure(open_backend(rclone_s3.url(), login="l", password="p"), "check")
    assert type(found) is errors.Temporary
    assert "TLS failure" in str(found)
    assert "no-ssl" in str(found)
    found = failure(open_backend(rclone_tls.url(), {"no-ssl": ""}, login="l", password="p"), "check")
    assert type(found) is errors.Temporary
    assert "no-ssl" in str(found)


def test_dead_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://user:{SECRET}@127.0.0.1:{free_port()}")
    found = failure(open_backend("s3c://store.invalid/b/", {"no-ssl": ""}, login="l", password="p"), "check")
    assert type(found) is errors.Temporary
    assert "proxy" in str(found)


def test_no_credentials_at_all() -> None:
    found = failure(open_backend("s3c://127.0.0.1:1/b/", {"no-ssl": ""}), "check")
    assert type(found) is errors.Denied
    assert "no credentials" in str(found)


# ---------------------------------------------------------------- answers word for word

SKEWED = error(403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.",
               "<RequestTime>20260101T120000Z</RequestTime><ServerTime>2026-01-01T11:00:00Z</ServerTime>"
               "<MaxAllowedSkewMilliseconds>900000</MaxAllowedSkewMilliseconds>")
MALFORMED = error(400, "AuthorizationHeaderMalformed",
                  "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-central-1'",
                  "<Region>eu-central-1</Region>")
MOVED = error(301, "PermanentRedirect", "The bucket you are attempting to access must be addressed using the specified endpoint.",
              "<Endpoint>bucket.s3.eu-west-1.amazonaws.com</Endpoint>", {"x-amz-bucket-region": "eu-west-1"})

CASES: list[tuple[str, Answer, type[errors.StoreError], str]] = [
    ("skew", SKEWED, errors.ClockSkew, "60 minutes ahead of"),
    ("region told", MALFORMED, errors.WrongRegion, "'eu-central-1'; set the option sig-region"),
    ("region in the message", error(400, "AuthorizationHeaderMalformed", "the region 'us-east-1' is wrong; expecting 'fr-par'"),
     errors.WrongRegion, "'fr-par'"),
    ("moved", MOVED, errors.WrongRegion, "'eu-west-1'"),
    ("moved, endpoint only", error(301, "PermanentRedirect", "Elsewhere", "<Endpoint>s3.elsewhere.net</Endpoint>"),
     errors.WrongRegion, "s3.elsewhere.net"),
    ("location constraint", error(400, "IllegalLocationConstraintException", "The me-south-1 location constraint is incompatible"),
     errors.WrongRegion, "me-south-1"),
    ("not allowed", error(403, "AccessDenied", "Access Denied"), errors.Denied, "read, write, list and delete"),
    ("expired token", error(400, "ExpiredToken", "The provided token has expired."), errors.Denied, "session token"),
    ("bare 403", Answer(403), errors.Denied, "HTTP 403"),
    ("slow down", error(503, "SlowDown", "Please reduce your request rate."), errors.Throttled, "fewer requests"),
    ("429", error(429, "TooManyRequests"), errors.Throttled, "TooManyRequests"),
    ("bare 503", Answer(503), errors.Throttled, "HTTP 503"),
    ("500", error(500, "InternalError", "We encountered an internal error."), errors.Temporary, "InternalError"),
    ("502 of a gateway", Answer(502, b"<html><body>Bad Gateway</body></html>", {"Content-Type": "text/html"}), errors.Temporary, "502"),
    ("conflict", error(409, "ConditionalRequestConflict"), errors.Temporary, "ConditionalRequestConflict"),
    ("aborted", error(409, "OperationAborted"), errors.Temporary, "OperationAborted"),
    ("time-out of the store", error(400, "RequestTimeout", "Idle connections will be closed."), errors.Temporary, "RequestTimeout"),
    ("quota", error(403, "QuotaExceeded", "Quota exceeded"), errors.StoreFull, "takes no more"),
    ("full", error(507, "XMinioStorageFull", "Storage backend has reached its minimum free drive threshold."),
     errors.StoreFull, "takes no more"),
    ("taken", error(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold"), errors.Exists, "taken"),
    ("not implemented", error(501, "NotImplemented", "A header you provided implies functionality that is not implemented"),
     errors.Unsupported, "not implemented"),
    ("damaged", error(400, "BadDigest", "The Content-MD5 you specified did not match what we received."), errors.Corrupt, "damaged"),
    ("bucket disabled", error(403, "AllAccessDisabled"), errors.BucketMissing, "bucket"),
]


@pytest.mark.parametrize("operation", ["get", "put", "list", "delete"])
@pytest.mark.parametrize(("answer", "kind", "text"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_answers(server: AnsweringServer, operation: str, answer: Answer, kind: type[errors.StoreError], text: str) -> None:
    server.answers = [answer]
    found = failure(server.backend(), operation)
    assert type(found) is kind
    assert text in str(found)
    assert found.operation == operation
    assert len(server.asked) == 1, "the SDK neither retries nor follows"


WITH_BODY = [case for case in CASES if case[1].body]


@pytest.mark.parametrize(("answer", "kind", "text"), [case[1:] for case in WITH_BODY], ids=[case[0] for case in WITH_BODY])
def test_stat_learns_the_reason_though_head_has_no_body(server: AnsweringServer, answer: Answer, kind: type[errors.StoreError],
                                                        text: str) -> None:
    server.answers = [answer]
    found = failure(server.backend(), "stat")
    if answer.status < 429:
        assert type(found) is kind
        assert text in str(found)
    else:
        assert isinstance(found, (kind, errors.Temporary))
    assert [asked.method for asked in server.asked] in (["HEAD", "GET"], ["HEAD"])


@pytest.mark.parametrize(("headers", "seconds"), [({"Retry-After": "17"}, 17.0), ({"Retry-After": "1.5"}, 1.5), ({}, None),
                                                  ({"Retry-After": "soon"}, None)])
def test_retry_after(server: AnsweringServer, headers: dict[str, str], seconds: float | None) -> None:
    server.answers = [error(503, "SlowDown", headers=headers)]
    found = failure(server.backend(), "put")
    assert isinstance(found, errors.Throttled)
    assert found.retry_after == seconds
    assert found.refused, "the store said so itself"


def test_a_bare_503_proves_nothing_about_the_put(server: AnsweringServer) -> None:
    server.answers = [Answer(503, headers={"Retry-After": "3"})]
    found = failure(server.backend(), "put")
    assert isinstance(found, errors.Throttled)
    assert (found.retry_after, found.refused) == (3.0, False)


def test_retry_after_as_a_date(server: AnsweringServer) -> None:
    from email.utils import formatdate
    server.answers = [error(429, "TooManyRequests", headers={"Retry-After": formatdate(2_000_000_000, usegmt=True)})]
    found = failure(server.backend(), "put")
    assert isinstance(found, errors.Throttled)
    assert found.retry_after is not None
    assert found.retry_after > 1_000_000, "counted from the answer's own date"


@pytest.mark.parametrize(("answer", "kind"), [
    (Answer(200, bytes(50), announced=100), errors.Corrupt),
    (Answer(206, bytes(10), {"Content-Range": "bytes 0-9/100"}, announced=20), errors.Corrupt),
    (Answer(206, bytes(5), {"Content-Range": "bytes 0-9/100"}), errors.Corrupt),
    (Answer(206, bytes(10), {"Content-Range": "bytes 5-14/100"}), errors.Corrupt),
    (Answer(206, bytes(8), {"Content-Range": "bytes 0-7/100"}), errors.Corrupt),
    (Answer(206, bytes(10)), errors.Corrupt),
])
def test_short_and_wrong_transfers(server: AnsweringServer, answer: Answer, kind: type[errors.StoreError]) -> None:
    server.answers = [answer]
    with pytest.raises(kind) as caught:
        server.backend().get("pack/aa/1", 0, 10)
    assert caught.value.retryable


def test_a_store_that_ignores_ranges(server: AnsweringServer) -> None:
    server.answers = [Answer(200, b"0123456789")]
    assert server.backend().get("pack/aa/1", 3, 4) == b"3456"


def test_a_store_that_says_nothing(server: AnsweringServer) -> None:
    server.answers = [Answer(silent=True)]
    found = failure(server.backend(tcp_timeout="0.2"), "get")
    assert type(found) is errors.Temporary
    assert "silent for 0.2 s (option tcp-timeout)" in str(found)


def test_something_that_is_no_s3_server(server: AnsweringServer) -> None:
    for body in (b"<html><body>Please log in to the hotel's network", b"<html><body>Please log in</body></html>", b""):
        server.answers = [Answer(200, body, {"Content-Type": "text/html"})]
        for operation in ("check", "list"):
            found = failure(server.backend(), operation)
            assert type(found) is errors.Temporary
            assert "does not answer as an S3 store does" in str(found)
    server.answers = [Answer(404, b"<html>nothing here</html>", {"Content-Type": "text/html"})]
    found = failure(server.backend(), "check")
    assert type(found) is errors.BucketMissing
    assert "not an S3 endpoint" in str(found)


def test_a_failed_page_is_asked_for_again(server: AnsweringServer) -> None:
    server.answers = [page(["prefix/log/1", "prefix/log/2"], "next"), error(500, "InternalError"), page(["prefix/log/0"])]
    found = server.backend().list("log/")
    assert [next(found).key, next(found).key] == ["log/1", "log/2"]
    with pytest.raises(errors.Temporary):
        next(found)
    assert [info.key for info in found] == ["log/0"]
    assert ["continuation-token=next" in asked.target for asked in server.asked] == [False, True, True]


def test_a_listing_without_a_way_on_is_not_taken_for_complete(server: AnsweringServer) -> None:
    server.answers = [page(["prefix/log/1"], "same"), page(["prefix/log/2"], "same")]
    with pytest.raises(errors.Corrupt):
        list(server.backend().list("log/"))


def test_no_text_is_longer_than_a_line(server: AnsweringServer) -> None:
    noise = "word\n" * random.Random(1).randrange(500, 600)
    server.answers = [error(400, "InvalidArgument", noise)]
    assert isinstance(failure(server.backend(), "put"), errors.Unsupported)
