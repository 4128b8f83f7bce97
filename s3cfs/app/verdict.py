"""probe: what the store can do, tried again; and the note of it in the log, when it has changed."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import trio

from s3cfs.backends.findings import Examination, Findings
from s3cfs.config import Settings
from s3cfs.errors import NoFilesystem
from s3cfs.formats.keys import KeyRing
from s3cfs.history.log import find_tip
from s3cfs.history.office import Takeover, Tier, Writer
from s3cfs.remote import Remote, Script

from .host import process_alive, this_host
from .store import open_store, remote_of, unlock
from .superblocks import read_superblock

OnProgress = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class ProbeResult:
    tier: str                      # what the store was found to be; "sole": of neither tier
    before: str | None             # what the filesystem there was under; None: there is none, or nobody has mounted it
    noted: bool                    # the log says `tier` from now on
    found: Findings


def probe(settings: Settings, *, takeover: bool, large: bool = False, progress: OnProgress = lambda event: None) -> ProbeResult:
    """Try what the store can do; where a filesystem there says otherwise, note it. AlreadyMounted when somebody is, or may be, in office.

    `large`: large objects, too.
    """
    async def look() -> ProbeResult:
        async with remote_of(open_store(settings)) as remote:
            await remote.check()
            found = await remote.doors.threads.run(Examination(Script(remote), large=large, progress=progress).run)
            tier = Tier.T1 if found.create_only else Tier.T2 if found.linearizable else Tier.SOLE
            try:
                keyring = unlock(await read_superblock(remote), settings)
            except NoFilesystem:
                return ProbeResult(tier, None, False, found)
            before, noted = await _note(remote, keyring, tier, Takeover.YES if takeover else Takeover.NO)
        return ProbeResult(tier, before, noted, found)

    return trio.run(look)


async def _note(remote: Remote, keyring: KeyRing, found: Tier, takeover: Takeover) -> tuple[str | None, bool]:
    """What the filesystem was under, and whether that was changed. What its owner vouched for (SOLE) stays when the store became T2."""
    tip = await find_tip(remote, keyring.sealer("record", 0))
    before = str(tip.info.get("tier")) if tip.n else None
    if before is None or before == found or (before == Tier.SOLE and found is Tier.T2):
        return before, False
    writer = Writer(remote.doors, remote, found, lambda epoch: keyring.sealer("record", epoch), this_host(), process_alive)
    await writer.restate(tip, found, takeover=takeover)
    return before, True
