"""`-o a,b=c` as fstab and mount(8) write it: what is s3cfs's own, what goes on to the kernel, what is dropped."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from s3cfs.config.options import BY_NAME
from s3cfs.errors import UsageError
from s3cfs.fuse.options import PASSED_ON, PASSED_ON_WITH_VALUE

# Words of mount(8), systemd and other tools that mean nothing to a filesystem.
IGNORED = frozenset((
    "rw", "defaults", "_netdev", "_rnetdev", "nofail", "fail", "auto", "noauto", "user", "nouser", "users", "owner", "group", "comment",
    "async", "relatime", "strictatime", "nodiratime", "default_permissions",
    "silent", "loud", "nomand", "iversion", "noiversion", "lazytime", "nolazytime", "diratime", "norelatime", "nostrictatime",
    "uhelper", "helper",
))
SECRETS = frozenset(("fs-passphrase", "passphrase", "backend-password", "password"))
OTHERS = frozenset(("authfile", "backend-options", "datastore-spec"))


@dataclass
class Parsed:
    given: dict[str, str | bool | None] = field(default_factory=dict)     # as `config.load` takes it
    passed: list[str] = field(default_factory=list)


def parse(texts: Sequence[str], sloppy: bool = False) -> Parsed:
    """Parse the arguments of every -o, in order; the later of two wins. `sloppy` (mount -s) drops what is not known."""
    found = Parsed()
    for text in texts:
        for word in split(text):
            _one(found, word, sloppy)
    return found


def split(text: str) -> list[str]:
    """At commas, but not at "\\," and not between double quotes (context="a:b,c")."""
    words, word, quoted, i = [], "", False, 0
    while i < len(text):
        c = text[i]
        if c == "\\" and text[i + 1:i + 2] in (",", "\\"):
            word, i = word + text[i + 1], i + 1
        elif c == "," and not quoted:
            words.append(word)
            word = ""
        else:
            quoted ^= c == '"'
            word += c
        i += 1
    return [word for word in (*words, word) if word]


def _one(found: Parsed, word: str, sloppy: bool) -> None:
    raw, equals, value = word.partition("=")
    name = raw.replace("_", "-").lower()
    if name in SECRETS:
        raise UsageError(f"-o {raw}: secrets never stand in mount options (everybody can read them); use the authentication file")
    if raw in IGNORED or raw.lower().startswith("x-"):
        return
    if (word in PASSED_ON and word != "ro") or word.startswith(PASSED_ON_WITH_VALUE):     # `ro` is an option of s3cfs too
        found.passed.append(word)
        return
    if word == "sync":
        raise UsageError("-o sync alone is not supported: sync=remote makes fsync() wait for the store")
    if raw in ("uid", "gid", "umask"):
        raise UsageError(f"-o {raw} is not supported: files here have owners and modes of their own (chown and chmod work)")
    if name in OTHERS:
        if not value:
            raise UsageError(f"-o {raw} needs a value")
        found.given[name] = value
        return
    option = BY_NAME.get(name)
    if option is None:
        if sloppy:
            return
        raise UsageError(f"unknown mount option '{raw}'")
    if option.flag:
        found.given[option.name] = value if equals else option.bare or True
    elif not value:
        raise UsageError(f"-o {raw} needs a value: {raw}={option.metavar}")
    else:
        found.given[option.name] = value.strip('"')
