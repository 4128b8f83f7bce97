"""The daemon is killed in the middle of work: what comes back is one earlier state, from local state and from the store alone."""
from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import Store

from . import copier
from .conftest import Make
from .kit import REPOSITORY, Filesystem, Mount, until
from .manifest import digest
from .sources import mixed_file, standard_library

pytestmark = pytest.mark.mount
STEPS = 600
KILL_AFTER = (pytest.param(170, marks=pytest.mark.soak), 400)


class Work:
    """The copier at work, in a process of its own."""

    def __init__(self, base: Path, root: Path, steps: list[copier.Step]) -> None:
        self.steps, self.progress = steps, base / "progress"
        plan = base / "plan"
        plan.write_text(json.dumps(steps))
        self.progress.touch()
        self.process = subprocess.Popen([sys.executable, "-m", "tests.e2e.copier", plan, root, self.progress], cwd=REPOSITORY)

    def done(self) -> int:
        return len(self.progress.read_text().splitlines())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def working(base: Path, root: Path, steps: list[copier.Step]) -> Iterator[Work]:
    work = Work(base, root, steps)
    try:
        yield work
    finally:
        work.close()


def recovered(steps: list[copier.Step], mount: Mount) -> int:
    """How many steps the tree is the result of; one that was half done may show."""
    found = copier.tree_of(mount.path)
    n, wrong = copier.matching_step(steps, found)
    following = steps[n] if n < len(steps) else None
    assert copier.may_be_half_done(following, wrong, found), f"after {n} steps, before {following}: {[(w, found.get(w)) for w in wrong]}"
    return n


@pytest.mark.parametrize("kill_after", KILL_AFTER)
def test_kill_in_the_middle_of_work(make: Make, store: Store, kill_after: int, seed: int):
    steps = copier.plan(seed + kill_after, STEPS)
    fs = make(store).mkfs()
    mount = fs.mount("--commit-interval", "100ms")
    with working(fs.base, mount.path, steps) as work:
        until(lambda: work.done() >= kill_after, f"{kill_after} steps")
        mount.kill()
        work.process.wait(10)
        done = work.done()
    check_both(fs, steps, done)


def check_both(fs: Filesystem, steps: list[copier.Step], done: int) -> None:
    """From the store alone; from local state, which has more; and then from the store again, which has the same."""
    fs.keep()
    fs.lose()
    mount = fs.mount("-o", "ro", where="from the store", cache="other machine")
    from_store = recovered(steps, mount)
    mount.umount()
    mount = fs.mount("--commit-interval", "100ms", cache="kept")     # the dead mount point is cleaned, too
    from_local = recovered(steps, mount)
    assert max(from_store, copier.last_synced(steps, done)) <= from_local <= done + 1
    mount.umount()
    mount = fs.mount("-o", "ro", where="from the store", cache="third machine")
    assert recovered(steps, mount) == from_local
    mount.umount()
    fs.fsck()


