"""Everything for one filesystem put together: `load` is the only way in.

Order, the first that says something wins: command line, environment, credentials of systemd ($CREDENTIALS_DIRECTORY),
authentication file, default. Each value is parsed by the one parser of its option and a mistake is reported with the
place it came from.
"""
from __future__ import annotations

import os
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from s3cfs.errors import ConfigError, UsageError

from . import authfile as auth
from .options import OPTIONS, MountOptions, parse_bool
from .secret import Secret
from .url import BY_SPEC, normalise

# Variables that are no option. S3CFS_TEST_* is the test suite's.
OTHER_VARIABLES = ("S3CFS_AUTHFILE", "S3CFS_BACKEND_LOGIN", "S3CFS_BACKEND_PASSWORD", "S3CFS_BACKEND_OPTIONS", "S3CFS_PASSPHRASE",
                   "S3CFS_FS_PASSPHRASE", "S3CFS_PASSPHRASE_FD", "S3CFS_DEBUG")
SECRET_VARIABLES = ("S3CFS_BACKEND_PASSWORD", "S3CFS_PASSPHRASE", "S3CFS_FS_PASSPHRASE")
SECRET_MAX_BYTES = 4096
SPEC = "datastore-spec"            # of the command line, and a backend option: a node's configuration (docs/ipfs.md)
PLACES = "fs-passphrase in the authentication file, --passphrase-fd or $S3CFS_PASSPHRASE"


@dataclass(frozen=True)
class Settings:
    """One filesystem in one store and how to get at it. `login` None: the store's own ways (AWS variables, profiles, roles)."""

    url: str
    cachedir: str
    login: str | None = None
    password: Secret | None = None
    backend_options: Mapping[str, str] = field(default_factory=dict)      # a word without "=" has the value ""
    passphrase: Secret | None = None
    authfile: str | None = None
    ask: Callable[[], Secret] | None = field(default=None, repr=False, compare=False)

    def need_passphrase(self) -> Secret:
        """The passphrase; asked for on a terminal when none is set. Call it while there still is a terminal."""
        if self.passphrase:
            return self.passphrase
        if self.ask is not None:
            return self.ask()
        raise ConfigError(f"a passphrase is needed: {PLACES}")


Given = Mapping[str, str | bool | None]


def load(url: str, given: Given | None = None, *, environ: MutableMapping[str, str] | None = None,
         fuse_options: tuple[str, ...] = (), ask: Callable[[], Secret] | None = None) -> tuple[Settings, MountOptions]:
    """Settings and mount options for `url`.

    `given` is the command line: option names (also "authfile", "backend-options", "passphrase-fd") to text, or bool for flags;
    None is "not said". Secrets are taken out of `environ`, so that no child of this process inherits them.
    """
    environ = os.environ if environ is None else environ
    said = {name: value for name, value in (given or {}).items() if value is not None}
    spec, url = _spec(said), normalise(url)
    if spec is not None:
        url = _as_specified(url, spec)
    _refuse_unknown_variables(environ)
    secrets = {name: environ.pop(name) for name in SECRET_VARIABLES if name in environ}
    found = _read_authfile(url, said, environ)

    def pick(name: str, variable: str) -> tuple[str | bool, str] | None:
        if name in said:
            return said[name], f"--{name}"
        if environ.get(variable):
            return environ[variable], f"${variable}"
        return found.values.get(name)

    values: dict[str, Any] = {"cachedir": default_cachedir(environ), "fuse_options": fuse_options}
    for option in OPTIONS:
        picked = pick(option.name, option.variable)
        if picked is None:
            continue
        text, where = picked
        if isinstance(text, bool):
            values[option.field] = text
            continue
        try:
            values[option.field] = (option.parse or parse_bool)(text)
        except ValueError as error:
            kind = UsageError if where.startswith("--") else ConfigError
            raise kind(f"{where}: {error}") from None
    options = MountOptions(**values)

    login, password = _login(secrets, environ, found)
    picked = pick("backend-options", "S3CFS_BACKEND_OPTIONS")
    backend_options = parse_backend_options(str(picked[0]), picked[1]) if picked else {}
    if spec is not None:
        backend_options[SPEC] = spec
    elif url == BY_SPEC and backend_options.get(SPEC):
        backend_options[SPEC] = os.path.abspath(os.path.expanduser(backend_options[SPEC]))
        url = _as_specified(url, backend_options[SPEC])
    settings = Settings(
        url=url, cachedir=options.cachedir, login=login, password=password, backend_options=backend_options,
        passphrase=_passphrase(said, secrets, environ, found), authfile=found.path, ask=ask)
    return settings, options


