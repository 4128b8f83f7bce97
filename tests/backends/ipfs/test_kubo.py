"""ipfs+rpc:// against a Kubo of ours (kubo.py); the suite on a real one is part_kubo.py."""
from __future__ import annotations

import secrets
import ssl
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import parse_qs

import pytest

from s3cfs.backends.base import Backend
from s3cfs.backends.ipfs import dag
from s3cfs.backends.ipfs.cid import Cid
from s3cfs.backends.registry import open_backend
from s3cfs.errors import Corrupt, Denied, Exists, NotFound, StoreFull, Temporary, Unsupported
from tests.backends.ipfs.kubo import BROKEN, CLOSED, LATE, OTHER, STATUS, Fault, KuboServer
from tests.backends.ipfs.kubo_state import Node
from tests.backends.suite import BackendSuite, some_bytes
from tests.servers import self_signed

MIB = 1 << 20


@pytest.fixture(scope="module")
def running() -> Iterator[KuboServer]:
    with KuboServer() as node:
        yield node


@pytest.fixture
def node(running: KuboServer) -> Iterator[KuboServer]:
    running.node = Node()
    running.asked.clear()
    yield running
    faults = list(running.faults)
    running.faults.clear()
    assert not faults, "every fault was met"


@pytest.fixture
def backend(node: KuboServer) -> Iterator[Backend]:
    made = open_backend(node.url(f"t-{secrets.token_hex(6)}/"))
    made.assume_create_only(True)
    yield made
    made.close()


class TestKubo(BackendSuite):
    create_only = True
    many = 60

    @pytest.fixture
    def backend(self, node: KuboServer) -> Iterator[Backend]:
        made = open_backend(node.url(f"t-{secrets.token_hex(6)}/"))
        yield made
        made.close()


def below(backend: Backend) -> str:
    """Where its objects lie in MFS."""
    return "/s3cfs/" + backend.location.partition("://")[2].partition("/")[2]


def files(node: KuboServer, backend: Backend) -> dict[str, str]:
    start = below(backend)
    return {path.removeprefix(start): str(cid) for path, cid in node.node.files().items() if path.startswith(start)}


# ------------------------------------------------------------ what lies in the node

def test_an_object_is_what_ipfs_add_makes_of_it_pinned_and_named(node, backend):
    data = some_bytes(2 * MIB + 5)
    backend.put("pack/aa/1", data)
    tree, _ = dag.blocks_of(data)
    assert files(node, backend) == {"pack/aa/1": str(tree.cid)}
    assert node.node.pins[str(tree.cid)] == below(backend).lstrip("/") + "pack/aa/1"
    changing = [command for command in node.commands() if command not in ("files/stat", "block/get")]
    assert changing == ["dag/import", "pin/add", "files/cp"], "whole, then pinned, then named"


def test_a_range_asks_only_for_the_leaves_that_hold_it(node, backend):
    data = some_bytes(5 * MIB)
    backend.put("pack/aa/1", data)
    node.asked.clear()
    assert backend.get("pack/aa/1", 2 * MIB - 1, 2) == data[2 * MIB - 1:2 * MIB + 1]
    asked = [Cid.parse(parse_qs(query)["arg"][0]) for command, query in node.asked if command == "block/get"]
    leaves = [block.digest for block in dag.blocks_of(data)[1]][:5]
    assert {leaves.index(cid.digest) for cid in asked if cid.digest in leaves} == {1, 2}, "two leaves of five"
    assert all("offline=true" in query for command, query in node.asked if command == "block/get")


def test_a_tree_of_nodes_is_read_in_every_range(node, backend):
    data = some_bytes(1000)
    form = dag.Form(leaf_bytes=100, links_max=3)
    builder, blocks = dag.Builder(form), list[dag.Block]()
    for at in range(0, 1000, 100):
        leaf, root = form.leaf(data[at:at + 100])
        blocks += [leaf, *builder.add(root)]
    last, root = builder.finish()
    for block in (*blocks, *last):
        node.node.blocks[block.digest] = bytes(block.data)
    node.node.copy(f"/ipfs/{root.cid}", below(backend) + "pack/deep", True, False)
    for offset in range(0, 1000, 137):
        for size in (1, 99, 250, None):
            assert backend.get("pack/deep", offset, size) == data[offset:][:size]


