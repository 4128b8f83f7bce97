"""Storage URLs: what they may look like, and the one form in which they are compared and handed on.

    s3c://HOST[:PORT]/BUCKET[/PREFIX]     s3://REGION/BUCKET[/PREFIX]     local:///ABSOLUTE/PATH     memory://NAME
    ipfs+s3://HOST[:PORT]/BUCKET[/ROOT]   ipfs+s3:///  what a node's configuration says (settings.py)

The normal form has the scheme and host in small letters, no empty parts and no slash at the end. A prefix is always a folder:
`bucket/a` and `bucket/a/` are one place. Other schemes (a registered backend's) are taken as
SCHEME://REST, which may be a path. storjs3:// has the shape of
s3c://, so that a file that names it can be read; there is no backend for it yet.
"""
from __future__ import annotations

import posixpath
import re
import sys

from s3cfs.errors import UsageError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?\.?|\[[0-9a-f:.]+\]")
PREFIX_MAX_BYTES = 850             # of a key's 1024, S3's bound: the longest of ours has some 110
IPFS_S3 = "ipfs+s3"
BY_SPEC = f"{IPFS_S3}://"          # the store that an option names
_SHAPES = {"s3c": "s3c://HOST[:PORT]/BUCKET[/PREFIX]", "storjs3": "storjs3://HOST[:PORT]/BUCKET[/PREFIX]",
           "s3": "s3://REGION/BUCKET[/PREFIX]", IPFS_S3: "ipfs+s3://HOST[:PORT]/BUCKET[/rootDirectory]"}


def normalise(url: str) -> str:
    """The normal form; UsageError with one line when it is no usable URL. A password in it is never repeated."""
    found = _SCHEME.fullmatch(url)
    if not found:
        hint = f" (a folder is local://{url})" if url.startswith("/") else ""
        raise UsageError(f"'{_safe(url)}' is not a storage URL like s3c://HOST/BUCKET/PREFIX{hint}")
    scheme, rest = found[1].lower(), found[2]
    if any(ord(c) < 32 or ord(c) == 127 for c in rest):
        raise UsageError(f"the {scheme}:// URL holds a control character")
    if any(0xD800 <= ord(c) < 0xE000 for c in rest):          # how Python keeps bytes of another encoding
        raise UsageError(f"the {scheme}:// URL is not {sys.getfilesystemencoding()} text, which this locale has")
    if scheme == "local":
        return _local(rest)
    host, _, path = rest.partition("/")
    if "@" in host:
        raise UsageError(f"a {scheme}:// URL must not hold a login or password: put them into the authentication file")
    parts = [part for part in path.split("/") if part]
    if any(part in (".", "..") for part in parts):
        raise UsageError(f"the {scheme}:// URL must not hold '.' or '..'")
    if scheme == IPFS_S3 and not host and not parts:
        return BY_SPEC
    if scheme in _SHAPES:
        host = _check_host(scheme, host)
        if not parts:
            raise UsageError(f"{scheme}://{host}: the bucket is missing: {_SHAPES[scheme]}")
        if not _BUCKET.fullmatch(parts[0]):
            raise UsageError(f"'{parts[0]}' cannot be a bucket's name: {_SHAPES[scheme]}")
        if len("/".join(parts[1:]).encode()) > PREFIX_MAX_BYTES:
            raise UsageError(f"the prefix in the {scheme}:// URL is longer than {PREFIX_MAX_BYTES} bytes: keys below it would be too long")
    elif not host and not parts:
        raise UsageError(f"{scheme}://: something must follow")
    return f"{scheme}://" + "/".join([host, *parts])


def match_form(pattern: str) -> str:
    """How a `storage-url` of the file is compared: as `normalise`, but also "s3c://" or "s3c://host" alone are good."""
    found = _SCHEME.fullmatch(pattern.strip())
    if not found:
        raise UsageError(f"'{_safe(pattern)}' is not a storage URL or the beginning of one")
    scheme, rest = found[1].lower(), found[2]
    if "@" in rest.partition("/")[0] and scheme != "local":
        raise UsageError(f"a {scheme}:// URL must not hold a login or password")
    host, *parts = rest.split("/")
    if scheme == "local":
        return f"local://{posixpath.normpath(rest)}" if rest.strip("/") else "local://"
    parts = [part for part in parts if part]
    if not host and (scheme in _SHAPES or not parts):
        return f"{scheme}://"
    return f"{scheme}://" + "/".join([host.lower() if scheme in _SHAPES else host, *parts])


def matches(pattern: str, url: str) -> bool:
    """Whether `pattern` (see `match_form`) is `url` or a folder above it.

    Whole parts only: credentials of s3c://host/bucket are never sent to s3c://host/bucket-of-somebody-else.
    """
    return url == pattern or url.startswith(pattern if pattern.endswith("/") else pattern + "/")


def _local(rest: str) -> str:
    if not rest.startswith("/"):
        raise UsageError(f"local:// needs an absolute path: local:///srv/store, not local://{rest}")
    return "local://" + posixpath.normpath("/" + rest.lstrip("/"))


def _check_host(scheme: str, host: str) -> str:
    name, port = host.lower(), ""
    if found := re.fullmatch(r"(.*):(\d*)", name):
        if not (name.startswith("[") and name.endswith("]")):
            name, port = found[1], found[2]
            if not port or not 0 < int(port) < 65536:
                raise UsageError(f"{scheme}://{host}: '{port}' is not a port")
    if not _HOST.fullmatch(name):
        raise UsageError(f"'{host}' is not a {'region' if scheme == 's3' else 'host'}: {_SHAPES[scheme]}")
    return f"{name}:{port}" if port else name


def _safe(text: str) -> str:
    """For messages: what somebody typed, without what stands before an '@', one line, not for ever long."""
    text = text.rpartition("@")[2]
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 200 else text[:200] + "..."
