"""Which stores may be written to: what `choose_tier` makes of what a store declares, what trying finds, and what its owner vouches for."""
from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
import trio

from s3cfs.app.tier import choose_tier
from s3cfs.backends.base import Capabilities
from s3cfs.doors import Doors
from s3cfs.errors import ExitCode, Unsupported
from s3cfs.history.log import Tip
from s3cfs.history.office import Tier


@dataclass
class Store:
    """What `choose_tier` asks of Remote, and of the backend behind it."""

    capabilities: Capabilities
    tries: dict[str, bool]                         # what trying finds
    tried: list[str] = field(default_factory=list)
    location: str = "odd://place"

    @property
    def backend(self) -> Store:
        return self

    async def _try(self, what: str) -> bool:
        self.tried.append(what)
        return self.tries[what]

    async def probe_create_only(self) -> bool:
        return await self._try("create_only")

    async def probe_linearizable(self) -> bool:
        return await self._try("linearizable")

    def assume_create_only(self, holds: bool) -> None:
        self.capabilities = replace(self.capabilities, create_only=holds)

    def assume_linearizable(self, holds: bool) -> None:
        self.capabilities = replace(self.capabilities, linearizable=holds)


def chosen(store: Store, tier: Tier | None = None, *, sole: bool = False) -> Tier:
    tip = Tip() if tier is None else Tip(7, "log/main/x", info={"tier": str(tier)})
    return trio.run(choose_tier, cast(Doors, None), cast(Any, store), tip, sole)


@pytest.mark.parametrize("linearizable", [True, False, None])
def test_create_only_is_enough(linearizable: bool | None) -> None:
    store = Store(Capabilities(linearizable=linearizable), {"create_only": True})
    assert chosen(store) is Tier.T1 and store.tried == ["create_only"]


@pytest.mark.parametrize(("declared", "found", "tried", "tier"), [
    (True, False, [], Tier.T2), (None, True, ["linearizable"], Tier.T2), (None, False, ["linearizable"], None), (False, True, [], None)])
def test_the_first_mount_of_a_store_without_it(declared: bool | None, found: bool, tried: list[str], tier: Tier | None) -> None:
    store = Store(Capabilities(linearizable=declared), {"create_only": False, "linearizable": found})
    if tier is not None:
        assert chosen(store) is tier
    else:
        with pytest.raises(Unsupported, match=r"odd://place can neither .*--sole-writer") as caught:
            chosen(store)
        assert "\n" not in str(caught.value) and caught.value.exit_code is ExitCode.UNSUPPORTED
    assert store.tried == ["create_only", *tried]
    assert store.capabilities.linearizable is (found if declared is None else declared)


def test_an_owner_vouches() -> None:
    for declared in (None, False, True):
        store = Store(Capabilities(linearizable=declared), {"create_only": False})
        assert chosen(store, sole=True) is Tier.SOLE and store.tried == ["create_only"]


def test_later_mounts_go_by_the_note() -> None:
    store = Store(Capabilities(), {})
    assert chosen(store, Tier.T2) is Tier.T2 and store.tried == [] and store.capabilities.linearizable is True
    with pytest.raises(Unsupported):                   # what its owner declares now counts all the same
        chosen(Store(Capabilities(linearizable=False), {}), Tier.T2)


def test_the_word_is_given_anew_for_each_mount() -> None:
    for store in (Store(Capabilities(linearizable=False), {}), Store(Capabilities(), {"linearizable": False})):
        with pytest.raises(Unsupported, match="--sole-writer"):
            chosen(store, Tier.SOLE)
        assert chosen(store, Tier.SOLE, sole=True) is Tier.SOLE
    assert chosen(Store(Capabilities(), {"linearizable": True}), Tier.SOLE) is Tier.T2, "it was tried, and holds"
