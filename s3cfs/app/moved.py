"""A note on this machine that a filesystem has moved: from one place to another, so that nobody here goes on writing at the former.

The former place itself is never touched by a migration. Other machines know nothing of it: only taking the right to write there away is
sure.
"""
from __future__ import annotations

import hashlib
import os

from s3cfs.errors import CacheUnusable, Diverged
from s3cfs.formats.superblock import Superblock

FOLDER = "moved"                   # in the folder of local state


def _path(cachedir: str, found: Superblock, url: str) -> str:
    place = hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    return os.path.join(cachedir, FOLDER, f"{found.fs_id.hex()[:8]}-{place}")


def note_moved(cachedir: str, found: Superblock, url: str, to: str) -> None:
    """From `url` to `to`, where it lives from now on, whatever was noted of that place before."""
    path = _path(cachedir, found, url)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(path, "w", encoding="utf-8", errors="surrogatepass") as file:
            file.write(to)
        former = _path(cachedir, found, to)
        if os.path.exists(former):
            os.unlink(former)
    except OSError as error:
        raise CacheUnusable(f"{path} cannot be written: {error.strerror}") from None


def refuse_moved(cachedir: str, found: Superblock, url: str) -> None:
    """Diverged, for who wants to write at a place from which the filesystem has moved."""
    path = _path(cachedir, found, url)
    try:
        with open(path, encoding="utf-8", errors="surrogatepass") as file:
            to = file.read()
    except OSError:
        return
    raise Diverged(f"this filesystem was moved to {to} (s3cfs migrate, on this machine): mount it there. What is written at {url} would be "
                   f"a second history, which cannot be joined with the first. Reading needs --read-only; to write here all the same, "
                   f"remove {path}")
