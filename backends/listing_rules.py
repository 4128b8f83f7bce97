"""How a store that answers listings page by page does so: what s3cfs does not rely on, and whoever brings other programs wants to know.

A listing by a part of a name (its prefix does not end in '/') is one request elsewhere; Storj refuses it, since its keys are
encrypted part by part, and lists in the order of the encrypted ones.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from s3cfs.backends.base import Backend
from s3cfs.backends.stale import ATTEMPTS, surely
from s3cfs.errors import StoreError

WORKS, REFUSED, WRONG = "works", "refused", "wrong"
NAMES = ("na-3", "b", "na-1", "z", "k", "na-2", "a", "nb", "q", "na-4", "c", "m")


@dataclass(frozen=True, slots=True)
class ListingRules:
    part_of_name: str                  # WORKS; REFUSED (501 as a rule); WRONG: it answers, with less or more than there is
    in_order: bool                     # keys came in the order of their bytes


def listing_rules(backend: Backend, prefix: str) -> ListingRules | None:
    """Of the store below all wrappers, `NAMES` being in the folder `prefix`. None: it does not answer by pages, and lists as s3cfs asks."""
    ask = _pages_of(backend)
    if ask is None:
        return None
    in_order, part_of_name = True, WRONG
    for _ in range(ATTEMPTS):          # a listing may be late, once more is soon enough to tell that from wrong
        listed = _listed(ask, prefix)
        in_order = in_order and listed == sorted(listed)
        wanted = sorted(key for key in listed if key.startswith(f"{prefix}na"))
        try:
            found = sorted(_listed(ask, f"{prefix}na"))
        except StoreError as error:
            if error.retryable:
                continue
            part_of_name = REFUSED
            break
        if wanted and found == wanted:
            part_of_name = WORKS
            break
    return ListingRules(part_of_name, in_order)


def _listed(ask: Callable[..., Any], prefix: str) -> list[str]:
    """The first page, in the store's order."""
    pages: list[Any] = []
    surely(lambda: pages.append(ask(prefix, None)))
    return [info.key for info in pages[-1].objects]


def _pages_of(backend: Backend) -> Callable[..., Any] | None:
    """`S3Backend.list_page`, or that of a store like it."""
    inner: Any = backend
    while inner is not None:
        ask: Callable[..., Any] | None = getattr(inner, "list_page", None)
        if ask is not None:
            return ask
        inner = getattr(inner, "inner", None)
    return None
