"""`s3cfs migrate --re-encrypt`: the tree of a filesystem into a new one, with a new master key, id and history.

The source is a node that only reads, at its newest record; it may be mounted meanwhile, and what comes later does not come along. The
target is a writer as any mount, so chunks are cut, sealed and packed anew, as its own store likes it.
"""
from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import trio

from s3cfs import limits
from s3cfs.app.node import NodeOptions, open_node
from s3cfs.app.store import first_look, open_store, unlock
from s3cfs.app.superblocks import read_superblock
from s3cfs.config import MountOptions, Settings
from s3cfs.doors import Doors, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.errors import ExitCode, FilesystemExists, NoFilesystem
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.superblock import Superblock
from s3cfs.moves.ground import Ground, find
from s3cfs.moves.ground import opened as at_work
from s3cfs.moves.places import OnProgress, remembered
from s3cfs.moves.plant import Planter
from s3cfs.moves.source import Finding, Kind, exit_code_of
from s3cfs.moves.targets import refuse_same_place
from s3cfs.moves.tree import OwnTree
from s3cfs.remote import Remote

CACHE_BYTES = 2 * limits.GIB       # of the source's packs, on the local disk
TELL_EVERY_BYTES = 1 << 20


class Maker(Protocol):
    """How the target is made when there is none. Blocking."""

    def ask(self) -> None: ...
    def make(self, label: str) -> None: ...


@dataclass(slots=True)
class ReencryptResult:
    origin: str                            # which state of the source
    there: dict[str, int]
    came: dict[str, int] = field(default_factory=dict)         # empty after a dry run
    findings: Counter[Kind] = field(default_factory=Counter)
    requests: int = 0                      # to the source

    @property
    def exit_code(self) -> ExitCode:
        return exit_code_of(self.findings)

    def as_json(self) -> Mapping[str, Any]:
        return {"origin": self.origin, "source": self.there, "copied": self.came, "requests": self.requests,
                "findings": {str(kind): count for kind, count in sorted(self.findings.items())}, "exit_code": int(self.exit_code)}


def reencrypt(source: Settings, target: Settings, mounting: MountOptions, dry_run: bool, maker: Maker, report: Callable[[Finding], None],
              progress: OnProgress) -> ReencryptResult:
    """Raises what keeps it from going on; the same call goes on where it was."""
    refuse_same_place(source.url, target.url)
    found, keyring = first_look(source, partial(_unlocked, source))
    ground = None if dry_run else find(target, mounting)
    if ground is None and not dry_run:
        maker.ask()
        maker.make(found.label)
        ground = find(target, mounting)
        if ground is None:
            raise NoFilesystem(f"{target.url}: the filesystem that was made just now does not show")
    if ground is not None and ground.superblock.fs_id == found.fs_id:
        raise FilesystemExists(f"{target.url} holds this filesystem as it is, with its keys: a new one needs another place")
    with remembered(mounting.cachedir, "re-encrypt", found, source.url, target.url) as disk:
        result = trio.run(_reencrypt, source, found, keyring, disk, ground, report, progress,
                          restrict_keyboard_interrupt_to_checkpoints=True)
        shutil.rmtree(disk.root, ignore_errors=True)
    return result


async def _unlocked(settings: Settings, remote: Remote) -> tuple[Superblock, KeyRing]:
    await remote.check()
    found = await read_superblock(remote)
    return found, unlock(found, settings)


async def _reencrypt(source: Settings, found: Superblock, keyring: KeyRing, disk: SystemDisk, ground: Ground | None,
                     report: Callable[[Finding], None], progress: OnProgress) -> ReencryptResult:
    def tell(what: str, done: int, total: int) -> None:
        progress({"done": done, "total": total or None, "unit": "steps", "text": what})

    doors = Doors(SystemClock(), SystemRandomness(), TrioThreads(), disk)
    options = NodeOptions(read_only=True, packing=False, cache_bytes=CACHE_BYTES)
    async with open_node(doors, open_store(source), keyring, found, options, tell) as node:
        tree = OwnTree(node)
        totals = await tree.totals()
        result = ReencryptResult(f"commit {node.tip.n} of {source.url}", {"inodes": totals.things, "file_bytes": totals.bytes})
        if ground is not None:
            result.came = await _plant(tree, ground, result, report, progress)
        result.requests = sum(node.remote.requests.values())
    return result


async def _plant(tree: OwnTree, ground: Ground, result: ReencryptResult, report: Callable[[Finding], None],
                 progress: OnProgress) -> dict[str, int]:
    total, done, told = result.there["file_bytes"], 0, -TELL_EVERY_BYTES

    def came(count: int) -> None:
        nonlocal done, told
        done += count
        if done - told >= TELL_EVERY_BYTES:
            told = done
            progress({"done": done, "total": max(total, done), "unit": "bytes", "text": "copying"})

    def found(finding: Finding) -> None:
        result.findings[finding.kind] += 1
        report(finding)

    async with at_work(ground, progress) as node:
        planted = await Planter(node.doors, node.vfs, tree, 1, report=found, progress=came).run()
        progress({"done": 0, "total": None, "unit": "steps", "text": "bringing the rest to the store"})
        await node.flush()
    return {**planted.counts, "bytes": planted.bytes}
