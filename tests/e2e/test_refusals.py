"""What a user may get wrong or find broken: one line on stderr, the documented code, soon, and nothing left behind."""
from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s3cfs.errors import ExitCode
from s3cfs.formats import superblock
from tests.backends.answers import Answer, AnsweringServer, answering, error
from tests.servers import Server, free_port, moto_s3, rclone_s3  # noqa: F401  (fixtures)

from .conftest import Make
from .kit import LET_GO, Filesystem, mounted_at, processes_naming, until

pytestmark = pytest.mark.mount
WITHIN_S = 20.0
ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="needs root, to make mounts and devices of its own")


def refused(fs: Filesystem, *args: str | Path, code: ExitCode, says: str = "", **how: Any) -> str:
    """The command ends with this code and one line, in time, and leaves no process and no mount. The line."""
    began = time.monotonic()
    done = fs.run(*args, within=WITHIN_S + 10, **how)
    took = time.monotonic() - began
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines)) == (code, 1), f"{done.returncode} {code!r}\n{done.stderr}\n{fs.logs()}"
    assert lines[0].startswith("s3cfs: ") and len(lines[0]) < 400 and "Traceback" not in lines[0], lines[0]
    assert says in lines[0], lines[0]
    assert "Error" not in lines[0].split(), lines[0]
    for secret in (fs.passphrase, fs.password):
        assert not secret or secret not in done.stdout + done.stderr
    assert took < WITHIN_S, f"{took:.1f} s"
    known = {mount.pid for mount in fs.mounts}
    if args[0] == "mount":
        until(lambda: not [pid for pid in processes_naming(f"{fs.base}/") if pid not in known], "no process is left")
    return lines[0]


def no_mount(fs: Filesystem, code: ExitCode, says: str = "", *args: str | Path, **how: Any) -> str:
    path = fs.base / "refused"
    path.mkdir(exist_ok=True)
    line = refused(fs, "mount", *args, fs.url, path, code=code, says=says, **how)
    assert not mounted_at(path)
    return line


# ---------------------------------------------------------------- the store and its keys

@pytest.mark.parametrize("kind", [pytest.param("rclone_s3", marks=pytest.mark.soak), "moto_s3"])
def test_wrong_passphrase_credentials_bucket(make: Make, request: pytest.FixtureRequest, kind: str):
    server: Server = request.getfixturevalue(kind)
    fs = make(server)
    no_mount(fs, ExitCode.NO_FILESYSTEM, "mkfs")
    fs.mkfs()
    refused(fs, "mkfs", fs.url, code=ExitCode.FILESYSTEM_EXISTS)
    fs.write_authfile(fs_passphrase="another one")
    no_mount(fs, ExitCode.WRONG_PASSPHRASE)
    fs.write_authfile(fs_passphrase="")
    no_mount(fs, ExitCode.CONFIG, "passphrase")
    for wrong in ("backend_password", "backend_login"):
        fs.write_authfile(**{wrong: "nobody-at-all-0000"})  # type: ignore[arg-type]
        no_mount(fs, ExitCode.ACCESS_DENIED)
        refused(fs, "mkfs", fs.url, code=ExitCode.ACCESS_DENIED)
    fs.url = f"s3c://{server.host}/no-such-bucket-here/x/"
    fs.write_authfile()
    no_mount(fs, ExitCode.BUCKET_MISSING, "no-such-bucket-here")
    refused(fs, "mkfs", fs.url, code=ExitCode.BUCKET_MISSING)
    assert not (fs.base / "cache").exists(), "local state was made for nothing"


def test_a_plain_filesystem_takes_no_passphrase(make: Make):
    fs = make(passphrase=None).mkfs()
    fs.mount().umount()
    fs.passphrase = "one that is not asked for"
    fs.write_authfile()
    no_mount(fs, ExitCode.CONFIG, "not encrypted")


@pytest.fixture
def answers() -> Iterator[AnsweringServer]:
    with answering() as server:
        yield server