def test_a_deleted_object_loses_name_and_pin_and_its_blocks_go_with_the_next_collection(node, backend):
    backend.put("pack/aa/1", b"one")
    backend.put("pack/aa/2", b"two")
    backend.delete("pack/aa/1")
    one = dag.blocks_of(b"one")[0].cid
    assert str(one) not in node.node.pins and one.digest in node.node.blocks
    assert one in node.node.collect()
    assert backend.get("pack/aa/2") == b"two"


def test_what_two_keys_share_stays_while_one_is_left(node, backend):
    """A graph has one pin in a node, which bears the last name; what MFS names is kept without."""
    data = some_bytes(MIB + 1)
    for key in ("super/0", "super/0.2", "super/0.3"):
        backend.put(key, data)
    backend.delete("super/0.3")
    node.node.collect()
    assert backend.get("super/0") == data
    backend.delete("super/0")
    node.node.collect()
    assert backend.get("super/0.2") == data


def test_a_pin_of_somebody_else_is_not_removed(node, backend):
    backend.put("pack/aa/1", b"theirs")
    cid = str(dag.blocks_of(b"theirs")[0].cid)
    node.node.pins[cid] = "my own backup"
    backend.delete("pack/aa/1")
    assert node.node.pins[cid] == "my own backup"


def test_the_loser_of_a_create_only_put_leaves_no_pin(node, backend):
    backend.put("log/1", b"first", only_if_absent=True)
    with pytest.raises(Exists):
        backend.put("log/1", b"second", only_if_absent=True)
    assert str(dag.blocks_of(b"second")[0].cid) not in node.node.pins
    assert str(dag.blocks_of(b"first")[0].cid) in node.node.pins
    with pytest.raises(Exists):
        backend.put("log/1", b"first", only_if_absent=True)
    assert str(dag.blocks_of(b"first")[0].cid) in node.node.pins


def test_other_bytes_take_the_place_and_the_old_ones_lose_their_pin(node, backend):
    backend.put("log/1", b"old")
    backend.put("log/1", b"new")
    assert backend.get("log/1") == b"new"
    assert str(dag.blocks_of(b"old")[0].cid) not in node.node.pins


def test_a_key_is_an_object_or_a_folder(backend):
    backend.put("log/1", b"x")
    for key in ("log/1/2", "log"):
        with pytest.raises(Unsupported, match="a folder of others") as caught:
            backend.put(key, b"y")
        assert caught.value.key == key


def test_only_folders_are_asked_for_by_name(node, backend):
    """A node with a net that is asked for an object whose root is missing waits for ever."""
    backend.put("pack/aa/1", b"x")
    del node.node.blocks[dag.blocks_of(b"x")[0].digest]
    with pytest.raises(NotFound):
        backend.get("pack/aa/1")
    with pytest.raises(Exists):
        backend.put("pack/aa/1", b"y", only_if_absent=True)
    backend.put("pack/aa/1", b"y")
    backend.delete("pack/aa/1")
    named = {argument for command, query in node.asked if command in ("files/stat", "files/flush") for argument in parse_qs(query)["arg"]}
    assert named == {below(backend) + "pack/aa"}
    assert all("force=true" in query for command, query in node.asked if command == "files/rm")


def test_prefixes_do_not_see_one_another(node, backend):
    backend.put("log/1", b"x")
    with closing(open_backend(node.url("other/"))) as other, closing(open_backend(node.url())) as top:
        assert list(other.list("")) == [] and list(other.folders("")) == []
        assert below(backend).removeprefix("/s3cfs/") + "log/1" in [info.key for info in top.list("")]


# ------------------------------------------------------------ what goes wrong

def flip(node: KuboServer, cid: Cid) -> None:
    data = node.node.blocks[cid.digest]
    node.node.blocks[cid.digest] = bytes([data[0] ^ 1]) + data[1:]


def test_a_leaf_with_other_bytes_is_logged_and_one_of_another_length_is_none(node, backend, caplog):
    """What is in it is sealed: whoever reads it finds what of it is damaged."""
    data = some_bytes(3 * MIB)
    backend.put("pack/aa/1", data)
    second = Cid(1, 0x55, list(dag.blocks_of(data)[1])[1].digest)
    flip(node, second)
    assert backend.get("pack/aa/1", 0, MIB) == data[:MIB] and not caplog.messages, "the others are as they were"
    got = backend.get("pack/aa/1")
    assert got[:MIB] + bytes([got[MIB] ^ 1]) + got[MIB + 1:] == data
    assert [text for text in caplog.messages if f"other bytes under the name of block {second}" in text]
    node.node.blocks[second.digest] = b"short"
    with pytest.raises(NotFound, match=f"the block {second} has 5 bytes"):
        backend.get("pack/aa/1", MIB, 1)
    del node.node.blocks[second.digest]
    with pytest.raises(NotFound, match=f"lacks the block {second}"):
        backend.get("pack/aa/1")


