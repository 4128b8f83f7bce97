"""Who has to wait for whom, and how long: silence, RELEASE, dead and living processes of this machine, force."""
from __future__ import annotations

from collections.abc import Awaitable

import pytest

from s3cfs.errors import AlreadyMounted, Denied, StoreError, Temporary
from s3cfs.formats.record import Kind
from s3cfs.history.log import Host, Tip, find_tip
from s3cfs.history.office import Takeover, Tier, Writer
from s3cfs.limits import DEFAULTS

from .explore import SEALER, Call, Chooser, Line, World, career, in_office, work

TIERS = pytest.mark.parametrize("tier", [Tier.T1, Tier.T2, Tier.SOLE])
HERE = Host("boot-1", "pid:[1]", 100, 5000, "here")
THERE = Host("boot-2", "pid:[1]", 100, 5000, "there")


class Timed(World):
    """In the order of time: who sleeps is woken when nobody else has anything to do."""

    def __init__(self) -> None:
        super().__init__(Chooser([]), switches=10**6, faults=0)
        self.wakes: dict[str, float] = {}

    def _options(self, waiting: dict[str, Call], last: str) -> list[tuple[str, str]]:
        for name, call in waiting.items():
            if call.operation != "sleep":
                return [("go", name)]
        return [("go", min(waiting, key=lambda name: self.wakes[name]))]

    def _resume(self, name, steps, waiting, wake, answer, error):
        super()._resume(name, steps, waiting, wake, answer, error)
        self.wakes = wake

    def claim(self, name: str, tier: Tier, host: Host, *, alive: bool = True, takeover: Takeover = Takeover.NO,
              former: str = "") -> str:
        """How it ended; `self.now` is how long it took."""
        writer = self.writer(name, tier, host=host, alive=lambda _: alive, former=former)
        self.run({name: career(self, name, writer, 1, takeover=takeover)})
        return self.ended[name]

    def said(self, *words: str) -> bool:
        """Whether the last thing that anybody was told has all of these in it."""
        return all(word in self.trace[-1] for word in words)


def released(world: World, tier: Tier, host: Host, *, final: bool) -> None:
    writer = in_office(world, "A", tier, 1, host=host)

    async def sign_off() -> None:
        world.acknowledge("A", await writer.append(Kind.RELEASE, {"final": final}))
    world.store.run(sign_off())


@TIERS
def test_a_new_filesystem_waits_for_nobody(tier: Tier) -> None:
    world = Timed()
    assert world.claim("B", tier, THERE) == "done" and world.now == 0


@TIERS
def test_silence_is_waited_for(tier: Tier) -> None:
    world = Timed()
    in_office(world, "A", tier, 1, host=THERE)
    assert world.claim("B", tier, HERE) == "done"
    assert DEFAULTS.takeover_silence_s <= world.now < DEFAULTS.takeover_silence_s + 10


@TIERS
def test_force_does_not_wait(tier: Tier) -> None:
    world = Timed()
    in_office(world, "A", tier, 1, host=THERE)
    assert world.claim("B", tier, HERE, takeover=Takeover.YES) == "done" and world.now == 0


@TIERS
def test_after_an_unmount_nobody_waits(tier: Tier) -> None:
    world = Timed()
    released(world, tier, THERE, final=True)
    assert world.claim("B", tier, HERE) == "done" and world.now == 0


@TIERS
def test_an_idle_writer_is_still_a_writer(tier: Tier) -> None:
    """The other machine is refused, with its name and since when; whatever time passes."""
    world = Timed()
    released(world, tier, THERE, final=False)
    world.now = 10_000.0
    objects = set(world.store.objects)
    assert world.claim("B", tier, HERE) == "AlreadyMounted" and world.now == 10_000
    assert world.said("there (process 100)", "idle since 1970-01-01 00:00:00 UTC", "--takeover")
    assert set(world.store.objects) == objects, "it wrote something though it was refused"


@TIERS
@pytest.mark.parametrize("takeover", [Takeover.IDLE, Takeover.YES])
def test_an_idle_writer_is_taken_over_from_on_request(tier: Tier, takeover: Takeover) -> None:
    world = Timed()
    released(world, tier, THERE, final=False)
    assert world.claim("B", tier, HERE, takeover=takeover) == "done" and world.now == 0


@TIERS
def test_takeover_of_the_idle_spares_the_busy(tier: Tier) -> None:
    """A writer that said nothing about being idle is waited for, and left alone when it lives."""
    world = Timed()
    in_office(world, "A", tier, 1, host=THERE)
    assert world.claim("B", tier, HERE, takeover=Takeover.IDLE) == "done" and world.now >= DEFAULTS.takeover_silence_s
    world = Timed()
    first = in_office(world, "A", tier, 1, host=THERE)

    async def beat() -> None:
        await world.sleep(10)
        await work(world, "A", first, 1)

    world.run({"A": beat(), "B": career(world, "B", world.writer("B", tier, host=HERE), 1, takeover=Takeover.IDLE)})
    assert world.ended == {"A": "done", "B": "AlreadyMounted"} and world.said("there (process 100)", "being written to")


