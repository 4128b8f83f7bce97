"""The fake gateway is what its text says, seen by a client of S3 that knows nothing of it."""
from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionClosedError, EndpointConnectionError, ReadTimeoutError

from tests.gateway import Gateway, HandClock
from tests.gateway.control import Server as Control
from tests.gateway.control import ask
from tests.servers import BUCKET, Server, rclone_server


@pytest.fixture(scope="module")
def behind() -> Iterator[Server]:
    with rclone_server() as server:
        yield server


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def gateway(behind: Server, clock: HandClock) -> Iterator[Gateway]:
    with Gateway(behind, clock=clock, page_keys=7) as made:
        yield made
        assert made.errors_inside == []


class Client:
    """Of one folder, with short names for what the tests do."""

    def __init__(self, gateway: Gateway, password: str = "", timeout: float = 20) -> None:
        self.folder = f"t-{secrets.token_hex(4)}/"
        server = gateway.server
        config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, read_timeout=timeout)
        self.s3: Any = boto3.client("s3", endpoint_url=f"http://{gateway.host}", aws_access_key_id=server.login, config=config,
                                    aws_secret_access_key=password or server.password, region_name="us-east-1")

    def put(self, key: str, body: bytes = b"x", **more: str) -> None:
        self.s3.put_object(Bucket=BUCKET, Key=self.folder + key, Body=body, **more)

    def get(self, key: str, **more: str) -> bytes:
        data: bytes = self.s3.get_object(Bucket=BUCKET, Key=self.folder + key, **more)["Body"].read()
        return data

    def delete(self, *keys: str) -> None:
        if len(keys) == 1:
            self.s3.delete_object(Bucket=BUCKET, Key=self.folder + keys[0])
        else:
            self.s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": self.folder + key} for key in keys]})

    def pages(self, prefix: str = "", **more: str) -> Iterator[dict[str, Any]]:
        while True:
            page = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=self.folder + prefix, **more)
            yield page
            if not page["IsTruncated"]:
                return
            more["ContinuationToken"] = page["NextContinuationToken"]

    def folders(self, prefix: str = "") -> list[str]:
        pages = self.pages(prefix, Delimiter="/")
        return [item["Prefix"][len(self.folder):] for page in pages for item in page.get("CommonPrefixes", ())]

    def list(self, prefix: str = "", **more: str) -> list[str]:
        return [item["Key"][len(self.folder):] for page in self.pages(prefix, **more) for item in page.get("Contents", ())]



