"""Every order of two writers' remote calls (and many of three's), with faults: nothing acknowledged is lost, no number is given twice.

And the same with the office made wrong in one place: that must be found.
"""
from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator

import pytest

from s3cfs import ids
from s3cfs.errors import AlreadyMounted
from s3cfs.formats import record
from s3cfs.formats.record import Kind
from s3cfs.history import office
from s3cfs.history.log import Tip, find_tip, newest_epoch, tip_of
from s3cfs.history.office import Takeover, Tier, Writer

from .explore import SEALER, Line, Story, World, career, exhaustively, in_office, randomly, work

TIERS = (Tier.T1, Tier.T2)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No warnings, and one look at a claim that may be withdrawn: here a sleep has any length."""
    monkeypatch.setattr(office, "CLAIM_LOOKS_S", (1.0,))
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def zombie_and_taker(tier: Tier, make: type[Writer] = Writer) -> Story:
    """A is in office and goes on working; B takes over by force and works."""
    def story(world: World) -> None:
        first = in_office(world, "A", tier, 1, make)
        world.run({"A": work(world, "A", first, 2), "B": career(world, "B", world.writer("B", tier, make), 1)})
    return story


def two_takers(tier: Tier, make: type[Writer] = Writer) -> Story:
    """A new filesystem, two writers at once."""
    def story(world: World) -> None:
        world.run({name: career(world, name, world.writer(name, tier, make), 1) for name in "AB"})
    return story


def three(tier: Tier, make: type[Writer] = Writer) -> Story:
    """A is in office, B and C take over."""
    def story(world: World) -> None:
        first = in_office(world, "A", tier, 1, make)
        world.run({"A": work(world, "A", first, 2, last=Kind.RELEASE), "B": career(world, "B", world.writer("B", tier, make), 2),
                   "C": career(world, "C", world.writer("C", tier, make), 2)})
    return story


def seen(world: World) -> Tip:
    """The tip as whoever wants office has seen it: who looks later, after the other's last word, may wait for silence."""
    return world.store.run(find_tip(Line(), SEALER))  # type: ignore[arg-type, no-any-return]


async def follow(world: World, name: str, writer: Writer, tip: Tip, takeover: Takeover) -> None:
    world.acknowledge(name, await writer.claim(tip, takeover=takeover))
    await work(world, name, writer, 1)


def two_followers(tier: Tier, make: type[Writer] = Writer) -> Story:
    """A has unmounted, two writers at once follow."""
    def story(world: World) -> None:
        first = in_office(world, "A", tier, 1, make)
        world.store.run(work(world, "A", first, 1, last=Kind.RELEASE))
        tip = seen(world)
        world.run({name: follow(world, name, world.writer(name, tier, make), tip, Takeover.NO) for name in "BC"})
        assert sorted((world.ended["B"], world.ended["C"])) != ["done", "done"], "two took office after one unmount"
    return story


def different_verdicts(tier: Tier, make: type[Writer] = Writer) -> Story:
    """A new filesystem; A found that the store has create-only puts, B (`tier`) that it has not. Nobody throws anybody out."""
    def story(world: World) -> None:
        world.run({"A": follow(world, "A", world.writer("A", Tier.T1, make), Tip(), Takeover.NO),
                   "B": follow(world, "B", world.writer("B", tier, make), Tip(), Takeover.NO)})
        assert sorted(world.ended.values()) != ["done", "done"], "both are in office"
    return story


def idle_and_taker(tier: Tier, make: type[Writer] = Writer) -> Story:
    """A is idle and has something to say again; B, which may follow the idle, saw that it was."""
    def story(world: World) -> None:
        first = in_office(world, "A", tier, 1, make)
        world.store.run(work(world, "A", first, 1, last=Kind.RELEASE, final=False))
        taker = follow(world, "B", world.writer("B", tier, make), seen(world), Takeover.IDLE)
        world.run({"A": work(world, "A", first, 1), "B": taker})
        assert sorted(world.ended.values()) != ["done", "done"], "A was heard, and thrown out all the same"
    return story


@pytest.mark.parametrize(("make", "tier"), [
    (two_followers, Tier.T1), pytest.param(two_followers, Tier.T2, marks=pytest.mark.soak),
    *((make, tier) for make in (different_verdicts, idle_and_taker) for tier in TIERS)])
def test_one_writer_and_the_other_is_told(make: Callable[[Tier], Story], tier: Tier) -> None:
    result = exhaustively(make(tier), switches=3, faults=0)
    assert any("AlreadyMounted" in dict(ending).values() for ending in result.endings)
    assert any("done" in dict(ending).values() for ending in result.endings)
    exhaustively(make(tier), switches=1, faults=1)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("make", [zombie_and_taker, two_takers])