REGION = error(301, "PermanentRedirect", "not here", "<Endpoint>x</Endpoint>", {"x-amz-bucket-region": "eu-north-9"})
SKEW = error(403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.",
             "<ServerTime>2001-01-01T00:00:00Z</ServerTime><MaxAllowedSkewMilliseconds>900000</MaxAllowedSkewMilliseconds>")


@pytest.mark.parametrize(("answer", "code", "says"), [
    (REGION, ExitCode.WRONG_REGION, "eu-north-9"),
    (SKEW, ExitCode.CLOCK_SKEW, "clock"),
    (error(403, "AccessDenied"), ExitCode.ACCESS_DENIED, ""),
])
def test_a_store_that_refuses(make: Make, answers: AnsweringServer, answer: Answer, code: ExitCode, says: str):
    answers.answers = [answer]
    fs = make(server_at(answers.host))
    no_mount(fs, code, says)
    refused(fs, "mkfs", fs.url, code=code, says=says)


def test_a_captive_portal(make: Make, answers: AnsweringServer):
    answers.answers = [Answer(200, b"<html>please log in</html>\n" * 100, {"Content-Type": "text/html"})]
    fs = make(server_at(answers.host))
    done = fs.run("mount", fs.url, fs.base / "nowhere")
    assert done.returncode not in (0, ExitCode.INTERNAL) and len(done.stderr.splitlines()) == 1, done.stderr


def server_at(host: str) -> Server:
    return Server("answers", host, "login", "password-0123456789", 0, True, {"no-ssl": ""})


def test_no_answer(make: Make):
    """Nothing listens, no such host, silence, trouble, too busy: all at once, since all of it is waiting."""
    with contextlib.ExitStack() as stack:
        hosts = [f"127.0.0.1:{free_port()}", "no-such-host.invalid"]
        for answer in (Answer(silent=True), Answer(500, b"<html>oops</html>"), error(503, "SlowDown")):
            server = stack.enter_context(answering())
            server.answers = [answer]
            hosts.append(server.host)
        systems = [make(server_at(host), name=f"fs{number}") for number, host in enumerate(hosts)]
        with ThreadPoolExecutor() as pool:
            waiting = [pool.submit(no_mount, fs, ExitCode.STORE_UNREACHABLE) for fs in systems]
            waiting += [pool.submit(refused, fs, "mkfs", fs.url, code=ExitCode.STORE_UNREACHABLE) for fs in systems]
            for one in waiting:
                one.result()


# ---------------------------------------------------------------- damage

@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filesystem]:
    """A filesystem on a folder with every kind of object, unmounted. Each test works on a copy."""
    base = tmp_path_factory.mktemp("filled")
    (base / "store").mkdir()
    fs = Filesystem(base, f"local://{base}/store", env={"HOME": str(base)})
    with contextlib.closing(fs.mkfs()):
        mount = fs.mount("--commit-interval", "100ms")
        (mount / "data").write_bytes(os.urandom(6 << 20))
        (mount / "text").write_bytes(b"text " * 400_000)
        for batch in range(4):
            for number in range(800):
                (mount / f"small {batch} {number}").write_bytes(os.urandom(480))
            mount.flush()
        until(lambda: list((base / "store" / "checkpoint").rglob("*")), "a checkpoint")
        mount.flush()
        mount.umount()
        yield fs


@pytest.fixture
def copied(filled: Filesystem, make: Make) -> Filesystem:
    fs = make()
    shutil.rmtree(fs.base / "store")
    shutil.copytree(filled.base / "store", fs.base / "store")
    return fs


def objects(fs: Filesystem, kind: str) -> list[Path]:
    return sorted((path for path in (fs.base / "store" / kind).rglob("*") if path.is_file()), key=lambda p: p.stat().st_mtime_ns)


def flip(path: Path, where: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * where)] ^= 0x10
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