OF_THE_SOURCE = ("S3CFS_PASSPHRASE", "S3CFS_FS_PASSPHRASE", "S3CFS_PASSPHRASE_FD")
OF_ONE_STORE = ("S3CFS_BACKEND_LOGIN", "S3CFS_BACKEND_PASSWORD", "S3CFS_BACKEND_OPTIONS")


def load_pair(source: str, target: str, given: Given, source_options: str | None, target_options: str | None, *,
              environ: MutableMapping[str, str] | None = None,
              ask: Callable[[], Secret] | None = None) -> tuple[Settings, Settings, MountOptions]:
    """Settings of two stores that one command needs, each from its own sections of the authentication file; options of the second.

    What the environment or systemd says of a login means the one that is no folder. Where both are none it is refused: no store is shown
    the keys of another. The passphrase is the source's, and the target's that of its own sections.
    """
    environ = os.environ if environ is None else environ
    source, target = normalise(source), normalise(target)
    by_spec = [url for url in (source, target) if url.startswith(BY_SPEC)]
    if (spec := _spec(given)) is not None:
        if len(by_spec) != 1:
            raise UsageError(f"--{SPEC} is for the one that is {BY_SPEC}; of two, give each its own in --source-options, --target-options")
        source, target = (_as_specified(url, spec) if url in by_spec else url for url in (source, target))
    known = [name for name in OF_ONE_STORE if environ.get(name)]
    known += [name for name in ("backend-login", "backend-password") if _credential(environ, name) is not None]
    if known and not any(url.startswith("local://") for url in (source, target)):
        raise ConfigError(f"{known[0]} does not say which of the two stores it is of: give each its section in the authentication file")

    def of(url: str, options: str | None, hidden: tuple[str, ...], **said: str | bool | None) -> tuple[Settings, MountOptions]:
        hidden += OF_ONE_STORE if url.startswith("local://") else ()
        own = {name: value for name, value in environ.items() if name not in hidden}
        its = {SPEC: spec if url.startswith(BY_SPEC) else None, "backend-options": options, **said}
        return load(url, {**given, **its}, environ=own, ask=ask)

    first, _ = of(source, source_options, ())
    second, options = of(target, target_options, OF_THE_SOURCE, **{"passphrase-fd": None})
    for name in SECRET_VARIABLES:
        environ.pop(name, None)
    return first, second, options


def _spec(said: Given) -> str | None:
    return os.path.abspath(os.path.expanduser(str(said[SPEC]))) if said.get(SPEC) else None


def _as_specified(url: str, path: str) -> str:
    """The whole URL of the store that this file names."""
    if not url.startswith(BY_SPEC):
        raise UsageError(f"--{SPEC} is for {BY_SPEC}, not for {url}")
    from s3cfs.backends.ipfs.spec import Spec
    found = normalise(Spec.load(path).url)
    if url not in (BY_SPEC, found):
        raise UsageError(f"{url} is not what {path} says, which is {found}: {BY_SPEC}/ means that")
    return found


