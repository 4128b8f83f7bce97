"""Which process serves which mount: a small file a mount, in a folder of its user."""
from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from s3cfs.errors import NotAMount, SystemFailure

ROOT_REGISTRY = Path("/run/s3cfs")


@dataclass(frozen=True, slots=True)
class Registration:
    """Who serves a mount. `started` is the process's start in clock ticks, so that a number used again is seen; `namespace` the
    one in which the number means this process: containers may share /run."""

    device: str                  # "major:minor"
    mountpoint: str
    url: str
    socket: str
    pid: int
    started: int
    namespace: str = ""

    @property
    def here(self) -> bool:
        """Whether `pid` means this process to the caller."""
        return self.namespace == _namespace()

    def alive(self) -> bool:
        if not self.here:
            return _listens(self.socket)
        return _started(self.pid) == self.started


def registry_folder(uid: int | None = None) -> Path:
    """Where mounts of this user are registered."""
    uid = os.geteuid() if uid is None else uid
    if uid == 0:
        return ROOT_REGISTRY
    if uid == os.geteuid() and os.environ.get("XDG_RUNTIME_DIR"):
        return Path(os.environ["XDG_RUNTIME_DIR"], "s3cfs")
    standard = Path("/run/user", str(uid))
    return standard / "s3cfs" if standard.is_dir() else Path("/tmp", f"s3cfs-{uid}")


def socket_path(folder: Path | None = None) -> str:
    """Where this process listens: beside its entry, and not in the local state, which somebody may remove while it runs."""
    return str((folder or registry_folder()) / f"{_namespace()}-{os.getpid()}.sock")


def register(device: str, mountpoint: str, url: str, socket_path: str, *, folder: Path | None = None) -> Path:
    """Say that this process serves the mount; returns the file, to be unlinked by `unregister` at the end."""
    folder = folder or registry_folder()
    entry = Registration(device, mountpoint, url, socket_path, os.getpid(), _started(os.getpid()) or 0, _namespace())
    try:
        folder.mkdir(mode=0o700 if os.geteuid() else 0o755, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.geteuid():     # somebody else's folder in /tmp
            raise SystemFailure(f"registry {folder} belongs to another user")
        for left in folder.glob("*.json"):
            if (old := _read(left)) is not None and not old.alive():
                left.unlink(missing_ok=True)
        for left in folder.glob("*.sock"):
            namespace, _, number = left.stem.rpartition("-")
            ours = namespace == _namespace() and number.isdigit()      # one that lives may not listen yet
            if not (_started(int(number)) if ours else _listens(str(left))):
                left.unlink(missing_ok=True)
        file, new = _file(folder, entry), folder / f".{device}.{os.getpid()}"
        new.write_text(json.dumps(asdict(entry)))
        new.rename(file)
    except OSError as error:
        raise SystemFailure(f"registry {folder}: {error.strerror}") from None
    return file


def unregister(file: Path) -> None:
    """Unless another process has put its own there meanwhile."""
    entry = _read(file)
    if entry is None or (entry.namespace, entry.pid) == (_namespace(), os.getpid()) or not entry.alive():
        file.unlink(missing_ok=True)


def find(mountpoint: str, device: str | None = None) -> Registration:
    """Who serves `mountpoint` (an absolute path), also while it is unmounted already and its daemon still uploads. With `device`,
    from the mount table, just that mount. NotAMount, in one line, when there is nobody. Never touches the mount: it may hang.
    """
    parent, name = os.path.split(mountpoint)
    paths = {mountpoint, os.path.join(os.path.realpath(parent), name)}
    found = [entry for folder in _folders() for entry in _entries(folder)
             if (entry.device == device if device is not None else entry.mountpoint in paths)]
    found.sort(key=lambda entry: (entry.mountpoint in paths, entry.started), reverse=True)     # a device's number is used again
    for entry in found:
        if entry.alive():
            return entry
    if found:
        raise NotAMount(f"{mountpoint}: the daemon of this mount has died (s3cfs umount --lazy clears the mount point)")
    raise NotAMount(f"{mountpoint}: no s3cfs of yours is mounted there")


def unfinished(entry: Registration) -> bool:
    """Whether an ended process has left its registration: it was killed, and did not bring to the store what it had."""
    return any(found == entry for folder in _folders() for found in _entries(folder))


def _file(folder: Path, entry: Registration) -> Path:
    """Of one process: a daemon that is unmounted and still uploads may meet another with the same device."""
    return folder / f"{entry.device}-{entry.namespace}-{entry.pid}.json"


def _folders() -> list[Path]:
    """Where to look: one's own registry and root's; root looks at everybody's."""
    folders = [registry_folder(), ROOT_REGISTRY]
    if os.geteuid() == 0:
        folders += sorted(Path("/run/user").glob("*/s3cfs")) + sorted(Path("/tmp").glob("s3cfs-[0-9]*"))
    return [folder for folder in dict.fromkeys(folders) if _trusted(folder)]


def _entries(folder: Path) -> Iterator[Registration]:
    try:
        files = sorted(folder.glob("*.json"))
    except OSError:
        return
    for file in files:
        entry = _read(file)
        if entry is not None:
            yield entry


def _read(file: Path) -> Registration | None:
    try:
        return Registration(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _trusted(folder: Path) -> bool:
    """A folder in a place where anybody may make one counts only if it is its supposed owner's."""
    try:
        return folder.parent != Path("/tmp") or folder.stat().st_uid == int(folder.name.removeprefix("s3cfs-"))
    except (OSError, ValueError):
        return False


def _namespace() -> str:
    """Of process numbers, by its number in the kernel; "0" where /proc does not say."""
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return "0"


def _listens(path: str) -> bool:
    """Whether a process has this socket open, of whatever namespace."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:                              # busy, or not ours to ask
            return True
    return True


def _started(pid: int) -> int | None:
    try:
        stat = Path("/proc", str(pid), "stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