def code(error: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    return error.value.response["ResponseMetadata"]["HTTPStatusCode"], error.value.response["Error"]["Code"]


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    made = Client(gateway)
    yield made
    made.s3.close()


NAMES = [f"pack/{number % 3}/{number:02d} +&é" for number in range(30)]


def fill(client: Client, names: list[str] = NAMES) -> None:
    for name in names:
        client.put(name, name.encode())


def test_listings_come_in_pages_and_in_the_order_of_encrypted_keys(client: Client, gateway: Gateway) -> None:
    fill(client)
    client.put("packs")
    found = client.list("pack/")
    assert sorted(found) == sorted(NAMES) and found != sorted(found) and found == client.list("pack/")
    assert len([*client.pages("pack/")]) == 5, "seven keys a page"
    runs = [name[:7] for name in found]
    assert len([at for at in range(1, 30) if runs[at] != runs[at - 1]]) == 2, "a folder is one run"
    assert sorted(client.folders("pack/")) == ["pack/0/", "pack/1/", "pack/2/"] and client.folders("pack/1/") == []
    assert sorted(client.list("", Delimiter="/")) == ["packs"] and client.list("none/") == []
    gateway.rescan()
    assert client.list("pack/") == found


def test_a_page_goes_on_where_the_last_one_ended_though_its_last_key_is_gone(client: Client) -> None:
    fill(client)
    pages = client.pages("pack/")
    first = [item["Key"][len(client.folder):] for item in next(pages)["Contents"]]
    client.delete(first[-1])
    rest = [item["Key"][len(client.folder):] for page in pages for item in page["Contents"]]
    assert sorted(first + rest) == sorted(NAMES)


@pytest.mark.parametrize("more", [{"Prefix": "pack"}, {"Prefix": "pack/1/0"}, {"Delimiter": "k"}, {"Prefix": "pack/", "Delimiter": "//"}])
def test_any_other_listing_is_not_implemented(client: Client, gateway: Gateway, more: dict[str, str]) -> None:
    fill(client, NAMES[:6])
    asked = {"Bucket": BUCKET, **more, "Prefix": client.folder + more.get("Prefix", "")}
    with pytest.raises(ClientError, match="gateway-side filtering") as error:
        client.s3.list_objects_v2(**asked)
    assert code(error) == (501, "NotImplemented")
    gateway.exhaustive, gateway.exhaustive_limit = True, 6
    answer = client.s3.list_objects_v2(**asked)
    keys = [item["Key"] for item in answer.get("Contents", ())] + [item["Prefix"] for item in answer.get("CommonPrefixes", ())]
    assert keys == sorted(keys) != []
    client.put("pack/1/one more")
    client.put("pack/one more")
    client.put("one more")
    gateway.exhaustive_limit = 2
    with pytest.raises(ClientError) as error:
        client.s3.list_objects_v2(**asked)
    assert code(error) == (501, "NotImplemented")


def test_what_it_answers_itself_is_signed(gateway: Gateway, behind: Server) -> None:
    wrong = Client(gateway, password="not the secret")
    for attempt in (lambda: wrong.list(), lambda: wrong.delete("a", "b"), lambda: wrong.put("a"), lambda: wrong.get("a")):
        with pytest.raises(ClientError) as error:
            attempt()
        assert code(error) == (403, "SignatureDoesNotMatch")
    wrong.s3.close()


def test_of_a_race_one_wins(client: Client) -> None:
    def racer(number: int) -> int:
        try:
            client.put("only", b"%d" % number, IfNoneMatch="*")
        except ClientError as error:
            return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
        return 200

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(racer, range(8))) == [200] + [412] * 7
    client.delete("only")
    client.put("only", IfNoneMatch="*")


def test_a_storm_has_its_number_its_kind_and_its_time(client: Client, gateway: Gateway, clock: HandClock) -> None:
    client.put("a", b"1")
    storm = gateway.throttle(retry_after=7, count=2, only="get")
    client.put("b", b"2")
    for _ in range(2):
        with pytest.raises(ClientError) as error:
            client.get("a")
        assert code(error) == (429, "SlowDown")
        assert error.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "7"
    assert client.get("a") == b"1" and storm.fired == 2
    gateway.errors(502, for_s=10, key="/b$")
    with pytest.raises(ClientError) as error:
        client.put("b")
    assert code(error)[0] == 502 and client.get("a") == b"1"
    clock.advance(10)
    assert client.get("b") == b"2"
    assert [note.status for note in gateway.notes] == [200, 200, 429, 429, 200, 502, 200, 200]


def test_old_answers(client: Client, gateway: Gateway, clock: HandClock) -> None:
    client.put("over", b"old bytes")
    client.put("gone", b"was here")
    clock.advance(60)
    client.put("new", b"n")
    client.put("over", b"new")
    client.delete("gone", "never")
    gateway.stale(30)
    assert client.get("over") == b"old bytes" and client.get("over", Range="bytes=4-6") == b"byt" and client.get("gone") == b"was here"
    assert client.s3.head_object(Bucket=BUCKET, Key=client.folder + "over")["ContentLength"] == 9
    assert sorted(client.list()) == ["gone", "over"]
    with pytest.raises(ClientError) as error:
        client.get("new")
    assert code(error) == (404, "NoSuchKey")
    clock.advance(30)
    assert client.get("over") == b"new" and client.get("new") == b"n" and sorted(client.list()) == ["new", "over"]
    with pytest.raises(ClientError):
        client.get("gone")
    clock.advance(1000)
    client.put("other")
    assert not any(gateway.index.changed(f"{BUCKET}/{client.folder}{name}") for name in ("over", "gone", "new")), "it is forgotten in time"


