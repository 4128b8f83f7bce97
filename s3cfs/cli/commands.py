"""The list of commands and the way from `s3cfs WORD ...` to one of them."""
from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Protocol, cast

from s3cfs.cli.arguments import Parser
from s3cfs.cli.run import own_code
from s3cfs.errors import S3cfsError, UsageError

COMMANDS: dict[str, str] = {
    "mkfs": "make a filesystem in a store",
    "mount": "mount a filesystem",
    "umount": "unmount; returns when everything is in the store",
    "fsck": "check a filesystem, and repair it",
    "verify": "ask the store for every object of a filesystem, or read them all",
    "migrate": "copy a filesystem into another store",
    "import": "bring a filesystem of S3QL into one of s3cfs",
    "stat": "what a mounted filesystem does: sizes, lag, cache, requests",
    "ctl": "control a mounted filesystem: flush, consistency, checker ...",
    "probe": "try what a store can do, and note it if it has changed",
    "ipfs": "what concerns IPFS: exporting files, roots, garbage, a node's configuration",
    "zdb": "look after a set of 0-dbs: status, check, repair ...",
    "debug": "look into the objects of a store",
    "help": "explain a command",
    "version": "print the version",
}

MODULES = {"import": "import_"}            # what no module can be called


class Command(Protocol):
    """What the module of a command offers."""

    def parser(self, prog: str) -> Parser: ...
    def run(self, argv: Sequence[str], prog: str) -> int: ...


def command(name: str) -> Command:
    if name not in COMMANDS:
        raise UsageError(f"there is no command '{name}' (see s3cfs help)")
    module: ModuleType = importlib.import_module(f"s3cfs.cli.{MODULES.get(name, name)}")
    return cast(Command, module)


def dispatch(argv: Sequence[str]) -> int:
    """`argv` without the program's name; the exit code."""
    if not argv:
        print(overview(), end="")
        return 1
    word, *rest = argv
    if word in ("-h", "--help"):
        print(overview(), end="")
        return 0
    if word in ("-V", "--version"):
        word = "version"
    return command(word).run(rest, f"s3cfs {word}")


def exit_codes_of(argv: Sequence[str]) -> Callable[[S3cfsError], int]:
    """fsck(8) has a table of its own; everything else answers with the error's own code."""
    if argv[:1] == ["fsck"]:
        from s3cfs.cli import fsck
        return fsck.exit_code
    return own_code


def overview() -> str:
    lines = [f"  {name:<9} {text}" for name, text in COMMANDS.items()]
    return (
        "usage: s3cfs COMMAND ...\n\n"
        "An encrypted, deduplicating, compressing filesystem whose only durable home is an object store.\n\n"
        "commands:\n" + "\n".join(lines) + "\n\n"
        "storage URLs:\n"
        "  s3c://HOST[:PORT]/BUCKET[/PREFIX]   any S3-compatible service\n"
        "  storjs3://HOST/BUCKET[/PREFIX]      Storj, through its S3 gateway\n"
        "  s3://REGION/BUCKET[/PREFIX]         AWS\n"
        "  ipfs+s3://HOST[:PORT]/BUCKET[/ROOT] blocks for an IPFS node that reads the same bucket\n"
        "  ipfs+rpc://HOST[:PORT]/PREFIX       a running Kubo\n"
        "  zdb:///FILE.toml[/PREFIX]           many 0-dbs, which the file names\n"
        "  local:///FOLDER                     a folder\n\n"
        "`s3cfs help COMMAND` or `s3cfs COMMAND --help` says more.\n")
