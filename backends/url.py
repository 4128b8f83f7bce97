"""Where a store is (its URL), how it is reached (its options) and as whom (credentials), before any backend is made.

A URL is taken apart by hand and not by urllib: keys and folders may hold '?', '#' and '%' and mean them.
No secret is ever part of a URL: one with a user or password in it is refused without being repeated.
"""
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from s3cfs.errors import ConfigError

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_YES, _NO = frozenset(("", "yes", "true", "on", "1")), frozenset(("no", "false", "off", "0"))


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """`scheme://host/path`; `path` begins with '/' or is empty."""

    scheme: str
    host: str
    path: str

    @classmethod
    def parse(cls, url: str) -> StoreUrl:
        """Take a URL apart; ConfigError when it is none or holds a password."""
        scheme, separator, rest = url.strip().partition("://")
        host, slash, path = rest.partition("/")
        if "@" in host:
            raise ConfigError(f"{scheme}://: a storage URL holds no login or password; give backend-login and backend-password")
        if not separator or not _SCHEME.fullmatch(scheme):
            raise ConfigError(f"{url!r} is not a storage URL (scheme://...)")
        if any(ord(c) < 32 or ord(c) == 127 for c in rest):
            raise ConfigError(f"{scheme}://: control characters in the storage URL")
        return cls(scheme, host, slash + path)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}{self.path}"

    def bucket_and_prefix(self) -> tuple[str, str]:
        """`/bucket/a/b` -> ("bucket", "a/b/"): a prefix ends in '/', or is empty."""
        bucket, _, prefix = self.path.lstrip("/").partition("/")
        parts = [part for part in prefix.split("/") if part]
        if not bucket:
            raise ConfigError(f"{self}: the bucket is missing, expected {self.scheme}://HOST/BUCKET/PREFIX/")
        return bucket, "".join(part + "/" for part in parts)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Login and password as the authentication file gives them. Both empty: the backend's own ways (AWS chain)."""

    login: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Options:
    """The backend options of one store, with the URL for messages. Values are text; a flag has an empty one."""

    url: StoreUrl
    values: Mapping[str, str]

    def refuse_unknown(self, known: Mapping[str, str]) -> None:
        for name in self.values:
            if name not in known:
                choice = ", ".join(sorted(known)) or "none"
                raise ConfigError(f"{self.url.scheme}:// does not know the backend option {name!r} (it knows: {choice})")

    def flag(self, name: str) -> bool:
        text = self.values.get(name)
        if text is None or text.lower() in _NO:
            return False
        if text.lower() in _YES:
            return True
        raise ConfigError(f"backend option {name} is a flag (yes or no), not {text!r}")

    def text(self, name: str, default: str = "") -> str:
        value = self.values.get(name)
        if value is not None and not value:
            raise ConfigError(f"backend option {name} needs a value")
        return default if value is None else value

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """One of `choices`, the first by default."""
        value = self.text(name, choices[0])
        if value not in choices:
            raise ConfigError(f"backend option {name} is one of {', '.join(choices)}, not {value!r}")
        return value

    def seconds(self, name: str, default: float) -> float:
        text = self.text(name, str(default))
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 < value < 86400:
            raise ConfigError(f"backend option {name} is a number of seconds, not {text!r}")
        return value


def parse_options(text: str) -> dict[str, str]:
    """`no-ssl,tcp-timeout=60` as the INI and S3QL write it -> {"no-ssl": "", "tcp-timeout": "60"}."""
    found: dict[str, str] = {}
    for item in text.replace("\n", ",").split(","):
        name, _, value = item.strip().partition("=")
        if not name.strip():
            if value:
                raise ConfigError(f"backend-options: a value without a name in {text!r}")
            continue
        found[name.strip()] = value.strip()
    return found
