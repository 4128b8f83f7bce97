"""Which objects there are, into a ledger.

`listed` asks the store, folder by folder: no key is needed, and whatever s3cfs put there is found, also what no file needs any more.
`known` goes by what the filesystem itself says: rows of packs, the way back through the log, manifests. It lists no pack, and finds what
ought to be there and is not.

INVARIANT G1: an inventory is no longer than its log. The newest record is read first, everything else afterwards, and records after it are
left for the next inventory; what a record needs was put before it (C2). So whatever is copied in the order of `Kind` is the filesystem at
that record, although somebody writes meanwhile.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable

from s3cfs import ids
from s3cfs.backends.crew import each
from s3cfs.errors import Damaged, NewerFormat, ObjectMissing
from s3cfs.formats.keys import KeyRing
from s3cfs.history.log import Tip, newest_key, number_of, read_record, run_of
from s3cfs.history.restore import manifests, read_manifest
from s3cfs.meta import Meta
from s3cfs.moves.kinds import is_object
from s3cfs.moves.ledger import DAMAGED, MISSING, Item, Ledger, Trouble
from s3cfs.remote import Lane, Remote

Tell = Callable[[str, int], None]  # what, how many objects were found so far
PAGE = 4096                        # rows at once
FLAT_RANGES = 32                   # folders of a thousand records below one of a million that one listing may have all of


async def listed(remote: Remote, ledger: Ledger, tell: Tell) -> str:
    """Everything that is in the store up to its newest record, whose key is returned ("": there is none)."""
    newest = await newest_key(remote)
    n, found = number_of(newest), 0
    at_once = remote.slots(Lane.READ)

    async def take(folder: str) -> None:
        nonlocal found
        infos = [info for info in await remote.list(folder) if is_object(info.key)]
        items = [Item(info.key, info.size) for info in infos if not info.key.startswith("log/") or number_of(info.key) <= n]
        ledger.expect(items)
        found += len(items)
        tell("listing", found)

    for kind in ("pack/", "checkpoint/", "log/", "claim/", "super/"):
        await each(take, await _leaves(remote, kind), at_once)
    return newest


async def _leaves(remote: Remote, kind: str) -> list[str]:
    """Folders that have all of that kind between them, so small that a listing of one fits into memory."""
    if kind in ("claim/", "super/") or not remote.capabilities.delimiters:
        return [kind]
    leaves = await _below(remote, [kind])                         # pack: the shards, else branches
    if kind == "checkpoint/":
        return await _below(remote, await _below(remote, leaves))          # a thousand commits each
    if kind == "log/":
        writers = await _below(remote, await _below(remote, leaves))
        millions = await _below(remote, writers)
        ranges: list[str] = []

        async def split(million: str) -> None:
            below = [f"{million}{name}/" for name in await remote.folders(million)]
            ranges.extend([million] if len(below) <= FLAT_RANGES else below)

        await each(split, millions, remote.slots(Lane.READ))
        return sorted(ranges)
    return leaves


async def _below(remote: Remote, folders: Iterable[str]) -> list[str]:
    found: list[str] = []

    async def look(folder: str) -> None:
        found.extend(f"{folder}{name}/" for name in await remote.folders(folder))

    await each(look, folders, remote.slots(Lane.READ))
    return sorted(found)


async def known(remote: Remote, keyring: KeyRing, meta: Meta, tip: Tip, ledger: Ledger, tell: Tell) -> list[Trouble]:
    """What the filesystem at `tip` must have: `meta` is at that record, and has nothing that is not in the store. Returned is what could
    not be read, and so what comes before it in the log, or is part of it, is not named."""
    unread: list[Trouble] = []

    def give_up(key: str, error: Exception) -> None:
        ledger.expect([Item(key)])
        unread.append(Trouble(key, MISSING if isinstance(error, ObjectMissing) else DAMAGED, str(error)))

    found = after = 0
    while rows := await meta.packs(after, PAGE):
        after = rows[-1].id
        items = [Item(pack.key, pack.size) for pack in rows if pack.name is not None and pack.record is None]
        ledger.expect(items)
        found += len(items)
        tell("reading the metadata", found)
    async for key, commit in manifests(remote):
        if commit > tip.n:
            continue                                               # it came after
        try:
            parts = (await read_manifest(remote, keyring, key)).parts
        except (Damaged, NewerFormat, ObjectMissing) as error:
            give_up(key, error)
            continue
        ledger.expect([Item(key), *(Item(part.key, part.size, bytes.fromhex(part.hash)) for part in parts)])
        found += 1 + len(parts)
        tell("reading checkpoints", found)
    key, run = tip.key, tip.run
    while key:
        try:
            first, before = run or run_of((await read_record(remote, key, keyring.sealer("record", 0)))[0])
            if number_of(before) >= first:
                raise Damaged(f"log record {key} is damaged: it says that {before} came before record {first}")
        except (Damaged, NewerFormat, ObjectMissing) as error:
            give_up(key, error)
            break
        ledger.expect(Item(ids.record_key(ids.folder_of(key), n)) for n in range(first, number_of(key) + 1))
        found += number_of(key) + 1 - first
        tell("reading the log", found)
        key, run = before, None
    for folder in ("claim/", "super/"):
        ledger.expect(Item(info.key, info.size) for info in await remote.list(folder) if is_object(info.key))
    return unread
