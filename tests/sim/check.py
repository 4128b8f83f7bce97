"""May this recovered tree be? The promise is in docs/invariants.md, I1-I5; here it is decided.

Each client's operations are a sequence; a recovered filesystem is, in each client's folder, the state after some first k of them
(k at least what was acknowledged), and the k of several clients form a cut: nothing is there without what had ended before it began.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from .model import Attributes, Model, Node, Nodes, Version


class Finding(AssertionError):
    """The system under test did something it promised not to do."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The state after an operation. `began` and `ended` are on the driver's count of events, `at_s` is virtual time."""

    nodes: Nodes
    what: str
    began: int
    ended: int
    at_s: float


@dataclass
class ClientLog:
    """What one client did in its folder since the last recovery; `moments[0]` is the state then."""

    root: int
    moments: list[Moment]
    running: tuple[str, tuple[object, ...]] | None = None      # begun and not ended: may have happened or not
    running_began: int = 0
    model: Model | None = None

    def count_until(self, seconds: float) -> int:
        """How many operations had ended by then."""
        return sum(moment.at_s <= seconds for moment in self.moments[1:])


@dataclass
class Verdict:
    """Which k each client's folder is at."""

    cut: list[int]
    spent: set[int] = field(default_factory=set)               # inode numbers this history has used


def below(nodes: Nodes, root: int) -> Nodes:
    """What can be reached from there."""
    found: Nodes = {}
    todo = [root]
    while todo:
        ino = todo.pop()
        if ino not in found and ino in nodes:
            found[ino] = nodes[ino]
            todo.extend(nodes[ino].entries.values())
    return found


def difference(found: Nodes, wanted: Nodes, root: int) -> str:
    """"" when `found` is a tree that a crash may have left of the state `wanted`; else the first difference."""
    wanted = below(wanted, root)
    if found.keys() != wanted.keys():
        return f"inodes missing {sorted(wanted.keys() - found.keys())}, too many {sorted(found.keys() - wanted.keys())}"
    for ino in sorted(wanted):
        if text := _node_difference(found[ino], wanted[ino]):
            return f"inode {ino}: {text}"
    return ""


RECOVERED = "recovered"          # what a moment says in which a machine began with what it found
_PLAIN = ("mode", "nlink", "uid", "gid", "rdev", "target", "xattrs", "entries")


def _node_difference(found: Node, wanted: Node) -> str:
    if found is wanted:
        return ""
    for name in _PLAIN:
        ours, theirs = getattr(wanted, name), getattr(found, name)
        if ours != theirs:
            return f"{name} is {_short(theirs)}, not {_short(ours)}"
    if not wanted.is_file:
        if (found.mtime, found.ctime) != (wanted.mtime, wanted.ctime):
            return f"(mtime, ctime) is {(found.mtime, found.ctime)}, not {(wanted.mtime, wanted.ctime)}"
        return ""
    return _content_difference(found.versions[-1], wanted.versions)


def _content_difference(found: Version, versions: Sequence[Version]) -> str:
    """Of an unordered file: every byte, the size and the times each come from one of its versions; while it grows, the size may also be
    in between, since a write may be there in part (I2)."""
    if found in versions:
        return ""
    of = f" ({len(versions)} versions)" if len(versions) > 1 else ""
    if found.mtime not in {version.mtime for version in versions}:
        return f"mtime is {found.mtime}, not {[version.mtime for version in versions]}"
    if found.ctime not in {version.ctime for version in versions}:
        return f"ctime is {found.ctime}, not {[version.ctime for version in versions]}"
    sizes = [len(version.data) for version in versions]
    if len(found.data) not in sizes and not any(low < len(found.data) < high for low, high in pairwise(sizes)):
        return f"size is {len(found.data)}, not {sorted(set(sizes))}{of}"
    if any(version.data == found.data for version in versions):
        return ""
    padded = [version.data[:len(found.data)].ljust(len(found.data), b"\0") for version in versions]
    offset = _strange_byte(found.data, padded, 0, len(found.data))
    if offset is None:
        return ""
    return f"byte {offset} of {len(found.data)} is {found.data[offset]}, not {sorted({each[offset] for each in padded})}{of}"


def _strange_byte(found: bytes, padded: Sequence[bytes], low: int, high: int) -> int | None:
    """The first one from `low` to `high` that is in none of the others at its place. Halves are compared, not bytes."""
    if any(each[low:high] == found[low:high] for each in padded):
        return None
    if high - low == 1:
        return low
    middle = (low + high) // 2
    first = _strange_byte(found, padded, low, middle)
    return first if first is not None else _strange_byte(found, padded, middle, high)


def recovered(log: ClientLog, cut: int) -> Nodes:
    """What was found where the first `cut` operations fitted (`History.go_on` notes it); else the newest that may be left of them."""
    if cut + 1 < len(log.moments) and log.moments[cut + 1].what == RECOVERED:
        return log.moments[cut + 1].nodes
    return {ino: replace(node, versions=node.versions[-1:]) for ino, node in below(log.moments[cut].nodes, log.root).items()}


