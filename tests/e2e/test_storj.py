"""One entry of the authentication file for s3c:// and for storjs3://, where only scheme and host differ, by real commands over TLS."""
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.gateway import Gateway
from tests.servers import Server, rclone_server, self_signed

from .kit import Filesystem

pytestmark = pytest.mark.mount

ENTRY = """\
[store]
storage-url: {scheme}://{host}/{bucket}/some/prefix/
backend-login: {login}
backend-password: {password}
backend-options: tcp-timeout=60
fs-passphrase: correct horse battery staple
"""


@pytest.fixture(params=[pytest.param("s3c", marks=pytest.mark.soak), "storjs3"])
def fs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Filesystem]:
    with ExitStack() as stack:
        server: Server = stack.enter_context(rclone_server(tls=request.param == "s3c"))
        if request.param == "s3c":
            host, certificate = server.host, server.options["ssl-ca-path"]
        else:
            pair = self_signed(tmp_path)
            host, certificate = stack.enter_context(Gateway(server, tls=pair)).host, str(pair[0])
        made = Filesystem(tmp_path / "fs", f"{request.param}://{host}/{server.bucket}/some/prefix/", env={"AWS_CA_BUNDLE": certificate})
        stack.callback(made.close)
        made.authfile.write_text(ENTRY.format(scheme=request.param, host=host, bucket=server.bucket, login=server.login,
                                              password=server.password))
        yield made


def test_the_same_entry_for_both(fs: Filesystem) -> None:
    assert fs.authfile.read_text().count("\n") == 6, "a heading and five lines"
    here = fs.mkfs().mount()
    content = os.urandom(3 << 20)
    (here / "folder").mkdir()
    (here / "folder/large").write_bytes(content)
    (here / "small").write_text("words")
    here.umount()
    there = fs.mount(cache="elsewhere")
    assert (there / "folder/large").read_bytes() == content and (there / "small").read_text() == "words"
    there.umount()
