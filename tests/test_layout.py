"""The link s3cfs/backends -> ../backends, and what depends on it."""
from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

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
