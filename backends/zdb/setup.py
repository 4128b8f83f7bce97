"""The list of servers: a TOML or INI file, taken apart and checked before anything is connected.

    data = 16                                   [zdb]
    parity = 4                                  data = 16
    [[servers]]                                 [server a1]
    name = "a1"                                 address = 10.0.0.1:9900
    address = "10.0.0.1:9900"                   namespace = s3cfs
    namespace = "s3cfs"                         domain = rack-a

Everything that is said once for all servers (`namespace`, `password`, `admin-password`) may stand above them. A name stands for a server
*with its data*: one whose data is lost comes back under a new name (members.py). Messages never hold a value that may be a secret.
"""
from __future__ import annotations

import configparser
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from s3cfs.errors import ConfigError

DATA, PARITY = 16, 4
SHARDS_MAX = 255                   # one byte counts them, and GF(2^8) has no more rows
PORT = 9900
NAMESPACE_MAX_BYTES = 128          # facts, 3: "Namespace too long"
PASSWORD_MAX_BYTES = 128           # "Password too long"
FILE_MAX_BYTES = 1 << 20

_GENERAL = ("data", "parity", "acknowledgements", "secret", "namespace", "password", "admin-password")
_SERVER = ("name", "address", "namespace", "password", "domain", "drain", "admin-password")
_SECRETS = ("secret", "password", "admin-password")
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?::(\d{1,5}))?")
_NAME = re.compile(r"[A-Za-z0-9_.:\[\]-]{1,64}")


@dataclass(frozen=True, slots=True)
class Server:
    """One namespace of one 0-db. `host` is without the brackets of an IPv6 address."""

    name: str
    host: str
    port: int
    namespace: str
    password: str = field(default="", repr=False)
    domain: str = ""               # what fails together with it; its host, if nothing is said
    drain: bool = False            # nothing new goes there, and a repair takes away what is there
    admin_password: str = field(default="", repr=False)

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        """For messages."""
        return self.name if self.name == self.address else f"{self.name} ({self.address})"


@dataclass(frozen=True, slots=True)
class Setup:
    """What the list says. `acknowledgements`: of so many shards (of data + parity) at least a put is done."""

    path: str
    servers: tuple[Server, ...]
    meta: tuple[Server, ...] = ()  # the records lie there; () : with the shards
    data: int = DATA
    parity: int = PARITY
    acknowledgements: int = DATA + 2
    secret: str = field(default="", repr=False)

    @property
    def everyone(self) -> tuple[Server, ...]:
        return self.servers + self.meta


def read(path: str, password: str = "") -> Setup:
    """The file at `path` (its end says which it is); ConfigError. `password`: of the servers for which the list has none."""
    kind = os.path.splitext(path)[1]
    if kind not in (".toml", ".ini"):
        raise ConfigError(f"the list of servers is a .toml or .ini file, not {path}")
    text, mode = _text(path)
    general, servers, meta = (_toml if kind == ".toml" else _ini)(path, text)
    told = any(entry.get(name) for entry in (general, *servers, *meta) for name in _SECRETS)
    if told and mode & 0o077:
        raise ConfigError(f"{path} holds passwords and others can get at it (mode {mode:04o}): chmod 600 {path}")
    return _Reader(path, general, password).setup(servers, meta)


def _text(path: str) -> tuple[str, int]:
    try:
        with open(path, "rb") as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode):
                raise ConfigError(f"the list of servers {path} is not a file")
            return file.read(FILE_MAX_BYTES).decode("utf-8-sig"), stat.S_IMODE(info.st_mode)
    except OSError as error:
        raise ConfigError(f"cannot read the list of servers {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start}") from None


Entry = dict[str, Any]


