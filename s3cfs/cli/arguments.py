"""Argument parsing shared by the commands: the parser class, and arguments made from the table of options."""
from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from s3cfs.cli.run import say
from s3cfs.config import OPTIONS, Secret
from s3cfs.config.options import BY_NAME
from s3cfs.config.settings import checked_secret
from s3cfs.errors import ConfigError, UsageError


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of leaving with 2, and never repeats the value of an argument it does not know."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", _Formatter)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        args, unknown = self.parse_known_args(list(argv))
        if unknown:
            name = unknown[0].partition("=")[0] if unknown[0].startswith("-") else "argument"
            if name in ("--fs-passphrase", "--passphrase", "--backend-password", "--password"):
                raise UsageError(f"{name}: secrets never stand on the command line; use the authentication file or --passphrase-fd")
            self.error(f"unknown option {name}" if name != "argument" else f"{len(unknown)} argument(s) too many")
        return args


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(prog, max_help_position=30, width=min(110, max(60, _columns())), **kwargs)


def add_store(parser: argparse.ArgumentParser) -> None:
    """How to get at a filesystem: for every command that opens the store itself."""
    group = parser.add_argument_group("store and secrets")
    group.add_argument("--authfile", metavar="FILE", help="authentication file (default: $S3CFS_AUTHFILE, ~/.config/s3cfs/auth.ini, "
                       "/etc/s3cfs/auth.ini, ~/.s3ql/authinfo2)")
    group.add_argument("--backend-options", metavar="A=B,C", help="options of the backend, instead of those in the file")
    add_spec(group)
    group.add_argument("--passphrase-fd", metavar="N", help="read the passphrase from this open file descriptor")


def add_spec(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--datastore-spec", metavar="FILE", help="of ipfs+s3://: an IPFS node's configuration, or its S3 plugin's "
                       "part of it; the URL may be ipfs+s3:/// then")


def add_output(parser: argparse.ArgumentParser, as_json: bool = True) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--quiet", "-q", action="store_true", help="no progress and no remarks, errors only")
    if as_json:
        group.add_argument("--json", action="store_true", help="the result as JSON on stdout (progress as JSON lines on stderr)")


def add_options(parser: argparse.ArgumentParser, names: Sequence[str] | None = None) -> None:
    """Arguments for the named options of the table, or all of them."""
    group = parser.add_argument_group("options", "Each may also stand in the authentication file and in the environment as S3CFS_NAME.")
    for option in OPTIONS:
        if names is not None and option.name not in names:
            continue
        default = f" (default: {option.shown})" if option.shown and not option.flag else ""
        flags = [f"--{name}" for name in (option.name, *option.aliases)]
        if option.flag:
            says: str | bool = option.bare or True
            group.add_argument(flags[0], dest=_dest(option.name), action="store_const", const=says, default=None, help=option.help)
            if flags[1:]:
                group.add_argument(*flags[1:], dest=_dest(option.name), action="store_const", const=says, help=argparse.SUPPRESS,
                                   default=None)
            group.add_argument(f"--{option.opposite}", dest=_dest(option.name), action="store_const",
                               const="no" if option.bare else False, help=argparse.SUPPRESS, default=None)
        else:
            group.add_argument(flags[0], dest=_dest(option.name), metavar=option.metavar, help=option.help + default)
            if flags[1:]:
                group.add_argument(*flags[1:], dest=_dest(option.name), help=argparse.SUPPRESS)


def given(args: argparse.Namespace) -> dict[str, str | bool | None]:
    """What was said on the command line, by the names `config.load` takes."""
    found: dict[str, str | bool | None] = {name: getattr(args, _dest(name), None) for name in BY_NAME if BY_NAME[name].name == name}
    for name in ("authfile", "backend-options", "passphrase-fd", "datastore-spec"):
        found[name] = getattr(args, name.replace("-", "_"), None)
    return found


def _dest(name: str) -> str:
    return "option_" + name.replace("-", "_")


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        return 100


def asker(prompt: str = "Passphrase: ") -> Callable[[], Secret] | None:
    """Asks on the terminal once; None when there is none."""
    if not _interactive():
        return None

    return lambda: _typed(prompt)


def ask_twice() -> Secret | None:
    """A new passphrase; None when there is no terminal."""
    if not _interactive():
        return None
    first = _typed("New passphrase: ")
    if _typed("The same again: ") != first:
        raise ConfigError("the two passphrases differ")
    return first


def _typed(prompt: str) -> Secret:
    try:
        text = getpass.getpass(prompt)
    except BaseException as error:
        say("")                                # the prompt's line is not ended
        if isinstance(error, UnicodeDecodeError):
            raise ConfigError("the passphrase that was typed is not UTF-8") from None
        if not isinstance(error, EOFError):    # ^D
            raise
        text = ""
    if not text:
        raise ConfigError("no passphrase was given")
    return checked_secret(text.encode(errors="surrogateescape"), "the passphrase that was typed")


def _interactive() -> bool:
    try:
        return os.isatty(0) and os.isatty(2)
    except OSError:
        return False
