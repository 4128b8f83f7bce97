"""`s3cfs ipfs`, and a store that is named by a node's configuration."""
from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from s3cfs import cli
from s3cfs.cli import fstab
from s3cfs.config import load, load_pair
from s3cfs.errors import ConfigError, ExitCode, UsageError

CHILD = {"type": "s3ds", "region": "eu-central-1", "bucket": "my-bucket", "rootDirectory": "node", "accessKey": "", "secretKey": "",
         "regionEndpoint": "http://S3.example:9000"}
URL = "ipfs+s3://s3.example:9000/my-bucket/node"


@pytest.fixture
def spec(tmp_path: Path) -> str:
    file = tmp_path / "config"
    file.write_text(json.dumps(CHILD))
    return str(file)


def loaded(url: str, tmp_path: Path, sections: str = "", **given: str) -> Any:
    authfile = tmp_path / "auth.ini"
    authfile.write_text(sections)
    authfile.chmod(0o600)
    said = {"authfile": str(authfile), **{name.replace("_", "-"): value for name, value in given.items()}}
    return load(url, said, environ={})[0]


SECTION = f"[one]\nstorage-url: {URL}\nbackend-login: me\nbackend-password: word\nfs-passphrase: secret\n"


@pytest.mark.parametrize("url", ["ipfs+s3:///", "ipfs+s3://", URL + "/", "ipfs+s3://S3.EXAMPLE:9000/my-bucket/node"])
def test_the_url_is_what_the_file_says(spec: str, tmp_path: Path, url: str) -> None:
    settings = loaded(url, tmp_path, SECTION, datastore_spec=spec, backend_options="names=second")
    assert settings.url == URL and settings.login == "me" and settings.backend_options == {"names": "second", "datastore-spec": spec}


def test_a_relative_name_stays_good_for_a_daemon(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert loaded("ipfs+s3:///", tmp_path, datastore_spec="config").backend_options["datastore-spec"] == spec


def test_in_mount_options(spec: str) -> None:
    assert fstab.parse([f"datastore-spec={spec}"]).given == fstab.parse([f"datastore_spec={spec}"]).given == {"datastore-spec": spec}


def test_it_may_stand_in_the_authentication_file(spec: str, tmp_path: Path) -> None:
    section = f"[one]\nstorage-url: ipfs+s3://\nbackend-options: datastore-spec={spec}, names=second\nfs-passphrase: secret\n"
    settings = loaded("ipfs+s3:///", tmp_path, section)
    assert settings.url == URL and settings.passphrase and settings.backend_options == {"names": "second", "datastore-spec": spec}


@pytest.mark.parametrize(("url", "text"), [
    ("s3c://host/bucket", "is for ipfs"), ("local:///srv", "is for ipfs"), ("ipfs+s3://other/my-bucket/node", "is not what")])
def test_a_url_that_says_something_else_is_refused(spec: str, tmp_path: Path, url: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        loaded(url, tmp_path, datastore_spec=spec)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the datastore's spec"):
        loaded("ipfs+s3:///", tmp_path, datastore_spec=str(tmp_path / "none"))


def test_of_two_stores_it_is_the_one_that_it_can_be(spec: str, tmp_path: Path) -> None:
    def pair(source: str, target: str) -> Mapping[str, Mapping[str, str]]:
        one, other, _ = load_pair(source, target, {"datastore-spec": spec, "authfile": "/dev/null"}, None, None, environ={})
        return {one.url: one.backend_options, other.url: other.backend_options}

    for urls in (("ipfs+s3:///", "local:///srv"), ("local:///srv", "ipfs+s3:///")):
        assert pair(*urls) == {URL: {"datastore-spec": spec}, "local:///srv": {}}
    for urls in (("ipfs+s3:///", "ipfs+s3://host/bucket"), ("local:///a", "local:///b")):
        with pytest.raises(UsageError, match="the one that is ipfs"):
            pair(*urls)


def test_the_nodes_configuration_is_printed(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*args: str) -> str:
        assert cli.main(["ipfs", "spec", "--authfile", "/dev/null", *args]) == 0
        return capsys.readouterr().out

    assert json.loads(said("--child", "--datastore-spec", spec, "ipfs+s3:///")) == CHILD
    assert json.loads(said(URL, "--backend-options", "no-ssl,region=eu-central-1"))["mounts"][0]["child"] == CHILD | {
        "regionEndpoint": "http://s3.example:9000"}
    assert said("--on-disk", "--datastore-spec", spec, "ipfs+s3:///") == (
        '{"mounts":[{"bucket":"my-bucket","mountpoint":"/blocks","region":"eu-central-1","rootDirectory":"node"},'
        '{"mountpoint":"/","path":"datastore","type":"levelds"}],"type":"mount"}'), "byte for byte, without an end of line"


@pytest.mark.parametrize(("args", "code", "text"), [
    (("ipfs", "roots", "local:///srv"), ExitCode.USAGE, "no ipfs+s3:// store"),
    (("ipfs", "gc", "--grace", "soon", URL), ExitCode.USAGE, "soon"),
    (("ipfs", "roots", URL, "pack"), ExitCode.USAGE, "a folder of keys"), (("ipfs", "spec"), ExitCode.USAGE, "URL"),
    (("ipfs",), ExitCode.USAGE, "ACTION"), (("ipfs", "spec", "--backend-options", "nonsense", URL), ExitCode.CONFIG, "nonsense"),
    (("verify", "--datastore-spec", "/nowhere", "ipfs+s3:///"), ExitCode.CONFIG, "/nowhere")])
def test_what_is_wrong_is_one_line(args: tuple[str, ...], code: ExitCode, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*args, *(["--authfile", "/dev/null"] if len(args) > 1 else [])]) == code
    told = capsys.readouterr().err
    assert text in told and len(told.splitlines()) == 1
