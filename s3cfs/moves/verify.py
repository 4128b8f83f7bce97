"""`s3cfs verify`: every object of a filesystem is asked for by name, or read.

Unlike fsck it opens no row and mends nothing, so that it can run for days beside a mount, be killed and go on. It asks for each object
by itself where fsck believes a listing. It reads only.
"""
from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b

import trio

from s3cfs.app.store import first_look, unlock
from s3cfs.app.superblocks import read_superblock
from s3cfs.backends.crew import each
from s3cfs.check import Line, Severity
from s3cfs.config import Settings, VerifyOptions
from s3cfs.errors import ConfigError, Damaged, ExitCode, NotFound, ObjectMissing
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.superblock import Superblock
from s3cfs.moves.inventory import known, listed
from s3cfs.moves.kinds import Kind, kind_of
from s3cfs.moves.ledger import DAMAGED, MISSING, WEAK, Item, Ledger, Trouble
from s3cfs.moves.places import OnProgress, Room, Rows, opened, remembered
from s3cfs.moves.wholeness import looked_at
from s3cfs.remote import Lane, Remote

NAME = "verify"
HANDS = 2                          # for each call that may run at once: one waits for its slot while another thinks
LOOK_AGAIN_S = 2.0                 # later, where answers may be old
GUESS_BYTES = 8 << 20              # of an object whose size nobody told

Report = Callable[[Line], None]


@dataclass(slots=True)
class VerifyResult:
    objects: int = 0               # that were to be there
    bytes: int = 0                 # of those whose size is known
    before: int = 0                # that an interrupted run before has looked at
    read_bytes: int = 0            # in this run
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    weak: list[str] = field(default_factory=list)    # whole, but what the store keeps to be safe is damaged

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.OBJECT_MISSING if self.missing else ExitCode.DAMAGED if self.damaged or self.weak else ExitCode.OK


def verify(settings: Settings, options: VerifyOptions, report: Report, progress: OnProgress) -> VerifyResult:
    """Each trouble goes to `report` when it is met. Raises what keeps it from looking at all; whatever ends it, the next run goes on."""
    for path in (options.missing_file, options.corrupt_file):
        if path is not None and not os.path.isdir(os.path.dirname(path)):
            raise ConfigError(f"{path} cannot be written: there is no such folder")
    found, keyring = first_look(settings, partial(_unlocked, settings, options.keyless))
    how = f"{'data' if options.data else 'head'} {'keyless' if options.keyless else ''} {options.sample}"
    with remembered(options.cachedir, NAME, found, settings.url, how) as disk:
        if options.restart:
            Ledger.remove(disk)
        ledger = Ledger(disk)
        try:
            work = _Verify(settings, options, found, keyring, ledger, report, progress)
            result = trio.run(work.run, restrict_keyboard_interrupt_to_checkpoints=True)
            _write_lists(options, ledger)
        finally:
            ledger.close()
        Ledger.remove(disk)
    return result


async def _unlocked(settings: Settings, keyless: bool, remote: Remote) -> tuple[Superblock, KeyRing | None]:
    await remote.check()
    found = await read_superblock(remote)
    return found, None if keyless else unlock(found, settings)


def _write_lists(options: VerifyOptions, ledger: Ledger) -> None:
    for path, word in ((options.missing_file, MISSING), (options.corrupt_file, DAMAGED)):
        if path is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.writelines(f"{one.key}\n" for one in ledger.troubles() if one.word == word)