@pytest.mark.soak
@pytest.mark.parametrize("round_", range(40))
def test_kill_at_any_moment(make: Make, round_: int, seed: int):
    dice = random.Random(f"{seed} {round_}")
    steps = copier.plan(dice.randrange(2**32), 800)
    fs = make().mkfs()
    mount = fs.mount("--commit-interval", dice.choice(("100ms", "300ms", "1s")))
    after = dice.randrange(1, 790)
    with working(fs.base, mount.path, steps) as work:
        until(lambda: work.done() >= after, f"{after} steps")
        mount.kill()
        work.process.wait(10)
        done = work.done()
    check_both(fs, steps, done)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source tree with a large file in the middle of it."""
    root = tmp_path_factory.mktemp("source")
    standard_library(root / "library", 600)
    mixed_file(root / "library" / "large", 48 << 20, 3)
    return root / "library"


@pytest.mark.parametrize("when", ["in the large file", *[pytest.param(n, marks=pytest.mark.soak) for n in ("late", "early", *range(20))]])
def test_kill_while_cp_copies(make: Make, store: Store, source: Path, when: str | int, seed: int):
    fs = make(store).mkfs()
    mount = fs.mount("--commit-interval", "100ms")
    order, kept = fs.base / "order", 0
    root = os.open(mount.path, os.O_RDONLY)

    def begun_and_fsynced() -> int:
        nonlocal kept
        begun = order.read_text().count("\n")
        os.fsync(root)                     # transactions in the middle of it; the one that was begun last may be half done
        kept = max(0, begun - 2)
        return begun

    with order.open("w") as output, subprocess.Popen(["stdbuf", "-oL", "cp", "-av", source, mount / "copy"], stdout=output,
                                                     stderr=subprocess.DEVNULL) as copying:
        count = {"early": 50, "late": 550}.get(str(when)) or random.Random(f"{seed} {when}").randrange(1, sum(1 for _ in source.rglob("*")))
        try:
            if when == "in the large file":
                until(lambda: begun_and_fsynced() and "library/large'" in order.read_text(), "the large file")
                until(lambda: begun_and_fsynced() and mount.stat()["data"]["unique_bytes"] > 16 << 20, "some of it is staged")
            else:
                until(lambda: begun_and_fsynced() >= count, f"{count} entries")
            mount.kill()
        finally:
            copying.kill()
            os.close(root)
    begun = [line.split("' -> '")[0].strip("'\n") for line in order.read_text().splitlines()]
    names = [str(Path(name).relative_to(source)) for name in begun if Path(name) != source]
    fs.keep()
    fs.lose()
    mount = fs.mount("-o", "ro", cache="other machine", where="from the store")
    from_store = _check_prefix(source, mount / "copy", names)
    mount.umount()
    mount = fs.mount(cache="kept")
    from_local = _check_prefix(source, mount / "copy", names)
    print(f"{len(names)} begun, {kept} fsynced, {from_local} here, {from_store} in the store")
    assert max(kept, from_store) <= from_local <= len(names)
    mount.umount()
    fs.fsck(cache="kept")


def _check_prefix(source: Path, copy: Path, names: list[str]) -> int:
    """What is in `copy` are the first n of `names`, whole; the last one may be half done. n."""
    found = {str(path.relative_to(copy)) for path in copy.rglob("*")} if copy.exists() else set()
    n = len(found)
    assert found == set(names[:n]), f"not the first {n}: {sorted(found.symmetric_difference(names[:n]))[:5]}"
    for number, name in enumerate(names[:n], 1):
        ours, theirs = copy / name, source / name
        if theirs.is_dir():
            continue
        same = digest(ours) == digest(theirs)
        if number < n:
            assert same, f"{name} has {ours.stat().st_size} of {theirs.stat().st_size} bytes"
            assert (ours.stat().st_mtime_ns, ours.stat().st_mode) == (theirs.stat().st_mtime_ns, theirs.stat().st_mode), name
        elif not same:
            assert ours.read_bytes() in (b"", *[theirs.read_bytes()[:ours.stat().st_size]]), f"{name} is no beginning of the file"
    return n


def test_what_was_acknowledged_survives(make: Make, store: Store, seed: int):
    """After `ctl flush`: without local state. After fsync of a file and its folder: with it."""
    steps = copier.plan(seed, 200)
    fs = make(store).mkfs()
    mount = fs.mount("--commit-interval", "30s")
    for step in steps[:100]:
        copier.do(mount.path, step)
    mount.flush()
    for step in steps[100:]:
        copier.do(mount.path, step)
    fsync_all(mount)
    mount.kill()
    fs.keep()
    fs.lose()
    mount = fs.mount("-o", "ro", cache="other machine")
    assert recovered(steps, mount) == 100
    mount.umount()
    mount = fs.mount(cache="kept")
    assert recovered(steps, mount) == 200
    mount.umount()


def fsync_all(mount: Mount) -> None:
    subprocess.run(["sync", *list(mount.path.rglob("*")), mount.path], check=True)


def test_sync_remote_acknowledges_what_the_store_has(make: Make, store: Store, seed: int):
    steps = copier.plan(seed, 60)
    fs = make(store).mkfs()
    mount = fs.mount("--sync", "remote", "--commit-interval", "60s")
    for step in steps:
        copier.do(mount.path, step)
    last = mount / "last"
    last.write_bytes(b"last")
    subprocess.run(["sync", last], check=True)
    mount.kill()
    fs.lose()
    mount = fs.mount(cache="other machine")
    assert (mount / "last").read_bytes() == b"last"
    (mount / "last").unlink()
    assert recovered(steps, mount) == 60
    mount.umount()


def test_two_crashes_in_a_row_and_a_crash_at_mount(make: Make, store: Store, seed: int):
    steps = copier.plan(seed, 300)
    fs = make(store).mkfs()
    kept = 0
    for stop in (100, 200, 300):
        mount = fs.mount("--commit-interval", "200ms")
        kept = recovered(steps[:stop], mount)
        assert kept >= stop - 100 - 1 or stop == 100
        for leftover in mount.path.rglob(".beside"):
            leftover.unlink()
        redo = steps[kept:stop]
        if redo and redo[0]["do"] in ("new", "append"):          # half done before
            (mount / redo[0]["name"]).unlink(missing_ok=redo[0]["do"] == "new")
            if redo[0]["do"] == "append":
                model = copier.Model()
                for step in steps[:kept]:
                    model.do(step)
                (mount / redo[0]["name"]).write_bytes(model.files[redo[0]["name"]])
        for step in redo:
            copier.do(mount.path, step)
        fsync_all(mount)
        mount.kill()
    _kill_while_mounting(fs)
    mount = fs.mount()
    assert recovered(steps, mount) == 300
    mount.umount()
    fs.fsck(cache="cache")
    fs.lose()
    mount = fs.mount()
    assert recovered(steps, mount) == 300
    mount.umount()


def _kill_while_mounting(fs: Filesystem) -> None:
    """At a moment when local state is open and the office is being taken."""
    path = fs.base / "mnt"
    process = subprocess.Popen([sys.executable, "-m", "s3cfs", "mount", "--fg", "--cachedir", fs.base / "cache", fs.url, path],
                               env=fs.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lock = next(fs.base.glob("cache/*/lock"))
    try:
        until(lambda: f'"pid": {process.pid},' in lock.read_text(), "the local state is locked")
    finally:
        process.kill()
        process.wait()