@pytest.mark.parametrize("size", [4, 2 * MIB])
@pytest.mark.parametrize("how", ["missing", "changed"])
def test_a_root_that_cannot_be_read_is_named_and_hides_nothing_else(node, backend, size, how):
    data = some_bytes(size)
    backend.put("pack/aa/1", data)
    backend.put("pack/aa/2", b"other")
    cid = dag.blocks_of(data)[0].cid
    if how == "missing":
        del node.node.blocks[cid.digest]
    else:
        flip(node, cid)
    if (size, how) != (4, "changed"):              # then it is a leaf
        with pytest.raises(NotFound, match=str(cid)):
            backend.get("pack/aa/1")
    assert [info.key for info in backend.list("pack/")] == ["pack/aa/1", "pack/aa/2"]
    if (size, how) == (2 * MIB, "changed"):        # a node cannot walk it, so it pins it no more
        return
    backend.put("pack/aa/1", data)
    assert backend.get("pack/aa/1") == data, "the same bytes again mend it"


@pytest.mark.parametrize("size", [4, 2 * MIB])
def test_what_is_damaged_can_be_deleted_and_ends_no_collection(node, backend, size):
    data = some_bytes(size, 3)
    backend.put("pack/aa/1", data)
    del node.node.blocks[dag.blocks_of(data)[0].cid.digest]
    backend.delete("pack/aa/1")
    assert list(backend.list("")) == []
    node.node.collect()


@pytest.mark.parametrize("kind", [LATE, BROKEN])
@pytest.mark.parametrize("command", ["dag/import", "pin/add"])
def test_a_put_that_fails_at_the_end_of_an_answer_is_no_object(node, backend, command, kind):
    node.faults.append(Fault(command, kind))
    with pytest.raises(Temporary):
        backend.put("pack/aa/1", b"data")
    with pytest.raises(NotFound):
        backend.get("pack/aa/1")
    backend.put("pack/aa/1", b"data")
    assert backend.get("pack/aa/1") == b"data"


@pytest.mark.parametrize("kind", [LATE, BROKEN])
@pytest.mark.parametrize("command", ["block/get", "files/stat"])
def test_an_answer_that_breaks_off_is_no_data(node, backend, command, kind):
    backend.put("pack/aa/1", some_bytes(300_000))
    node.faults.append(Fault(command, kind, "disk I/O error"))
    with pytest.raises(Temporary, match="disk I/O error" if kind == LATE else "ended before"):
        backend.get("pack/aa/1")


def test_a_listing_goes_on_after_an_error(node, backend):
    for number in range(5):
        backend.put(f"log/{number}/x", b"x")
    listing = backend.list("log/")
    first = next(listing)
    node.faults.append(Fault("files/stat", STATUS, "overloaded", 503))
    found = [first]
    with pytest.raises(Temporary):
        found += [next(listing)]
    found += list(listing)
    assert sorted(info.key for info in found) == [f"log/{number}/x" for number in range(5)]


def test_a_name_is_given_once_though_its_answer_was_lost(node, backend):
    """A kept connection that turns out dead is asked again, but not for what must happen once only."""
    backend.put("log/0", b"x")
    node.faults.append(Fault("files/cp", CLOSED))
    with pytest.raises(Temporary):
        backend.put("log/1", b"data", only_if_absent=True)
    assert node.commands().count("files/cp") == 2
    with pytest.raises(Exists):
        backend.put("log/1", b"data", only_if_absent=True)
    backend.put("log/1", b"data")


def test_one_connection_serves_one_caller_whatever_is_answered(node, backend):
    before = node.connections
    for _ in range(3):
        with pytest.raises(NotFound):
            backend.get("log/0")
        backend.put("log/1", b"x")
        assert backend.get("log/1") == b"x"
    assert node.connections == before + 1