def default_cachedir(environ: Mapping[str, str], uid: int | None = None) -> str:
    if (os.geteuid() if uid is None else uid) == 0:
        return "/var/cache/s3cfs"
    home = environ.get("HOME") or os.path.expanduser("~")
    return os.path.join(environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache"), "s3cfs")


def parse_backend_options(text: str, where: str) -> dict[str, str]:
    """"a=b,c" -> {"a": "b", "c": ""}; ";" does for "," where a comma cannot stand (in -o). The backend refuses what it does not know."""
    found: dict[str, str] = {}
    for part in text.replace(";", ",").split(","):
        name, _, value = part.strip().partition("=")
        name, value = name.strip(), value.strip()
        if not part.strip():
            continue
        if not name:
            raise ConfigError(f"{where}: a value without a name")
        if name in found:
            raise ConfigError(f"{where}: {name} is there twice")
        found[name] = value
    return found


def read_passphrase_fd(text: str, where: str = "--passphrase-fd") -> Secret:
    """Read to the end (or the first line's end) of an open descriptor and close it."""
    try:
        number = int(text)
        if number < 0:
            raise ValueError
    except ValueError:
        raise UsageError(f"{where}: '{text}' is not the number of an open file") from None
    try:
        with open(number, "rb", closefd=number > 2) as file:
            data = file.readline(SECRET_MAX_BYTES + 2)
    except OSError as error:
        raise UsageError(f"{where}: cannot read from descriptor {number}: {error.strerror}") from None
    return checked_secret(data, where)


def checked_secret(data: bytes, where: str) -> Secret:
    """A secret from raw bytes: one line-end is taken off; empty, over-long and non-UTF-8 ones are refused."""
    data = data.removesuffix(b"\n").removesuffix(b"\r")
    if not data:
        raise ConfigError(f"{where}: it is empty")
    if len(data) > SECRET_MAX_BYTES:
        raise ConfigError(f"{where}: it is longer than {SECRET_MAX_BYTES} bytes")
    try:
        return Secret(data.decode())
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: it is not UTF-8") from None


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    known = {*OTHER_VARIABLES, *(option.variable for option in OPTIONS)}
    for name in sorted(environ):
        if name.startswith("S3CFS_") and name not in known and not name.startswith("S3CFS_TEST_"):
            raise ConfigError(f"unknown variable ${name} in the environment")


def _read_authfile(url: str, said: Mapping[str, str | bool], environ: Mapping[str, str]) -> auth.Found:
    path = auth.search(str(said["authfile"]) if "authfile" in said else None, environ)
    if path is None:
        return auth.Found(None, {})
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    systemds = bool(credentials) and os.path.dirname(path) == os.path.abspath(credentials or "")     # guarded by its folder
    return auth.read(path, url, check_mode=not systemds)


def _credential(environ: Mapping[str, str], name: str) -> bytes | None:
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return None
    try:
        with open(os.path.join(folder, name), "rb") as file:
            return file.read(SECRET_MAX_BYTES + 2)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot read the credential {name}: {error.strerror}") from None


def _login(secrets: Mapping[str, str], environ: Mapping[str, str], found: auth.Found) -> tuple[str | None, Secret | None]:
    """Both or none, and both from one place: half of a key pair from elsewhere is never meant."""
    def credential(name: str) -> str | None:
        data = _credential(environ, name)
        return None if data is None else checked_secret(data, f"credential {name}").reveal()

    pairs = (
        ("$S3CFS_BACKEND_LOGIN, $S3CFS_BACKEND_PASSWORD", environ.get("S3CFS_BACKEND_LOGIN"), secrets.get("S3CFS_BACKEND_PASSWORD")),
        ("credentials backend-login, backend-password", credential("backend-login"), credential("backend-password")),
        (f"{found.path}: backend-login, backend-password",
         found.values.get("backend-login", ("", ""))[0], found.values.get("backend-password", ("", ""))[0]),
    )
    for where, login, password in pairs:
        if login and password:
            return login, Secret(password)
        if login or password:
            raise ConfigError(f"{where}: the {'password' if login else 'login'} is missing")
    return None, None


def _passphrase(said: Mapping[str, str | bool], secrets: Mapping[str, str], environ: Mapping[str, str], found: auth.Found) -> Secret | None:
    if "passphrase-fd" in said:
        return read_passphrase_fd(str(said["passphrase-fd"]))
    if environ.get("S3CFS_PASSPHRASE_FD"):
        return read_passphrase_fd(environ["S3CFS_PASSPHRASE_FD"], "$S3CFS_PASSPHRASE_FD")
    short, long = secrets.get("S3CFS_PASSPHRASE"), secrets.get("S3CFS_FS_PASSPHRASE")
    if short and long and short != long:
        raise ConfigError("$S3CFS_PASSPHRASE and $S3CFS_FS_PASSPHRASE are the same setting and differ")
    if short or long:
        return checked_secret(os.fsencode(short or long or ""), "$S3CFS_PASSPHRASE")
    data = _credential(environ, "fs-passphrase")
    if data is not None:
        return checked_secret(data, "credential fs-passphrase")
    if "fs-passphrase" in found.values:
        value, where = found.values["fs-passphrase"]
        return checked_secret(value.encode(), where)
    return None