def test_two_writers_in_every_order(make: Callable[[Tier], Story], tier: Tier) -> None:
    # a SEAL is one call, and explored whole; claims are many calls: as many interruptions as time allows
    whole = tier is Tier.T1 and make is not two_takers
    result = exhaustively(make(tier), switches=99 if whole else 3, faults=0)
    assert len(result.endings) > 1, "the orders made no difference"


@pytest.mark.parametrize(("make", "tier"), [
    *((zombie_and_taker, tier) for tier in TIERS), (two_takers, Tier.T1), pytest.param(two_takers, Tier.T2, marks=pytest.mark.soak)])
def test_two_writers_with_a_fault_anywhere(make: Callable[[Tier], Story], tier: Tier) -> None:
    whole = tier is Tier.T1 and make is not two_takers
    result = exhaustively(make(tier), switches=2 if whole else 1, faults=1)
    assert any("died" in dict(ending).values() for ending in result.endings)


@pytest.mark.parametrize("tier", TIERS)
def test_three_writers_at_random(tier: Tier, seed: int) -> None:
    result = randomly(three(tier), seed, 1000, switches=99, faults=3)
    assert len(result.endings) > 5


@pytest.mark.parametrize("tier", TIERS)
def test_alone_every_append_is_acknowledged(tier: Tier) -> None:
    """Lost and late answers, repeated puts: a writer that nobody deposes always gets through."""
    def story(world: World) -> None:
        world.run({"A": career(world, "A", world.writer("A", tier), 2)})
        assert world.ended == {"A": "done"}
        assert len(world.acknowledged) == 3
    result = exhaustively(story, switches=0, faults=2, kinds=("lost", "late"))
    assert result.runs > 10


@pytest.mark.parametrize("tier", TIERS)
def test_a_dead_taker_shuts_nobody_out(tier: Tier) -> None:
    """B dies at any of its calls while taking over; C then gets through without trouble."""
    deaths = []

    def story(world: World) -> None:
        in_office(world, "A", tier)
        world.run({"B": career(world, "B", world.writer("B", tier), 1)})
        deaths.append(world.ended["B"])
        world.faults = 0
        world.run({"C": career(world, "C", world.writer("C", tier), 1)})
        assert world.ended["C"] == "done"
    exhaustively(story, switches=0, faults=1, kinds=("die", "die-after", "late"))
    assert "died" in deaths and "done" in deaths


@pytest.mark.parametrize("tier", TIERS)
def test_a_zombie_that_comes_back(tier: Tier) -> None:
    """After B took over, A gets nothing acknowledged any more, and a second try says so at once."""
    def story(world: World) -> None:
        first = in_office(world, "A", tier)
        world.run({"B": career(world, "B", world.writer("B", tier), 2)})
        assert world.ended["B"] == "done"
        known = len(world.acknowledged)
        world.run({"A": work(world, "A", first, 1)})
        assert world.ended["A"] == "Deposed" and first.epoch == 0
        calls = len(world.trace)
        world.run({"A": work(world, "A", first, 1)})
        assert world.ended["A"] == "Deposed"
        assert not [line for line in world.trace[calls:] if line.startswith("A: ")], "it still asks the store"
        assert len(world.acknowledged) == known
    exhaustively(story, switches=0, faults=1, kinds=("lost", "late"))


# ---------------------------------------------------------------- the office made wrong

class NoListing(Writer):
    """T2: acknowledges without looking at the claims."""

    async def _claims(self) -> list[tuple[int, str]]:
        return [] if self.epoch else await super()._claims()


class SealDeleted(Writer):
    """T1: tidies up after taking over."""

    async def claim(self, tip: Tip, *, takeover: Takeover = Takeover.NO, on_wait: Callable[[str], None] = lambda text: None) -> Tip:
        got = await super().claim(tip, takeover=takeover, on_wait=on_wait)
        await self._remote.delete(got.key)
        return got


class OtherBytes(Writer):
    """Each attempt sends bytes of its own: a zero more behind the seal's content, which is padding."""

    async def _put_overwriting(self, key: str, data: bytes) -> None:
        attempt = 0

        def again() -> Awaitable[None]:
            nonlocal attempt
            attempt += 1
            sealed = data[record.SEAL_AT:] + bytes(attempt - 1)                 # (explore.NullSealer adds nothing)
            return self._remote.put(key, data[:record.SEAL_AT - 4] + len(sealed).to_bytes(4, "little") + sealed)
        await self._until_answered(again)


class NotCreateOnly(Writer):
    """T1: a plain put where a create-only one must be."""

    async def _put_until_answered(self, key: str, data: bytes) -> bytes | None:
        await self._until_answered(lambda: self._remote.put(key, data))
        return None


