"""`s3cfs ipfs export` of what lies in a mount."""
from __future__ import annotations

from pathlib import Path

from s3cfs.backends.ipfs.cid import Cid, digest_of_key
from tests.backends.ipfs.trees import SMALL, Blocks, on_disk, read
from tests.servers import BUCKET, Server

from .kit import Filesystem

SMALL_CID = "bafybeiaubli2fdvij2skdq6xilyps63qtzeklfyfk64cnevleclum4xn5a"      # as Kubo 0.42 prints it


def test_into_the_store_of_the_mount(tmp_path: Path, rclone_s3: Server) -> None:
    """Without a word about where to; what was only just written is in it."""
    place = rclone_s3.fresh_url().replace("s3c://", "ipfs+s3://")
    fs = Filesystem(tmp_path / "fs", place, rclone_s3.options, rclone_s3.login, rclone_s3.password)
    try:
        mount = fs.mkfs().mount()
        (mount.path / "photos").mkdir()
        on_disk(SMALL, mount.path / "photos" / "small")
        done = fs.run("ipfs", "export", mount.path / "photos" / "small")
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{SMALL_CID}\n", "1 file, 4 folders, 2 symlinks, 3 B\n")
    finally:
        fs.close()
    assert rclone_s3.root is not None
    blocks = Blocks()
    for path in (rclone_s3.root / BUCKET / place.split(BUCKET)[1].strip("/")).iterdir():
        blocks[digest_of_key(path.name)] = path.read_bytes()
    assert read(Cid.parse(SMALL_CID), blocks) == SMALL
