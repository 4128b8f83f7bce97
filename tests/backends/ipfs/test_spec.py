"""The configuration of a node's plugin: what is taken, what is refused, and what the node gets."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from s3cfs.backends.ipfs.s3 import IpfsS3Backend
from s3cfs.backends.ipfs.spec import Spec, go_json
from s3cfs.backends.registry import open_backend
from s3cfs.errors import ConfigError

CHILD = {"type": "s3ds", "region": "R", "bucket": "B", "rootDirectory": "D", "accessKey": "", "secretKey": ""}
LEVEL = {"type": "levelds", "path": "datastore", "compression": "none"}
FLAT = {"type": "flatfs", "path": "blocks", "sync": True, "shardFunc": "/repo/flatfs/shard/v1/next-to-last/2"}


def measured(child: Any, mountpoint: str, prefix: str = "x.datastore") -> dict[str, Any]:
    return {"type": "measure", "prefix": prefix, "child": child, "mountpoint": mountpoint}


def mounts(*children: Any) -> dict[str, Any]:
    return {"type": "mount", "mounts": list(children)}


USUAL = mounts(measured(CHILD, "/blocks"), measured(LEVEL, "/"))


@pytest.mark.parametrize("found", [
    CHILD, {**CHILD, "mountpoint": "/blocks"}, {"type": "log", "name": "n", "child": CHILD}, measured(CHILD, "/blocks"), USUAL,
    {"Spec": USUAL, "StorageMax": "10GB"}, {"Identity": {}, "Datastore": {"Spec": USUAL}},
    mounts({**CHILD, "mountpoint": "/blocks/"}, LEVEL | {"mountpoint": "/"})])
def test_what_is_taken(found: Any) -> None:
    spec = Spec.parse(json.dumps(found))
    assert (spec.region, spec.bucket, spec.root, spec.mountpoint, spec.url) == ("R", "B", "D", "/blocks", "ipfs+s3://R/B/D")


def test_the_plugin_at_the_top() -> None:
    """Then everything of the node lies in the bucket, unless its blocks have another place."""
    assert Spec.of(mounts(measured(CHILD, "/"))).mountpoint == "/"
    assert Spec.of(mounts(measured(CHILD, "/"), measured({**CHILD, "bucket": "B2"}, "/blocks"))).bucket == "B2"
    with pytest.raises(ConfigError, match="no datastore of type s3ds holds the blocks"):
        Spec.of(mounts(measured(CHILD, "/"), measured(FLAT, "/blocks")))


@pytest.mark.parametrize(("found", "text"), [
    ("[]", "no datastore's spec"), ("nonsense", "no JSON"), ("[" * 100_000, "no JSON"), (json.dumps(FLAT), "of type 'flatfs'"),
    (json.dumps(mounts(measured(FLAT, "/blocks"))), "no datastore of type s3ds"), (json.dumps({"type": "mount"}), "mounts are not a list"),
    (json.dumps(mounts(CHILD)), "mountpoint each"), (json.dumps(measured([], "/blocks")), "no datastore's spec")]
    + [(json.dumps({name: value for name, value in CHILD.items() if name != without}), f"{without} is missing")
       for without in ("region", "bucket", "accessKey", "secretKey")]
    + [(json.dumps({**CHILD, name: value}), text) for name, value, text in [
        ("region", 7, "region is no text"), ("bucket", "", "bucket is empty"), ("workers", 0, "workers"), ("workers", 1.5, "workers"),
        ("workers", True, "workers"), ("workers", "9", "workers"), ("rootDirectory", None, "rootDirectory is no text"),
        ("keyTransform", "next-to-last/2", "keyTransform"), ("accessKey", "AK", "together"),
        ("regionEndpoint", "http://h/path", "regionEndpoint"),
        ("regionEndpoint", "ftp://h", "regionEndpoint"), ("regionEndpoint", "https://u:p@h", "regionEndpoint")]])
def test_what_is_refused_in_one_line(found: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(found)
    with pytest.raises(ConfigError, match=text) as caught:
        Spec.load(str(file))
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)


def test_secrets_that_others_can_read_are_refused_and_none_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(json.dumps({**CHILD, "accessKey": "AK", "secretKey": "very-secret", "sessionToken": "token-secret"}))
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        Spec.load(str(file))
    file.chmod(0o600)
    spec = Spec.load(str(file))
    assert spec.secret_key == "very-secret" and "secret" not in repr(spec)
    assert "secret" not in json.dumps(spec.datastore()).replace("secretKey", "") and spec.child()["accessKey"] == ""
    file.write_text(json.dumps(CHILD))
    file.chmod(0o644)
    assert Spec.load(str(file)).secret_key == ""
    with pytest.raises(ConfigError, match="cannot read"):
        Spec.load(str(tmp_path / "none"))


ON_DISK = ('{"mounts":[{"bucket":"B","mountpoint":"/blocks","region":"R","rootDirectory":"D"},'
           '{"mountpoint":"/","path":"datastore","type":"levelds"}],"type":"mount"}')      # docs/ipfs.md


def test_datastore_spec_byte_for_byte() -> None:
    assert Spec.of(CHILD).on_disk() == Spec.of(USUAL).on_disk() == ON_DISK
    assert Spec.of(mounts(measured(LEVEL, "/"), measured(CHILD, "/blocks"))).on_disk() == ON_DISK, "sorted by where they are mounted"
    more = mounts(measured(CHILD, "/blocks"), measured(FLAT, "/other"), measured({"type": "mem"}, "/m"),
                  measured({"type": "pebbleds", "path": "p"}, "/"))
    assert Spec.of(more).on_disk() == (
        '{"mounts":[{"mountpoint":"/other","path":"blocks","shardFunc":"/repo/flatfs/shard/v1/next-to-last/2","type":"flatfs"},'
        '{"mountpoint":"/m"},{"bucket":"B","mountpoint":"/blocks","region":"R","rootDirectory":"D"},'
        '{"mountpoint":"/","path":"p","type":"pebbleds"}],"type":"mount"}')
    assert '"rootDirectory":"/D/"' in Spec.of({**CHILD, "rootDirectory": "/D/"}).on_disk(), "as it was written"
    assert '"rootDirectory":""' in Spec.of({name: value for name, value in CHILD.items() if name != "rootDirectory"}).on_disk()
    with pytest.raises(ConfigError, match="'strange'"):
        Spec.of(mounts(measured(CHILD, "/blocks"), measured({"type": "strange"}, "/"))).on_disk()


def test_go_escapes_what_need_not_be() -> None:
    assert go_json({"b": "<&>\u2028é", "a": [1, None]}) == '{"a":[1,null],"b":"\\u003c\\u0026\\u003e\\u2028é"}'


def test_what_it_prints_is_taken_again() -> None:
    spec = Spec("R", "B", "D", "https://h:1", workers=7)
    again = Spec.of(spec.datastore())
    assert (again.region, again.bucket, again.root, again.endpoint, again.workers) == ("R", "B", "D", "https://h:1", 7)
    assert Spec.of(spec.child()).url == spec.url == "ipfs+s3://h:1/B/D"
    assert Spec.of(Spec("R", "B", mountpoint="/").datastore()).mountpoint == "/"


# ---------------------------------------------------------------- as the place of a backend

def backend(url: str, options: dict[str, str] | None = None, **known: str) -> IpfsS3Backend:
    opened = open_backend(url, options or {}, **known)
    assert isinstance(opened, IpfsS3Backend)
    opened.close()
    return opened


def written(tmp_path: Path, **changes: Any) -> str:
    file = tmp_path / "config"
    file.write_text(json.dumps(mounts(measured({**CHILD, **changes}, "/blocks"), measured(LEVEL, "/"))))
    file.chmod(0o600)
    return str(file)


def test_a_spec_alone_and_with_a_url(tmp_path: Path) -> None:
    options = {"datastore-spec": written(tmp_path, regionEndpoint="http://Host:9000", rootDirectory="/D/", accessKey="AK", secretKey="SK")}
    one = backend("ipfs+s3:///", options)
    assert vars(one.datastore.store)["_sdk"].endpoint == "http://host:9000"
    assert one.location == "ipfs+s3://host:9000/B/D" and one.datastore.blocks_folder == "D"
    assert backend("ipfs+s3://host:9000/B/D/", options).spec == one.spec
    for url in ("ipfs+s3://host:9000/B", "ipfs+s3://host/B/D", "ipfs+s3://host:9000/B/D/E"):
        with pytest.raises(ConfigError, match="not what the spec says"):
            backend(url, options)
    for more in ({"mountpoint": "/"}, {"region": "x"}, {"no-ssl": ""}):
        with pytest.raises(ConfigError, match="leave out"):
            backend("ipfs+s3:///", {**options, **more})


def test_the_specs_keys_come_before_others(tmp_path: Path) -> None:
    def key_of(made: IpfsS3Backend) -> str:
        client: Any = vars(made.datastore.store)["_sdk"]._client
        return str(client._request_signer._credentials.access_key)

    own = {"datastore-spec": written(tmp_path, regionEndpoint="http://h", accessKey="AK", secretKey="SK")}
    assert key_of(backend("ipfs+s3:///", own, login="other", password="other")) == "AK"
    blank = {"datastore-spec": written(tmp_path, regionEndpoint="http://h")}
    assert key_of(backend("ipfs+s3:///", blank, login="other", password="other")) == "other"


def test_urls() -> None:
    plain = backend("ipfs+s3://h:9000/bucket/a//b/", {"no-ssl": "", "names": "second", "mountpoint": "/"})
    assert plain.spec.endpoint == "http://h:9000" and plain.datastore.blocks_folder == "a/b/blocks"
    assert plain.table.entries == "s3cfs.names/a~1b~1blocks/second/"
    assert backend("ipfs+s3://h/bucket").spec.endpoint == "https://h"
    assert [layer.name for layer in plain.layers()] == ["collector"] and not backend("ipfs+s3://h/b1", {"collect": "0"}).layers()
    aws = backend("ipfs+s3://eu-central-1/bucket/a")
    assert aws.spec.endpoint == "" and aws.spec.region == "eu-central-1" and aws.location == "ipfs+s3://eu-central-1/bucket/a"


@pytest.mark.parametrize(("url", "options", "text"), [
    ("ipfs+s3:///", {}, "datastore-spec"), ("ipfs+s3://h", {}, "bucket is missing"),
    ("ipfs+s3://h/b", {"mountpoint": "/pins"}, "mountpoint is one of"), ("ipfs+s3://h/b", {"collect": "often"}, "collect"),
    ("ipfs+s3://h/b", {"collect": "-1"}, "collect"), ("ipfs+s3://h/b", {"names": "A/b"}, "name of a table"),
    ("ipfs+s3://eu-central-1/b", {"no-ssl": ""}, "no-ssl"), ("ipfs+s3://h/b", {"shards": "3"}, "shards")])
def test_what_makes_no_sense(url: str, options: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        backend(url, options)
