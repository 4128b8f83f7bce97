"""Things to copy: a real source tree with everything a tree may hold, and a large file of mixed content."""
from __future__ import annotations

import os
import random
import shutil
import socket
import stat
import sysconfig
from pathlib import Path

MIB = 1 << 20
ROOT = os.geteuid() == 0


def mixed_file(path: Path, size: int, seed: int) -> Path:
    """Random bytes, text that compresses, zeros and repetitions of what was there before, in pieces of uneven size."""
    dice = random.Random(seed)
    earlier: list[bytes] = []
    left = size
    with path.open("wb") as file:
        while left > 0:
            length = min(left, dice.randrange(100_000, 3 * MIB))
            kind = dice.choice(("random", "random", "text", "zeros", "again"))
            if kind == "random":
                piece = dice.randbytes(length)
            elif kind == "text":
                line = b"%d " * 20 % tuple(dice.randrange(10**6) for _ in range(20))
                piece = b"".join(line + b"%d\n" % number for number in range(length // len(line) + 1))[:length]
            elif kind == "again" and earlier:
                piece = dice.choice(earlier)[:length]
            else:
                piece = bytes(length)
            if kind == "random" and len(earlier) < 8:
                earlier.append(piece)
            file.write(piece)
            left -= len(piece)
    return path


def shifted(source: Path, target: Path, by: int, seed: int) -> Path:
    """The same content behind `by` new bytes."""
    with target.open("wb") as file, source.open("rb") as old:
        file.write(random.Random(seed).randbytes(by))
        shutil.copyfileobj(old, file, MIB)
    return target


def standard_library(root: Path, limit: int | None = None) -> Path:
    """A copy of Python's own library without what was installed into it; at most `limit` files."""
    library = Path(sysconfig.get_path("stdlib"))
    count = 0
    for folder, folders, names in os.walk(library):
        folders[:] = sorted(name for name in folders if name not in ("site-packages", "dist-packages", "__pycache__") and
                            not name.startswith("config-"))
        here = root / Path(folder).relative_to(library)
        here.mkdir(parents=True, exist_ok=True)
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file() and path.stat().st_size < 4 * MIB and not path.is_symlink():
                shutil.copy2(path, here / name)
                count += 1
                if limit is not None and count >= limit:
                    return root
    return root


def oddities(root: Path) -> Path:
    """What a tree may hold beside files and folders. Devices and owners need root."""
    root.mkdir()
    (root / "empty").touch()
    (root / "empty folder").mkdir()
    (root / ("n" * 255)).write_bytes(b"a long name")
    (root / "höhe\n\x01 *?").write_bytes(b"any bytes but / and 0")
    os.symlink("empty", root / "link")
    os.symlink("/nowhere/at all", root / "dangling")
    os.symlink("x/" * 450, root / "long link")
    (root / "one").write_bytes(os.urandom(700))
    os.link(root / "one", root / "two")
    (root / "empty folder" / "sub").mkdir()
    os.link(root / "one", root / "empty folder" / "sub" / "three")
    for mode in (0o000, 0o400, 0o777, 0o4755, 0o2755, 0o1644):
        path = root / f"mode {mode:04o}"
        path.write_bytes(b"%o" % mode)
        path.chmod(mode)
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o3777)
    for number, ns in enumerate((1, 999_999_999, 1_234_567_890_123_456_789, 4_000_000_000_000_000_001, -1)):
        path = root / f"time {number}"
        path.write_bytes(b"%d" % ns)
        os.utime(path, ns=(ns, ns))
    attributed = root / "attributed"
    attributed.write_bytes(b"with attributes")
    for name, value in (("user.empty", b""), ("user.bytes", bytes(range(256))), ("user.long", b"v" * 3000), ("user." + "k" * 200, b"x")):
        os.setxattr(attributed, name, value)
    os.setxattr(root / "empty folder", "user.of a folder", b"yes")
    with (root / "sparse").open("wb") as file:
        file.write(b"begin")
        file.seek(30 * MIB)
        file.write(b"middle")
        file.truncate(40 * MIB)
    os.mkfifo(root / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as door:
        os.chdir(root)                        # a socket's whole path may have 108 bytes
        door.bind("socket")
    if ROOT:
        os.mknod(root / "character", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(root / "block", 0o660 | stat.S_IFBLK, os.makedev(259, 70000))
        os.setxattr(attributed, "trusted.mine", b"root's")
        for name, owner in (("owned", (1234, 5678)), ("owned by many", (2**31, 2**32 - 2))):
            (root / name).write_bytes(name.encode())
            os.chown(root / name, *owner)
        os.symlink("owned", root / "owned link")
        os.chown(root / "owned link", 1234, 5678, follow_symlinks=False)
    os.utime(root / "link", ns=(5, 123456789), follow_symlinks=False)
    return root