@TIERS
def test_the_writer_of_ones_own_local_state_is_gone(tier: Tier) -> None:
    """After a reboot, or in a new container with the old folder: whoever holds the lock of the local state knows that it has ended."""
    for final in (None, False):
        world = Timed()
        if final is None:
            in_office(world, "A", tier, 1, host=THERE)
        else:
            released(world, tier, THERE, final=final)
        former = next(entry.writer for _, entry, _ in world.store.history())
        assert world.claim("B", tier, HERE, former="another") == ("AlreadyMounted" if final is False else "done")
        if final is None:
            continue
        assert world.claim("C", tier, HERE, former=former) == "done" and world.now == 0


@TIERS
def test_writers_that_say_they_are_slow_are_waited_for_longer(tier: Tier) -> None:
    """`every`: with a commit interval of five minutes a silence of five minutes proves nothing."""
    world = Timed()
    in_office(world, "A", tier, 1, host=THERE, every_s=300.0)
    assert world.claim("B", tier, HERE) == "done"
    assert 300 + DEFAULTS.takeover_silence_s <= world.now < 300 + DEFAULTS.takeover_silence_s + 10


@TIERS
def test_the_deposed_is_told_by_whom_and_when(tier: Tier) -> None:
    world = Timed()
    first = in_office(world, "A", tier, 1, host=THERE)
    world.now = 86_400.0
    assert world.claim("B", tier, HERE, takeover=Takeover.YES) == "done"
    world.now += 50

    async def goes_on() -> None:
        await work(world, "A", first, 1)

    world.run({"A": goes_on()})
    assert world.ended["A"] == "Deposed"
    assert world.said("here (process 100) took this filesystem over at 1970-01-02 00:00:00 UTC", "stay in /var/lib/it")
    assert world.now < 86_400 + 60, "it looked at a claim again though its record was there"


@TIERS
def test_the_taker_says_from_whom(tier: Tier) -> None:
    for final, told in ((True, 0), (False, 1)):
        world = Timed()
        said: list[str] = []
        released(world, tier, THERE, final=final)

        async def claim(world: Timed = world, said: list[str] = said) -> None:
            tip = await find_tip(Line(), SEALER)  # type: ignore[arg-type]
            await world.writer("B", tier, host=HERE).claim(tip, takeover=Takeover.YES, on_wait=said.append)
        world.run({"B": claim()})
        assert len(said) == told and all("from there (process 100)" in text for text in said)


@TIERS
def test_a_living_writer_elsewhere_is_left_alone(tier: Tier) -> None:
    world = Timed()
    first = in_office(world, "A", tier, 1, host=THERE)

    async def beats() -> None:
        for _ in range(6):
            await world.sleep(10)
            await work(world, "A", first, 1)

    world.run({"A": beats(), "B": career(world, "B", world.writer("B", tier, host=HERE), 1, takeover=Takeover.NO)})
    assert world.ended == {"A": "done", "B": "AlreadyMounted"}
    assert world.now >= 60 and len(world.acknowledged) == 8


@TIERS
@pytest.mark.parametrize("final", [True, False])
def test_a_release_while_waiting_ends_the_wait(tier: Tier, final: bool) -> None:
    world = Timed()
    first = in_office(world, "A", tier, 1, host=THERE)

    async def leaves() -> None:
        await world.sleep(10)
        await work(world, "A", first, 1, last=Kind.RELEASE, final=final)

    world.run({"A": leaves(), "B": career(world, "B", world.writer("B", tier, host=HERE), 1, takeover=Takeover.NO)})
    assert world.ended == {"A": "done", "B": "done" if final else "AlreadyMounted"} and world.now < 20
    assert final or world.said("idle since")


@TIERS
def test_a_dead_process_of_this_machine_is_not_waited_for(tier: Tier) -> None:
    world = Timed()
    in_office(world, "A", tier, 1, host=HERE)
    assert world.claim("B", tier, HERE, alive=False) == "done" and world.now == 0


@TIERS
@pytest.mark.parametrize("host", [Host("boot-9", "pid:[1]", 100, 5000), Host("boot-1", "pid:[7]", 100, 5000), Host()])
def test_another_boot_or_namespace_is_another_machine(tier: Tier, host: Host) -> None:
    """Its process numbers mean nothing here."""
    world = Timed()
    in_office(world, "A", tier, 1, host=HERE)
    assert world.claim("B", tier, host, alive=False) == "done" and world.now >= DEFAULTS.takeover_silence_s


