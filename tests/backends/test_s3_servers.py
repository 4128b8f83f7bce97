"""Many keys in one request: what goes over the wire, errors by key, and servers that know no such request or answer half of it.

And servers that do not know ranges or delimiters."""
from __future__ import annotations

import base64
import hashlib
import re

import pytest

from s3cfs import errors
from s3cfs.backends.progress import told_to
from tests.backends.answers import Answer, AnsweringServer, error, page
from tests.servers import Server

KEYS = ["pack/aa/1", "pack/aa/2", "pack/aa/3"]


def answer(deleted: list[str], failed: dict[str, str] | None = None) -> Answer:
    """`failed`: key -> code."""
    body = "".join(f"<Deleted><Key>prefix/{key}</Key></Deleted>" for key in deleted)
    body += "".join(f"<Error><Key>prefix/{key}</Key><Code>{code}</Code></Error>" for key, code in (failed or {}).items())
    body = f'<?xml version="1.0"?><DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{body}</DeleteResult>'
    return Answer(200, body.encode(), {"Content-Type": "application/xml"})


def test_one_request_with_a_checksum_that_every_server_knows(server: AnsweringServer) -> None:
    server.answers = [answer(KEYS)]
    backend = server.backend()
    assert backend.capabilities.batch_delete == 1000
    backend.delete_many(KEYS)
    asked, = server.asked
    assert (asked.method, asked.target) == ("POST", "/bucket?delete")
    assert re.findall(rb"<Key>([^<]*)</Key>", asked.body) == [f"prefix/{key}".encode() for key in KEYS]
    assert asked.headers["content-md5"] == base64.b64encode(hashlib.md5(asked.body).digest()).decode()
    assert not any(name.startswith("x-amz-checksum") for name in asked.headers)


def test_one_key_is_an_ordinary_deletion_and_none_is_nothing(server: AnsweringServer) -> None:
    server.answers = [Answer(204)]
    backend = server.backend()
    backend.delete_many([])
    backend.delete_many(KEYS[:1])
    assert [asked.method for asked in server.asked] == ["DELETE"]


@pytest.mark.parametrize("refusal", [error(501, "NotImplemented"), error(405, "MethodNotAllowed"), error(400, "InvalidRequest")])
def test_a_server_without_it_is_asked_once(server: AnsweringServer, refusal: Answer) -> None:
    server.answers = [refusal, Answer(204)]
    backend = server.backend()
    backend.delete_many(KEYS)
    assert backend.capabilities.batch_delete == 1
    backend.delete_many(KEYS)
    assert [asked.method for asked in server.asked] == ["POST", *["DELETE"] * 6]


def test_what_the_answer_does_not_name_is_deleted_singly(server: AnsweringServer) -> None:
    server.answers = [answer(KEYS[:1]), Answer(204)]
    server.backend().delete_many(KEYS)
    assert [asked.target for asked in server.asked[1:]] == [f"/bucket/prefix/{key}" for key in KEYS[1:]]


@pytest.mark.parametrize(("failed", "kind", "key"), [
    ({KEYS[1]: "InternalError", KEYS[2]: "AccessDenied"}, errors.Denied, KEYS[2]),
    ({KEYS[1]: "InternalError"}, errors.Temporary, KEYS[1]), ({KEYS[1]: "SlowDown"}, errors.Throttled, KEYS[1])])
def test_errors_by_key(server: AnsweringServer, failed: dict[str, str], kind: type[errors.StoreError], key: str) -> None:
    server.answers = [answer(KEYS[:1], failed)]
    with pytest.raises(kind) as caught:
        server.backend().delete_many(KEYS)
    assert (type(caught.value), caught.value.operation, caught.value.key) == (kind, "delete", key)


def test_an_absent_key_is_no_error(server: AnsweringServer) -> None:
    server.answers = [answer(KEYS[:2], {KEYS[2]: "NoSuchKey"})]
    server.backend().delete_many(KEYS)
    assert len(server.asked) == 1


@pytest.mark.parametrize("refusal", [error(403, "AccessDenied"), error(503, "SlowDown"), Answer(500)])
def test_an_error_of_the_whole_request_is_no_verdict(server: AnsweringServer, refusal: Answer) -> None:
    server.answers = [refusal]
    backend = server.backend()
    with pytest.raises(errors.StoreError):
        backend.delete_many(KEYS)
    assert backend.capabilities.batch_delete == 1000


def test_single_deletions_tell_that_they_go_on(server: AnsweringServer) -> None:
    """A thousand of them take longer than any call may be silent."""
    server.answers = [error(501, "NotImplemented"), Answer(204)]
    told: list[int] = []
    with told_to(lambda: told.append(len(server.asked))):
        server.backend().delete_many(KEYS)
    assert told == [2, 3, 4]


def test_real_servers_have_it(rclone_s3: Server, moto_s3: Server) -> None:
    for real in (rclone_s3, moto_s3):
        backend = real.open()
        for key in KEYS:
            backend.put(key, b"x")
        backend.delete_many([*KEYS, "pack/aa/never"])
        assert list(backend.list("")) == []
        assert backend.capabilities.batch_delete == 1000, real.kind
        backend.close()


def test_a_server_that_ignores_ranges_is_found_out(server: AnsweringServer) -> None:
    server.answers = [Answer(200, b"0123456789")]
    backend = server.backend()
    assert backend.get("pack/aa/1", 0, 20) == b"0123456789"
    assert backend.capabilities.ranged_reads
    assert backend.get("pack/aa/1", 2, 3) == b"234"
    assert not backend.capabilities.ranged_reads


def test_a_server_that_hides_folders_is_found_out(server: AnsweringServer) -> None:
    everything = page(["prefix/log/main/0/1", "prefix/log/main/1/2", "prefix/log/flat"])
    server.answers = [page(["prefix/log/flat"]), everything]
    backend = server.backend()
    assert list(backend.folders("log/")) == ["main"]
    assert ["delimiter" in asked.target for asked in server.asked] == [True, False, False]
    assert list(backend.folders("log/")) == ["main"]
    assert "delimiter" not in server.asked[3].target, "it is asked once"


def test_a_folder_without_folders_is_believed_after_a_second_look(server: AnsweringServer) -> None:
    server.answers = [page(["prefix/log/1", "prefix/log/2"])]
    backend = server.backend()
    assert list(backend.folders("log/")) == []
    assert ["delimiter" in asked.target for asked in server.asked] == [True, False]
    assert list(backend.folders("log/")) == []
    assert ["delimiter" in asked.target for asked in server.asked] == [True, False] * 2
