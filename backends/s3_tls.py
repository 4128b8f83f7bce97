"""Whom TLS trusts: the system's certificates by default (botocore would take a bundle of its own and not know a company's CA).

`ssl-ca-path` may be a file or, as S3QL has it, a folder of certificates; the SDK knows files only, so a folder is put together in
a temporary one that lives as long as the backend.
"""
from __future__ import annotations

import os
import ssl
import tempfile
from dataclasses import dataclass
from typing import IO

from s3cfs.errors import ConfigError

_SYSTEM = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem")


@dataclass(slots=True)
class Bundle:
    """`path` None: the SDK's own choice."""

    path: str | None
    _file: IO[bytes] | None = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def ca_bundle(option: str) -> Bundle:
    """The bundle for the value of `ssl-ca-path` ("": not given)."""
    if not option:
        named = next((os.environ[name] for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE") if os.environ.get(name)), "")
        if named:
            return Bundle(named)
        paths = ssl.get_default_verify_paths()
        return Bundle(next((path for path in (paths.cafile, *_SYSTEM) if path and os.path.isfile(path)), None))
    if os.path.isfile(option):
        return Bundle(option)
    if not os.path.isdir(option):
        raise ConfigError(f"ssl-ca-path: {option} is neither a file nor a folder")
    collected = tempfile.NamedTemporaryFile(prefix="s3cfs-ca-", suffix=".pem")
    for name in sorted(os.listdir(option)):
        path = os.path.join(option, name)
        if os.path.isfile(path):
            with open(path, "rb") as file:
                content = file.read()
            if b"-----BEGIN CERTIFICATE-----" in content:
                collected.write(content + b"\n")
    if not collected.tell():
        collected.close()
        raise ConfigError(f"ssl-ca-path: no certificate in the folder {option}")
    collected.flush()
    return Bundle(collected.name, collected)