@TIERS
def test_a_living_process_of_this_machine_is_refused_at_once(tier: Tier) -> None:
    for final in (None, False):
        world = Timed()
        if final is None:
            in_office(world, "A", tier, 1, host=HERE)
        else:
            released(world, tier, HERE, final=final)
        puts = len(world.store.objects)
        assert world.claim("B", tier, HERE) == "AlreadyMounted" and world.now == 0
        assert len(world.store.objects) == puts, "it wrote something though it was refused"


@TIERS
def test_a_process_that_signed_off_for_good_may_still_end(tier: Tier) -> None:
    world = Timed()
    released(world, tier, HERE, final=True)
    assert world.claim("B", tier, HERE) == "done" and world.now == 0


@TIERS
def test_the_late_record_of_a_dead_process_is_taken_over(tier: Tier) -> None:
    """Its put arrives after the tip was read and before the claim: that is no other machine."""
    world = Timed()
    first = in_office(world, "A", tier, 1, host=HERE)
    tip: Tip = world.store.run(find_tip(Line(), SEALER))  # type: ignore[arg-type]
    late = first.append(Kind.COMMIT, {}, b"late").__await__()
    call = next(late)
    world.store.perform(call)
    late.close()
    writer = world.writer("B", tier, host=HERE, alive=lambda _: False)

    async def claim() -> None:
        world.acknowledge("B", await writer.claim(tip))

    world.run({"B": claim()})
    assert world.ended["B"] == "done", world.trace
    own = 2 if tier is Tier.T1 else 1          # what A took office with
    assert [entry.info["by"]["pid"] for _, entry, data in world.store.history()][own] == 100
    assert len(world.store.history()) == own + 3


class Failing(Line):
    """Puts fail `times` with `error`."""

    def __init__(self, error: StoreError, times: int) -> None:
        self.error, self.times = error, times

    async def put(self, key: str, data: bytes, only_if_absent: bool = False) -> None:
        if self.times > 0:
            self.times -= 1
            await Call("sleep", seconds=0.01)
            raise self.error
        await super().put(key, data, only_if_absent)


def on(world: World, line: Line, tier: Tier) -> Writer:
    return Writer(world.doors("A"), line, tier, lambda epoch: SEALER, HERE, lambda host: True)  # type: ignore[arg-type]


@TIERS
def test_in_office_a_writer_waits_for_the_store_for_ever(tier: Tier) -> None:
    """Also when it says something that does not pass by itself: credentials and buckets come back."""
    world = Timed()
    line = Failing(Denied("put", "log", "who are you?"), 0)
    writer = on(world, line, tier)
    states: list[float | None] = []

    async def life() -> None:
        await career(world, "A", writer, 1)
        line.times = 2000
        await work(world, "A", writer, 1)

    async def look() -> None:
        await world.sleep(5000)
        states.append(writer.away_since)
        assert "who are you?" in writer.away_cause

    world.run({"A": life(), "looker": look()})
    assert world.ended == {"A": "done", "looker": "done"} and states[0] is not None and writer.away_since is None
    assert world.now > 15_000


@TIERS
@pytest.mark.parametrize(("error", "soon"), [(Denied("put", "x"), True), (Temporary("put", "x"), False)])
def test_a_claim_is_given_up(tier: Tier, error: StoreError, soon: bool) -> None:
    world = Timed()
    writer = on(world, Failing(error, 10**6), tier)

    async def claim() -> None:
        await writer.claim(Tip())

    world.run({"A": claim()})
    assert world.ended["A"] == type(error).__name__ and writer.epoch == 0
    assert (world.now < 1) if soon else (DEFAULTS.store_deadline_s < world.now < DEFAULTS.store_deadline_s + 20)


def test_append_without_office_is_refused() -> None:
    world = Timed()
    writer = world.writer("A", Tier.T1)

    async def append() -> None:
        await writer.append(Kind.COMMIT, {})

    with pytest.raises(AlreadyMounted):
        _drain(append())


def _drain(task: Awaitable[None]) -> None:
    next(task.__await__())


def test_foreign_names_in_the_log_are_ignored() -> None:
    world = Timed()
    in_office(world, "A", Tier.T1, 1, host=THERE)
    world.store.objects |= {"log/main/9-nonsense/1": b"", "log/main/0/9-0000000000000000/1": b"", "log/main/7/x": b"",
                                "log/main/notes.txt": b"", "claim/main/x": b"",
                                "log/other/0/7-0000000000000000/0/0/99": b"", "log/main/0/8-0000000000000000/0/1/99": b""}
    assert world.claim("B", Tier.T1, HERE, takeover=Takeover.YES) == "done"
    assert world.claim("C", Tier.T1, HERE, takeover=Takeover.YES) == "done"