class _Verify:
    def __init__(self, settings: Settings, options: VerifyOptions, found: Superblock, keyring: KeyRing | None, ledger: Ledger,
                 report: Report, progress: OnProgress) -> None:
        self._settings, self._options, self._superblock, self._keyring = settings, options, found, keyring
        self._ledger, self._report, self._progress = ledger, report, progress
        self._room = Room()
        self._result = VerifyResult()
        self._done = 0                                             # of what is left, in what progress counts

    async def run(self) -> VerifyResult:
        result, ledger = self._result, self._ledger
        async with opened(self._settings, self._options.at_once) as remote:
            await self._take_inventory(remote)
            result.objects, result.bytes = ledger.totals()
            self._left = ledger.totals(left=True)
            result.before = result.objects - self._left.objects
            for one in ledger.troubles():
                self._say(one)
            await each(partial(self._check, remote), self._items_left(), HANDS * remote.slots(Lane.READ))
        for one in ledger.troubles():
            {MISSING: result.missing, WEAK: result.weak}.get(one.word, result.damaged).append(one.key)
        return result

    async def _take_inventory(self, remote: Remote) -> None:
        ledger = self._ledger
        if self._options.sample is not None:
            ledger.chosen = self._draw(self._options.sample, remote)
        ledger.begin()
        if self._keyring is None:
            await listed(remote, ledger, self._tell_found)
        else:
            rows = Rows(self._settings, self._superblock, self._keyring, self._options.cachedir, self._progress)
            try:
                async with rows.at_tip(remote) as (meta, tip):
                    unread = await known(remote, self._keyring, meta, tip, ledger, self._tell_found)
            except (Damaged, ObjectMissing) as error:
                raise type(error)(f"{error}; without it nobody knows what must be there (--keyless looks at what is there, and s3cfs fsck "
                                  "says more)") from None
            finally:
                rows.close()
            for one in unread:
                ledger.trouble(one.key, one.word, one.text, done=True)
        ledger.end()

    def _draw(self, share: float, remote: Remote) -> Callable[[str], bool]:
        """Others each time, and the same when a run goes on."""
        seed = self._ledger.note("seed") or remote.doors.random.bytes(8).hex()
        self._ledger.set_note("seed", seed)
        most = int(share * 2**32)
        return lambda key: int.from_bytes(blake2b(f"{seed} {key}".encode(), digest_size=4).digest()) < most

    def _items_left(self) -> Iterator[Item]:
        for kind in Kind:
            for folder in self._ledger.folders(kind):
                yield from self._ledger.items(kind, folder, left=True)

    async def _check(self, remote: Remote, item: Item) -> None:
        found = await self._look(remote, item)
        if found is not None:                                      # the store, or the way, or an answer that was old?
            if remote.capabilities.linearizable is not True:
                await remote.doors.clock.sleep(LOOK_AGAIN_S)
            found = await self._look(remote, item)
        if found is None:
            self._ledger.done(item.key)
        else:
            self._ledger.trouble(*found, done=True)
            self._say(found)
        self._done += (item.size or 0) if self._options.data else 1
        self._tell()

    async def _look(self, remote: Remote, item: Item) -> Trouble | None:
        try:
            if not self._options.data:
                size, data = (await remote.stat(item.key)).size, b""
            else:
                async with self._room.of(GUESS_BYTES if item.size is None else item.size):
                    data = await remote.get(item.key)
                    size = len(data)
                    self._result.read_bytes += size
                    if item.size in (None, size) and (text := await looked_at(remote.doors, item, data, self._keyring)):
                        return Trouble(item.key, DAMAGED, text)
                if item.size in (None, size) and (weakness := await remote.examine(item.key)) is not None:
                    return Trouble(item.key, WEAK, weakness)
        except NotFound:
            # claims are withdrawn, and go when there is a higher one
            return None if kind_of(item.key) is Kind.CLAIM else Trouble(item.key, MISSING, "")
        return None if item.size in (None, size) else Trouble(item.key, DAMAGED, f"it has {size} bytes, not {item.size}")

    def _say(self, one: Trouble) -> None:
        self._report(Line(NAME, Severity.ERROR, str(one), one.key, None, False))

    def _tell_found(self, what: str, found: int) -> None:
        self._progress({"done": found, "total": None, "unit": "objects", "text": what})

    def _tell(self) -> None:
        unit, total = ("bytes", self._left.bytes) if self._options.data else ("objects", self._left.objects)
        self._progress({"done": self._done, "total": total, "unit": unit, "text": "verifying"})
