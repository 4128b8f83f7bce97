"""One object of S3QL: vectors that S3QL 6.3.0 made, and everything that must not pass for one."""
from __future__ import annotations

import base64
import bz2
import lzma
import zlib
from collections.abc import Callable

import pytest

from s3cfs.errors import Damaged
from s3cfs.moves.s3ql.envelope import BadSignature, Header, canonical, open_object, pack, parse

PASSPHRASE = b"pw d"
SECRET = base64.b64decode("gQXHzmuYHJBQejDV5k4pck8nRgjuce6wElTdYahvHhw=")
KEY_OBJECT = pack(
    "{ 'format_version': 2, 'compression': 'LZMA', 'encryption': 'AES_v2', 'nonce': b'rjktO07A2kFzM3FsX3Bhc3NwaHJhc2U=', "
    "'data': b'OIk4H44V7DOSOifIVehyUw==', 'object_id': 's3ql_passphrase', 'signature': b'qxfxPITBbI92ZcZVpOT5Qp57o05NllDjFPuTr5qYexA=' }",
    bytes.fromhex("82b8ff2e6081bc588546fd48f25941b8e99119a4f0ac6445d3c2ad95f9226fbbbfe92e2646ed42057e66420c5f18eb84ab63b83ad18100add51d73afc997191e"
                  "918a8654ec78b8cab37d148e5c20d0cb50cd9a683877ff4fc6b7f2fe9e35f765fe0df2ba2cc869612409659684296a7a8096191fc4696a37cc276544d5a1f12f"))
DATA_HEADER = ("{ 'format_version': 2, 'compression': 'None', 'encryption': 'AES_v2', 'nonce': b'PRSRUE7A2kFzM3FsX2RhdGFfMzA3', "
               "'data': b'pJJVmZx+7PMIKaPTlRT1', 'object_id': 's3ql_data_307', "
               "'signature': b'IgsFrds8K4E1OLCmQrbwbY1EFwfl2mNuCiy/DO2wfaI=' }")
DATA_BODY = bytes.fromhex("b3e9e468821325041ba37e63b17388908198782d2b03925a9c911166ddbdb8f2c39d24f9f1534bc6aa7e61")
PLAIN = "{ 'format_version': 2, 'compression': '%s', 'encryption': 'None', 'data': b'e30=' }"


def test_the_vectors():
    assert open_object("s3ql_passphrase", KEY_OBJECT, PASSPHRASE, 1000)[1] == SECRET
    assert open_object("s3ql_data_307", pack(DATA_HEADER, DATA_BODY), SECRET, 1000) == ({"__size": 3}, b"hi\n")


def test_a_wrong_passphrase_is_a_wrong_signature():
    with pytest.raises(BadSignature):
        open_object("s3ql_passphrase", KEY_OBJECT, b"pw e", 1000)


@pytest.mark.parametrize("at", [0, 3, 4, 7, 11, len(DATA_BODY) - 1])
def test_no_bit_of_a_body_can_be_changed(at: int):
    body = bytearray(DATA_BODY)
    body[at] ^= 1
    with pytest.raises(Damaged):
        open_object("s3ql_data_307", pack(DATA_HEADER, bytes(body)), SECRET, 1000)


@pytest.mark.parametrize("change", [
    lambda data: data[:-1], lambda data: data + b"x", lambda data: data[:20], lambda data: b"", lambda data: b"s3ql_2" + data[6:],
    lambda data: data.replace(b"'None'", b"'ZLIB'"), lambda data: data.replace(b"_version': 2", b"_version': 3")])
def test_no_cut_or_changed_object_passes(change: Callable[[bytes], bytes]):
    with pytest.raises(Damaged):
        open_object("s3ql_data_307", change(pack(DATA_HEADER, DATA_BODY)), SECRET, 1000)


def test_an_object_under_another_name_is_refused():
    with pytest.raises(Damaged, match="under another name"):
        open_object("s3ql_data_308", pack(DATA_HEADER, DATA_BODY), SECRET, 1000)


def test_what_is_not_encrypted_is_refused_in_an_encrypted_filesystem_and_the_other_way_round():
    planted = pack(PLAIN % "None", b"planted")
    assert open_object("s3ql_data_1", planted, None, 1000)[1] == b"planted"
    with pytest.raises(Damaged, match="not encrypted"):
        open_object("s3ql_data_1", planted, SECRET, 1000)
    with pytest.raises(Damaged, match="without encryption"):
        open_object("s3ql_data_307", pack(DATA_HEADER, DATA_BODY), None, 1000)


@pytest.mark.parametrize("name, compress", [("ZLIB", zlib.compress), ("BZIP2", bz2.compress), ("LZMA", lzma.compress)])
def test_compressed_bodies_and_bombs(name: str, compress: Callable[[bytes], bytes]):
    packed = compress(bytes(5000))
    assert open_object("s3ql_data_1", pack(PLAIN % name, packed), None, 5000)[1] == bytes(5000)
    for damaged in (packed[:-3], packed + b"more", b"nonsense"):
        with pytest.raises(Damaged):
            open_object("s3ql_data_1", pack(PLAIN % name, damaged), None, 5000)
    with pytest.raises(Damaged, match="more than the 4999 bytes"):
        open_object("s3ql_data_1", pack(PLAIN % name, packed), None, 4999)


def test_headers_are_parsed_and_never_evaluated():
    text = """{ 'a': "it's", 'b': -3, 'c': 2.5, 'd': None, 'e': True, 'f': b'AP8=', 'g': 'a\\n\\xe4' }"""
    assert parse(text) == {"a": "it's", "b": -3, "c": 2.5, "d": None, "e": True, "f": b"\0\xff", "g": "a\nä"}
    for bad in ("", "[]", "{1: 2}", "{'a': 1, 'a': 2}", "{'a': print(1)}", "{'a': [1]}", "{'a': f''}", "{**{}}", "{'a': b'?'}",
                "{'a': -'x'}", "{'a': 1+1}", "{'a': ~1}", "(" * 5000, "{'a': " + "-" * 3000 + "1}", "{'a': ...}", "{'a': 1j}", "{'a': \0}"):
        with pytest.raises(Damaged):
            parse(bad)


def test_the_canonical_form():
    header: Header = {"signature": b"x", "b": b"\1", "a": "s", "c": 5, "d": None, "e": True, "f": False, "g": 1.0}
    assert canonical(header) == (b"a\0ss\0" b"b\0b\1\0\0\0\1" b"c\0i5\0" b"d\0n" b"e\0t" b"f\0f" b"g\0d\0\0\0\0\0\0\xf0?")


def test_an_object_without_its_metadata_says_so():
    with pytest.raises(Damaged, match="without its metadata"):
        open_object("s3ql_data_1", pack("{}", b"body"), SECRET, 1000)
