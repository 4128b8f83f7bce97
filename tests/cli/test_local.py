"""The local state folder that somebody removes, file by file or whole, beside those who use it."""
from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from s3cfs.app.local import LocalDisk, locked
from s3cfs.errors import AlreadyMounted


@pytest.fixture
def disk(tmp_path: Path) -> LocalDisk:
    made = LocalDisk(str(tmp_path / "cache" / "fs"))
    made.makedirs("journal")
    made.open("meta.db", create=True).close()
    made.keep_an_eye_on("", "meta.db")
    return made


def test_what_is_open_stays_and_what_is_new_gets_a_folder(disk: LocalDisk):
    file = disk.open("journal/1.pack", create=True)
    file.pwrite(b"unsent", 0)
    shutil.rmtree(Path(disk.root).parent)
    assert not disk.lost and file.pread(100, 0) == b"unsent"
    disk.open("journal/2.pack", create=True).close()
    assert disk.lost and disk.listdir("journal") == ["2.pack"]
    disk.sync_dir("cache/deep")
    assert disk.free_bytes() > 0 and disk.listdir("cache/deep") == []


@pytest.mark.parametrize("gone", ["meta.db", "."])
def test_a_look_finds_out(disk: LocalDisk, gone: str):
    disk.look()
    assert not disk.lost
    path = Path(disk.root, gone)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    disk.look()
    assert disk.lost and os.path.isdir(disk.root)


def test_another_file_under_its_name_is_not_it(disk: LocalDisk):
    Path(disk.root, "new").touch()
    os.rename(disk.real_path("new"), disk.real_path("meta.db"))
    disk.look()
    assert disk.lost


def test_one_missing_file_is_an_error_like_any_other(disk: LocalDisk):
    for call in (lambda: disk.open("journal/9.pack"), lambda: disk.rename("journal/9.pack", "journal/10.pack")):
        with pytest.raises(FileNotFoundError):
            call()
    assert not disk.lost


def test_before_it_is_watched_nothing_is_lost(tmp_path: Path):
    disk = LocalDisk(str(tmp_path / "fs"))
    disk.open("journal/1.pack", create=True).close()
    assert not disk.lost and disk.listdir("journal") == ["1.pack"]


def test_the_lock_is_taken_again(disk: LocalDisk):
    with locked(disk, "mounted", lambda text: None) as lock:
        shutil.rmtree(disk.root)
        disk.look()
        lock.take_again()
        assert json.loads(Path(disk.root, "lock").read_text()) == {"pid": os.getpid(), "state": "mounted"}
        with pytest.raises(AlreadyMounted, match=str(os.getpid())), locked(disk, "mounted", lambda text: None):
            pass
        shutil.rmtree(disk.root)
        disk.look()
        with locked(disk, "checking", lambda text: None), pytest.raises(AlreadyMounted, match="was removed"):
            lock.take_again()
