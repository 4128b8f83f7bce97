"""What the clients did and what they were told, over the lives of one history."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .check import RECOVERED, ClientLog, Moment, Verdict, below, covers, recovered
from .model import Model, Nodes


@dataclass
class Events:
    """The driver's count of what began and ended, over all clients."""

    count: int = 0

    def next(self) -> int:
        self.count += 1
        return self.count


@dataclass(frozen=True, slots=True)
class Ack:
    """`remote` or only local; what had ended of each client's log, and how many changes the bucket had seen, when it was given."""

    remote: bool
    floors: tuple[int, ...]
    moment: int
    what: str
    at_s: float


class History:
    """Logs of all clients, acknowledgements, and what the state that is recovered next must hold (`floors`)."""

    def __init__(self, events: Events, tree: Nodes, roots: Sequence[int]) -> None:
        self.events = events
        self.logs = [ClientLog(root, [Moment(below(tree, root), "the beginning", 0, 0, 0.0)]) for root in roots]
        self.acks: list[Ack] = []
        self.spent = set(tree)
        self.floors = [0] * len(roots)
        self.taken_at = [0] * len(roots)           # where a machine took this over from another,
        self.base = 0                              # ... and how many acknowledgements there were then
        self.taken_anew = True                     # it is about to
        self.unverified = False                    # the state recovered has not been judged yet

    def counts(self) -> list[int]:
        return [len(log.moments) - 1 for log in self.logs]

    def acknowledge(self, remote: bool, floors: Sequence[int], moment: int, what: str, at_s: float) -> None:
        self.acks.append(Ack(remote, tuple(floors), moment, what, at_s))

    def floors_of(self, remote: bool, moment: int | None = None) -> list[int]:
        """The most that was acknowledged (until the bucket had seen `moment` changes)."""
        chosen = [ack.floors for ack in self.acks if (ack.remote or not remote) and (moment is None or ack.moment <= moment)]
        return [max(numbers) for numbers in zip(*chosen, strict=True)] if chosen else [0] * len(self.logs)

    def raise_by_lag(self, floors: list[int], seconds: float, fair_since: float) -> None:
        """I5: what had ended by `seconds`. But for that the system must have had a fair chance since then."""
        if fair_since <= seconds:
            for index, log in enumerate(self.logs):
                floors[index] = max(floors[index], log.count_until(seconds))

    def go_on(self, tree: Nodes, verdict: Verdict, now_s: float) -> None:
        """What came after the state that was recovered never happened. What came before may still come back: the recovered
        state itself need not be synced, nor in the store."""
        for log, k in zip(self.logs, verdict.cut, strict=True):
            event = self.events.next()
            began = log.running_began if k == len(log.moments) else event       # it is what the operation came to that was running
            log.moments[k + 1:] = [Moment(below(tree, log.root), RECOVERED, began, event, now_s)]
            log.running = log.model = None
        self.acks = [replace(ack, floors=tuple(map(min, ack.floors, verdict.cut))) for ack in self.acks]
        if self.taken_anew:
            self.taken_at, self.base = list(verdict.cut), len(self.acks)
        self.taken_at = list(map(min, self.taken_at, verdict.cut))
        self.spent, self.taken_anew = verdict.spent, False
        self.unverified = False

    def fork(self, tree: Nodes, verdict: Verdict, now_s: float) -> History:
        """Another machine goes on from the state it recovered; this one's own end is in no history from now on."""
        other = self.copy()
        other.go_on(tree, verdict, now_s)
        return other

    def copy(self) -> History:
        other = History(self.events, {}, [])
        other.logs = [replace(log, moments=list(log.moments)) for log in self.logs]
        other.acks, other.spent = list(self.acks), set(self.spent)
        other.floors, other.unverified = list(self.floors), self.unverified
        other.taken_at, other.base = list(self.taken_at), self.base
        return other

    def left_with(self, floors: list[int]) -> History:
        """A copy to be judged later, by these."""
        other = self.copy()
        other.floors, other.unverified = floors, True
        return other

    def may_go_on_instead_of(self, other: History) -> bool:
        """Whether the `other`, which took over, said of nothing of its own that it is in the store."""
        return all(covers(recovered(log, cut), log, cut, floor) for ack in other.acks[other.base:] if ack.remote
                   for log, floor, cut in zip(other.logs, ack.floors, other.taken_at, strict=True))

    def unmounted(self) -> None:
        """A moment of its own: until it ended, open files were free."""
        for log in self.logs:
            model = Model(log.root, log.moments[-1].nodes)
            model.flush_all()
            began, ended = self.events.next(), self.events.next()
            log.moments.append(Moment(model.nodes, "unmount", began, ended, log.moments[-1].at_s))
