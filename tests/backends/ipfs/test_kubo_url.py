"""What ipfs+rpc:// makes of its URL and options; no node is asked."""
from __future__ import annotations

from contextlib import closing

import pytest

from s3cfs.backends.registry import open_backend
from s3cfs.errors import ConfigError


@pytest.mark.parametrize(("url", "options", "words"), [
    ("ipfs+rpc://", {}, "expected ipfs"),
    ("ipfs+rpc://host:99999/x", {}, "expected ipfs"),
    ("ipfs+rpc://host/a/../b", {}, "are no folders"),
    ("ipfs+rpc://host/" + "x" * 120, {}, "longer than"),
    ("ipfs+rpc://host/x", {"ssl": "", "no-ssl": ""}, "contradict"),
    ("ipfs+rpc://host/x", {"ssl-ca-path": "/nonexistent"}, "neither a file nor a folder"),
    ("ipfs+rpc://host/x", {"mountpoint": "/"}, "does not know the backend option"),
])
def test_what_is_wrong_in_url_and_options(url, options, words):
    with pytest.raises(ConfigError, match=words):
        open_backend(url, options)


@pytest.mark.parametrize(("host", "options", "encrypted"), [
    ("127.0.0.1", {}, False), ("localhost:5001", {}, False), ("[::1]:5001", {}, False), ("127.0.0.1", {"ssl": ""}, True),
    ("ipfs.example", {}, True), ("192.168.1.2:5001", {"no-ssl": ""}, False), ("localhost.example", {}, True)])
def test_secrets_leave_this_machine_encrypted(host, options, encrypted):
    with closing(open_backend(f"ipfs+rpc://{host}/x", options, login="bearer", password="hidden")) as made:
        assert (made._rpc._tls is not None) is encrypted     # type: ignore[attr-defined]
        assert "hidden" not in made.location and made.location.endswith("/x/")
