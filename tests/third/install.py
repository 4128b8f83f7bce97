"""Install `odd_backend.py` as another project's package would be: a module and its metadata in a folder on the path, no pip."""
from __future__ import annotations

import shutil
from pathlib import Path


def install(folder: Path) -> Path:
    """Into `folder`, which is to be put on the path; returned."""
    info = folder / "s3cfs_odd-1.0.dist-info"
    info.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("odd_backend.py"), folder / "s3cfs_odd.py")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: s3cfs-odd\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[s3cfs.backends]\nodd = s3cfs_odd:OddBackend\n")          # the one line
    return folder
