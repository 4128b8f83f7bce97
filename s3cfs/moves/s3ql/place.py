"""Where a filesystem of S3QL is: its storage URL, and what S3QL's own authentication file says for it.

S3QL takes a prefix literally (`bucket/some/pre_` is not `bucket/some/pre_/`), so these URLs are not normalised like ours. Its file has
sections whose storage-url is the beginning of a URL, as text; later sections win. What else stands in it (options of mounts) is nobody's
business here.
"""
from __future__ import annotations

import configparser
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from s3cfs.config import Secret
from s3cfs.config.settings import checked_secret, parse_backend_options
from s3cfs.errors import ConfigError, UsageError

BUCKETS = ("s3c", "s3c4", "storjs3", "s3")
KNOWN = ("local", *BUCKETS)
ELSEWHERE = {
    "gs": "copy its objects with their metadata into a bucket of an S3 store, or onto this machine with S3QL",
    "swift": "copy its objects with their metadata into a bucket of an S3 store",
    "swiftks": "copy its objects with their metadata into a bucket of an S3 store",
    "b2": "name its S3 gateway: s3c://s3.REGION.backblazeb2.com/BUCKET/PREFIX",
}
ESCAPES = {"=": "=3D", "/": "=2F", "\0": "=00"}
FILE_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """`local`: `prefix` is the absolute path of the folder. Else a bucket of `host` (for s3:// the region), names begin with `prefix`."""

    scheme: str
    host: str
    bucket: str
    prefix: str
    url: str                       # as it was given, for messages and for the names of cache files

    @classmethod
    def parse(cls, url: str) -> Place:
        """UsageError. A login in it is refused without being repeated."""
        scheme, found, rest = url.partition("://")
        if not found or any(ord(c) < 32 or ord(c) == 127 for c in rest):
            raise UsageError("SOURCE is a storage URL of S3QL, like s3c://HOST/BUCKET/PREFIX or local:///FOLDER")
        if scheme in ELSEWHERE:
            raise UsageError(f"{scheme}:// of S3QL cannot be read: {ELSEWHERE[scheme]}")
        if scheme not in KNOWN:
            raise UsageError(f"{scheme}:// is no backend of S3QL that can be read ({', '.join(KNOWN)})")
        if scheme == "local":
            if not rest:
                raise UsageError("local:// needs a folder")
            return cls(scheme, "", "", os.path.abspath(rest), url)
        host, _, path = rest.partition("/")
        if "@" in host:
            raise UsageError(f"a {scheme}:// URL must not hold a login or password: put them into the authentication file")
        bucket, _, prefix = path.partition("/")
        if not host or not bucket:
            raise UsageError(f"{scheme}://: the bucket is missing: {scheme}://{'REGION' if scheme == 's3' else 'HOST'}/BUCKET/PREFIX")
        return cls(scheme, host, bucket, prefix, url)

    @property
    def identity(self) -> str:
        """The same for every way to write it."""
        return f"{self.scheme}://{self.prefix}" if self.scheme == "local" else f"{self.scheme}://{self.host}/{self.bucket}/{self.prefix}"

    def cache_name(self) -> str:
        """How the names of its files in S3QL's cache folder begin."""
        if self.scheme == "local":
            url = f"local://{self.prefix}/"
        elif self.scheme != "storjs3" and not self.prefix and not self.url.endswith("/"):
            url = self.url + "/"
        else:
            url = self.url
        return "".join(ESCAPES.get(c, c) for c in url)


@dataclass(frozen=True, slots=True)
class Access:
    """How to get at it."""

    login: str = ""
    password: Secret | None = None
    passphrase: Secret | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    path: str = ""                 # of the file that said so


def read_authfile(path: str, place: Place) -> Access:
    """Of all sections that fit. ConfigError; no message repeats what stands in the file."""
    try:
        with open(path, "rb") as file:
            info = os.fstat(file.fileno())
            if info.st_mode & 0o077 and not stat.S_ISCHR(info.st_mode):
                mode = stat.S_IMODE(info.st_mode)
                raise ConfigError(f"{path} holds secrets and others can get at it (mode {mode:04o}): chmod 600 {path}")
            text = file.read(FILE_MAX_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read S3QL's authentication file {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start}") from None
    parser = configparser.RawConfigParser(default_section="\0none", strict=False)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise ConfigError(f"{path}: line {getattr(error, 'lineno', '?')} is not 'key: value' below a [section]") from None
    found: dict[str, str] = {}
    for section in parser.sections():
        pattern = parser[section].get("storage-url", "")
        if pattern and (place.url.startswith(pattern) or (place.url + "/").startswith(pattern)):
            found.update(parser[section])
    password, passphrase = found.get("backend-password"), found.get("fs-passphrase")
    return Access(
        found.get("backend-login", ""),
        checked_secret(password.encode(), f"{path}: backend-password") if password else None,
        checked_secret(passphrase.encode(), f"{path}: fs-passphrase") if passphrase else None,
        parse_backend_options(found.get("backend-options", ""), f"{path}: backend-options"), path)


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the command line says of them, and how to ask for what nobody said."""

    authfile: str | None = None
    passphrase: Secret | None = None
    options: Mapping[str, str] | None = None
    ask: Callable[[], Secret] | None = None

    def access(self, place: Place, environ: Mapping[str, str]) -> Access:
        path = find_authfile(self.authfile, environ)
        found = read_authfile(path, place) if path else Access()
        options = found.options if self.options is None else self.options
        return replace(found, passphrase=self.passphrase or found.passphrase, options=options)

    def need_passphrase(self, access: Access) -> Secret:
        if access.passphrase is not None:
            return access.passphrase
        if self.ask is not None:
            return self.ask()
        raise ConfigError("the passphrase of SOURCE is needed: fs-passphrase in S3QL's authentication file, or --s3ql-passphrase-fd")


def find_authfile(given: str | None, environ: Mapping[str, str]) -> str | None:
    if given:
        return os.path.abspath(os.path.expanduser(given))
    usual = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".s3ql", "authinfo2")
    return usual if os.path.exists(usual) else None
