"""URLs, options and third parties."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from s3cfs.backends.consistency import bounds
from s3cfs.backends.consistency.guard import Guarded
from s3cfs.backends.local import LocalBackend
from s3cfs.backends.memory import MemoryBackend
from s3cfs.backends.registry import OWN, backend_type, open_backend, schemes
from s3cfs.backends.url import Credentials, StoreUrl, parse_options
from s3cfs.errors import ConfigError


def test_unknown_scheme_is_named() -> None:
    with pytest.raises(ConfigError, match=r"ftp://.*known: .*s3c"):
        open_backend("ftp://host/bucket/")


@pytest.mark.parametrize("scheme", OWN)
def test_every_backend_states_its_options(scheme: str) -> None:
    options = backend_type(scheme).OPTIONS
    assert all(name and text for name, text in options.items())
    url = {"memory": "memory://", "local": "local:///tmp", "s3": "s3://eu-west-1/bucket/"}.get(scheme, f"{scheme}://host/bucket/")
    with pytest.raises(ConfigError, match=r"'tcp-timeuot'"):
        open_backend(url, {"tcp-timeuot": "60"}, login="l", password="p")


@pytest.mark.parametrize(("url", "options", "text"), [
    ("no url at all", {}, "not a storage URL"),
    ("/some/path", {}, "not a storage URL"),
    ("s3c://host", {}, "bucket is missing"),
    ("s3c://host/", {}, "bucket is missing"),
    ("s3c:///bucket/", {}, "s3c://HOST"),
    ("s3c://ho st/bucket/", {}, "s3c://HOST"),
    ("s3c://host/bucket/\n", {"no-ssl": "maybe"}, "no-ssl is a flag"),
    ("s3c://host/bucket/", {"tcp-timeout": "soon"}, "tcp-timeout is a number"),
    ("s3c://host/bucket/", {"tcp-timeout": "0"}, "tcp-timeout is a number"),
    ("s3c://host/bucket/", {"tcp-timeout": ""}, "tcp-timeout needs a value"),
    ("s3c://host/bucket/", {"addressing": "odd"}, "addressing is one of auto, path, virtual"),
    ("s3c://host/bucket/", {"sse": "rot13"}, "sse is AES256"),
    ("s3c://host/bucket/", {"region": "a", "sig-region": "b"}, "contradict"),
    ("s3c://host/bucket/", {"ssl-ca-path": "/nonexistent"}, "neither a file nor a folder"),
    ("s3://bucket/prefix/", {}, "not a region"),
    ("s3://eu-west-1/bucket/", {"no-ssl": ""}, "'no-ssl'"),
    ("local://relative/path", {}, "three slashes"),
])
def test_mistakes_are_named(url: str, options: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        open_backend(url, options, login="l", password="p")


def test_half_of_the_credentials() -> None:
    with pytest.raises(ConfigError, match="together"):
        open_backend("s3c://host/bucket/", login="l")


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        open_backend("s3c://user:hunter2@host/bucket/")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(Credentials("login", "hunter2"))


@pytest.mark.parametrize(("url", "bucket", "prefix"), [
    ("s3c://h/b", "b", ""), ("s3c://h/b/", "b", ""), ("s3c://h:1/b/p", "b", "p/"), ("s3c://h/b/p/", "b", "p/"),
    ("s3c://h/b//p//q/", "b", "p/q/"),
    ("s3c://h/b/p?x#y%20/", "b", "p?x#y%20/"),
])
def test_bucket_and_prefix(url: str, bucket: str, prefix: str) -> None:
    assert StoreUrl.parse(url).bucket_and_prefix() == (bucket, prefix)
    assert open_backend(url, {"no-ssl": ""}, login="l", password="p").location == f"s3c://{StoreUrl.parse(url).host}/{bucket}/{prefix}"


def test_options_as_the_authentication_file_has_them() -> None:
    assert parse_options("no-ssl, tcp-timeout=60,\nsse=aws:kms:a=b,") == {"no-ssl": "", "tcp-timeout": "60", "sse": "aws:kms:a=b"}
    assert parse_options("") == {}
    with pytest.raises(ConfigError, match="without a name"):
        parse_options("=60")


def test_flags_can_be_switched_off(tmp_path: Path) -> None:
    open_backend(f"local://{tmp_path}/no", {"create": "no"})
    open_backend(f"local://{tmp_path}/yes", {"create": "yes"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["yes"]


def test_memory_by_name_is_shared() -> None:
    open_backend("memory://shared-here").put("super/0", b"x")
    assert open_backend("memory://shared-here").get("super/0") == b"x"
    assert list(open_backend("memory://shared-there").list("")) == []
    assert list(open_backend("memory://").list("")) == []


def test_a_third_party_joins_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_store.py").write_text(
        "from s3cfs.backends.memory import MemoryBackend\n"
        "class Theirs(MemoryBackend):\n"
        "    OPTIONS = {'speed': 'how fast'}\n"
        "    @classmethod\n"
        "    def from_url(cls, url, options, credentials):\n"
        "        return cls(f'{url.host} {options.text(\"speed\")} {credentials.login}')\n")
    info = tmp_path / "their_store-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-store\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[s3cfs.backends]\ntheirs = their_store:Theirs\nbroken = their_store:Missing\n"
                                           "local = their_store:Theirs\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert {"theirs", "s3c"} <= set(schemes())
    backend = open_backend("theirs://place", {"speed": "high"}, login="me")
    assert backend.location == "memory://place high me"
    with pytest.raises(ConfigError, match="'sped'"):
        open_backend("theirs://place", {"sped": "high"})
    with pytest.raises(ConfigError, match="cannot be loaded"):
        open_backend("broken://place")
    assert isinstance(open_backend(f"local://{tmp_path}"), LocalBackend), "our own schemes stay ours"
    assert isinstance(backend, MemoryBackend)


def test_boto3_is_not_imported_until_it_is_needed(tmp_path: Path) -> None:
    program = (f"import sys; from s3cfs.backends.registry import open_backend; open_backend('local://{tmp_path}')\n"
               "print('boto3' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"


def test_options_that_every_backend_has(tmp_path: Path) -> None:
    """They reach the lock and the checker, and no backend's own."""
    plain = open_backend(f"local://{tmp_path}", {"create": ""})
    assert isinstance(plain, LocalBackend)
    one = open_backend(f"local://{tmp_path}", {"create": "", "consistency-lock": "on", "lock-delay": "7", "check-delays": "1/5"})
    assert isinstance(one, Guarded) and isinstance(one.inner, LocalBackend)
    assert one.conditions.bounds.lock_delay == one.conditions.delay_s == 7 and one.conditions.bounds.check_delays == (1.0, 5.0)
    assert isinstance(open_backend(f"local://{tmp_path}", {"consistency-lock": "off"}), LocalBackend)


