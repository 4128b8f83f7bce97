"""A filesystem dies at any moment of its work, and comes back: from local state and from the store alone, as one earlier state.

It is a process of its own that is killed (SIGKILL); the store of `memory://` is of this process, and lent to that one.
"""
from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.against.headless import Filesystem, matching
from tests.against.lent import Where, lent
from tests.against.programs import Program
from tests.places import Place

STEPS = 400                        # more than anybody does before it is killed
LINES = (1, 60)                    # it is killed after so many lines of its report,
PAUSE_S = 0.2                      # and some moments


@dataclass
class Promised:
    """What a filesystem said before it died, by the number of the last step."""

    begun: int = 0
    durable: int = 0
    sent: int = 0
    lines: int = 0

    def hear(self, what: str, number: int) -> None:
        self.lines += 1
        if what in ("mounted", "done"):
            self.begun = number
        if what in ("mounted", "durable", "sent"):
            self.durable = max(self.durable, number)
        if what == "sent":
            self.sent = number


@dataclass
class Machine:
    fs: Filesystem
    base: Path
    dice: random.Random
    seed: int
    known: int = 0                     # steps that the filesystem is known to be the result of
    folders: list[Path] = field(default_factory=list)

    def fresh(self) -> Path:
        """A local folder that nobody used yet."""
        self.folders.append(self.base / f"machine {len(self.folders)}")
        return self.folders[-1]

    def elsewhere(self, promised: Promised) -> int:
        """How far another machine sees it."""
        return matching(self.fs.look(self.fresh(), read_only=True), self.seed, promised.begun + 1)

    def killed(self, folder: Path) -> Promised:
        """Work until a random moment; what was promised by then."""
        lines, pause = self.dice.randint(*LINES), self.dice.uniform(0, PAUSE_S)
        with contextlib.ExitStack() as stack:
            where = None if self.fs.place.has_processes else stack.enter_context(lent(self.fs.open()))
            return self._killed(folder, where, lines, pause)

    def _killed(self, folder: Path, where: Where | None, lines: int, pause: float) -> Promised:
        place, promised, calls = self.fs.place, Promised(), 0
        told: dict[str, Any] = {
            "place": place.url, "options": dict(place.options), "login": place.login, "password": place.password,
            "sole": place.sole, "lent": where, "url": self.fs.url, "superblock": self.fs.blob.hex(), "folder": str(folder),
            "seed": self.seed, "known": self.known + 1, "steps": STEPS}
        with Program("tests.against.headless", told) as program:
            for line in program.lines():
                what, number, count = line.split()
                promised.hear(what, int(number))
                calls = int(count)
                if promised.lines == lines:
                    program.kill_after(pause)
        assert promised.lines >= lines, f"it ended by itself:\n{program.errors}"
        place.count(calls)
        return promised


@pytest.fixture(autouse=True)
def _settled(place: Place) -> None:
    if place.sole:
        pytest.skip("a store of neither tier is looked at again only when it has settled")


def test_killed_at_any_moment(place: Place, tmp_path: Path) -> None:
    seed = place.seed
    fs = Filesystem.make(place, tmp_path / "mkfs")
    machine = Machine(fs, tmp_path, random.Random(seed), seed)
    folder = machine.fresh()
    for round_ in range(place.rounds):
        promised = machine.killed(folder)
        from_store = machine.elsewhere(promised)
        from_local = matching(fs.look(folder), seed, promised.begun + 1)
        again = machine.elsewhere(promised)
        print(f"round {round_}: {promised}; the store has {from_store}, with local state {from_local}")
        assert promised.sent <= from_store, f"{promised.sent} steps were acknowledged as sent, and the store has {from_store}"
        assert max(promised.durable, from_store) <= from_local, f"{promised}; there {from_store}, here {from_local}"
        assert again == from_local, f"the store has {again} steps after the unmount, not {from_local}"
        machine.known = from_local
        if round_ % 2:
            folder = machine.fresh()
    assert fs.fsck() == []


def test_killed_and_the_machine_lost(place: Place, tmp_path: Path) -> None:
    """What comes back is what the store has; work goes on from there, on another machine."""
    seed = place.seed + 1000
    fs = Filesystem.make(place, tmp_path / "mkfs")
    machine = Machine(fs, tmp_path, random.Random(seed), seed)
    for _ in range(place.rounds):
        promised = machine.killed(machine.fresh())
        machine.known = matching(fs.look(machine.fresh()), seed, promised.begun + 1)
        assert promised.sent <= machine.known, f"{promised.sent} steps were acknowledged as sent, and the store has {machine.known}"
    assert fs.fsck() == []

