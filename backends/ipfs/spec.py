"""The configuration of a node's S3 plugin (go-ds-s3), as it stands: from a file to a store, and from a store to what the node wants.

A file may hold the plugin's own object (`"type": "s3ds"`), a whole `Datastore.Spec`, or a node's whole `config`. Fields as the plugin
checks them: region, bucket, accessKey and secretKey must be there (the latter two may be ""), regionEndpoint, rootDirectory,
sessionToken and credentialsEndpoint may be, workers is a whole number above 0.
"""
from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from s3cfs.backends.ipfs.datastore import BLOCKS, clean_root
from s3cfs.errors import ConfigError

SCHEME = "ipfs+s3"
OPTION = "datastore-spec"          # backend option: a file with a spec
FILE_MAX_BYTES = 1 << 20
PLUGIN = "s3ds"
_ENDPOINT = re.compile(r"(?:https?://)?([^/@]+)/?")
_NEEDED = ("region", "bucket", "accessKey", "secretKey")
_TEXTS = (*_NEEDED, "sessionToken", "regionEndpoint", "rootDirectory", "credentialsEndpoint")
# What a node writes of each kind into datastore_spec, beside "type" (kubo, repo/fsrepo/datastores.go and its plugins); of `s3ds` it has no
# "type", of `mem` nothing at all.
_ON_DISK: Mapping[str, tuple[str, ...]] = {"flatfs": ("path", "shardFunc"), "levelds": ("path",), "badgerds": ("path",),
                                           "pebbleds": ("path",), "mem": (), PLUGIN: ("bucket", "region", "rootDirectory")}


@dataclass(frozen=True, slots=True)
class Spec:
    """`root`: as it was written (clean_root makes it what the plugin makes of it). `mountpoint`: where the node has the plugin.
    `whole`: the Datastore.Spec that the file held, if it held one."""

    region: str
    bucket: str
    root: str = ""
    endpoint: str = ""                         # regionEndpoint; "": AWS
    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    credentials_endpoint: str = ""
    workers: int | None = None
    mountpoint: str = BLOCKS
    whole: Mapping[str, Any] | None = field(default=None, repr=False)

    @classmethod
    def load(cls, path: str) -> Spec:
        """ConfigError, which names the file and no value: it cannot be read, is none, or holds a secret that others may read."""
        try:
            with open(path, "rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                text = file.read(FILE_MAX_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"cannot read the datastore's spec {path}: {error.strerror}") from None
        try:
            spec = cls.parse(text)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
        if (spec.secret_key or spec.session_token) and mode & 0o077 and not stat.S_ISCHR(mode):
            raise ConfigError(f"{path} holds secrets and others can get at it (mode {stat.S_IMODE(mode):04o}): chmod 600 {path}")
        return spec

    @classmethod
    def parse(cls, text: bytes | str) -> Spec:
        if len(text) > FILE_MAX_BYTES:
            raise ConfigError("it is too large for a datastore's spec")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            raise ConfigError("it is no JSON") from None
        if isinstance(found, dict) and isinstance(found.get("Datastore"), dict):
            found = found["Datastore"]
        if isinstance(found, dict) and "Spec" in found:
            found = found["Spec"]
        return cls.of(found)

    @classmethod
    def of(cls, found: Any) -> Spec:
        """Of a Datastore.Spec, or the plugin's own object."""
        at = dict(_mounted(found, None))
        alone = at.pop(None, None)             # not below any mount: the plugin's object, or one datastore for everything
        if alone is not None:
            return cls._of_plugin(alone, found.get("mountpoint", BLOCKS), None)
        mountpoint = max((point for point in at if point in (BLOCKS, "/")), default=None)
        if mountpoint is None or at[mountpoint].get("type") != PLUGIN:
            raise ConfigError(f"no datastore of type {PLUGIN} holds the blocks: none is mounted at {BLOCKS}, or at / without another")
        return cls._of_plugin(at[mountpoint], mountpoint, found)

    @classmethod
    def _of_plugin(cls, found: Mapping[str, Any], mountpoint: Any, whole: Mapping[str, Any] | None) -> Spec:
        if found.get("type") != PLUGIN:
            raise ConfigError(f"it is a datastore of type {found.get('type')!r}, not {PLUGIN}")
        for name in _TEXTS:
            if name in _NEEDED and name not in found:
                raise ConfigError(f"{PLUGIN}: {name} is missing")
            if not isinstance(found.get(name, ""), str):
                raise ConfigError(f"{PLUGIN}: {name} is no text")
        for name in ("region", "bucket"):
            if not found[name]:
                raise ConfigError(f"{PLUGIN}: {name} is empty")
        if not _ENDPOINT.fullmatch(found.get("regionEndpoint") or "aws"):
            raise ConfigError(f"{PLUGIN}: regionEndpoint is not [http[s]://]HOST[:PORT]")
        workers = found.get("workers")
        if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int | float) or not 0 < workers == int(workers)):
            raise ConfigError(f"{PLUGIN}: workers is no whole number above 0")
        if "keyTransform" in found:
            raise ConfigError(f"{PLUGIN}: keyTransform belongs to another plugin, whose layout is another one: it is not known here")
        if bool(found["accessKey"]) != bool(found["secretKey"]):
            raise ConfigError(f"{PLUGIN}: accessKey and secretKey are given together, or both are empty")
        return cls(found["region"], found["bucket"], found.get("rootDirectory", ""), found.get("regionEndpoint", ""),
                   found["accessKey"], found["secretKey"], found.get("sessionToken", ""), found.get("credentialsEndpoint", ""),
                   None if workers is None else int(workers), str(mountpoint), whole)

    @property
    def host(self) -> str:
        """The URL's host part."""
        found = _ENDPOINT.fullmatch(self.endpoint)
        return found[1].lower() if found else self.region

    @property
    def url(self) -> str:
        """The one URL that means this."""
        return f"{SCHEME}://{'/'.join(part for part in (self.host, self.bucket, clean_root(self.root)) if part)}"

    # ------------------------------------------------------------ what the node wants

    def child(self) -> dict[str, Any]:
        """The plugin's object, without any secret: both keys are empty, and the node looks where AWS's programs look."""
        said = {"type": PLUGIN, "region": self.region, "bucket": self.bucket, "rootDirectory": self.root, "accessKey": "", "secretKey": ""}
        more = {"regionEndpoint": self.endpoint, "credentialsEndpoint": self.credentials_endpoint, "workers": self.workers}
        return said | {name: value for name, value in more.items() if value}

    def datastore(self) -> dict[str, Any]:
        """A whole Datastore.Spec with it, as Kubo's documents have it; with "/", everything of the node lies in the bucket."""
        measured = {"type": "measure", "prefix": "s3.datastore", "child": self.child(), "mountpoint": self.mountpoint}
        level = {"type": "measure", "prefix": "leveldb.datastore", "mountpoint": "/",
                 "child": {"type": "levelds", "path": "datastore", "compression": "none"}}
        return {"type": "mount", "mounts": [measured, level] if self.mountpoint == BLOCKS else [measured]}

    def on_disk(self) -> str:
        """The node's file `datastore_spec`, byte for byte: of the spec that was read, or else of `datastore`. A node that finds another
        text there does not start."""
        return go_json(_on_disk(self.whole or self.datastore()))


