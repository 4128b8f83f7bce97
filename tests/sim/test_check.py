"""The checker lets pass what may be and nothing else: a history, and trees that are right and wrong in one thing."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from s3cfs.errors import DirectoryNotEmpty, EntryExists, InvalidArgument, NoSuchEntry

from .check import ClientLog, Finding, Moment, judge
from .model import EXCHANGE, NOREPLACE, Model, Node, Nodes, Version

ROOT = 1


class History:
    """Builds a log by operations on a model; times count up."""

    def __init__(self) -> None:
        self.model = Model(ROOT, {ROOT: Node(ROOT, 0o40755, nlink=2)})
        self.log = ClientLog(ROOT, [Moment(dict(self.model.nodes), "the beginning", 0, 0, 0.0)], model=self.model)
        self.time = 0

    def do(self, operation: str, *arguments: object, ino: int | None = None) -> None:
        began = self.time = self.time + 1
        for touched in dict.fromkeys(self.model.run(operation, *arguments, ino=ino)):
            if touched in self.model.nodes:
                node = self.model.nodes[touched]
                self.model.observe(SimpleNamespace(ino=touched, mode=node.mode, nlink=node.nlink, uid=0, gid=0, rdev=node.rdev,
                                                   size=len(node.data) if node.is_file else 0, mtime_ns=self.time, ctime_ns=self.time))
        self.time += 1
        self.log.moments.append(Moment(dict(self.model.nodes), operation, began, self.time, float(self.time)))


@pytest.fixture
def history() -> History:
    made = History()
    made.do("create", ROOT, b"f", 0o600, ino=2)                  # 1
    made.do("write", 2, 0, b"first" * 100)                       # 2
    made.do("release", 2)                                        # 3
    made.do("setxattr", 2, b"user.x", b"1")                      # 4
    made.do("open", 2, False)                                    # 5
    made.do("write", 2, 0, b"SECOND")                            # 6
    made.do("mkdir", ROOT, b"d", 0o755, ino=3)                   # 7
    made.do("write", 2, 500, b"third")                           # 8
    return made


def verdict(log: ClientLog, tree: Nodes, floor: int = 0) -> int:
    return judge(tree, [log], [floor], where="test").cut[0]


def seen(nodes: Nodes) -> Nodes:
    """As a scan finds it: files have one version."""
    return {ino: replace(node, versions=node.versions[-1:]) for ino, node in nodes.items()}


def test_every_state_of_the_history_is_one(history):
    for k, moment in enumerate(history.log.moments):
        tree = seen(moment.nodes)
        assert verdict(history.log, tree) <= k
        assert verdict(history.log, tree, floor=k) == k


def test_what_was_acknowledged_must_be_there(history):
    with pytest.raises(Finding, match="I3"):
        verdict(history.log, seen(history.log.moments[3].nodes), floor=4)


def test_data_of_an_open_file_may_lag_but_its_versions_are_all_there_is(history):
    last = history.log.moments[-1].nodes
    old, middle, new = last[2].versions
    part_of_a_write = Version(new.data[:-1], new.mtime, new.ctime)
    for version in (old, middle, new, part_of_a_write, Version(new.data[:3] + old.data[3:] + new.data[500:], new.mtime, old.ctime)):
        assert verdict(history.log, {**last, 2: replace(last[2], versions=(version,))}, floor=8) == 8
    for version in (Version(b"", new.mtime, new.ctime), Version(b"other" * 100, old.mtime, old.ctime), replace(new, mtime=99),
                    Version(new.data + b"x", new.mtime, new.ctime)):
        with pytest.raises(Finding, match="I1"):
            verdict(history.log, {**last, 2: replace(last[2], versions=(version,))}, floor=7)


def change(tree: Nodes, ino: int, **what: Any) -> Nodes:
    return {**tree, ino: replace(tree[ino], **what)}


WRONG: dict[str, Callable[[Nodes], Nodes]] = {
    "an empty file": lambda tree: change(tree, 2, versions=(replace(tree[2].versions[0], data=b""),)),
    "a lost attribute": lambda tree: change(tree, 2, xattrs={}),
    "a wrong mode": lambda tree: change(tree, 2, mode=0o100644),
    "a wrong link count": lambda tree: change(tree, 2, nlink=2),
    "a wrong time of a folder": lambda tree: change(tree, ROOT, mtime=12345),
    "a lost name": lambda tree: change(tree, ROOT, entries={}),
    "another inode": lambda tree: {ROOT: replace(tree[ROOT], entries={b"f": 7}), 7: replace(tree[2], ino=7)},
    "a name too many": lambda tree: {**change(tree, ROOT, entries={**tree[ROOT].entries, b"g": 9}), 9: replace(tree[2], ino=9)},
    "a dangling name": lambda tree: change(tree, ROOT, entries={**tree[ROOT].entries, b"g": 9}),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_trees_are_found(history, fault):
    tree = seen(history.log.moments[4].nodes)
    assert verdict(history.log, tree) == 4
    with pytest.raises(Finding, match="I1"):
        verdict(history.log, WRONG[fault](tree))


def test_a_rename_over_a_file_takes_its_content_along():
    made = History()
    made.do("create", ROOT, b"f", 0o600, ino=2)
    made.do("write", 2, 0, b"old")
    made.do("release", 2)
    made.do("create", ROOT, b"t", 0o600, ino=3)
    made.do("write", 3, 0, b"new")
    made.do("rename", ROOT, b"t", ROOT, b"f", 0)
    tree = seen(made.log.moments[-1].nodes)
    assert verdict(made.log, tree, floor=6) == 6
    with pytest.raises(Finding):
        verdict(made.log, change(tree, 3, versions=(replace(tree[3].versions[0], data=b""),)))


def test_an_operation_that_was_running_may_have_happened(history):
    done = history.model.copy()
    done.run("mkdir", ROOT, b"late", 0o700, ino=9)
    tree = seen({**done.nodes, ROOT: replace(done.nodes[ROOT], mtime=50, ctime=50), 9: replace(done.nodes[9], mtime=50, ctime=50)})
    with pytest.raises(Finding):
        verdict(history.log, tree)
    history.log.running = ("mkdir", (ROOT, b"late", 0o700))
    assert verdict(history.log, tree) == len(history.log.moments)


def test_several_clients_make_a_cut():
    def log(root: int, times: list[tuple[int, int]]) -> ClientLog:
        made = ClientLog(root, [Moment({root: Node(root, 0o40755, nlink=2)}, "the beginning", 0, 0, 0.0)])
        for number, (began, ended) in enumerate(times, 1):
            made.moments.append(Moment({root: Node(root, 0o40755, nlink=2, mtime=number)}, "touch", began, ended, 0.0))
        return made

    logs = [log(10, [(1, 2), (5, 6)]), log(20, [(3, 4), (7, 8)])]

    def at(first: int, second: int) -> Nodes:
        return {**logs[0].moments[first].nodes, **logs[1].moments[second].nodes}

    for first, second in ((0, 0), (1, 0), (1, 1), (2, 1), (2, 2)):
        assert judge(at(first, second), logs, [0, 0], where="test").cut == [first, second]
    for first, second in ((0, 1), (2, 0), (1, 2), (0, 2)):
        with pytest.raises(Finding, match="I1"):
            judge(at(first, second), logs, [0, 0], where="test")


def test_inode_numbers_are_not_used_twice():
    made = History()
    made.do("create", ROOT, b"f", 0o600, ino=2)
    made.do("release", 2)
    made.do("unlink", ROOT, b"f")
    with pytest.raises(AssertionError, match="I8"):
        made.do("create", ROOT, b"f", 0o600, ino=2)


def test_the_model_refuses():
    made = History()
    made.do("mkdir", ROOT, b"d", 0o755, ino=2)
    made.do("mkdir", 2, b"e", 0o755, ino=3)
    refuses = made.model.refuses
    assert refuses("mkdir", ROOT, b"d", 0) is EntryExists
    assert refuses("rmdir", ROOT, b"d") is DirectoryNotEmpty
    assert refuses("rename", ROOT, b"d", 3, b"x", 0) is InvalidArgument
    assert refuses("rename", 2, b"e", ROOT, b"d", NOREPLACE) is EntryExists
    assert refuses("rename", 2, b"e", ROOT, b"none", EXCHANGE) is NoSuchEntry
    assert refuses("rename", 2, b"e", ROOT, b"x", 0) is None
    assert made.model.nodes[ROOT].nlink == 3
