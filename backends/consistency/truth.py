"""What the keys must hold that this machine wrote or deleted lately, and whether an answer of the store agrees with it.

Pure. Of each key: what it holds since the last operation that was answered, and what it may hold beside that, because later ones were not
answered (contract S1) or are under way. An answer that shows one of the former has decided: what was there before cannot come back.
"""
from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from s3cfs.backends.consistency.watch import TRANSIENT


class Content(NamedTuple):
    size: int
    digest: bytes                  # b"": nobody looked

    def agrees(self, found: Content) -> bool:
        return self.size == found.size and (self.digest == found.digest or not self.digest or not found.digest)


Held = Content | None              # None: nothing, it was deleted
ANY = Content(-1, b"")             # whatever it was
Sizes = set[int | None]            # None among them: it may not be there


@dataclass(slots=True)
class Known:
    base: Held
    since: float                   # clock.monotonic() when the last operation ended
    number: int                    # of the last change, over all keys
    only: bool                     # nothing else was ever there: the store itself said so
    others: bool                   # other machines delete such keys: it may be gone at any time
    perhaps: tuple[Held, ...] = ()
    under_way: tuple[Held, ...] = ()

    @property
    def may_be(self) -> tuple[Held, ...]:
        return (self.base, *self.perhaps, *self.under_way)

    @property
    def sizes(self) -> Sizes | None:
        """None: any."""
        if self.base == ANY:
            return None
        sizes: Sizes = {None if held is None else held.size for held in self.may_be}
        return sizes | {None} if self.others else sizes


@dataclass(slots=True, weakref_slot=True, eq=False)
class Listing:
    """What may be shown of keys that change while it runs: what they held before, and since. It is told as long as somebody has it."""

    prefix: str
    at: float                      # when it was asked for
    sent: int | None = None        # `Truth.changes` when it was sent to the store
    times_old: int = 0
    shows: dict[str, Sizes | None] = field(default_factory=dict)         # of those that changed; None: anything


class Truth:
    """At most `keys_max` keys, the last ones."""

    def __init__(self, keys_max: int) -> None:
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._keys_max = keys_max
        self._listings: weakref.WeakSet[Listing] = weakref.WeakSet()
        self.changes = 0           # that began or ended so far

    def __len__(self) -> int:
        return len(self._known)

    # ------------------------------------------------------------ changes

    def begins(self, key: str, held: Held) -> None:
        """A change of it is under way from now on: what was asked before says nothing about it any more."""
        self.changes += 1
        known = self._known.get(key)
        if known is not None:
            known.number, known.under_way = self.changes, (*known.under_way, held)
        self._note(key, known)

    def failed(self, key: str, held: Held) -> None:
        """It was surely not carried out."""
        if (known := self._known.get(key)) is not None and held in known.under_way:
            known.under_way = _without(known.under_way, held)

    def done(self, key: str, held: Held, now: float, *, only: bool = False) -> None:
        """`only`: a create-only put won, so nothing was there just before. What was deleted lately may still be shown, though."""
        self.changes += 1
        self._keep(key, Known(held, now, self.changes, only and key not in self._known, _is_others(key)))

    def perhaps(self, key: str, held: Held, now: float) -> None:
        """It may have been carried out."""
        known = self._known.get(key) or Known(ANY, now, 0, False, _is_others(key))
        self.changes += 1
        others = known.perhaps if held in (known.base, *known.perhaps) else (*known.perhaps, held)
        self._keep(key, Known(known.base, now, self.changes, False, known.others, others))

    def forget(self, key: str) -> None:
        """Who knows."""
        self.changes += 1
        self._known.pop(key, None)
        self._note(key, None)

    def seen(self, key: str, shows: Callable[[Held], bool], *, surely: bool) -> None:
        """The store showed what it may hold. If that is clearly what was put without an answer, what was there before cannot come back.
        Not `surely`: something else could look the same."""
        known = self._known.get(key)
        if known is None or not known.perhaps or (known.base == ANY and not surely):
            return
        shown = [held for held in known.may_be if shows(held)]
        if len(shown) == 1 and shown[0] in known.perhaps:
            known.base, known.perhaps = shown[0], _without(known.perhaps, shown[0])

    def _keep(self, key: str, known: Known) -> None:
        self._known[key] = known
        self._known.move_to_end(key)
        if len(self._known) > self._keys_max:
            self._known.popitem(last=False)

    # ------------------------------------------------------------ questions

    def of(self, key: str, since: float) -> Known | None:
        """What is known of it from a change at or after `since`."""
        known = self._known.get(key)
        return known if known is not None and known.since >= since else None

    def sends(self, listing: Listing) -> None:
        """It goes to the store now, if it does so for the first time."""
        if listing.sent is None:
            listing.sent = self.changes
            self._listings.add(listing)
            for key, known in self._known.items():
                if known.under_way and key.startswith(listing.prefix):
                    listing.shows[key] = known.sizes

    def _note(self, key: str, known: Known | None) -> None:
        for listing in self._listings:
            if key.startswith(listing.prefix):
                before = listing.shows.get(key, set())
                now = None if known is None else known.sizes
                listing.shows[key] = None if before is None or now is None else before | now

    def below(self, listing: Listing, since: float) -> list[tuple[str, Known, Sizes]]:
        """What is known of the keys there from changes at or after `since`, and how large each may have been while the listing ran."""
        found = []
        for key, known in self._known.items():
            if key.startswith(listing.prefix) and known.since >= since:
                changed = key in listing.shows or (listing.sent is not None and known.number > listing.sent)
                sizes = listing.shows.get(key) if changed else known.sizes          # None: any
                if sizes is not None:
                    found.append((key, known, sizes))
        return found

    def tidy(self, since: float) -> None:
        """Older changes are forgotten. Cheap: called often."""
        while self._known and next(iter(self._known.values())).since < since:
            self._known.popitem(last=False)


def _is_others(key: str) -> bool:
    return key.partition("/")[0] in TRANSIENT


def _without(some: tuple[Held, ...], one: Held) -> tuple[Held, ...]:
    at = some.index(one)
    return (*some[:at], *some[at + 1:])