class TipBeforeClaim(Writer):
    """T2: the tip was read before the claim."""

    async def claim(self, tip: Tip, *, takeover: Takeover = Takeover.NO, on_wait: Callable[[str], None] = lambda text: None) -> Tip:
        self.known = tip
        return await super().claim(tip, takeover=takeover, on_wait=on_wait)

    async def _claim_by_listing(self, before: Tip, takeover: Takeover, *, restating: bool = False) -> None:
        epoch = max([await newest_epoch(self._remote), *(epoch for epoch, _ in await self._claims())]) + 1
        await self._put_overwriting(ids.claim_key(epoch, self.nonce), b"claim")
        if max(await self._claims()) > (epoch, self.nonce):
            raise AlreadyMounted("another")
        key = ids.log_key(epoch, self.nonce, self.known.n + 1)
        made = self._record(Kind.CLAIM, self.known, epoch, {}, key)
        data = record.encode(made, self._sealer_for(epoch))
        await self._put_overwriting(key, data)
        if max(await self._claims()) > (epoch, self.nonce):
            raise AlreadyMounted("another")
        self.epoch, self.tip = epoch, tip_of(key, data, made)


class NoSecondLook(Writer):
    """T2: takes office with a claim that is not the highest."""

    async def _claim_by_listing(self, before: Tip, takeover: Takeover, *, restating: bool = False) -> None:
        real, self.looks = self._claims, 0

        async def blind() -> list[tuple[int, str]]:
            return [claim for claim in await real() if claim[1] == self.nonce] or [(0, "")]
        self._claims = blind  # type: ignore[method-assign]
        try:
            await super()._claim_by_listing(before, takeover, restating=restating)
        finally:
            self._claims = real  # type: ignore[method-assign]


class Deaf(Writer):
    """Takes over although the one that was idle has said something."""

    def _refuse_if_alive(self, tip: Tip, now: Tip, takeover: Takeover) -> None: ...


class FirstBySeal(Writer):
    """The first writer of all under T1 puts a SEAL at once."""

    def _by_seal(self, tip: Tip) -> bool:
        return self.tier is Tier.T1 and tip.info.get("tier") in (None, Tier.T1)


@pytest.mark.parametrize(("tier", "make", "wrong", "faults"), [
    (Tier.T1, idle_and_taker, Deaf, 0),
    (Tier.T2, idle_and_taker, Deaf, 0),
    (Tier.T2, different_verdicts, FirstBySeal, 0),
    (Tier.T2, zombie_and_taker, NoListing, 0),
    (Tier.T1, zombie_and_taker, SealDeleted, 0),
    (Tier.T2, zombie_and_taker, OtherBytes, 1),
    (Tier.T1, zombie_and_taker, NotCreateOnly, 0),
    (Tier.T1, two_takers, NotCreateOnly, 0),
    (Tier.T2, zombie_and_taker, TipBeforeClaim, 0),
    (Tier.T2, two_takers, NoSecondLook, 0),
])
def test_wrong_ones_are_found(tier: Tier, make: Callable[[Tier, type[Writer]], Story], wrong: type[Writer], faults: int) -> None:
    with pytest.raises(AssertionError, match="choices"):
        exhaustively(make(tier, wrong), switches=3, faults=faults)


def test_the_line_of_the_explorer_is_all_that_is_called() -> None:
    """Else a call would go past the explorer."""
    import ast
    import inspect

    from s3cfs.history import log
    used = {node.attr for module in (log, office) for node in ast.walk(ast.parse(inspect.getsource(module)))
            if isinstance(node, ast.Attribute)
            and ((isinstance(node.value, ast.Attribute) and node.value.attr == "_remote")
                 or (isinstance(node.value, ast.Name) and node.value.id == "remote"))}
    assert used == {name for name in vars(Line) if not name.startswith("_")}


# ---------------------------------------------------------------- a store that has create-only puts now

def became_t1(last: Tier, make: type[Writer] = Writer) -> Story:
    """A is in office under T2 and goes on; B, which finds create-only puts, takes over, and so does C."""
    def story(world: World) -> None:
        first = in_office(world, "A", Tier.T2, 1, make)
        world.run({"A": work(world, "A", first, 1), "B": career(world, "B", world.writer("B", Tier.T1, make), 2),
                   "C": career(world, "C", world.writer("C", last, make), 1)})
    return story


@pytest.mark.parametrize("last", TIERS)
def test_a_store_that_became_t1(last: Tier, seed: int) -> None:
    exhaustively(became_t1(last), switches=1, faults=0)
    randomly(became_t1(last), seed, 500, switches=99, faults=2)
