"""Work on a tree, in one known order, that a crash will interrupt. Run as a program: `python -m tests.e2e.copier PLAN ROOT PROGRESS`.

A plan is a list of steps, done one after the other; PROGRESS gets the number of each step that has been done, one a line.
`tree_after` says what a tree is after the first n steps, without doing them: that is what a recovered tree is compared with.
"""
from __future__ import annotations

import hashlib
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

Step = dict[str, Any]
Tree = dict[str, tuple[int, str] | str]          # name -> "folder", or (size, digest)


def content(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def plan(seed: int, count: int) -> list[Step]:
    """New files, replaced ones (written beside and renamed over), appended ones, renamed and removed ones, in a few folders."""
    dice = random.Random(seed)
    steps: list[Step] = []
    folders, files = [], list[str]()
    for number in range(count):
        kind = dice.choices(("new", "replace", "append", "move", "remove"), (10, 4, 2, 2, 1))[0]
        size = dice.choice((0, 1, 300, 700, 4096, 20_000, 100_000, 700_000))
        seed_now = dice.randrange(2**32)
        if number % 25 == 0:
            folders.append(f"folder {number}")
            steps.append({"do": "folder", "name": folders[-1]})
        elif kind == "new" or len(files) < 5:
            name = f"{dice.choice(folders)}/file {number}"
            files.append(name)
            steps.append({"do": "new", "name": name, "seed": seed_now, "size": max(1, size)})
        elif kind in ("replace", "append"):
            steps.append({"do": kind, "name": dice.choice(files), "seed": seed_now, "size": max(1, size)})
        elif kind == "move":
            name = files.pop(dice.randrange(len(files)))
            files.append(f"{dice.choice(folders)}/moved {number}")
            steps.append({"do": "move", "name": name, "to": files[-1]})
        else:
            steps.append({"do": "remove", "name": files.pop(dice.randrange(len(files)))})
        steps[-1]["sync"] = dice.random() < 0.1
    return steps


def last_synced(steps: list[Step], done: int) -> int:
    """The last of the first `done` steps that ended with an fsync."""
    return max((number for number in range(done + 1) if number and steps[number - 1]["sync"]), default=0)


def do(root: Path, step: Step) -> None:
    path = root / step["name"]
    if step["do"] == "folder":
        path.mkdir()
    elif step["do"] == "new":
        path.write_bytes(content(step["seed"], step["size"]))
    elif step["do"] == "replace":
        beside = path.with_name(".beside")
        beside.write_bytes(content(step["seed"], step["size"]))
        beside.rename(path)
    elif step["do"] == "append":
        with path.open("ab") as file:
            file.write(content(step["seed"], step["size"]))
    elif step["do"] == "move":
        path.rename(root / step["to"])
    else:
        path.unlink()
    if step["sync"]:
        handle = os.open(path.parent, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


class Model:
    """The tree that a number of steps makes."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.folders: set[str] = set()

    def do(self, step: Step) -> None:
        name = step["name"]
        if step["do"] == "folder":
            self.folders.add(name)
        elif step["do"] in ("new", "replace"):
            self.files[name] = content(step["seed"], step["size"])
        elif step["do"] == "append":
            self.files[name] += content(step["seed"], step["size"])
        elif step["do"] == "move":
            self.files[step["to"]] = self.files.pop(name)
        else:
            del self.files[name]

    def tree(self) -> Tree:
        return {**dict.fromkeys(self.folders, "folder"), **{name: (len(data), digest(data)) for name, data in self.files.items()}}


def digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()


def tree_of(root: Path) -> Tree:
    found: Tree = {}
    for path in sorted(root.rglob("*")):
        found[str(path.relative_to(root))] = "folder" if path.is_dir() else (path.stat().st_size, digest(path.read_bytes()))
    return found


def matching_step(steps: list[Step], found: Tree) -> tuple[int, list[str]]:
    """How many steps `found` is the result of: (n, names that are not as after n steps, none if possible).

    Those can only be what step n + 1, which was being done, may leave: of several n with one such name the one where it is so.
    """
    model, digests = Model(), dict[str, tuple[int, str]]()
    best: tuple[int, list[str]] = (-1, [])
    for n in range(len(steps) + 1):
        if n:
            model.do(steps[n - 1])
            for name in {steps[n - 1]["name"], steps[n - 1].get("to", "")}:
                digests.pop(name, None)
                if name in model.files:
                    digests[name] = (len(model.files[name]), digest(model.files[name]))
        expected: Tree = {**dict.fromkeys(model.folders, "folder"), **digests}
        wrong = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
        half_done = may_be_half_done(steps[n] if n < len(steps) else None, wrong, found)
        if best[0] < 0 or len(wrong) < len(best[1]) or (len(wrong) == len(best[1]) and half_done):
            best = n, sorted(wrong)
    return best


def may_be_half_done(step: Step | None, names: list[str], found: Tree) -> bool:
    """Whether these differences are what a step that was being done may leave: part of a new file that was still open, the
    file beside that was not renamed yet. A file that was there before is never another one, and never empty.
    """
    if not names:
        return True
    if step is None or len(names) > 1:
        return False
    name, = names
    if step["do"] == "new":
        return bool(name == step["name"])
    if step["do"] == "replace":
        return name == str(Path(step["name"]).with_name(".beside"))
    return bool(step["do"] == "append" and name == step["name"] and name in found)


def main(plan_file: str, root: str, progress: str) -> None:
    steps = json.loads(Path(plan_file).read_text())
    with open(progress, "w", buffering=1) as done:
        for number, step in enumerate(steps, 1):
            try:
                do(Path(root), step)
            except OSError:
                return                    # the mount has died
            done.write(f"{number}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)
