"""Two stores in one command: whose secrets are whose."""
from __future__ import annotations

from pathlib import Path

import pytest

from s3cfs.config import load_pair
from s3cfs.errors import ConfigError

S3C, S3, FOLDER = "s3c://one.example.com/bucket/a", "s3://eu-central-1/bucket/b", "local:///srv/store"


@pytest.fixture
def authfile(tmp_path: Path) -> str:
    path = tmp_path / "auth.ini"
    path.write_text(f"[one]\nstorage-url: {S3C}\nbackend-login: one\nbackend-password: secret-one\nbackend-options: no-ssl\n"
                    "fs-passphrase: words\n"
                    f"[two]\nstorage-url: {S3}\nbackend-login: two\nbackend-password: secret-two\n")
    path.chmod(0o600)
    return str(path)


def test_each_has_its_section(authfile: str):
    source, target, _ = load_pair(S3C, S3, {"authfile": authfile}, None, "tcp-timeout=5", environ={"HOME": "/nowhere"})
    assert (source.login, target.login) == ("one", "two")
    assert source.password and target.password and (source.password.reveal(), target.password.reveal()) == ("secret-one", "secret-two")
    assert (source.backend_options, target.backend_options) == ({"no-ssl": ""}, {"tcp-timeout": "5"})
    assert source.passphrase and not target.passphrase


def test_a_login_in_the_environment_is_for_the_one_that_is_no_folder(authfile: str):
    environ = {"HOME": "/nowhere", "S3CFS_BACKEND_LOGIN": "env", "S3CFS_BACKEND_PASSWORD": "secret", "S3CFS_PASSPHRASE": "words"}
    for urls in ((S3, FOLDER), (FOLDER, S3)):
        known = dict(environ)
        source, target, _ = load_pair(*urls, {"authfile": authfile}, None, None, environ=known)
        assert [one.login for one in (source, target)] == ["env" if url == S3 else None for url in urls]
        assert source.passphrase and not target.passphrase
        assert known == {"HOME": "/nowhere", "S3CFS_BACKEND_LOGIN": "env"}         # no child of this process inherits a secret


def test_between_two_stores_it_is_refused(authfile: str, tmp_path: Path):
    with pytest.raises(ConfigError, match="S3CFS_BACKEND_LOGIN does not say which"):
        load_pair(S3C, S3, {"authfile": authfile}, None, None, environ={"HOME": "/nowhere", "S3CFS_BACKEND_LOGIN": "env"})
    (tmp_path / "backend-login").write_text("x")
    with pytest.raises(ConfigError, match="backend-login does not say which"):
        load_pair(S3C, S3, {"authfile": authfile}, None, None, environ={"HOME": "/nowhere", "CREDENTIALS_DIRECTORY": str(tmp_path)})
