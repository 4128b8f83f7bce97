"""One conversation with a 0-db, as it went with the real one (v2.0.7): with the fake in `make test`, with the binary in `make zdb-real`.

What the fake answers here is what the real one answers there; test_same.py holds random conversations with both at once.
"""
from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
import time
from pathlib import Path

import pytest

from tests.zdb import real, server
from tests.zdb.several import REAL
from tests.zdb.talk import Talk

KEY_255, KEY_256 = b"k" * 255, b"k" * 256
MIB = 1 << 20


@pytest.fixture
def start(tmp_path):
    """`start(admin=..., protect=..., mode=...)` -> a server (RealZdb or FakeZdb) that runs."""
    folders = (tmp_path / f"one-{number}" for number in itertools.count())
    with contextlib.ExitStack() as stack:
        def begin(**options):
            if REAL:
                return stack.enter_context(real.running(Path(REAL), 1, next(folders), **options))[0]
            return stack.enter_context(server.running(1, **options))[0]
        yield begin


@pytest.fixture
def talk_to():
    made: list[Talk] = []

    def talk_to(zdb) -> Talk:
        made.append(Talk(zdb.port))
        return made[-1]

    yield talk_to
    for talk in made:
        talk.close()


@pytest.fixture
def talk(start, talk_to):
    """To one where everybody is an administrator."""
    return talk_to(start())


def info(talk: Talk, namespace: str) -> dict[str, str]:
    answer = talk("NSINFO", namespace)
    assert isinstance(answer, bytes) and answer.startswith(b"# namespace\n")
    return dict(line.split(": ", 1) for line in answer.decode().splitlines()[1:])


# ---------------------------------------------------------------- the wire

