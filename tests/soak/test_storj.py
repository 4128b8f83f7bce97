"""A filesystem of 250,000 objects on storjs3://, over the fake gateway: looked at, read, written to, checked. What it costs is printed.

`make soak ARGS="tests/soak/test_storj.py -s"`. Twenty minutes make the filesystem, in 2 GB of the folder of tests; S3CFS_TEST_SEEDED=FOLDER
(on the same disk) keeps it there and takes it from there the next time. S3CFS_TEST_FILES for another size: 345 files are 250,000 objects.
"""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from s3cfs.backends import shards
from s3cfs.backends.registry import open_backend
from s3cfs.backends.shards import Layout
from tests.e2e.kit import Filesystem, Mount
from tests.gateway import Gateway, storj_server
from tests.moves import seeded
from tests.servers import BUCKET, rclone_server

pytestmark = [pytest.mark.soak, pytest.mark.mount]

FILES = int(os.environ.get("S3CFS_TEST_FILES", "345"))
OBJECTS = FILES * 724
READ_FILES = 3
MOST_MIB = 400
LARGE_MIB = 768


def moved_to_shards(folder: Path, layout: Layout) -> None:
    """As if it had been written through storjs3://. What lies together stays together, so a rename for each folder is all."""
    for below in sorted((folder / "pack").iterdir()):
        target = folder / layout.name(f"pack/{below.name}/")
        target.parent.mkdir(exist_ok=True)
        below.rename(target)
    (folder / shards.KEY).parent.mkdir()
    (folder / shards.KEY).write_bytes(layout.encode())


def anonymous_mib(mount: Mount) -> float:
    with open(f"/proc/{mount.pid}/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("RssAnon:"))


def test_packs_suit_segments_and_two_of_them_fit_into_memory(tmp_path: Path) -> None:
    with storj_server() as gateway:
        fs = Filesystem(tmp_path / "fs", gateway.fresh_url(), {**gateway.options, "lock-delay": "0"}, gateway.login, gateway.password)
        try:
            mount = fs.mkfs().mount(within=300)
            most = 0.0
            with (mount / "file").open("wb") as file:
                for _ in range(LARGE_MIB):
                    file.write(os.urandom(1 << 20))
                    most = max(most, anonymous_mib(mount))
            flushing = subprocess.Popen([sys.executable, "-m", "s3cfs", "ctl", "flush", mount.path], env=fs.environment(), cwd=fs.base)
            while flushing.poll() is None:
                most = max(most, anonymous_mib(mount))
                time.sleep(0.05)
            mount.umount(within=600)
            root = Path(str(gateway.server.root)) / BUCKET
            sizes = sorted(path.stat().st_size >> 20 for path in root.rglob("pack/**/*") if path.is_file())
            print(f"\n{LARGE_MIB} MiB: at most {most:.0f} MiB; packs of {sizes}", flush=True)
            assert flushing.returncode == 0 and most < MOST_MIB and sizes[len(sizes) // 2] >= 29 and sizes[-1] <= 33
        finally:
            fs.close()


def test_250_000_objects(tmp_path: Path) -> None:
    place = tmp_path / BUCKET / "place"
    kept = Path(os.environ.get("S3CFS_TEST_SEEDED") or tmp_path / "seeded")
    if not kept.exists():
        seeded.make(kept, tmp_path / "state", FILES)
    place.parent.mkdir()
    subprocess.run(["cp", "-al", str(kept), str(place)], check=True)       # links: nothing writes into what is there
    moved_to_shards(place, Layout(shards.USUAL))
    with rclone_server(tmp_path) as server, Gateway(server) as gateway:
        objects = sum(1 for _, _, names in os.walk(place) for _ in names)
        print(f"\n{objects} objects", flush=True)
        assert objects >= OBJECTS

        @contextmanager
        def measured(what: str) -> Iterator[None]:
            before, began = gateway.operations.copy(), time.monotonic()
            yield
            asked = ", ".join(f"{count} {name}" for name, count in sorted((gateway.operations - before).items()))
            print(f"{what}: {time.monotonic() - began:.1f} s; {asked or 'no request'}", flush=True)

        fs = Filesystem(tmp_path / "fs", gateway.url("place/"), {"no-ssl": ""}, server.login, server.password, seeded.PASSPHRASE)
        try:
            bare = {**fs.options, "consistency-lock": "off", "checker": "off"}
            backend = open_backend(fs.url, bare, login=fs.login, password=fs.password)
            with measured("listing of pack/"), closing(backend):
                assert sum(1 for _ in backend.list("pack/")) > 0.99 * OBJECTS
            with measured("mount on a new machine"):
                mount = fs.mount(within=600)
            with measured("ls -lR"):
                names = subprocess.run(["ls", "-lR", str(mount.path)], capture_output=True, text=True, check=True).stdout
                assert len(names.splitlines()) >= FILES
            with measured(f"{READ_FILES} files of {seeded.FILE_BYTES >> 20} MiB"):
                for name, data in seeded.contents(READ_FILES):
                    assert (mount / name).read_bytes() == data
            with measured("100 new files and a flush"):
                for number in range(100):
                    (mount / f"new {number}").write_bytes(os.urandom(100_000))
                mount.flush(within=600)
            mib = anonymous_mib(mount)
            with measured("umount"):
                mount.umount(within=600)
            with measured("fsck of the store alone"):
                print(fs.s3cfs("fsck", "--no-cache", fs.url, within=1200).strip(), flush=True)
            print(f"memory of the mount: {mib:.0f} MiB", flush=True)
            assert mib < MOST_MIB and gateway.errors_inside == []
            assert not any(note.status == 501 for note in gateway.notes)
        finally:
            fs.close()
    shutil.rmtree(place)
