"""`s3cfs import s3ql`: from a filesystem of S3QL into one of ours, everything that can be had.

The source is opened first, so that nothing is made for one that cannot be read. What the import notes of itself is in the target
(plant.py); the folder on the local disk holds the database of S3QL while it runs, and goes at the end.
"""
from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import trio

from s3cfs.app.local import locked, open_folder
from s3cfs.app.memory import bound_the_allocator
from s3cfs.config import ImportOptions, MountOptions, Secret, Settings
from s3cfs.doors import Doors, SystemClock, SystemRandomness, TrioThreads
from s3cfs.errors import ExitCode, NoFilesystem, UsageError
from s3cfs.moves.ground import Ground, OnProgress, find, folder_at, opened
from s3cfs.moves.plant import Planter
from s3cfs.moves.source import Finding, Kind, exit_code_of
from s3cfs.remote import Remote

from .opening import Opening
from .place import Access, Place, Secrets
from .stores import READS, open_s3ql
from .tree import S3qlTree

PROGRESS_EVERY_BYTES = 1 << 20
KINDS = {stat.S_IFREG: "files", stat.S_IFDIR: "folders", stat.S_IFLNK: "symlinks", stat.S_IFIFO: "fifos", stat.S_IFSOCK: "sockets",
         stat.S_IFCHR: "devices", stat.S_IFBLK: "devices"}


class Maker(Protocol):
    """How the target is made when there is none. Blocking."""

    def ask(self) -> None:
        """What has to be asked of a person, before it takes long."""

    def make(self, label: str) -> None:
        """The filesystem; `label` is the source's."""


@dataclass(slots=True)
class ImportResult:
    origin: str                            # which state of the source
    label: str
    revision: int
    there: dict[str, int]                  # what the source has, by kind; bytes
    needs_fsck: bool = False
    came: dict[str, int] = field(default_factory=dict)         # what came of it; empty after a dry run
    findings: Counter[Kind] = field(default_factory=Counter)
    requests: int = 0                      # to the source

    @property
    def exit_code(self) -> ExitCode:
        return exit_code_of(self.findings)

    def as_json(self) -> Mapping[str, Any]:
        return {"origin": self.origin, "label": self.label, "revision": self.revision, "source": self.there, "imported": self.came,
                "findings": {str(kind): count for kind, count in sorted(self.findings.items())}, "requests": self.requests,
                "exit_code": int(self.exit_code)}


@contextlib.asynccontextmanager
async def open_source(place: Place, access: Access, options: ImportOptions, cachedir: str, need_passphrase: Callable[[], Secret],
                  report: Callable[[Finding], None], progress: OnProgress) -> AsyncIterator[tuple[S3qlTree, ImportResult]]:
    """The tree, ready to be walked, and what is there. Its local folder goes at the end."""
    disk = open_folder(cachedir, f"s3ql-import-{hashlib.sha256(place.identity.encode()).hexdigest()[:12]}")
    with locked(disk, "importing", lambda text: None, wait=False):
        for name in disk.listdir(""):                  # of an earlier run that was killed
            if name != "lock":
                disk.unlink(name)
        try:
            doors = Doors(SystemClock(), SystemRandomness(), TrioThreads(READS), disk)
            async with Remote(open_s3ql(place, access, options.listing), doors).running() as remote:
                await remote.check()
                opening = Opening(remote, place, need_passphrase, cachedir=options.s3ql_cache, probe_depth=options.probe_depth,
                                  last_snapshot=options.last_snapshot or options.dry_run,
                                  say=lambda text: report(Finding(Kind.NOTE, b"", text)), progress=progress)
                found = await opening.run()
                with contextlib.closing(S3qlTree(remote, place, found, report)) as tree:
                    there = await tree.prepare()
                    counts = Counter[str]()
                    for kind, count in there.inodes.items():
                        counts[KINDS.get(kind, "others")] += count
                    result = ImportResult(found.origin, found.params.label, found.params.revision, {
                        **counts, "immutable": there.locked, "file_bytes": there.file_bytes, "block_bytes": there.block_bytes,
                        "objects": there.objects, "object_bytes": there.object_bytes, "unfinished_objects": there.unfinished},
                        found.params.needs_fsck)
                    yield tree, result
                    result.requests = sum(remote.requests.values())
        finally:
            shutil.rmtree(disk.root, ignore_errors=True)


def import_s3ql(source: str, secrets: Secrets, target: Settings, mounting: MountOptions, options: ImportOptions, maker: Maker,
                report: Callable[[Finding], None], progress: OnProgress) -> ImportResult:
    """`source`: S3QL's storage URL. Raises what keeps it from going on; the same call goes on where it was."""
    bound_the_allocator()
    place = Place.parse(source)
    if target.url == f"local://{place.prefix}":
        raise UsageError("SOURCE and TARGET are the same folder")
    access = secrets.access(place, os.environ)
    found = None if options.dry_run else find(target, mounting)
    if found is None and not options.dry_run:
        maker.ask()

    def grown(label: str) -> Ground:
        if found is not None:
            return found
        maker.make(label)
        made = find(target, mounting)
        if made is None:
            raise NoFilesystem(f"{target.url}: the filesystem that was made just now does not show")
        return made

    return trio.run(_import, place, access, options, mounting.cachedir, partial(secrets.need_passphrase, access), grown, report, progress)


async def _import(place: Place, access: Access, options: ImportOptions, cachedir: str, need_passphrase: Callable[[], Secret],
                  ground: Callable[[str], Ground], report: Callable[[Finding], None], progress: OnProgress) -> ImportResult:
    """`ground`: finds or makes the target, given the label of the source; called in a thread, once, when the source can be read."""
    findings = Counter[Kind]()

    def found(finding: Finding) -> None:
        findings[finding.kind] += 1
        report(finding)

    async with open_source(place, access, options, cachedir, need_passphrase, found, progress) as (tree, result):
        result.findings = findings
        if result.needs_fsck:
            found(Finding(Kind.NOTE, b"", "S3QL has noted that this filesystem needs its fsck: what is wrong is named where it is met"))
        if options.dry_run:
            return result
        target = await TrioThreads().run(ground, result.label)
        async with opened(target, progress) as node:
            total, done, told = (await tree.totals()).bytes, 0, -PROGRESS_EVERY_BYTES

            def came(count: int) -> None:
                nonlocal done, told
                done += count
                if done - told >= PROGRESS_EVERY_BYTES:
                    told = done
                    progress({"done": done, "total": max(total, done), "unit": "bytes", "text": "importing"})

            into = await folder_at(node.vfs, options.into)
            planted = await Planter(node.doors, node.vfs, tree, into, report=found, progress=came).run()
            progress({"done": 0, "total": None, "unit": "steps", "text": "bringing the rest to the store"})
            await node.flush()
        result.came = {**planted.counts, "bytes": planted.bytes, "objects": tree.fetched, "object_bytes": tree.fetched_bytes,
                       "cached_blocks": tree.from_cache}
        return result
