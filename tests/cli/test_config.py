"""Where a setting may come from, which place wins, and that nothing wrong gets through or gives a secret away."""
from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from s3cfs.config import OPTIONS, Secret, load
from s3cfs.errors import ConfigError, ExitCode, S3cfsError, UsageError

URL = "s3c://s3.example.com/bucket/pre"
A1 = """\
[store]
storage-url: storjs3://gateway.storjshare.io/my-bucket/some/prefix/
backend-login: the-login
backend-password: the=pass:word
backend-options: tcp-timeout=60
fs-passphrase: correct horse # battery; 100%
"""


def write(folder: Path, text: str, mode: int = 0o600, name: str = "auth.ini") -> str:
    path = folder / name
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_the_five_line_ini_of_a1_for_both_schemes(tmp_path: Path):
    for scheme in ("storjs3", "s3c"):
        file = write(tmp_path, A1.replace("storjs3", scheme))
        settings, _ = load(f"{scheme}://gateway.storjshare.io/my-bucket/some/prefix", {"authfile": file})
        assert settings.url == f"{scheme}://gateway.storjshare.io/my-bucket/some/prefix"
        assert settings.login == "the-login"
        assert settings.password == Secret("the=pass:word")
        assert settings.backend_options == {"tcp-timeout": "60"}
        assert settings.passphrase == Secret("correct horse # battery; 100%")
        assert settings.authfile == file


def test_longest_prefix_wins_key_by_key(tmp_path: Path):
    file = write(tmp_path, f"""
[deep]
storage-url: {URL}
fs-passphrase: deep
[host]
storage-url: s3c://S3.example.com
backend-login = l
backend-password = p
fs-passphrase = host
cachesize = 1G
[any]
storage-url: s3c://
cachesize: 2G
sync: remote
[elsewhere]
storage-url: s3c://s3.example.com/bucket/prefer
fs-passphrase: not this
""")
    settings, options = load(URL + "/sub", {"authfile": file})
    assert (settings.login, settings.passphrase) == ("l", Secret("deep"))
    assert (options.cache_size, options.sync) == (1 << 30, "remote")


@pytest.mark.parametrize("url", ["s3c://s3.example.com/bucket2", "s3c://s3.example.com.evil.org/bucket", "s3://s3.example.com/bucket"])
def test_credentials_go_to_no_place_that_only_begins_alike(tmp_path: Path, url: str):
    file = write(tmp_path, "[s]\nstorage-url: s3c://s3.example.com/bucket\nbackend-login: l\nbackend-password: p\nfs-passphrase: x\n")
    settings, _ = load(url, {"authfile": file})
    assert settings.login is None and settings.password is None and settings.passphrase is None


def test_precedence_command_line_environment_credentials_file_default(tmp_path: Path):
    file = write(tmp_path, f"[s]\nstorage-url: {URL}\ncommit-interval: 7s\nallow-other: yes\nfs-passphrase: file\n")
    (tmp_path / "fs-passphrase").write_text("credential\n")
    environ = {"HOME": "/nowhere"}
    assert load(URL, environ=environ)[1].commit_interval == 5.0
    given: dict[str, str | bool | None] = {"authfile": file}
    settings, options = load(URL, given, environ=environ)
    assert (options.commit_interval, options.allow_other, settings.passphrase) == (7.0, True, Secret("file"))
    environ |= {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert load(URL, given, environ=environ)[0].passphrase == Secret("credential")
    environ |= {"S3CFS_COMMIT_INTERVAL": "8", "S3CFS_PASSPHRASE": "environment", "S3CFS_ALLOW_OTHER": "no"}
    settings, options = load(URL, given, environ=environ)
    assert (options.commit_interval, options.allow_other, settings.passphrase) == (8.0, False, Secret("environment"))
    assert "S3CFS_PASSPHRASE" not in environ, "children must not inherit it"
    read, w = os.pipe()
    os.write(w, b"descriptor\nnot this\n")
    os.close(w)
    given |= {"commit-interval": "1m", "allow-other": True, "passphrase-fd": str(read)}
    settings, options = load(URL, given, environ=environ)
    assert (options.commit_interval, options.allow_other, settings.passphrase) == (60.0, True, Secret("descriptor"))


def test_every_option_is_taken_from_file_and_environment(tmp_path: Path):
    sample = {"DIR": "/x", "SIZE": "100M", "HOW": "zstd-9", "WHERE": "remote", "TIME": "9s", "N[:HASH]": "12:0123abcd", "FILE": "/y",
              "LEVEL": "debug", "WHICH": "stock", "[HOST:]PORT": "9095", "yes, no, idle": "idle", "": "yes"}
    default = load(URL)[1]
    for option in OPTIONS:
        text = sample[option.metavar]
        by_file = load(URL, {"authfile": write(tmp_path, f"[s]\nstorage-url: {URL}\n{option.name}: {text}\n")})[1]
        by_environment = load(URL, environ={"HOME": "/nowhere", option.variable: text})[1]
        assert getattr(by_file, option.field) == getattr(by_environment, option.field) != getattr(default, option.field), option.name


@pytest.mark.parametrize(("text", "address"), [
    ("9095", "127.0.0.1:9095"), (":9095", "127.0.0.1:9095"), ("0.0.0.0:1", "0.0.0.0:1"), ("localhost:65535", "localhost:65535"),
    ("[::1]:80", "[::1]:80"), ("0", None), ("65536", None), ("host", None), ("::1:80", None), ("[::1]", None), ("", None), ("a b:1", None)])
def test_addresses(text: str, address: str | None):
    if address is None:
        with pytest.raises(UsageError, match="is not PORT or HOST:PORT"):
            load(URL, {"metrics-address": text})
    else:
        assert load(URL, {"metrics-address": text})[1].metrics_address == address


def test_default_places(clean_environment: Path, tmp_path: Path):
    s3ql = clean_environment / ".s3ql"
    s3ql.mkdir()
    write(s3ql, f"[s3]\nstorage-url: {URL}\nfs-passphrase: s3ql\n", name="authinfo2")
    assert load(URL)[0].passphrase == Secret("s3ql")
    own = clean_environment / ".config" / "s3cfs"
    own.mkdir(parents=True)
    write(own, f"[s3]\nstorage-url: {URL}\nfs-passphrase: own\n")
    assert load(URL)[0].passphrase == Secret("own")
    os.environ["S3CFS_AUTHFILE"] = write(tmp_path, f"[s3]\nstorage-url: {URL}\nfs-passphrase: named\n")
    try:
        assert load(URL)[0].passphrase == Secret("named")
    finally:
        del os.environ["S3CFS_AUTHFILE"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o601])