def _mounted(found: Any, point: str | None) -> Iterator[tuple[str | None, Mapping[str, Any]]]:
    """What is mounted where, past what only counts or logs."""
    if not isinstance(found, dict):
        raise ConfigError("it is no datastore's spec")
    if found.get("type") == "mount":
        mounts = found.get("mounts")
        if not isinstance(mounts, list) or not all(isinstance(one, dict) and isinstance(one.get("mountpoint"), str) for one in mounts):
            raise ConfigError("its mounts are not a list of datastores with a mountpoint each")
        for one in mounts:
            yield from _mounted(one, "/" + clean_root(one["mountpoint"]))
    elif found.get("type") in ("measure", "log"):
        yield from _mounted(found.get("child"), point)
    else:
        yield point, found


def _on_disk(found: Mapping[str, Any]) -> dict[str, Any]:
    kind = found.get("type")
    if kind in ("measure", "log"):
        return _on_disk(found["child"])
    if kind == "mount":
        mounts = [{**_on_disk(one), "mountpoint": "/" + clean_root(one["mountpoint"])} for one in found["mounts"]]
        return {"type": "mount", "mounts": sorted(mounts, key=lambda one: one["mountpoint"].encode(), reverse=True)}
    if not isinstance(kind, str) or kind not in _ON_DISK:
        raise ConfigError(f"what a node writes of a datastore of type {kind!r} is not known here")
    said = {name: found.get(name, "") for name in _ON_DISK[kind]}
    return said if kind in (PLUGIN, "mem") else {"type": kind, **said}


def go_json(value: Any) -> str:
    """As Go's encoding/json writes it: sorted keys, no spaces, and some letters escaped that need not be."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text
