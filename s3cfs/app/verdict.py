"""probe: what the store can do, tried again; and the note of it in the log, when it has changed."""
from __future__ import annotations

import tempfile
from dataclasses import dataclass

import trio

from s3cfs.backends.base import PROBE_ROUNDS
from s3cfs.config import Settings
from s3cfs.doors import Doors, SystemClock, SystemDisk, SystemRandomness, TrioThreads
from s3cfs.errors import NoFilesystem
from s3cfs.formats.keys import KeyRing
from s3cfs.history.log import find_tip
from s3cfs.history.office import Takeover, Tier, Writer
from s3cfs.limits import DEFAULTS
from s3cfs.remote import Remote

from .host import process_alive, this_host
from .store import open_store, patient, unlock
from .superblocks import read_superblock


@dataclass(frozen=True, slots=True)
class ProbeResult:
    tier: str                      # what the store was found to be
    before: str | None             # what the filesystem there was under; None: there is none, or nobody has mounted it
    noted: bool                    # the log says `tier` from now on


def probe(settings: Settings, *, takeover: bool) -> ProbeResult:
    """Try create-only puts; where a filesystem there says otherwise, note it. AlreadyMounted when somebody is, or may be, in office."""
    backend = patient(open_store(settings))
    try:
        backend.check()
        found = Tier.T1 if backend.probe_create_only(PROBE_ROUNDS) else Tier.T2
        try:
            keyring = unlock(read_superblock(backend), settings)
        except NoFilesystem:
            return ProbeResult(found, None, False)
        with tempfile.TemporaryDirectory(prefix="s3cfs-probe-") as scratch:
            doors = Doors(SystemClock(), SystemRandomness(), TrioThreads(), SystemDisk(scratch))
            remote = Remote(backend, doors.threads, doors.clock, DEFAULTS.uploads_at_once, DEFAULTS.downloads_at_once)
            return trio.run(_note, doors, remote, keyring, found, Takeover.YES if takeover else Takeover.NO)
    finally:
        backend.close()


async def _note(doors: Doors, remote: Remote, keyring: KeyRing, found: Tier, takeover: Takeover) -> ProbeResult:
    tip = await find_tip(remote, keyring.sealer("record", 0))
    before = str(tip.info.get("tier")) if tip.n else None
    if before is None or (before == Tier.T1) == (found is Tier.T1):
        return ProbeResult(found, before, False)
    writer = Writer(doors, remote, found, lambda epoch: keyring.sealer("record", epoch), this_host(), process_alive)
    await writer.restate(tip, found, takeover=takeover)
    return ProbeResult(found, before, True)