@pytest.mark.parametrize("where", [0.5, *[pytest.param(where, marks=pytest.mark.soak) for where in (0.0, 0.999)]])
def test_a_flipped_bit_in_the_superblock(copied: Filesystem, where: float):
    one = objects(copied, "super")[0]
    flip(one, where)
    mount = copied.mount()                                 # there are two copies of it, and then again
    assert (mount / "data").stat().st_size == 6 << 20 and len(objects(copied, "super")) == 3
    mount.umount()
    for path in objects(copied, "super"):
        if path != one:
            flip(path, where)
    no_mount(copied, ExitCode.DAMAGED, "super")
    assert "super" in copied.fsck(code=12)


def test_a_truncated_or_empty_superblock(copied: Filesystem):
    for path in objects(copied, "super"):
        truncate(path)
    no_mount(copied, ExitCode.DAMAGED, "super")
    for path in objects(copied, "super"):
        path.write_bytes(b"")
    no_mount(copied, ExitCode.DAMAGED, "super")
    for path in objects(copied, "super"):
        path.unlink()
    no_mount(copied, ExitCode.NO_FILESYSTEM)


def test_a_newer_format(copied: Filesystem):
    for path in objects(copied, "super"):
        path.write_bytes(superblock.encode(replace(superblock.decode(path.read_bytes()), version=99)))
    no_mount(copied, ExitCode.NEWER_FORMAT, "newer")
    assert "99" in no_mount(copied, ExitCode.NEWER_FORMAT)


@pytest.mark.parametrize(("which", "how"), [
    (1, "flip"), (-1, "truncate"), (1, "missing"), (-1, "missing"),
    *[pytest.param(*one, marks=pytest.mark.soak) for one in ((-1, "flip"), (1, "empty"))]])
def test_a_damaged_record_of_the_log(copied: Filesystem, which: int, how: str):
    shutil.rmtree(copied.base / "store" / "checkpoint")
    path = objects(copied, "log")[which]
    damage(path, how)
    if how == "missing" and which == -1:
        mount = copied.mount()                 # an older state, exactly; only who saw the newer one can know
        assert (mount / "data").stat().st_size == 6 << 20
        return
    line = no_mount(copied, ExitCode.OBJECT_MISSING if how == "missing" else ExitCode.DAMAGED)
    assert str(path.relative_to(copied.base / "store")) in line + copied.fsck(code=4)


def damage(path: Path, how: str) -> None:
    if how == "flip":
        flip(path, 0.5)
    elif how == "truncate":
        truncate(path)
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["flip", pytest.param("missing", marks=pytest.mark.soak)])
def test_an_old_record_does_not_matter_beside_a_checkpoint(copied: Filesystem, how: str):
    damage(objects(copied, "log")[1], how)
    mount = copied.mount()
    assert len(os.listdir(mount.path)) == 3202
    mount.umount()


@pytest.mark.parametrize("how", ["flip", pytest.param("truncate", marks=pytest.mark.soak), "missing"])
def test_a_damaged_checkpoint_costs_time_only(copied: Filesystem, how: str):
    for path in objects(copied, "checkpoint"):
        damage(path, how)
    mount = copied.mount()
    assert len(os.listdir(mount.path)) == 3202 and (mount / "text").read_bytes() == b"text " * 400_000
    mount.umount()
    assert "checkpoint" in copied.fsck(code=0 if how == "missing" else 4) or how == "missing"


def test_a_store_that_was_rolled_back(make: Make):
    fs = make().mkfs()
    mount = fs.mount()
    (mount / "a").write_bytes(b"first")
    mount.umount()
    shutil.copytree(fs.base / "store", fs.base / "older")
    mount = fs.mount()
    (mount / "a").write_bytes(b"second")
    commit = mount.stat()["commit"]
    mount.umount()
    shutil.rmtree(fs.base / "store")
    (fs.base / "older").rename(fs.base / "store")
    no_mount(fs, ExitCode.ROLLED_BACK)
    fs.lose()
    no_mount(fs, ExitCode.ROLLED_BACK, "", "--expect-commit", f"{commit['number'] + 1}:{commit['hash'][:12]}")
    mount = fs.mount()
    assert (mount / "a").read_bytes() == b"first"
    mount.umount()