def covers(tree: Nodes, log: ClientLog, cut: int, floor: int) -> bool:
    """Whether this tree, where the first `cut` operations fitted, may be left of the first `floor` too: nobody was promised what came
    between."""
    return floor <= cut or not difference(tree, log.moments[floor].nodes, log.root)


def _distance(found: Nodes, wanted: Nodes, root: int) -> int:
    wanted = below(wanted, root)
    common = found.keys() & wanted.keys()
    return 3 * len(found.keys() ^ wanted.keys()) + sum(bool(_node_difference(found[ino], wanted[ino])) for ino in common)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 300 else text[:300] + "…"


def after_running(log: ClientLog, found: Nodes) -> Nodes | None:
    """The state if the operation that was running happened, its inode number and times being those found."""
    if log.running is None or log.model is None:
        return None
    operation, arguments = log.running
    model = log.model.copy()
    ino = None
    if operation in ("mkdir", "create", "mknod", "symlink"):
        parent, name = arguments[:2]
        assert isinstance(parent, int) and isinstance(name, bytes)
        ino = found[parent].entries.get(name) if parent in found else None
        if ino is None or ino in model.spent:
            return None
    if model.refuses(operation, *arguments):
        return None
    for touched in dict.fromkeys(model.run(operation, *arguments, ino=ino)):
        if touched in found and touched in model.nodes:
            try:
                model.observe(attributes(found[touched], model.nodes[touched]), back=True)
            except AssertionError:
                return None
    return model.nodes


@dataclass(slots=True)
class _Seen:
    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    mtime_ns: int
    ctime_ns: int


def attributes(node: Node, like: Node) -> Attributes:
    """A node as something to observe; a file's size is taken from `like`, since its content is judged by `difference`."""
    last = node.versions[-1] if node.is_file else None
    size = len(like.data) if like.is_file and node.is_file else 0
    return _Seen(node.ino, node.mode, node.nlink, node.uid, node.gid, node.rdev, size,
                 last.mtime if last else node.mtime, last.ctime if last else node.ctime)


def judge(scan: Nodes, logs: Sequence[ClientLog], floors: Sequence[int], *, where: str) -> Verdict:
    """Which states these are. Finding when there is no such cut at or above `floors`."""
    candidates: list[list[int]] = []
    for log, floor in zip(logs, floors, strict=True):
        found = below(scan, log.root)
        fits = [k for k in range(len(log.moments)) if not difference(found, log.moments[k].nodes, log.root)]
        running = after_running(log, found)
        if running is not None and not difference(found, running, log.root):
            fits.append(len(log.moments))
        allowed = [k for k in fits if k >= floor]
        if not allowed:
            raise Finding(_explain(log, found, floor, fits, where))
        candidates.append(allowed)
    cut = [allowed[0] for allowed in candidates]
    while True:
        raised = list(cut)
        for index in range(len(logs)):
            need = max((_needed(logs[other], cut[other], logs[index]) for other in range(len(logs)) if other != index), default=0)
            if cut[index] < need:
                later = [k for k in candidates[index] if k >= need]
                if not later:
                    raise Finding(f"I1, {where}: folder {logs[index].root} is at {cut[index]} (of {len(logs[index].moments) - 1}), "
                                  f"but others hold what began after its operation {need} had ended; cut {cut}")
                raised[index] = later[0]
        if raised == cut:
            break
        cut = raised
    spent: set[int] = set(scan)
    for log, k in zip(logs, cut, strict=True):
        for moment in log.moments[:k + 1]:
            spent |= moment.nodes.keys()
    return Verdict(cut, spent)


def _needed(other: ClientLog, k: int, log: ClientLog) -> int:
    """How many operations of `log` had ended when the k-th of `other` began."""
    if k == 0 or k >= len(other.moments):
        return 0
    began = other.moments[k].began
    return sum(moment.ended < began for moment in log.moments[1:])


def _explain(log: ClientLog, found: Nodes, floor: int, fits: list[int], where: str) -> str:
    last = len(log.moments) - 1
    if fits:
        return (f"I3, {where}: folder {log.root} is back at operation {fits[-1]} ({log.moments[min(fits[-1], last)].what}), "
                f"but {floor} of {last} were acknowledged (the last of them: {log.moments[floor].what})")
    lines = [f"I1, {where}: folder {log.root} is in no state it ever was in ({last} operations, {floor} acknowledged)"]
    nearest = sorted(range(last + 1), key=lambda k: (_distance(found, log.moments[k].nodes, log.root), k < floor, -k))
    for k in nearest[:4]:
        lines.append(f"  after {k} ({log.moments[k].what}): {difference(found, log.moments[k].nodes, log.root)}")
    if log.running is not None:
        lines.append(f"  running: {_short(log.running)}")
    return "\n".join(lines[:14])
