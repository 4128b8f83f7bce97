"""A filesystem on a store and its mounts, driven by the commands only; and what ends all of it, whatever a test did.

    fs = Filesystem(base, url, options, login, password); fs.mkfs()
    mount = fs.mount()                       # local state in base/"cache"
    mount.kill(); fs.mount(); fs.mount(cache="elsewhere")
    fs.close()                               # every process by its number, every mount point

A daemon is found by its number (from `stat --json`), or, when it never got so far, by its command line, which names `base`.
"""
from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from s3cfs import control

T = TypeVar("T")
REPOSITORY = Path(__file__).resolve().parents[2]
PASSPHRASE = "correct horse battery staple"
COMMAND_WITHIN_S = 60.0
END_WITHIN_S = 30.0
# The first thing in a mount namespace: it has a copy of every other test's mount, and keeps it alive.
LET_GO = "umount -i -l -a -t fuse.s3cfs"
Done = subprocess.CompletedProcess[str]


def until(condition: Callable[[], T], what: str, seconds: float = 20.0) -> T:
    """Look again and again for something another process does; AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.01)
    return found


def mounted_at(path: Path) -> bool:
    """By the mount table: a look at the path itself might hang."""
    text = str(path)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return any(line.split()[4].replace("\\040", " ") == text for line in table)


def wait_gone(pid: int, seconds: float = END_WITHIN_S) -> bool:
    """Whether the process ended within `seconds`."""
    try:
        handle = os.pidfd_open(pid)
    except (ProcessLookupError, FileNotFoundError):          # the second while it is just going
        return True
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)


def processes_naming(text: str) -> list[int]:
    """Numbers of processes whose command line holds `text` (a temporary folder's path), this one excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if text.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


@dataclass
class Filesystem:
    """One filesystem in one store, with its authentication file and a folder `base` for everything that is local."""

    base: Path
    url: str
    options: Mapping[str, str] = field(default_factory=dict)
    login: str = ""
    password: str = field(default="", repr=False)
    passphrase: str | None = PASSPHRASE
    mounts: list[Mount] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.base.mkdir(parents=True, exist_ok=True)
        self.authfile = self.base / "auth.ini"
        self.write_authfile()

    def write_authfile(self, path: Path | None = None, mode: int = 0o600, **changes: str) -> Path:
        """The INI; `changes`: other values of its keys (with _ for -), "" leaves one out."""
        known = {"storage_url": self.url, "backend_login": self.login, "backend_password": self.password,
                 "backend_options": ",".join(f"{k}={v}" if v else k for k, v in self.options.items()),
                 "fs_passphrase": self.passphrase or "", **changes}
        path = path or self.authfile
        path.write_text("[test]\n" + "".join(f"{key.replace('_', '-')}: {value}\n" for key, value in known.items() if value))
        path.chmod(mode)
        return path

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
        return {**kept, "PYTHONPATH": str(REPOSITORY), "S3CFS_AUTHFILE": str(self.authfile), "S3CFS_CACHEDIR": str(self.base / "cache"),
                **self.env, **more}

    def run(self, *args: str | Path, within: float = COMMAND_WITHIN_S, env: Mapping[str, str] | None = None,
            prefix: Sequence[str] = (), pass_fds: Sequence[int] = ()) -> Done:
        """A command, whatever comes of it. `prefix`: a program that runs it."""
        command = [*prefix, sys.executable, "-m", "s3cfs", *map(str, args)]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              errors="replace", env=self.environment(**(env or {})), cwd=self.base,
                              pass_fds=pass_fds) as process:
            try:
                out, err = process.communicate(timeout=within)
            except subprocess.TimeoutExpired:
                process.kill()
                self.end_strays()              # a daemon that holds the pipe
                out, err = process.communicate()
                raise AssertionError(f"s3cfs {' '.join(map(str, args))}: not within {within} s\n{out}{err}") from None
        return Done(command, process.returncode, out, err)

    def s3cfs(self, *args: str | Path, **how: Any) -> str:
        """A command that must succeed; its stdout."""
        done = self.run(*args, **how)
        assert done.returncode == 0, f"s3cfs {' '.join(map(str, args))} ended with {done.returncode}: {done.stderr}\n{self.logs()}"
        return done.stdout

    def mkfs(self, *args: str) -> Filesystem:
        self.s3cfs("mkfs", *args, *([] if self.passphrase else ["--plain"]), self.url)
        return self

    def mount(self, *args: str | Path, where: str = "mnt", cache: str = "cache", within: float = COMMAND_WITHIN_S,
              **how: Any) -> Mount:
        """Mount at base/`where` with local state in base/`cache` (a new name: another machine)."""
        path = self.base / where
        if not mounted_at(path):           # a dead mount may lie there
            path.mkdir(exist_ok=True)
        made = Mount(self, path, self.base / cache)
        self.mounts.append(made)
        self.s3cfs("mount", "--cachedir", made.cachedir, *args, self.url, path, within=within, **how)
        made.pid = control.find(str(path)).pid
        return made

    def lose(self, cache: str = "cache") -> None:
        """The local state is gone."""
        shutil.rmtree(self.base / cache)

    def fsck(self, *args: str, cache: str | None = None, code: int = 0) -> str:
        """s3cfs fsck --full, with the local state of base/`cache` or from the store alone; what it says, after a look at its exit code."""
        how = ["--no-cache"] if cache is None else ["--cachedir", str(self.base / cache)]
        done = self.run("fsck", "--full", *args, *how, self.url, within=120)
        assert done.returncode == code and "Traceback" not in done.stderr, \
            f"fsck {how} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def keep(self, cache: str = "cache", as_: str = "kept") -> None:
        """A copy of the local state, holes and all."""
        subprocess.run(["cp", "-a", self.base / cache, self.base / as_], check=True)

    def logs(self) -> str:
        """The end of every log, for a message."""
        texts = []
        for path in sorted(self.base.glob("*/*/log")):
            texts.append(f"--- {path}\n{path.read_text(errors='replace')[-3000:]}")
        return "\n".join(texts)

    def end_strays(self) -> None:
        """Daemons that nobody knows the number of: they were started with this base on their command line."""
        for pid in processes_naming(str(self.base)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        for mount in self.mounts:
            mount.close()
        self.end_strays()
        for mount in self.mounts:
            while mounted_at(mount.path):
                detach(mount.path)


def detach(path: Path) -> None:
    """Lazily, by the system's own command (`-i`: not through a helper of ours)."""
    command = ["umount", "-i", "-l", str(path)] if os.geteuid() == 0 else ["fusermount3", "-u", "-z", str(path)]
    subprocess.run(command, check=True, capture_output=True)


@dataclass
class Mount:
    """A mount and its daemon, by its number."""

    fs: Filesystem
    path: Path
    cachedir: Path
    pid: int = 0

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def stat(self) -> dict[str, Any]:
        """What `s3cfs stat --json` prints, without a process for each look."""
        found: dict[str, Any] = control.call(control.find(str(self.path)).socket, "stat", {}, None)
        return found

    def requests(self) -> dict[str, int]:
        return dict(self.stat()["store"]["requests"])

    def calls(self) -> int:
        """Of the store, so far."""
        return sum(self.requests().values())

    def flush(self, **how: Any) -> None:
        self.fs.s3cfs("ctl", "flush", self.path, **how)

    def umount(self, **how: Any) -> None:
        """s3cfs umount; the process has ended afterwards."""
        self.fs.s3cfs("umount", self.path, **how)
        assert not mounted_at(self.path)
        assert wait_gone(self.pid, 5.0), "the process outlived `s3cfs umount`"

    @property
    def state(self) -> Path:
        """The local state folder (the only one in this cachedir)."""
        folder, = [entry for entry in self.cachedir.iterdir() if (entry / "lock").exists()]
        return folder

    def log(self) -> str:
        return (self.state / "log").read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return bool(self.pid) and not wait_gone(self.pid, 0)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and the end of the process; the dead mount stays."""
        self.signal(signal.SIGKILL)
        assert wait_gone(self.pid), "SIGKILL did not end the process"

    def close(self) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            wait_gone(self.pid)
        while mounted_at(self.path):
            detach(self.path)
