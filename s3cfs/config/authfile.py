"""The authentication file: an INI whose sections apply to the URLs under their `storage-url` (S3QL's authinfo2 is the same).

    [store]
    storage-url: storjs3://gateway.storjshare.io/bucket/prefix/
    backend-login: ...
    backend-password: ...
    backend-options: tcp-timeout=60
    fs-passphrase: ...

All sections that match are merged; where two set one key, the longer storage-url wins (so `s3c://host` may hold the login and
`s3c://host/bucket/a` the passphrase). Messages name file, line, section and key, never a value: what stands on a line that
does not parse may be a passphrase.
"""
from __future__ import annotations

import configparser
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from s3cfs.errors import ConfigError, UsageError

from .options import BY_NAME
from .url import match_form, matches

OWN_KEYS = ("storage-url", "backend-login", "backend-password", "backend-options", "fs-passphrase")


@dataclass(frozen=True)
class Found:
    """What the file says for one URL: canonical key -> (text, where it stands)."""

    path: str | None
    values: Mapping[str, tuple[str, str]]


def search(given: str | None, environ: Mapping[str, str]) -> str | None:
    """The file to read: named by the user, or the first default place that holds one; None when none does."""
    named = given or environ.get("S3CFS_AUTHFILE")
    if named:
        return os.path.abspath(os.path.expanduser(named))
    for path in default_places(environ):
        # root's file in /etc is none of an ordinary user's business; one's own that cannot be read is a mistake to be told
        if os.path.exists(path) and (os.access(path, os.R_OK) or not path.startswith("/etc/")):
            return path
    return None


def default_places(environ: Mapping[str, str]) -> list[str]:
    """In the order in which they are looked at; only the first that exists is read."""
    home = environ.get("HOME") or os.path.expanduser("~")
    config = environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    places = [os.path.join(config, "s3cfs", "auth.ini"), "/etc/s3cfs/auth.ini", os.path.join(home, ".s3ql", "authinfo2")]
    if environ.get("CREDENTIALS_DIRECTORY"):
        places.insert(0, os.path.join(environ["CREDENTIALS_DIRECTORY"], "auth.ini"))
    return places


def read(path: str, url: str, *, check_mode: bool = True) -> Found:
    """What the file at `path` says for `url` (in normal form)."""
    parser = _parse(path, _text(path, check_mode))
    matching: list[tuple[int, str, str]] = []
    for section in parser.sections():
        known = _known_keys(path, section, parser[section])
        if "storage-url" not in known:
            raise ConfigError(f"{path}: section [{section}] has no storage-url")
        try:
            pattern = match_form(known["storage-url"])
        except UsageError as error:
            raise ConfigError(f"{path}: section [{section}]: storage-url: {error}") from None
        if matches(pattern, url):
            matching.append((len(pattern), section, pattern))
    values: dict[str, tuple[str, str]] = {}
    for _, section, _ in sorted(matching, key=lambda found: found[0]):     # stable: of two equal ones the later wins
        for key, value in _known_keys(path, section, parser[section]).items():
            if "\n" in value:
                raise ConfigError(f"{path}: section [{section}]: {key} goes over several lines")
            if key != "storage-url":
                values[key] = (value, f"{path}: section [{section}]: {key}")
    return Found(path, values)


def _known_keys(path: str, section: str, items: Mapping[str, str]) -> dict[str, str]:
    """Canonical names; an unknown key is refused by its first word (the rest might be a secret before an '=')."""
    known: dict[str, str] = {}
    for key, value in items.items():
        option = BY_NAME.get(key)
        name = option.name if option else key
        if not option and key not in OWN_KEYS:
            raise ConfigError(f"{path}: section [{section}]: unknown key '{(key.split() or [''])[0]}'")
        if name in known:
            raise ConfigError(f"{path}: section [{section}]: {name} is there twice")
        known[name] = value
    return known


def _text(path: str, check_mode: bool) -> str:
    try:
        with open(path, "rb") as file:
            info = os.fstat(file.fileno())                   # of what is read, not of what had the name before
            if check_mode and info.st_mode & 0o077 and not stat.S_ISCHR(info.st_mode):
                mode = stat.S_IMODE(info.st_mode)
                raise ConfigError(f"{path} holds secrets and others can get at it (mode {mode:04o}): chmod 600 {path}")
            return file.read(1 << 20).decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read the authentication file {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start}") from None


def _parse(path: str, text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(default_section="\0none", empty_lines_in_values=False)
    try:
        parser.read_string(text)
    except configparser.MissingSectionHeaderError as error:
        raise ConfigError(f"{path}: line {error.lineno} stands before the first [section]") from None
    except configparser.DuplicateSectionError as error:
        raise ConfigError(f"{path}: line {error.lineno}: section [{error.section}] is there twice") from None
    except configparser.DuplicateOptionError as error:
        raise ConfigError(f"{path}: line {error.lineno}: a key is there twice in section [{error.section}]") from None
    except configparser.ParsingError as error:
        raise ConfigError(f"{path}: line {error.errors[0][0] if error.errors else '?'} is not 'key: value'") from None
    return parser
