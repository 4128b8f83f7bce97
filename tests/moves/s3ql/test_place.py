"""S3QL's URLs, names of cache files and authentication file."""
from __future__ import annotations

from pathlib import Path

import pytest

from s3cfs.errors import ConfigError, UsageError
from s3cfs.moves.s3ql.envelope import parse
from s3cfs.moves.s3ql.place import Place, read_authfile
from s3cfs.moves.s3ql.stores import LocalStore, _header


def test_prefixes_are_taken_literally():
    place = Place.parse("s3c://host:8080/bucket/some/pre_")
    assert (place.host, place.bucket, place.prefix) == ("host:8080", "bucket", "some/pre_")
    assert Place.parse("storjs3://host/bucket").prefix == "" and Place.parse("s3://eu-west-1/bucket/p/").prefix == "p/"


@pytest.mark.parametrize("url, name", [
    ("local:///srv/a=b/", "local:=2F=2F=2Fsrv=2Fa=3Db=2F"), ("local:///srv/x/../y", "local:=2F=2F=2Fsrv=2Fy=2F"),
    ("s3c://h/b", "s3c:=2F=2Fh=2Fb=2F"), ("s3c://h/b/", "s3c:=2F=2Fh=2Fb=2F"), ("s3c://h/b/p", "s3c:=2F=2Fh=2Fb=2Fp"),
    ("storjs3://h/b", "storjs3:=2F=2Fh=2Fb"), ("storjs3://h/b/", "storjs3:=2F=2Fh=2Fb=2F")])
def test_names_of_cache_files(url: str, name: str):
    assert Place.parse(url).cache_name() == name


def test_headers_are_put_together_from_user_metadata():
    pieces = {"000": "'a': 'x%20%C3%A4%2", "001": "0y',", "003": "'lost': 1", "format": "raw2"}
    assert parse(_header(pieces)) == {"a": "x ä y"}
    assert parse(_header({f"meta-{key}": piece for key, piece in pieces.items()})) == {"a": "x ä y"}
    assert _header({}) == "{}"


@pytest.mark.parametrize("number, path", [
    ("7", "s3ql_data_7"), ("100", "s3ql_data_100"), ("1000", "100/s3ql_data_1000"), ("1234567", "123/123456/s3ql_data_1234567")])
def test_names_of_files_of_a_local_store(tmp_path: Path, number: str, path: str):
    store = LocalStore(Place.parse(f"local://{tmp_path}"))
    there = tmp_path / "s3ql_data_" / path
    there.parent.mkdir(parents=True)
    there.write_bytes(b"data")
    assert store.get(f"data/{number}") == b"data" and store.stat(f"data/{number}").size == 4
    (tmp_path / "s3ql=3Dmeta=23").write_bytes(b"other")
    assert store.get("meta/s3ql=meta#") == b"other"


@pytest.mark.parametrize("url, words", [
    ("gs://b/p", "copy its objects"), ("swift://h/c", "copy its objects"), ("b2://b/p", "S3 gateway"),
    ("ftp://h/x", "no backend"),
    ("s3c://host", "bucket is missing"), ("s3c://user:geheim@h/b", "authentication file"), ("/srv/x", "storage URL"),
    ("local://", "folder")])
def test_other_urls_are_refused_in_one_line(url: str, words: str):
    with pytest.raises(UsageError, match=words) as refused:
        Place.parse(url)
    assert "geheim" not in str(refused.value) and "\n" not in str(refused.value)


def written(folder: Path, text: str, mode: int = 0o600) -> str:
    path = folder / "authinfo2"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_all_sections_that_begin_the_url_count_and_the_later_wins(tmp_path: Path):
    path = written(tmp_path, """
[general]
storage-url: s3c://host
backend-login = me
backend-password: se:cr=et
backend-options: no-ssl, tcp-timeout=60
compress: zlib
[one]
storage-url: s3c://host/bucket/pre
fs-passphrase: first
[same]
storage-url: s3c://host/bucket/pre
fs-passphrase: second
[other]
storage-url: s3c://host/bucket/else
fs-passphrase: third
""")
    access = read_authfile(path, Place.parse("s3c://host/bucket/pre_"))
    assert access.login == "me" and access.password is not None and access.password.reveal() == "se:cr=et"
    assert access.passphrase is not None and access.passphrase.reveal() == "second"
    assert access.options == {"no-ssl": "", "tcp-timeout": "60"}


@pytest.mark.parametrize("text, mode, words", [
    ("[a]\nstorage-url: s3c://\nfs-passphrase: geheim\n", 0o644, "chmod 600"), ("geheim\n", 0o600, "line 1"),
    ("[a]\ngeheim\n", 0o600, "line")])
def test_a_bad_file_is_told_without_what_stands_in_it(tmp_path: Path, text: str, mode: int, words: str):
    with pytest.raises(ConfigError, match=words) as refused:
        read_authfile(written(tmp_path, text, mode), Place.parse("s3c://host/bucket"))
    assert "geheim" not in str(refused.value)
