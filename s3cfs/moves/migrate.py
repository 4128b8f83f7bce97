"""`s3cfs migrate`: all of a filesystem's objects, as they are, into another store.

Passes: each takes an inventory of the source and copies what the target has not got, up to the newest record it began with. When one finds
nothing to do, and nobody has the source mounted, the claims and the superblocks are copied. Until then the target is no filesystem: nobody
can mount half of one, or write a second history while the first goes on. The source is only read.

INVARIANT G2: a target gets its superblock when a pass that compared all of it found nothing missing, the newest record was a final RELEASE
(or the owner vouches for that), and it was still the newest one afterwards.
"""
from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import trio

from s3cfs.app.moved import note_moved
from s3cfs.app.store import first_look, unlock
from s3cfs.app.superblocks import read_superblock
from s3cfs.check import Line, Severity
from s3cfs.config import MigrateOptions, Settings
from s3cfs.errors import Damaged, ExitCode, ObjectMissing, StoreError
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.superblock import Superblock
from s3cfs.history.log import described, find_tip, newest_key, number_of
from s3cfs.moves.copying import AT_THE_END, BEFORE_THE_END, Copying, Tally
from s3cfs.moves.inventory import known, listed
from s3cfs.moves.kinds import Kind
from s3cfs.moves.ledger import MISSING, Ledger, Totals
from s3cfs.moves.places import OnProgress, Rows, opened, remembered, told_of
from s3cfs.moves.targets import Target, look_at_target, refuse_same_place
from s3cfs.remote import Remote

NAME = "migrate"
PASSES = 3                         # before a source that gets new records all the time is left for later
PAGE = 1000                        # names in a request of a listing
Say = Callable[[str], None]


class State(enum.StrEnum):
    """What came of it."""

    WHOLE = "whole"                # the target is the filesystem now
    MOUNTED = "mounted"            # all is copied but what comes: somebody has the source mounted
    UNKNOWN = "unknown"            # all is copied, and nobody can say whether the source is mounted
    PLANNED = "planned"            # a dry run


@dataclass(slots=True)
class MigrateResult:
    state: State = State.PLANNED
    fs_id: str = ""                # hex
    commit: int = 0                # the number of the newest record that the target has
    objects: int = 0               # of the filesystem
    bytes: int = 0
    to_copy: Totals = Totals(0, 0)     # a dry run: what the target has not got
    gone_on: bool = False          # the target was whole before, and has been written since: nothing was to be done
    passes: int = 0
    tally: Tally = field(default_factory=Tally)
    source_requests: int = 0       # that were made, or in a dry run would be
    target_requests: int = 0
    missing: list[str] = field(default_factory=list)      # in the source
    damaged: list[str] = field(default_factory=list)
    who: str = ""                  # has the source mounted
    tier: str | None = None        # the source's, where its log could be read

    @property
    def exit_code(self) -> ExitCode:
        if self.state in (State.MOUNTED, State.UNKNOWN):
            return ExitCode.ALREADY_MOUNTED
        return ExitCode.OBJECT_MISSING if self.missing else ExitCode.DAMAGED if self.damaged else ExitCode.OK


def migrate(source: Settings, target: Settings, options: MigrateOptions, report: Callable[[Line], None], say: Say,
            progress: OnProgress) -> MigrateResult:
    """`say`: a line for people while it goes on. Whatever ends it, the same call goes on where it was."""
    refuse_same_place(source.url, target.url)
    found, keyring = first_look(source, partial(_unlocked, source, options))
    where = first_look(target, partial(look_at_target, found, make=not options.dry_run))
    with remembered(options.cachedir, NAME, found, source.url, target.url) as disk:
        ledger = Ledger(disk)
        try:
            work = _Migration(source, target, options, found, keyring, where, ledger, report, say, progress)
            result = trio.run(work.run, restrict_keyboard_interrupt_to_checkpoints=True)
        finally:
            ledger.close()
        if result.state is State.WHOLE:
            note_moved(options.cachedir, found, source.url, target.url)
            Ledger.remove(disk)
    return result


async def _unlocked(settings: Settings, options: MigrateOptions, remote: Remote) -> tuple[Superblock, KeyRing | None]:
    """The keys where there is a passphrase, or one is needed."""
    await remote.check()
    found = await read_superblock(remote)
    return found, unlock(found, settings) if found.plain or settings.passphrase or options.no_list else None


