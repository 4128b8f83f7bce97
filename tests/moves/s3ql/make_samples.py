"""Make the samples of this folder with the real S3QL: `python -m tests.moves.s3ql.make_samples S3QL FORK S3QL4 S3QL3 ENDPOINT [NAME ...]`.

S3QL is the folder with mkfs.s3ql, mount.s3ql ... of S3QL 6.3.0, FORK the same of the Storj fork (5.1.3 with storjs3), S3QL4 of
4.0.0, S3QL3 of 3.8.1. Needs
/dev/fuse, root (devices, owners) and a few seconds for each; minutes for the fork, which waits after each change of an object.
ENDPOINT is host:port of an S3 server on plain HTTP, with LOGIN and PASSWORD (MinIO; the fork does not get along with moto_server).
Everything in the samples is made here; S3QL itself is not needed to use them.

A sample is a .tar.xz of
    manifest.json   what the mount showed: one entry a path (hex), as `Expected` reads it
    about.json      URL (with {root} or {host} in it), passphrase, block size, options
    store/          the folder of local://, or
    objects/ and objects.json    the objects of a bucket, each with its user metadata
    cache/          S3QL's cache folder, where it is part of the sample; base names are written as `base`
"""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

HERE = Path(__file__).parent / "samples"
PASSPHRASE = "pass phrase with ümlaut"
BUCKET = "samples"
LOGIN, PASSWORD = "testlogin", "testpassword"
SEED = 20260728
SETTLES_S = 15.0                   # until S3QL has written what it keeps of inodes in memory


@dataclass(frozen=True)
class Plan:
    name: str
    compress: str
    plain: bool = False
    tools: int = 0                 # which of the folders
    url: str = "local://{root}/store"
    block_kib: int = 32
    crash: bool = False

    @property
    def s3(self) -> bool:
        return not self.url.startswith("local:")


PLANS = (
    Plan("zlib", "zlib-6"),
    Plan("lzma", "lzma-6", block_kib=256),
    Plan("none", "none", block_kib=8),
    Plan("plain", "zlib-6", plain=True),
    Plan("s3c", "zlib-6", url="s3c://{host}/" + BUCKET + "/some/pre_"),
    Plan("storj", "zlib-6", tools=1, url="storjs3://{host}/" + BUCKET + "/some/prefix/"),
    Plan("crashed", "zlib-6", crash=True),
    Plan("revision25", "zlib-6", tools=2),
    Plan("revision24", "zlib-6", tools=3),
)


def text(rng: random.Random, size: int) -> bytes:
    """Compressible, and different in each block."""
    words = [rng.randbytes(rng.randrange(20, 60)).hex().encode() for _ in range(30)]
    made = bytearray()
    while len(made) < size:
        made += rng.choice(words) + b" "
    return bytes(made[:size])