def _toml(path: str, text: str) -> tuple[Entry, list[Entry], list[Entry]]:
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"\(at .*\)$", str(error))             # the rest of its text may quote what stands there
        raise ConfigError(f"{path} is not TOML {where[0] if where else ''}".rstrip()) from None
    lists: list[list[Entry]] = []
    for name in ("servers", "meta"):
        entries = found.pop(name, [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ConfigError(f"{path}: {name} are tables, each [[{name}]]")
        lists.append(entries)
    return found, lists[0], lists[1]


def _ini(path: str, text: str) -> tuple[Entry, list[Entry], list[Entry]]:
    parser = configparser.RawConfigParser(default_section="\0none", empty_lines_in_values=False)
    try:
        parser.read_string(text)
    except configparser.MissingSectionHeaderError as error:
        raise ConfigError(f"{path}: line {error.lineno} stands before the first [section]") from None
    except (configparser.DuplicateSectionError, configparser.DuplicateOptionError) as error:
        raise ConfigError(f"{path}: line {error.lineno}: it is there twice") from None
    except configparser.ParsingError as error:
        raise ConfigError(f"{path}: line {error.errors[0][0] if error.errors else '?'} is not 'key = value'") from None
    general: Entry = {}
    lists: dict[str, list[Entry]] = {"server": [], "meta": []}
    for section in parser.sections():
        kind, _, name = section.partition(" ")
        if section == "zdb":
            general = dict(parser[section])
        elif kind in lists and name.strip():
            lists[kind].append({**parser[section], "name": name.strip()})
        else:
            raise ConfigError(f"{path}: unknown section [{section}]: it is [zdb], [server NAME] or [meta NAME]")
    return general, lists["server"], lists["meta"]


class _Reader:
    """Turns entries into settings, with messages that say where."""

    def __init__(self, path: str, general: Entry, password: str) -> None:
        self._path, self._general, self._password = path, general, password

    def setup(self, servers: Sequence[Entry], meta: Sequence[Entry]) -> Setup:
        self._refuse_unknown("", self._general, _GENERAL)
        data, parity = self._number("data", DATA, 1, SHARDS_MAX - 1), self._number("parity", PARITY, 1, SHARDS_MAX - 1)
        if data + parity > SHARDS_MAX:
            raise ConfigError(f"{self._path}: data and parity are at most {SHARDS_MAX} together")
        enough = self._number("acknowledgements", min(data + 2, data + parity), data + 1, data + parity)
        setup = Setup(self._path, tuple(self._server(entry) for entry in servers), tuple(self._server(entry) for entry in meta),
                      data, parity, enough, self._text("", self._general, "secret"))
        self._refuse_doubles(setup.everyone)
        staying = sum(not server.drain for server in setup.servers)
        if staying < data + parity:
            less = " (those that drain do not count)" if staying < len(setup.servers) else ""
            raise ConfigError(f"{self._path}: too few servers: {data} + {parity} needs {data + parity}, the list has {staying}{less}")
        return setup

    def _server(self, entry: Entry) -> Server:
        name = self._text("", entry, "name")
        where = f"server {name or self._text('', entry, 'address') or '?'}: "
        self._refuse_unknown(where, entry, _SERVER)
        found = _ADDRESS.fullmatch(self._text(where, entry, "address"))
        if not found or not 0 < int(found[2] or PORT) < 65536:
            raise ConfigError(f"{self._path}: {where}address is HOST:PORT")
        host, port = found[1].strip("[]").lower(), int(found[2] or PORT)
        server = Server(name or f"{found[1].lower()}:{port}", host, port, self._text(where, entry, "namespace", shared=True) or "default",
                        self._text(where, entry, "password", shared=True) or self._password, self._text(where, entry, "domain") or host,
                        self._flag(where, entry, "drain"), self._text(where, entry, "admin-password", shared=True))
        if not _NAME.fullmatch(server.name):
            raise ConfigError(f"{self._path}: {where}a name has up to 64 letters, digits and -_.:")
        if len(server.namespace.encode()) > NAMESPACE_MAX_BYTES:
            raise ConfigError(f"{self._path}: {where}a namespace's name has at most {NAMESPACE_MAX_BYTES} bytes")
        if max(len(server.password.encode()), len(server.admin_password.encode())) > PASSWORD_MAX_BYTES:
            raise ConfigError(f"{self._path}: {where}a password has at most {PASSWORD_MAX_BYTES} bytes")
        return server

    def _refuse_doubles(self, servers: Iterable[Server]) -> None:
        names: set[str] = set()
        places: set[tuple[str, int, str]] = set()
        for server in servers:
            if server.name in names:
                raise ConfigError(f"{self._path}: two servers are called {server.name}")
            place = (server.host, server.port, server.namespace)
            if place in places:
                raise ConfigError(f"{self._path}: server {server.name}: namespace {server.namespace} at {server.address} is there twice")
            names.add(server.name)
            places.add(place)

    def _refuse_unknown(self, where: str, entry: Mapping[str, Any], known: Sequence[str]) -> None:
        for key in entry:
            if key not in known:
                raise ConfigError(f"{self._path}: {where}unknown key '{(key.split() or [''])[0]}' (it is one of {', '.join(known)})")

    def _text(self, where: str, entry: Mapping[str, Any], key: str, *, shared: bool = False) -> str:
        value = entry.get(key, self._general.get(key, "") if shared else "")
        if not isinstance(value, str) or any(ord(c) < 32 or ord(c) == 127 for c in value):
            raise ConfigError(f"{self._path}: {where}{key} is a text on one line")
        return value.strip()

    def _flag(self, where: str, entry: Mapping[str, Any], key: str) -> bool:
        value = entry.get(key, False)
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("yes", "no", "true", "false"):
            return value.lower() in ("yes", "true")
        raise ConfigError(f"{self._path}: {where}{key} is true or false")

    def _number(self, key: str, default: int, least: int, most: int) -> int:
        value = self._general.get(key, default)
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ConfigError(f"{self._path}: {key} is a number from {least} to {most}")
        return value