class _Migration:
    def __init__(self, source: Settings, target: Settings, options: MigrateOptions, found: Superblock, keyring: KeyRing | None,
                 where: Target, ledger: Ledger, report: Callable[[Line], None], say: Say, progress: OnProgress) -> None:
        self._settings, self._target_settings, self._options = source, target, options
        self._superblock, self._keyring, self._where, self._ledger = found, keyring, where, ledger
        self._report, self._say, self._progress = report, say, progress
        self._rows = Rows(source, found, keyring, options.cachedir, progress) if keyring is not None else None
        self._total = Totals(0, 0)
        self._text = ""
        self._final: str | None = None                             # key of the record that says that nobody has the source mounted
        self.result = MigrateResult(fs_id=found.fs_id.hex())

    async def run(self) -> MigrateResult:
        options, result = self._options, self.result
        try:
            async with opened(self._settings, options.at_once) as source, opened(self._target_settings, options.at_once) as target:
                gone_on = await self._where.refuse_others(source, target)
                self._copying = Copying(source, target, self._ledger, read_back=options.verify_data, tell=self._tell)
                self._copying.is_filesystem = self._where.is_filesystem
                result.tally = self._copying.tally
                if gone_on:
                    result.state, result.gone_on = State.WHOLE, True
                elif options.dry_run:
                    await self._plan(source, target)
                else:
                    await self._passes(source, target)
                if result.state is not State.PLANNED:
                    result.source_requests, result.target_requests = _requests(source), _requests(target)
        finally:
            if self._rows is not None:
                self._rows.close()
        result.objects, result.bytes = self._ledger.totals()
        for one in self._ledger.troubles():
            self._report(Line(NAME, Severity.ERROR, str(one), one.key, None, False))
            (result.missing if one.word == MISSING else result.damaged).append(one.key)
        return result

    # ------------------------------------------------------------ passes

    async def _passes(self, source: Remote, target: Remote) -> None:
        """Until the target is whole, or all there is was copied from a source that somebody has mounted."""
        result, options = self.result, self._options
        newest = None                                              # of the last pass
        while True:
            copied = 0
            try:
                result.state = await self._look_who_writes(source)
                over = result.state is State.WHOLE                 # nobody does: what this pass finds is all there is
                if over or not options.follow or newest is None or await newest_key(source) != newest:
                    newest, copied = await self._pass(source, compare=over or not options.follow or newest is None)
                if over and not copied and await self._end(source, target, newest):
                    return
            except StoreError as error:
                if not (options.follow and error.retryable):
                    raise
                self._say(f"{error}; trying again in {options.interval:g} s")
            else:
                if copied and (over or result.passes < PASSES):
                    continue                                       # what came during a long pass takes a short one
                if not over and not options.follow:
                    return
                if over and result.passes > 2 * PASSES:
                    result.state, result.who = State.MOUNTED, "somebody, though the last record says otherwise,"
                    return
            if options.follow:
                if copied:
                    self._say(f"{copied:,} new objects copied, up to commit {result.commit}")
                await source.doors.clock.sleep(options.interval)

    async def _pass(self, source: Remote, *, compare: bool) -> tuple[str, int]:
        """The newest record that it went up to, and how many objects were copied."""
        newest = await self._take_inventory(source)
        self.result.passes += 1
        self._total = self._ledger.totals()
        self._copying.done_bytes = 0 if compare else self._total.bytes - self._ledger.totals(left=True).bytes
        self._text = "copying" if self.result.passes == 1 else "comparing" if compare else "copying what is new"
        copied = await self._copying.copy(BEFORE_THE_END, compare=compare)
        self.result.commit = number_of(newest)
        return newest, copied

    async def _take_inventory(self, source: Remote) -> str:
        self._ledger.begin()
        with told_of(source):
            if not self._options.no_list:
                newest = await listed(source, self._ledger, self._tell_found)
            else:
                assert self._rows is not None and self._keyring is not None
                async with self._rows.at_tip(source) as (meta, tip):
                    for one in await known(source, self._keyring, meta, tip, self._ledger, self._tell_found):
                        text = f"what {one.key} names is not known, and not copied: it is {one.word}"
                        self._report(Line(NAME, Severity.NOTE, text, one.key, None, False))
                newest = tip.key
        self._ledger.end()
        return newest

    async def _look_who_writes(self, source: Remote) -> State:
        """WHOLE: nobody has the source mounted, so that a pass can be the last."""
        result = self.result
        if self._keyring is not None:
            try:
                with told_of(source):
                    tip = await find_tip(source, self._keyring.sealer("record", 0))
            except (Damaged, ObjectMissing) as error:
                if not self._options.unmounted:
                    raise type(error)(f"{error}: nobody can say whether the source is mounted (--unmounted says it is not)") from None
            else:
                result.tier = str(tip.info.get("tier")) if tip.n else None
                result.who = "" if not tip.n or tip.unmounted else described(tip)
                self._final = None if result.who else tip.key
                if not result.who:
                    return State.WHOLE
        return State.WHOLE if self._options.unmounted else State.UNKNOWN if self._keyring is None else State.MOUNTED

    async def _end(self, source: Remote, target: Remote, newest: str) -> bool:
        """G2. False: a record came after all."""
        with told_of(source):
            if self._final not in (None, newest) or await newest_key(source) != newest:
                return False
        self._text = "copying the superblock"
        with told_of(target):
            await self._where.still_ours(target)
        await self._copying.copy(AT_THE_END, compare=True)
        return True

    # ------------------------------------------------------------ a dry run

    async def _plan(self, source: Remote, target: Remote) -> None:
        """Both are listed; nothing is written."""
        result = self.result
        newest = await self._take_inventory(source)
        await self._look_who_writes(source)
        result.commit = number_of(newest)
        objects = size = pieces = 0
        largest = target.capabilities.largest_object_bytes
        for kind in Kind:
            for folder in self._ledger.folders(kind):
                there = {}
                if not self._where.is_empty:
                    with told_of(target):
                        there = {info.key: info.size for info in await target.list(folder)}
                for item in self._ledger.items(kind, folder):
                    if item.key not in there or item.size not in (None, there[item.key]):
                        objects, size = objects + 1, size + (item.size or 0)
                        pieces += -(-(item.size or 0) // largest) if largest is not None and (item.size or 0) > largest else 0
        result.to_copy = Totals(objects, size)
        inventories = 2 if objects else 1                          # the second finds that nothing is left
        listings = sum(1 for kind in Kind for _ in self._ledger.folders(kind))
        pages = inventories * self._ledger.totals().objects // PAGE
        result.source_requests = inventories * _requests(source) + pages + objects
        result.target_requests = inventories * listings + pages + objects * (2 if self._options.verify_data else 1) + pieces

    # ------------------------------------------------------------ telling

    def _tell_found(self, what: str, found: int) -> None:
        self._progress({"done": found, "total": None, "unit": "objects", "text": what})

    def _tell(self) -> None:
        self._progress({"done": self._copying.done_bytes, "total": self._total.bytes or None, "unit": "bytes", "text": self._text})


def _requests(remote: Remote) -> int:
    return sum(remote.requests.values())