@pytest.mark.parametrize("how", ["flip", pytest.param("truncate", marks=pytest.mark.soak), "missing"])
def test_a_damaged_pack_is_an_error_for_that_range_only(copied: Filesystem, how: str):
    expected = {}
    mount = copied.mount(cache="whole")
    for name in ("data", "text"):
        expected[name] = (mount / name).read_bytes()
    mount.umount()
    packs = [path for path in objects(copied, "pack") if path.stat().st_size > 1 << 20]
    damage(packs[0], how)
    mount = copied.mount("-o", "ro")
    assert (mount / "small 3 799").stat().st_size == 480
    good, bad = 0, 0
    for name, data in expected.items():
        handle = os.open(mount / name, os.O_RDONLY)
        for offset in range(0, len(data), 65536):
            try:
                found = os.pread(handle, 65536, offset)         # short: the rest cannot be read
                assert found and found == data[offset:offset + len(found)]
                good, bad = (good + 1, bad) if len(found) == len(data[offset:offset + 65536]) else (good, bad + 1)
            except OSError as failure:
                assert failure.errno == 5
                bad += 1
        os.close(handle)
    assert bad and (how == "missing" or good), (good, bad)
    if how == "flip":
        assert bad * 65536 <= 3 << 20, f"{bad} of {good + bad} pieces cannot be read for one bit"
    assert mount.alive and "op=read on=" in mount.log()
    mount.umount()
    said = copied.fsck(code=4)
    assert packs[0].name in said and "/data bytes " in said


# ---------------------------------------------------------------- this machine

def test_mount_points(local_fs: Filesystem):
    base = local_fs.base
    refused(local_fs, "mount", local_fs.url, base / "missing", code=ExitCode.MOUNTPOINT, says="missing")
    (base / "file").touch()
    refused(local_fs, "mount", local_fs.url, base / "file", code=ExitCode.MOUNTPOINT, says="not a folder")
    (base / "full").mkdir()
    (base / "full" / "entry").touch()
    refused(local_fs, "mount", local_fs.url, base / "full", code=ExitCode.MOUNTPOINT, says="not empty")
    mount = local_fs.mount("--nonempty", where="full")
    assert os.listdir(mount.path) == []
    refused(local_fs, "mount", local_fs.url, mount.path, code=ExitCode.MOUNTPOINT, says="mounted there already")
    mount.umount()
    assert os.listdir(mount.path) == ["entry"]
    refused(local_fs, "umount", mount.path, code=ExitCode.NOT_A_MOUNT)
    refused(local_fs, "stat", mount.path, code=ExitCode.NOT_A_MOUNT)
    refused(local_fs, "ctl", "flush", base / "missing", code=ExitCode.NOT_A_MOUNT)


@pytest.mark.parametrize("kind", [pytest.param("rclone_s3", marks=pytest.mark.soak), "moto_s3"])
def test_already_mounted(make: Make, request: pytest.FixtureRequest, kind: str):
    fs = make(request.getfixturevalue(kind)).mkfs()
    mount = fs.mount()
    assert str(mount.pid) in no_mount(fs, ExitCode.ALREADY_MOUNTED)
    assert str(mount.pid) in no_mount(fs, ExitCode.ALREADY_MOUNTED, "", "--cachedir", fs.base / "another")
    (mount / "goes on").write_bytes(b"after that")
    mount.flush()
    assert mount.stat()["state"] == "ok"
    mount.umount()


@needs_root
def test_cache_folders(local_fs: Filesystem):
    base = local_fs.base
    (base / "file").touch()
    no_mount(local_fs, ExitCode.CACHE_UNUSABLE, "cache folder", "--cachedir", base / "file")
    for options, code in (("ro", ExitCode.CACHE_UNUSABLE), ("size=4m", ExitCode.CACHE_FULL), ("size=40m", ExitCode.CACHE_FULL)):
        with tmpfs(base / "tmpfs", options) as folder:
            no_mount(local_fs, code, "cache folder", "--cachedir", folder)


