"""The house: how many rooms a newcomer sees, how large they are, no stairs in a circle; the link s3cfs/backends -> ../backends."""
from __future__ import annotations

import graphlib
import importlib
import os
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent


def test_the_link_is_a_link():
    assert os.readlink(ROOT / "s3cfs" / "backends") == "../backends"
    assert (ROOT / "backends" / "base.py").is_file() and not (ROOT / "backends").is_symlink()


def test_backends_is_refused_under_its_bare_name():
    with pytest.raises(ImportError, match=r"s3cfs\.backends"):
        importlib.import_module("backends")


def test_it_runs_uninstalled_from_the_checkout():
    done = subprocess.run([sys.executable, "-c", "import s3cfs.backends.base as b; print(b.__file__)"], cwd=ROOT, text=True,
                          capture_output=True, check=True)
    assert os.path.realpath(done.stdout.strip()) == os.path.realpath(ROOT / "backends" / "base.py")


def test_at_most_twenty_things_side_by_side():
    seen = sorted(entry.name for entry in (ROOT / "s3cfs").iterdir() if entry.name != "__pycache__")
    assert len(seen) <= 20, seen


def test_nothing_has_strayed_to_the_top():
    """What is kept there, not what lies there."""
    kept = subprocess.run(["git", "ls-files"], cwd=ROOT, text=True, capture_output=True, check=True).stdout.splitlines()
    assert {name.partition("/")[0] for name in kept} == {
        ".ci", ".gitignore", "LICENSE", "Makefile", "README.md", "backends", "contrib", "docs", "pyproject.toml", "s3cfs", "tests"}


def test_no_file_is_over_400_lines():
    long = {str(path): lines for folder in ("s3cfs", "backends") for path in (ROOT / folder).rglob("*.py")
            if (lines := len(path.read_text().splitlines())) > 400}
    assert not long


def circles(imports: dict[str, set[str]]) -> object:
    try:
        list(graphlib.TopologicalSorter(imports).static_order())
    except graphlib.CycleError as error:
        return error.args[1]
    return None


def test_imports_run_without_a_circle():
    """Among the parts of s3cfs/, among all modules, those for type checkers only included. (That they go down only: lint-imports.)"""
    graph = grimp.build_graph("s3cfs", cache_dir=None)
    modules = {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}
    parts: dict[str, set[str]] = {}
    for module, imported in modules.items():
        part = module.split(".")[1:2]
        for other in imported:
            if part and other.split(".")[1:2] not in ([], part):
                parts.setdefault(part[0], set()).add(other.split(".")[1])
    assert len(parts) > 10 and circles(parts) is None and circles(modules) is None
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}})