@pytest.mark.parametrize("sent, words, closes", [
    (b"PING\r\n", "-Malformed request, array expected", True),
    (b"*0\r\n", "-Missing arguments", False),
    (b"*1025\r\n", "-Too many arguments", False),
    (b"*1\r\n:5\r\n", "-Malformed query string", False),
    (b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$8388609\r\n", "-Payload too big", True)])
def test_what_is_no_request(talk, sent, words, closes):
    talk.raw(sent)
    assert talk.reply() == words
    if closes:
        assert talk.is_closed


def test_commands_are_found_by_how_they_begin(talk):
    assert [talk(command) for command in ("PING", "pInG", "P")] == ["+PONG"] * 3
    assert talk("SE", "key", "value") == b"key"
    assert talk("ge", "key") == b"value"
    assert talk("EX", "key") == 1
    assert talk("HELLO") == talk("KEYS", "*") == talk("PINGS") == "-Command not supported"
    assert talk("") == talk("*") == "-This is not a valid command"
    assert talk("STOP") == "-Unauthorized"
    assert talk("K", "p") == "-Command disabled in release code, not yet available"


def test_a_request_in_pieces(talk):
    for byte in b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n":
        talk.raw(bytes([byte]))
    assert talk.reply() is None


def test_a_few_requests_at_once(talk):
    talk.raw(b"*1\r\n$4\r\nPING\r\n" * 100)
    assert [talk.reply() for _ in range(100)] == ["+PONG"] * 100


# ---------------------------------------------------------------- values

def test_set_and_get(talk):
    assert talk("GET", "key") is None
    assert talk("SET", "key", "value") == b"key"
    assert talk("SET", "key", "value") is None, "the same again"
    assert talk("SET", "key", "other") == b"key"
    assert talk("GET", "key") == b"other"
    assert talk("SETX", b"\0\r\n\xff", b"\r\n\0") == b"\0\r\n\xff"
    assert talk("GET", b"\0\r\n\xff") == b"\r\n\0"
    assert talk("SET", "empty", "") == b"empty" and talk("GET", "empty") == b""
    assert talk("SET", KEY_255, "v") == KEY_255
    assert talk("SET", KEY_256, "v") == "-Key too large"
    assert talk("SET", "", "v") == "-Invalid argument, key needed"
    assert talk("SET", "key") == talk("SET", "key", "v", "1", "2") == talk("GET") == talk("GET", "a", "b") == "-Unexpected arguments"
    assert talk("GET", "") == "-Invalid argument"
    for command in ("GET", "DEL", "EXISTS", "CHECK", "LENGTH", "KEYTIME", "MGET"):
        assert talk(command, KEY_256) == "-Invalid key"


def test_a_value_of_eight_mebibytes(talk):
    value = bytes(range(256)) * (8 * MIB // 256)
    assert talk("SET", "key", value) == b"key"
    assert talk("GET", "key") == value


def test_delete_exists_length_check_keytime(talk):
    assert talk("DEL", "key") == "-Key not found"
    assert [talk(command, "key") for command in ("EXISTS", "LENGTH", "CHECK", "KEYTIME")] == [0, None, None, None]
    began = int(time.time())
    assert talk("SET", "key", "value") == b"key"
    assert [talk(command, "key") for command in ("EXISTS", "LENGTH", "CHECK")] == [1, 5, 1]
    assert began <= talk("KEYTIME", "key") <= time.time()
    assert talk("SET", "key", "other", "12345") == b"key" and talk("KEYTIME", "key") == 12345
    assert talk("DBSIZE") == 1
    assert talk("DEL", "key", "1") == "+OK", "an administrator's timestamp"
    assert talk("DEL", "key") == "-Key not found"
    assert talk("DBSIZE") == 0
    assert talk("DEL") == "-Unexpected arguments" and talk("DEL", "") == "-Invalid argument"


def test_mget(talk):
    assert talk("MGET") == "-Invalid arguments"
    talk("SET", "a", "1")
    assert talk("MGET", "a", "none", "a") == [b"1", None, b"1"]
    assert talk("MGET", *["a"] * 1023) == [b"1"] * 1023
    assert talk("MGET", "a", KEY_256) == "-Invalid key"


def test_what_the_disk_did_to_a_value(start, talk_to):
    zdb = start()
    talk = talk_to(zdb)
    talk("SET", "key", "value")
    talk("SET", "last", "v" * 100)
    zdb.flip("default", b"key")
    assert talk("GET", "key") == b"valud" and talk("CHECK", "key") == 0, "nothing is verified"
    assert talk("SET", "key", "value") == b"key", "not what is there"
    zdb.cut("default", b"last")
    assert talk("GET", "last") == "-Internal Error" and talk("CHECK", "last") == -1 and talk("LENGTH", "last") == 100
    assert talk("SET", "last", "v" * 100) == b"last" and talk("GET", "last") == b"v" * 100


def test_a_full_disk(start, talk_to):
    zdb = start(datasize=16 * MIB, **({"file_max": 2 * MIB} if REAL else {}))
    talk = talk_to(zdb)
    assert talk("SET", "a", b"a" * MIB) == b"a"
    if not REAL:
        zdb.disk.full = True
    assert talk("SET", "b", b"b" * MIB) == talk("SET", "c", "v") == "-Cannot write data right now"
    assert talk("DEL", "a") == "-Cannot delete key (data)"
    assert talk("GET", "a") == b"a" * MIB and talk("GET", "b") is None


# ---------------------------------------------------------------- scans

def all_of(talk: Talk, command: str = "SCAN", cursor: bytes | None = None) -> list[object]:
    found: list[object] = []
    while True:
        answer = talk(command, *([] if cursor is None else [cursor]))
        if answer == "-No more data":
            return found
        match answer:
            case [bytes(cursor), list(entries)]:
                assert len(cursor) == 17
                found += entries
            case _:
                pytest.fail(str(answer))


def test_scans(talk):
    assert talk("SCAN") == talk("RSCAN") == "-No more data"
    for number in range(700):
        talk("SET", f"k{number}", "v" * (number % 10), str(number))
    entries = [[b"k%d" % number, number % 10, number] for number in range(700)]
    assert all_of(talk) == all_of(talk, "SCANX") == entries
    assert all_of(talk, "RSCAN") == entries[::-1]
    talk("DEL", "k0")
    talk("DEL", "k5")
    talk("SET", "k7", "other", "9")
    entries = [entry for entry in entries if entry[0] not in (b"k0", b"k5", b"k7")] + [[b"k7", 5, 9]]
    assert all_of(talk) == entries and all_of(talk, "RSCAN") == entries[::-1]
    for command in ("SCAN", "RSCAN"):
        assert talk(command, b"x" * 16) == talk(command, b"x" * 17) == "-Invalid key format"


def test_a_cursor_is_good_for_long(talk):
    for number in range(10):
        talk("SET", f"k{number}", "v", "1")
    cursor = talk("KEYCUR", "k9")
    assert isinstance(cursor, bytes) and len(cursor) == 17
    assert talk("KEYCUR", "none") == "-Key not found"
    assert talk("SCAN", cursor) == "-No more data"
    talk("DEL", "k9")
    talk("SET", "k3", "w", "2")
    assert all_of(talk, cursor=cursor) == [[b"k3", 1, 2]]
    assert talk("NSJUMP") == "+OK"
    talk("SET", "new", "v", "3")
    assert all_of(talk, cursor=cursor) == [[b"k3", 1, 2], [b"new", 1, 3]], "over the end of a file"
    assert all_of(talk, "RSCAN", cursor) == [[b"k%d" % number, 1, 1] for number in (8, 7, 6, 5, 4, 2, 1, 0)]


# ---------------------------------------------------------------- namespaces

def test_making_and_removing_namespaces(start, talk_to):
    zdb = start()
    talk, other = talk_to(zdb), talk_to(zdb)
    assert talk("NSLIST") == [b"default"]
    assert talk("NSNEW", "one") == "+OK" and talk("NSNEW", "one") == "-This namespace is not available"
    for name in ("default", ".", "..", "a/b"):
        assert talk("NSNEW", name) == "-This name is not allowed"
    assert talk("NSNEW", "n" * 129) == talk("SELECT", "n" * 129) == talk("NSINFO", "n" * 129) == "-Namespace too long"
    assert talk("NSNEW") == "-Unexpected arguments" and talk("SELECT") == "-Invalid argument"
    assert talk("NSLIST") == [b"default", b"one"]
    assert talk("SELECT", "none") == talk("NSINFO", "none") == talk("NSSET", "none", "maxsize", "1") == "-Namespace not found"
    assert other("SELECT", "one") == "+OK" and other("SET", "key", "value") == b"key"
    assert talk("GET", "key") is None, "it is another namespace"
    assert other("NSDEL", "one") == "-Cannot remove namespace you're currently using."
    assert talk("NSDEL", "default") == "-Cannot remove default namespace"
    assert talk("NSDEL", "none") == "-This namespace doesn't exists"
    assert talk("NSDEL", "one") == "+OK"
    assert other("PING") == "-Your active namespace is not available anymore (probably removed)."
    assert other.is_closed
    assert talk("NSNEW", "one") == "+OK" and talk("SELECT", "one") == "+OK" and talk("GET", "key") is None


def test_settings(talk):
    talk("NSNEW", "one")
    for name, value in (("maxsize", "1000"), ("public", "0"), ("worm", "1"), ("password", "secret"), ("lock", "1"), ("freeze", "0")):
        assert talk("NSSET", "one", name, value) == "+OK"
    told = info(talk, "one")
    assert {name: told[name] for name in ("data_limits_bytes", "public", "worm", "password", "locked", "mode")} == {
        "data_limits_bytes": "1000", "public": "no", "worm": "yes", "password": "yes", "locked": "no", "mode": "userkey"}
    assert talk("NSSET", "one", "password", "*") == "+OK" and info(talk, "one")["password"] == "no"
    assert talk("NSSET", "one", "colour", "1") == talk("NSSET", "one", "Maxsize", "1") == "-Invalid property"
    assert talk("NSSET", "one", "maxsize", "1" * 64) == "-Argument too long"
    assert talk("NSSET", "one", "maxsize", "many") == "+OK" and info(talk, "one")["data_limits_bytes"] == "0"
    assert talk("NSSET", "default", "maxsize", "1") == "-Cannot update default namespace"
    assert talk("NSSET", "one", "maxsize") == "-Unexpected arguments" and talk("NSSET", "one", "maxsize", "") == "-Invalid argument"


def test_what_it_says_of_a_namespace(start, talk_to):
    zdb = start(admin="root")
    talk, admin = talk_to(zdb), talk_to(zdb)
    assert admin("AUTH", "root") == "+OK" and admin("NSNEW", "one") == "+OK" and admin("NSSET", "one", "maxsize", "10000000") == "+OK"
    talk("SELECT", "one")
    for value in (b"a" * MIB, b"b" * MIB, b"c" * (MIB // 2)):
        talk("SET", "key", value)
    told = info(talk, "one")
    assert list(told) == [
        "name", "entries", "public", "worm", "locked", "password", "data_size_bytes", "data_size_mb", "data_limits_bytes",
        "index_size_bytes", "index_size_kb", "next_internal_id", "mode", "stats_index_io_errors", "stats_index_io_error_last",
        "stats_index_faults", "stats_data_io_errors", "stats_data_io_error_last", "stats_data_faults", "space_available",
        "index_disk_freespace_bytes", "index_disk_freespace_mb", "data_disk_freespace_bytes", "data_disk_freespace_mb"]
    assert {name: told[name] for name in ("name", "entries", "data_size_bytes", "data_size_mb", "index_size_bytes", "space_available")} == {
        "name": "one", "entries": "1", "data_size_bytes": str(MIB // 2), "data_size_mb": "0.50", "index_size_bytes": "67",
        "space_available": str(10000000 - MIB // 2)}
    more = info(admin, "one")
    assert list(more)[len(told):] == ["data_path", "data_active", "index_path", "index_active", "data_current_id", "data_current_offset"]
    written = 28 + 3 * (18 + 3) + 5 * MIB // 2
    assert (more["data_current_id"], more["data_current_offset"]) == ("0", str(written)), "what was overwritten is still there"
    talk("DEL", "key")
    more = info(admin, "one")
    assert (more["data_size_bytes"], more["data_current_offset"]) == ("0", str(written + 18 + 3)), "and what was deleted, and the deletion"
    admin("SELECT", "one")
    assert admin("NSJUMP") == "+OK" and info(admin, "one")["data_current_id"] == "1" and info(admin, "one")["data_current_offset"] == "28"
    admin("NSSET", "one", "maxsize", "5")
    talk("SET", "a", "12345")
    admin("NSSET", "one", "maxsize", "4")
    assert info(talk, "one")["space_available"] == str(2**64 - 1), "it wraps"


def test_a_file_ends_where_the_next_value_would_go_past_its_size(start, talk_to):
    talk = talk_to(start(datasize=512 << 10))
    for value, file in ((524288 - 28, "0"), (1, "1"), (524288 - 28 - 19 - 1 - 19, "1"), (1, "2"), (524288 - 66, "3")):
        talk("SET", "k", bytes(value))
        talk("DEL", "k")
        assert info(talk, "default")["data_current_id"] == file


def test_limits_and_locks(talk):
    talk("NSNEW", "one")
    talk("SELECT", "one")
    talk("NSSET", "one", "maxsize", "10")
    assert talk("SET", "a", "12345") == b"a" and talk("SET", "b", "12345") == b"b"
    assert talk("SET", "c", "1") == "-No space left on this namespace"
    assert talk("SET", "a", "54321") == b"a" and talk("SET", "a", "123456") == "-No space left on this namespace"
    assert talk("DEL", "a") == "+OK" and talk("SET", "c", "1") == b"c"
    talk("NSSET", "one", "maxsize", "0")
    talk("NSSET", "one", "lock", "1")
    assert talk("SET", "d", "1") == talk("DEL", "b") == "-Namespace is temporarily locked (read-only)"
    assert talk("GET", "b") == b"12345" and info(talk, "one")["locked"] == "yes"
    talk("NSSET", "one", "freeze", "1")
    frozen = "-Namespace is temporarily frozen (read-write disabled)"
    for request in (["GET", "b"], ["MGET", "b"], ["SET", "d", "1"], ["DEL", "b"], ["EXISTS", "b"], ["CHECK", "b"], ["LENGTH", "b"],
                    ["KEYTIME", "b"], ["SCAN"], ["RSCAN"], ["KEYCUR", "b"]):
        assert talk(*request) == frozen, request
    assert talk("DBSIZE") == 2 and talk("PING") == "+PONG"
    talk("NSSET", "one", "lock", "0")
    assert talk("SET", "d", "1") == b"d"
    talk("NSSET", "one", "worm", "1")
    assert talk("SET", "d", "1") == talk("SET", "d", "2") == "-Namespace is protected by worm mode"
    assert talk("DEL", "d") == "-Cannot delete a key when namespace is in worm mode" and talk("SET", "e", "1") == b"e"


def test_what_a_restart_keeps(start, talk_to):
    zdb = start(admin="root")
    talk = talk_to(zdb)
    talk("AUTH", "root")
    talk("NSNEW", "one")
    for name, value in (("maxsize", "1000"), ("public", "0"), ("password", "secret"), ("lock", "1")):
        talk("NSSET", "one", name, value)
    talk("SELECT", "default")
    talk("SET", "key", "value")
    before = talk("INFO")
    zdb.kill()
    zdb.start()
    talk = talk_to(zdb)
    told = info(talk, "one")
    assert [told[name] for name in ("data_limits_bytes", "public", "password", "locked")] == ["1000", "no", "yes", "no"]
    assert talk("GET", "key") == b"value"
    assert instance_of(talk("INFO")) != instance_of(before)


def instance_of(answer: object) -> str:
    assert isinstance(answer, bytes) and b"sequential_key_size: 8\n" in answer
    found = re.search(rb"instance_id: (\d+)", answer)
    assert found
    return found[1].decode()


def test_flush_flushes_nothing(talk):
    talk("NSNEW", "one")
    talk("SELECT", "one")
    talk("SET", "key", "value")
    assert talk("FLUSH") == "-Flushing public namespace denied"
    talk("NSSET", "one", "password", "secret")
    talk("NSSET", "one", "public", "0")
    assert talk("FLUSH") == "+OK" and talk("GET", "key") == b"value"


# ---------------------------------------------------------------- who may what

def proof(challenge: object, password: str) -> str:
    assert isinstance(challenge, str) and re.fullmatch(r"\+[0-9a-f]{16}", challenge)
    return hashlib.sha1(f"{challenge[1:]}:{password}".encode()).hexdigest()


def test_administrators(start, talk_to):
    zdb = start(admin="root")
    talk = talk_to(zdb)
    for request in (["NSNEW", "one"], ["NSDEL", "one"], ["NSSET", "one", "maxsize", "1"], ["NSJUMP"], ["SET", "k", "v", "1"],
                    ["DEL", "k", "1"]):
        assert talk(*request) == "-Permission denied", request
    assert talk("SET", "k", "v") == b"k" and talk("NSLIST") == [b"default"]
    assert talk("AUTH", "wrong") == "-Access denied" and talk("AUTH", "x" * 129) == "-Password too long"
    assert talk("AUTH", "SECURE", "x" * 40) == "-No CHALLENGE requested, secure authentication not available"
    assert talk("AUTH", "HOW", "CHALLENGE") == "-Only SECURE extra method supported"
    talk("AUTH", "SECURE", "CHALLENGE")
    assert talk("AUTH", "SECURE", "x") == "-Invalid hash length"
    assert talk("AUTH", "SECURE", "x" * 40) == "-Access denied"
    assert talk("AUTH", "SECURE", "x" * 40) == "-No CHALLENGE requested, secure authentication not available", "it is used up"
    assert talk("AUTH", "SECURE", proof(talk("AUTH", "SECURE", "CHALLENGE"), "root")) == "+OK"
    assert talk("NSNEW", "one") == "+OK"
    assert talk_to(zdb)("NSNEW", "two") == "-Permission denied", "it is a connection's"
    assert talk("AUTH") == talk("AUTH", "a", "b", "c") == "-Unexpected arguments"


def test_without_a_password_everybody_is_an_administrator(talk):
    assert talk("AUTH", "any") == "-Authentication disabled"
    proof(talk("AUTH", "SECURE", "CHALLENGE"), "")
    assert talk("AUTH", "SECURE", "x" * 40) == "-Authentication disabled"
    assert talk("NSNEW", "one") == "+OK"


def test_passwords_of_namespaces(start, talk_to):
    zdb = start()
    talk, other = talk_to(zdb), talk_to(zdb)
    talk("NSNEW", "one")
    assert talk("SELECT", "one", "any") == "+OK", "there is none"
    talk("NSSET", "one", "password", "secret")
    assert talk("SET", "k", "v") == b"k", "who is in stays in"
    assert other("SELECT", "one") == "+OK" and other("GET", "k") == b"v"
    assert other("SET", "k", "w") == other("DEL", "k") == "-Namespace is in read-only mode"
    talk("NSSET", "one", "public", "0")
    assert other("SELECT", "one") == "-Namespace protected and private" and other("GET", "k") == b"v"
    assert other("SELECT", "one", "wrong") == "-Access denied" and other("SELECT", "one", "x" * 256) == "-Password too long"
    assert other("SELECT", "one", "SECURE", "x" * 40) == "-No CHALLENGE requested, secure authentication not available"
    challenge = other("AUTH", "SECURE", "CHALLENGE")
    assert other("SELECT", "one", "SECURE", "x") == "-Invalid hash length"
    assert other("SELECT", "one", "HOW", "x" * 40) == "-Only SECURE extra method supported"
    assert other("SELECT", "one", "SECURE", "x" * 40) == "-Access denied"
    assert other("SELECT", "one", "a", "b", "c") == "-Too many arguments"
    for _ in range(2):                                 # a SELECT does not use it up
        assert other("SELECT", "one", "SECURE", proof(challenge, "secret")) == "+OK"
    assert other("SET", "k", "w") == b"k"
    assert other("SELECT", "one", "secret") == "+OK"


def test_the_default_namespace_protected(start, talk_to):
    zdb = start(admin="root", protect=True)
    talk = talk_to(zdb)
    assert talk("SET", "k", "v") == "-Namespace is in read-only mode" and talk("GET", "k") is None
    assert talk("AUTH", "root") == "+OK" and talk("SET", "k", "v") == "-Namespace is in read-only mode"
    assert talk("SELECT", "default", "root") == "+OK" and talk("SET", "k", "v") == b"k"


# ---------------------------------------------------------------- modes

def test_a_sequential_namespace(start, talk_to):
    zdb = start()
    talk = talk_to(zdb)
    talk("NSNEW", "one")
    assert talk("NSSET", "one", "mode", "what") == "-Invalid property value (expected: user, seq)"
    assert talk("NSSET", "one", "mode", "seq") == "+OK" and info(talk, "one")["mode"] == "sequential"
    talk("SELECT", "one")
    ids = [number.to_bytes(8, "little") for number in range(6)]
    assert [talk("SET", "", f"v{number}", "1") for number in range(3)] == ids[:3]
    assert talk("SET", ids[1], "other", "2") == ids[1] and talk("SET", ids[1], "other") is None
    assert talk("GET", ids[1]) == b"other" and talk("GET", ids[3]) is None
    assert talk("SET", "", "v4", "3") == ids[4], "an update costs a number"
    assert talk("SET", ids[5], "v") == talk("SET", "name", "v") == "-Invalid key, only update authorized"
    assert talk("GET", "name") is None and talk("EXISTS", "name") == 0
    assert talk("DEL", ids[0]) == "+OK" and talk("SET", ids[0], "v") == "-Invalid key, only update authorized"
    assert all_of(talk) == [[ids[1], 5, 2], [ids[2], 2, 1], [ids[4], 2, 3]]
    cursor = talk("KEYCUR", ids[2])
    assert all_of(talk, cursor=cursor) == [[ids[4], 2, 3]]
    talk("SET", ids[2], "changed")
    assert talk("SCAN", cursor) == "-Invalid key format"
    assert talk("NSSET", "one", "mode", "user") == "-Cannot change mode of used namespace"


def test_servers_of_one_mode(start, talk_to):
    for mode, name in (("seq", "sequential"), ("user", "userkey")):
        talk = talk_to(start(mode=mode))
        talk("NSNEW", "one")
        assert info(talk, "one")["mode"] == info(talk, "default")["mode"] == name
        assert talk("NSSET", "one", "mode", "user") == "-This server instance is configured to use a single runtime mode"