def test_a_file_others_can_get_at_is_refused(tmp_path: Path, mode: int):
    with pytest.raises(ConfigError, match=f"mode {mode:04o}.*chmod 600"):
        load(URL, {"authfile": write(tmp_path, A1, mode)})


@pytest.mark.parametrize(("text", "message"), [
    ("[s]\nstorage-url: s3c://\nfs-pasphrase: HUNTER2\n", r"section \[s\]: unknown key 'fs-pasphrase'"),
    ("[s]\nstorage-url: s3c://\nfs-passphrase HUNTER2\n", "line 3 is not 'key: value'"),
    ("[s]\nstorage-url: s3c://\nbackend-password HUNTER2=x\n", "unknown key 'backend-password'"),
    ("fs-passphrase: HUNTER2\n[s]\n", "line 1 stands before"),
    ("[s]\nfs-passphrase: HUNTER2\n", "has no storage-url"),
    ("[s]\nstorage-url: HUNTER2@\n", "storage-url"),
    ("[s]\nstorage-url: s3c://\nfs-passphrase: HUNTER2\nfs-passphrase: HUNTER2\n", "line 4.*twice"),
    ("[s]\nstorage-url: s3c://\n[s]\nstorage-url: s3c://\n", r"section \[s\] is there twice"),
    ("[s]\nstorage-url: s3c://\ncachesize: 1G\ncache-size: 1G\n", "cachesize is there twice"),
    ("[s]\nstorage-url: s3c://\nfs-passphrase: HUNTER2\n  HUNTER2\n", "several lines"),
    ("[s]\nstorage-url: s3c://\nfs-passphrase:\n", "it is empty"),
    ("[s]\nstorage-url: s3c://\nbackend-password: HUNTER2\n", "login is missing"),
    ("[s]\nstorage-url: s3c://\nbackend-login: x\n", "password is missing"),
    ("[s]\nstorage-url: s3c://\ncachesize: 100\n", "cachesize: '100' has no unit"),
    ("[s]\nstorage-url: s3c://\nallow-other: maybe\n", "'maybe' is not yes or no"),
    ("[s]\nstorage-url: s3c://\nbackend-options: a=1,a=2\n", "a is there twice"),
])
def test_mistakes_in_the_file_are_one_line_without_a_secret(tmp_path: Path, text: str, message: str):
    file = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as caught:
        load(URL, {"authfile": file})
    assert file in str(caught.value)
    assert "HUNTER2" not in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.exit_code == ExitCode.CONFIG


def test_unknown_variables_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"unknown variable \$S3CFS_CACHESZE"):
        load(URL, environ={"HOME": "/", "S3CFS_CACHESZE": "1G"})


def test_mistakes_on_the_command_line_are_usage_errors():
    with pytest.raises(UsageError, match="--cachesize: '1k' is less than 64MiB"):
        load(URL, {"cachesize": "1k"})


def test_a_named_file_must_exist(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"cannot read the authentication file .*absent: No such file"):
        load(URL, {"authfile": str(tmp_path / "absent")})


def test_passphrase_is_asked_for_only_when_needed():
    asked = []

    def ask() -> Secret:
        asked.append(1)
        return Secret("typed")
    settings, _ = load(URL, ask=ask)
    assert settings.passphrase is None and not asked
    assert settings.need_passphrase() == Secret("typed") and asked
    with pytest.raises(ConfigError, match="a passphrase is needed"):
        load(URL)[0].need_passphrase()


def test_secrets_do_not_show():
    secret = Secret("HUNTER2")
    settings, _ = load(URL, environ={
        "HOME": "/", "S3CFS_PASSPHRASE": "HUNTER2", "S3CFS_BACKEND_LOGIN": "l", "S3CFS_BACKEND_PASSWORD": "HUNTER2"})
    for text in (repr(secret), str(secret), f"{secret}", f"{secret!s:>20}", "%s" % secret, repr(settings), str(vars(settings))):  # noqa: UP031
        assert "HUNTER2" not in text
    assert settings.password is not None and settings.password.reveal() == "HUNTER2"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


@pytest.mark.parametrize(("fd", "message"), [("x", "not the number"), ("-1", "not the number"), ("999", "cannot read from descriptor 999")])
def test_passphrase_fd_mistakes(fd: str, message: str):
    with pytest.raises(S3cfsError, match=message):
        load(URL, {"passphrase-fd": fd})


def test_backend_options_with_semicolons_for_fstab():
    assert load(URL, {"backend-options": "no-ssl;tcp-timeout=5"})[0].backend_options == {"no-ssl": "", "tcp-timeout": "5"}