def test_nothing_of_its_own_below_the_mount_point(local_fs: Filesystem):
    """It would wait for itself."""
    base = local_fs.base
    for args in (("--cachedir", base / "refused" / "cache"), ("--log-file", base / "refused" / "log")):
        no_mount(local_fs, ExitCode.CONFIG, "below the mount point", *args)
    refused(local_fs, "mount", "--nonempty", local_fs.url, local_fs.url.removeprefix("local://"), code=ExitCode.CONFIG, says="the store")
    assert not (base / "refused" / "cache").exists()


def test_folders_that_are_not_there(local_fs: Filesystem):
    """mkfs makes the last folder of a local store's path, and no more: what is missing above is a disk that is not mounted."""
    base = local_fs.base
    (base / "file").touch()
    places = (base / "no disk" / "store", "no disk"), (base / "file", "not a folder"), (base / "file" / "x", "there is no folder")
    for path, says in places:
        refused(local_fs, "mkfs", "--plain", f"local://{path}", code=ExitCode.BUCKET_MISSING, says=says)
        assert not (base / "no disk").exists()
    refused(local_fs, "mkfs", "--plain", "memory://x", code=ExitCode.CONFIG, says="for tests")
    gone = base / "gone"
    gone.mkdir()
    leave = ["sh", "-c", f'cd "{gone}"; rmdir "{gone}"; exec "$@"', "sh"]
    refused(local_fs, "mount", local_fs.url, ".", code=ExitCode.SYSTEM, says="current folder", prefix=leave)
    local_fs.s3cfs("mkfs", "--plain", f"local://{base}/made")


@contextlib.contextmanager
def tmpfs(path: Path, options: str) -> Iterator[Path]:
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_configuration(local_fs: Filesystem):
    for mode in (0o640, 0o604, 0o644):
        local_fs.write_authfile(mode=mode)
        no_mount(local_fs, ExitCode.CONFIG, str(local_fs.authfile))
    local_fs.write_authfile(cachesise="5G")
    no_mount(local_fs, ExitCode.CONFIG, "cachesise")
    local_fs.write_authfile(backend_options="no-such-option=1")
    no_mount(local_fs, ExitCode.CONFIG, "no-such-option")
    local_fs.write_authfile(cachesize="many")
    no_mount(local_fs, ExitCode.CONFIG, "many")
    local_fs.write_authfile()
    no_mount(local_fs, ExitCode.CONFIG, "S3CFS_CACHESISE", env={"S3CFS_CACHESISE": "1G"})
    no_mount(local_fs, ExitCode.CONFIG, "", env={"S3CFS_AUTHFILE": str(local_fs.base / "no file")})
    local_fs.authfile.write_text("no section here\n")
    no_mount(local_fs, ExitCode.CONFIG, str(local_fs.authfile))


HIDE = LET_GO + '; mount -t tmpfs dev /dev && mknod -m 666 /dev/null c 1 3 && {more} exec "$@"'
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=+dac_read_search",
             "--ambient-caps=+dac_read_search"]


def hidden(more: str) -> list[str]:
    return ["unshare", "-m", "--propagation", "slave", "sh", "-ec", HIDE.format(more=more), "sh"]


@needs_root
def test_without_fuse(local_fs: Filesystem):
    no_mount(local_fs, ExitCode.NO_FUSE, "/dev/fuse is missing", prefix=hidden(""))
    no_mount(local_fs, ExitCode.NO_FUSE, "/dev/fuse", prefix=[*hidden("mknod -m 600 /dev/fuse c 10 229;"), *AS_NOBODY])
    no_mount(local_fs, ExitCode.NO_FUSE, "fusermount3",
             prefix=[*hidden("mknod -m 666 /dev/fuse c 10 229;"), *AS_NOBODY, "env", "PATH=/nonexistent"])