def test_words_of_a_late_error_hold_no_data(node, backend):
    backend.put("log/0", b"\x00secret\xff" * 100)
    node.faults.append(Fault("block/get", LATE, "disk I/O error"))
    with pytest.raises(Temporary) as caught:
        backend.get("log/0")
    assert caught.value.cause.endswith("disk I/O error")


def test_a_dead_connection_is_no_error_of_a_reader(node, backend):
    backend.put("log/0", b"x")
    node.faults.append(Fault("block/get", CLOSED, first=True))
    assert backend.get("log/0") == b"x"


@pytest.mark.parametrize(("command", "answer", "words"), [
    ("dag/import", '{"Stats":{"BlockCount":2}}', "took"), ("dag/import", "", "took"), ("pin/add", '{"Pins":["bafyother"]}', "pinned"),
    ("pin/add", "<html>", "something else than JSON"), ("pin/add", "", "0 objects instead of one")])
def test_an_answer_that_does_not_fit_is_no_success(node, backend, command, answer, words):
    node.faults.append(Fault(command, OTHER, answer))
    with pytest.raises(Corrupt, match=words) as caught:
        backend.put("log/0", b"x")
    assert (caught.value.operation, caught.value.key) == ("put", "log/0")
    assert files(node, backend) == {}


@pytest.mark.parametrize(("words", "expected"), [("write x: no space left on device", StoreFull), ("context deadline exceeded", Temporary)])
def test_the_nodes_words(node, backend, words, expected):
    node.faults.append(Fault("dag/import", STATUS, words, 500))
    with pytest.raises(expected, match=words):
        backend.put("log/0", b"x")


def test_a_collection_between_the_blocks_and_the_pin_is_asked_again(node, backend):
    """As `Remote` would: nothing has a name whose blocks are gone."""
    node.faults.append(Fault("pin/add", STATUS, "pin: block was not found locally (offline): ipld: could not find bafy"))
    with pytest.raises(Temporary):
        backend.put("log/0", b"x")
    assert files(node, backend) == {}


@pytest.mark.parametrize("secret", [("bearer", "token-1"), ("user", "secret-2")])
def test_logins_and_allowed_paths(secret):
    login, password = secret
    entry = f"bearer:{password}" if login == "bearer" else f"basic:{login}:{password}"
    with KuboServer({entry: ["/api/v0/version", "/api/v0/files", "/api/v0/block/get", "/api/v0/dag/import", "/api/v0/pin"]}) as node:
        with closing(open_backend(node.url("x/"), login=login, password=password)) as mine:
            mine.check()
            mine.put("log/0", some_bytes(5 * MIB))
            mine.delete("log/0")
        for wrong in ({}, {"login": login, "password": "no"}):
            with closing(open_backend(node.url("x/"), **wrong)) as other:
                with pytest.raises(Denied, match="backend-login") as caught:
                    other.check()
                assert password not in str(caught.value)
                with pytest.raises(Denied):                # refused while the body is on its way
                    other.put("log/0", some_bytes(5 * MIB))


def test_https(tmp_path):
    certificate, key = self_signed(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    with KuboServer(tls=tls) as node:
        with closing(open_backend(node.url("x"), {"ssl": "", "ssl-ca-path": str(certificate)})) as mine:
            mine.check()
            mine.put("log/0", some_bytes(3 * MIB))
            assert mine.get("log/0", MIB - 1, 2) == some_bytes(3 * MIB)[MIB - 1:MIB + 1]
            assert node.connections == 2, "the second is of the two leaves that were asked for at once"
        with closing(open_backend(node.url("x"), {"ssl": ""})) as other, pytest.raises(Temporary, match="certificate"):
            other.check()


def test_check_names_what_is_no_kubo_and_what_is_too_old(node, backend, monkeypatch):
    monkeypatch.setattr(node.node, "version", "0.35.1")
    with pytest.raises(Unsupported, match=r"is Kubo 0\.35\.1: 0\.36 or newer"):
        backend.check()
    for status in (404, 405, 501):
        node.faults.append(Fault("version", STATUS, "no such page", status))
        with pytest.raises(Unsupported, match="no Kubo's RPC"):
            backend.check()
    with closing(open_backend("ipfs+rpc://127.0.0.1:1/x/")) as nobody, pytest.raises(Temporary, match=r"127\.0\.0\.1:1"):
        nobody.check()
