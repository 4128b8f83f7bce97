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


WAITS = "with its protective delays"
NO_WAITS = "tcp-timeout=60,lock-delay=0"


@pytest.fixture(params=[pytest.param("s3c", marks=pytest.mark.soak), "storjs3", pytest.param(f"storjs3 {WAITS}", marks=pytest.mark.soak)])
def fs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Filesystem]:
    scheme = request.param.partition(" ")[0]
    with ExitStack() as stack:
        server: Server = stack.enter_context(rclone_server(tls=scheme == "s3c"))
        if scheme == "s3c":
            host, certificate = server.host, server.options["ssl-ca-path"]
        else:
            pair = self_signed(tmp_path)
            host, certificate = stack.enter_context(Gateway(server, tls=pair)).host, str(pair[0])
        made = Filesystem(tmp_path / "fs", f"{scheme}://{host}/{server.bucket}/some/prefix/", env={"AWS_CA_BUNDLE": certificate})
        if request.param == "storjs3":
            made.env["S3CFS_BACKEND_OPTIONS"] = NO_WAITS           # the entry stays as it is
        stack.callback(made.close)
        made.authfile.write_text(ENTRY.format(scheme=scheme, host=host, bucket=server.bucket, login=server.login,
                                              password=server.password))
        yield made


def test_the_same_entry_for_both(fs: Filesystem) -> None:
    assert fs.authfile.read_text().count("\n") == 6, "a heading and five lines"
    here = fs.mkfs().mount(within=300)
    content = os.urandom(3 << 20)
    (here / "folder").mkdir()
    (here / "folder/large").write_bytes(content)
    (here / "small").write_text("words")
    here.umount(within=300)
    there = fs.mount(cache="elsewhere", within=300)
    assert (there / "folder/large").read_bytes() == content and (there / "small").read_text() == "words"
    there.umount(within=300)