def test_deletions_that_do_not_take(client: Client, gateway: Gateway, clock: HandClock) -> None:
    fill(client, ["stays", "back", "again"])
    gateway.deletes_stay(key="/stays$")
    gateway.deletes_return(20, key="/(back|again)$", younger_s=5)
    client.delete("stays")
    client.delete("back", "again")
    assert client.list() == ["stays"] and client.get("stays") == b"stays"
    with pytest.raises(ClientError):
        client.get("back")
    client.put("again", b"anew", IfNoneMatch="*")
    clock.advance(20)
    assert sorted(client.list()) == ["again", "back", "stays"] and client.get("back") == b"back" and client.get("again") == b"anew"
    clock.advance(5)
    client.delete("back", "again")
    clock.advance(20)
    assert client.list() == ["stays"], "they were no longer young"


def test_connections_die(client: Client, gateway: Gateway, clock: HandClock) -> None:
    client.put("a", b"1")
    assert gateway.connections == 1 and client.get("a") == b"1" and gateway.connections == 1
    assert gateway.kill_idle(silently=False) == 1
    assert client.get("a") == b"1" and gateway.connections == 2, "urllib3 notices a connection that was closed"
    impatient = Client(gateway, timeout=0.3)
    impatient.folder = client.folder
    gateway.idle_dies_after(30)
    assert impatient.get("a") == b"1"
    clock.advance(30)
    with pytest.raises(ReadTimeoutError):
        impatient.get("a")
    assert gateway.notes[-1].faults == ["silent"]
    gateway.clear()
    for fault in (gateway.reset, gateway.lose_answers):
        fault()
        with pytest.raises(ConnectionClosedError):
            client.put("b", fault.__name__.encode())
        gateway.clear()
    assert client.get("b") == b"lose_answers"
    gateway.down()
    with pytest.raises(EndpointConnectionError):
        client.get("a")
    gateway.up()
    assert client.get("a") == b"1"
    impatient.s3.close()


def test_late_puts_cut_answers_and_slow_ones(client: Client, gateway: Gateway, clock: HandClock) -> None:
    impatient = Client(gateway, timeout=0.2)
    impatient.folder = client.folder
    gateway.late(60, count=1)
    with pytest.raises(ReadTimeoutError):
        impatient.put("zombie", b"back from the dead")
    with pytest.raises(ClientError):
        client.get("zombie")
    clock.advance(60)
    while not gateway.index.entry(f"{BUCKET}/{client.folder}zombie"):      # its thread has the word
        pass
    assert client.get("zombie") == b"back from the dead"
    gateway.cut(only="get")
    with pytest.raises(BotoCoreError):
        client.get("zombie")
    gateway.clear()
    gateway.slow(5, count=1)
    with pytest.raises(ReadTimeoutError):
        impatient.get("zombie")
    gateway.clear()
    impatient.s3.close()


def test_another_process_drives_it(client: Client, gateway: Gateway) -> None:
    client.put("a", b"1")
    with closing(Control(gateway)) as control:
        assert ask(control.address, "throttle", retry_after=3, count=1)["retry_after"] == 3
        with pytest.raises(ClientError):
            client.get("a")
        done = subprocess.run([sys.executable, "-m", "tests.gateway", "do", control.address, "stale", "seconds=5", 'only=["get"]'],
                              capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["seconds"] == 5
        assert [fault["name"] for fault in ask(control.address)["faults"]] == ["throttle", "stale"]
        ask(control.address, "advance", seconds=6)
        assert ask(control.address)["statuses"] == {"200": 1, "429": 1}
        with pytest.raises(ValueError, match="'close' is none of"):
            ask(control.address, "close")
        with pytest.raises(ValueError, match="no operation"):
            ask(control.address, "reset", only=["nothing"])


def test_a_client_that_stops_in_the_middle_of_a_put_leaves_nothing(client: Client, gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", int(gateway.host.rpartition(":")[2]))) as line:
        line.sendall(f"PUT /{BUCKET}/{client.folder}torn HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf".encode())
    client.put("whole")
    assert client.list() == ["whole"]