def fill(root: bytes, block: int) -> None:
    rng = random.Random(SEED)

    def at(*parts: bytes) -> bytes:
        return os.path.join(root, *parts)

    def write(path: bytes, *pieces: tuple[int, bytes], size: int | None = None) -> None:
        with open(path, "wb", buffering=0) as file:
            for offset, data in pieces:
                file.seek(offset)
                file.write(data)
            if size is not None:
                file.truncate(size)

    big = text(rng, 2 * block + block // 2 + 77)
    write(at(b"big"), (0, big))
    write(at(b"same content"), (0, big))
    write(at(b"incompressible"), (0, rng.randbytes(3000)))
    write(at(b"sparse"), (3 * block + 5, text(rng, 2000)), (200 * block, b"far"), size=300 * block)
    write(at(b"grown"), (0, text(rng, 1000)))
    os.truncate(at(b"grown"), 3 * block)
    write(at(b"cut"), (0, text(rng, block + 900)), size=block + 10)
    write(at(b"zeros"), (0, bytes(block + 100)))
    write(at(b"empty"))
    for number in range(12):
        write(at(b"small %d" % number), (0, text(rng, 10 * number)))
    os.mkdir(at(b"folder"))
    os.mkdir(at(b"folder", b"nothing in it"))
    names = [b"\xff\xfe not utf-8", "umlaut äöü".encode(), b"line\nend", b"n" * 255, b" ", b"=23#", b"'\"\\"]
    for name in names:
        write(at(b"folder", name), (0, name))
    os.symlink(b"../nowhere/\xfe", at(b"folder", b"symlink"))
    os.symlink(b"t" * 1000, at(b"long symlink"))
    os.link(at(b"big"), at(b"folder", b"hard link to big"))
    os.link(at(b"folder", b"symlink"), at(b"second name of the symlink"))
    os.mkfifo(at(b"fifo"))
    os.mknod(at(b"null"), 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(at(b"block device"), 0o660 | stat.S_IFBLK, os.makedev(259, 70000))
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(at(b"socket"))
    deep = at(b"deep")
    for number in range(25):
        os.mkdir(deep)
        write(os.path.join(deep, b"f"), (0, b"%d" % number))
        deep = os.path.join(deep, b"d%d" % number)
    os.setxattr(at(b"big"), b"user.colour", b"\x00\xffblue")
    os.setxattr(at(b"big"), b"user.empty", b"")
    os.setxattr(at(b"folder"), b"user.of a folder", text(rng, 500))
    os.chown(at(b"small 1"), 1000, 1001)
    os.chown(at(b"folder", b"symlink"), 12345, 54321, follow_symlinks=False)
    os.chmod(at(b"small 2"), 0o4711)
    os.chmod(at(b"folder"), 0o3775)
    os.chmod(at(b"small 3"), 0)
    os.utime(at(b"small 4"), ns=(-1, -(10**18)))
    os.utime(at(b"small 5"), ns=(8 * 10**18 + 123, 8 * 10**18 + 456))
    os.utime(at(b"folder", b"symlink"), ns=(5, 6), follow_symlinks=False)
    os.utime(at(b"folder"), ns=(10**18, 10**18 + 1))


def more(root: bytes, block: int) -> None:
    """What comes after the last upload of metadata, before the crash."""
    rng = random.Random(SEED + 1)
    os.mkdir(os.path.join(root, b"new folder"))
    for name, size in ((b"new", 2 * block + 10), (b"new folder/new too", 300)):
        with open(os.path.join(root, name), "wb", buffering=0) as file:
            file.write(text(rng, size))
            os.fsync(file.fileno())
    with open(os.path.join(root, b"big"), "r+b", buffering=0) as file:
        file.seek(block + 5)
        file.write(b"changed")
        os.fsync(file.fileno())
    os.unlink(os.path.join(root, b"incompressible"))
    os.rename(os.path.join(root, b"small 7"), os.path.join(root, b"new folder", b"seven"))


def manifest(root: bytes) -> dict[str, dict[str, Any]]:
    paths = [b""]
    contents: dict[bytes, str] = {}
    for path in paths:
        here = os.path.join(root, path) if path else root
        info = os.lstat(here)
        if stat.S_ISDIR(info.st_mode):
            paths += [os.path.join(path, name) for name in sorted(os.listdir(here))]
        elif stat.S_ISREG(info.st_mode):
            with open(here, "rb") as file:
                contents[path] = hashlib.file_digest(file, "sha256").hexdigest()
        elif stat.S_ISLNK(info.st_mode):
            os.readlink(here)                          # moves its atime, too: times are looked at when all has been read
    found: dict[str, dict[str, Any]] = {}
    first: dict[int, bytes] = {}
    for path in sorted(paths):
        here = os.path.join(root, path) if path else root
        info = os.lstat(here)
        entry: dict[str, Any] = {
            "mode": info.st_mode, "uid": info.st_uid, "gid": info.st_gid, "atime": info.st_atime_ns, "mtime": info.st_mtime_ns,
            "ctime": info.st_ctime_ns, "same_as": first.setdefault(info.st_ino, path).hex(),
            "xattrs": {os.fsencode(name).hex(): os.getxattr(here, name, follow_symlinks=False).hex()
                       for name in os.listxattr(here, follow_symlinks=False)}}
        if stat.S_ISREG(info.st_mode):
            entry["size"], entry["content"] = info.st_size, contents[path]
        elif stat.S_ISLNK(info.st_mode):
            entry["target"] = os.readlink(here).hex()
        elif not stat.S_ISDIR(info.st_mode):
            entry["rdev"] = info.st_rdev
        if not stat.S_ISDIR(info.st_mode):
            entry["names"] = info.st_nlink
        found[path.hex()] = entry
    return found


class Maker:
    def __init__(self, plan: Plan, tools: Path, work: Path, host: str) -> None:
        self.plan, self.tools, self.work = plan, tools, work
        self.url = plan.url.format(root=work, host=host)
        for name in ("cache", "mnt"):
            (work / name).mkdir()
        if not plan.s3:
            (work / "store").mkdir()
        self.mnt = work / "mnt"
        auth = work / "auth"
        auth.write_text(f"[all]\nstorage-url: {self.url.partition('://')[0]}://\nfs-passphrase: {PASSPHRASE}\nbackend-login: {LOGIN}\n"
                        f"backend-password: {PASSWORD}\n")
        auth.chmod(0o600)
        self.common = ["--authfile", str(auth), "--cachedir", str(work / "cache")]
        if plan.s3:
            self.common += ["--backend-options", "no-ssl,dumb-copy"]

    def tool(self, name: str, *words: str, given: str = "") -> None:
        done = subprocess.run([self.tools / name, *words], input=given.encode(), capture_output=True)
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stdout.decode()}{done.stderr.decode()}")

    def mkfs(self) -> None:
        words = ["--plain"] if self.plan.plain else []
        size = ["--max-obj-size" if self.plan.tools >= 2 else "--data-block-size", str(self.plan.block_kib)]
        self.tool("mkfs.s3ql", *self.common, *size, *words, self.url, given=f"{PASSPHRASE}\n{PASSPHRASE}\n")

    @contextlib.contextmanager
    def mounted(self) -> Iterator[subprocess.Popen[bytes]]:
        command = [str(self.tools / "mount.s3ql"), *self.common, "--compress", self.plan.compress, "--allow-other", "--fg", "--log", "none",
                   self.url, str(self.mnt)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not os.path.ismount(self.mnt):
                if process.poll() is not None:
                    raise RuntimeError("mount.s3ql did not start")
                time.sleep(0.05)
            yield process
        finally:
            if process.poll() is None and os.path.ismount(self.mnt):
                self.tool("umount.s3ql", str(self.mnt))
            process.wait(60)
            subprocess.run(["umount", "-l", self.mnt], capture_output=True)

    def make(self) -> dict[str, Any]:
        root, block = os.fsencode(self.mnt), self.plan.block_kib * 1024
        self.mkfs()
        with self.mounted():
            fill(root, block)
            (self.mnt / "copied").mkdir()
            self.tool("s3qlcp", str(self.mnt / "folder"), str(self.mnt / "copied" / "folder"))
            self.tool("s3qllock", str(self.mnt / "copied"))
        with self.mounted() as process:
            found = manifest(root)
            if self.plan.crash:
                more(root, block)
                manifest(root)
                os.sync()
                time.sleep(SETTLES_S)
                found = manifest(root)
                process.send_signal(signal.SIGKILL)
                process.wait()
        return found


def bucket_of(endpoint: str) -> Any:
    return boto3.session.Session(LOGIN, PASSWORD, region_name="us-east-1").client("s3", endpoint_url=f"http://{endpoint}")


def dump_bucket(s3: Any, to: Path) -> None:
    index: list[dict[str, Any]] = []
    (to / "objects").mkdir()
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for number, item in enumerate(page.get("Contents", ()), len(index)):
            answer = s3.get_object(Bucket=BUCKET, Key=item["Key"])
            (to / "objects" / str(number)).write_bytes(answer["Body"].read())
            index.append({"key": item["Key"], "metadata": answer["Metadata"]})
    (to / "objects.json").write_text(json.dumps(index, indent=0))


def make(plan: Plan, tools: Path, host: str) -> None:
    with tempfile.TemporaryDirectory(prefix="s3ql-sample-") as folder:
        work = Path(folder)
        work.chmod(0o755)
        if plan.s3:
            s3 = bucket_of(host)
            with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou):
                s3.create_bucket(Bucket=BUCKET)
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
                for item in page.get("Contents", ()):
                    s3.delete_object(Bucket=BUCKET, Key=item["Key"])
        maker = Maker(plan, tools, work, host)
        found = maker.make()
        out = work / "out"
        out.mkdir()
        if plan.s3:
            dump_bucket(s3, out)
        else:
            shutil.copytree(work / "store", out / "store")
        if plan.crash:
            base = next(entry.name.removesuffix(".params") for entry in (work / "cache").iterdir() if entry.name.endswith(".params"))
            shutil.copytree(work / "cache", out / "cache", ignore=shutil.ignore_patterns("*.log*", "*.lock", "*-shm"))
            for entry in list((out / "cache").iterdir()):
                entry.rename(entry.with_name(entry.name.replace(base, "base", 1)))
        (out / "manifest.json").write_text(json.dumps(found, indent=0, sort_keys=True))
        about = {"url": plan.url, "passphrase": None if plan.plain else PASSPHRASE, "block": plan.block_kib * 1024}
        (out / "about.json").write_text(json.dumps(about))
        HERE.mkdir(exist_ok=True)
        with tarfile.open(HERE / f"{plan.name}.tar.xz", "w:xz", preset=9) as tar:
            def anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
                info.uid = info.gid = info.mtime = 0
                info.uname = info.gname = ""
                return info
            for entry in sorted(out.iterdir()):
                tar.add(entry, entry.name, filter=anonymous)
        print(plan.name, (HERE / f"{plan.name}.tar.xz").stat().st_size)


if __name__ == "__main__":
    *tools, endpoint = sys.argv[1:6]
    names = sys.argv[6:]
    for chosen in PLANS:
        if not names or chosen.name in names:
            make(chosen, Path(tools[chosen.tools]), endpoint)
