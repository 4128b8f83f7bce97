"""What lies in contrib/ is what its generator makes, and parses."""
from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import pytest

from s3cfs.cli import fstab

CONTRIB = Path(__file__).parent.parent.parent / "contrib"


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate", CONTRIB / "completion" / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_completions_are_up_to_date():
    for name, make in generator().FILES.items():
        assert (CONTRIB / "completion" / name).read_text() == make(), "run contrib/completion/generate.py"


def test_bash_completes():
    script = f"source {CONTRIB}/completion/s3cfs.bash; COMP_WORDS=(s3cfs mount --com); COMP_CWORD=2; _s3cfs; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["--compress", "--commit-interval"] and not done.stderr


@pytest.mark.parametrize("name", ["demo.sh", "bench/run.sh", "pjdfstest.sh", "setup.sh"])
def test_scripts_parse(name: str):
    subprocess.run(["sh", "-n", str(CONTRIB / name)], check=True)


def test_the_line_of_fstab_and_the_mount_unit_agree_and_are_understood():
    line = next(line for line in (CONTRIB / "fstab").read_text().splitlines() if not line.startswith("#")).split()
    unit = dict(row.split("=", 1) for row in (CONTRIB / "systemd" / "mnt-home.mount").read_text().splitlines() if "=" in row)
    assert [unit["What"], unit["Where"], unit["Type"], unit["Options"]] == line[:4]
    assert fstab.parse([line[3]]).given == {"authfile": "/etc/s3cfs/auth.ini", "allow-other": True}
