"""Under which tier a filesystem is: found out once, kept in the log, looked at cheaply at each mount."""
from __future__ import annotations

from s3cfs.doors import Doors
from s3cfs.errors import Exists, StoreError, Unsupported
from s3cfs.history.log import Tip
from s3cfs.history.office import Tier
from s3cfs.remote import Backoff, Remote

CHECK_ATTEMPTS = 5


async def choose_tier(doors: Doors, remote: Remote, tip: Tip, sole_writer: bool) -> Tier:
    """Under which tier this filesystem is. The first mount finds out by trying; then the log says so, and all machines go by it.

    Whether the store still keeps its promise is looked at each time, with one put. Unsupported when it does not, and where a store can
    neither refuse to overwrite nor be believed, unless `sole_writer`: its owner vouches that nobody else writes.
    """
    if tip.n == 0:
        create_only = await remote.probe_create_only()
    else:
        create_only = tip.info.get("tier") == Tier.T1
        remote.backend.assume_create_only(create_only)
        if create_only:
            await _check_create_only(doors, remote, tip)
    if create_only:
        return Tier.T1
    holds = remote.capabilities.linearizable
    if sole_writer:
        return Tier.SOLE
    if holds is None:
        holds = tip.info.get("tier") == Tier.T2 or await remote.probe_linearizable()
        remote.backend.assume_linearizable(holds)
    if not holds:
        raise Unsupported("claim", "", f"{remote.location} can neither refuse to overwrite nor be relied on to show what was written last, "
                          "so two machines that write would not notice one another. If this is the only one that ever does, mount with "
                          "--sole-writer (docs/backends.md says what that means); reading needs --read-only")
    return Tier.T2


async def _check_create_only(doors: Doors, remote: Remote, tip: Tip) -> None:
    """The newest record once more, create-only: a store that takes it (the bytes are the same) would let two writers go on."""
    data = await remote.get(tip.key, named=True)
    backoff = Backoff(doors.random)
    for attempts_left in range(CHECK_ATTEMPTS - 1, -1, -1):
        try:
            await remote.put(tip.key, data, only_if_absent=True)
        except Exists:
            return
        except StoreError as exc:                      # not repeated below: a create-only put may have happened; this one can do no harm
            if not exc.retryable:
                if isinstance(exc, Unsupported):
                    break
                raise
            if not attempts_left:
                raise
            await doors.clock.sleep(backoff.pause_s(exc))
        else:
            break
    raise Unsupported("check", tip.key, "this store does not refuse to overwrite, as it did when the filesystem was first mounted (another "
                      "server, another gateway?), so two writers could not be told apart here. Mount it where it was; or, if it moved, let "
                      "`s3cfs probe URL` find out what this store can do, and note it")