@pytest.mark.parametrize(("options", "text"), [
    ({"consistency-lock": "perhaps"}, "consistency-lock is a flag"),
    ({"lock-delay": "soon"}, "lock-delay=soon: expected a number"),
    ({"lock-delay": "nan"}, "between 0"),
    ({"lock-delay": "100"}, "lock-delay-least <= lock-delay <= lock-delay-most"),
    ({"lock-mode": "sometimes"}, "block, warn or off"),
    ({"check-delays": "5/1"}, "seconds that grow"),
    ({"grow-factor": "1"}, "grow-factor is above 1"),
    ({"shrink-after": "-1"}, "shrink-after above 0"),
    ({"check-sample": "2"}, "check-sample"),
    ({"checks-per-minute": "-1"}, "not below 0"),
])
def test_bounds_that_make_no_sense(tmp_path: Path, options: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        open_backend(f"local://{tmp_path}", options)


def test_the_delay_stays_within_bounds_that_are_given() -> None:
    assert bounds.from_options({"lock-delay-most": "10"}).lock_delay == 10
    assert bounds.from_options({"lock-delay-least": "30"}).lock_delay == 30
    assert bounds.Bounds().told().keys() == bounds.OPTIONS.keys()
    assert {**bounds.Bounds().told(), "lock-jitter": "0"} == bounds.Bounds().changed("lock-jitter", "0").told()
