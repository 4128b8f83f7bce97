"""`s3cfs ipfs export`: the CIDs that `ipfs add -r --cid-version=1 --raw-leaves --chunker=size-1048576` of Kubo 0.42 printed for the same
trees; archives; trees that change meanwhile."""
from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from s3cfs import cli
from s3cfs.backends.ipfs.car import Archive
from s3cfs.backends.ipfs.cid import Cid
from s3cfs.backends.ipfs.dag import Form
from s3cfs.cli import seam
from s3cfs.errors import ConfigError, ExitCode, NotAMount, SystemFailure, Unsupported
from s3cfs.fuse import mounttable
from s3cfs.moves.ipfs import reading, tree
from s3cfs.moves.ipfs.export import ExportOptions, ExportResult, export
from tests.backends.ipfs.trees import NEW, ODD, OLD, SMALL, A, Blocks, Tree, added, on_disk, read

PATTERN = bytes(i % 251 for i in range(251)) * 250_000
WIDE: Tree = {f"d{i}": {f"f{j}": b"%d %d" % (i, j) for j in range(12)} for i in range(5)}
SMALL_CID = "bafybeiaubli2fdvij2skdq6xilyps63qtzeklfyfk64cnevleclum4xn5a"


class Exported:
    """One export; what was reported of it."""

    def __init__(self, path: Path | str, on_progress: Callable[[Mapping[str, Any]], None] = lambda event: None, **options: Any) -> None:
        self.lines: list[str] = []
        self.events: list[Mapping[str, Any]] = []

        def progress(event: Mapping[str, Any]) -> None:
            self.events.append(event)
            on_progress(event)

        def report(path: str, text: str) -> None:
            self.lines.append(f"{path}: {text}")

        self.result: ExportResult = export(str(path), None, ExportOptions(**options), report, progress)


def blocks_in(path: Path) -> tuple[Cid, Blocks]:
    with path.open("rb") as file:
        found, blocks = Archive(file.read), Blocks()
        for cid, data in found:
            blocks.put(cid, data)
    (root,) = found.roots
    return root, blocks


@pytest.mark.parametrize(("size", "cid"), [
    (0, "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
    (100, "bafkreif44cx7dhhvvjvhi2ndbvq5atsdo3slx5rycbjo5ht7gojfzfknki"),
    (1 << 20, "bafkreidddocae7lltzjlkooe5a3tmiwsgazn7logjvqk7bzttsidpzhxne"),
    (2_500_000, "bafybeih7ahcm3l4fztng26so42m3uy3evbq4hfrubw2z4j7hbrq2xyxixe"),
    (60_000_000, "bafybeictgred7nmpy6ik52jyslddgj2f7we4cpowv4vqvtgvmr4rexh7by"),
])
def test_files(size: int, cid: str, tmp_path: Path):
    path = on_disk(PATTERN[:size], tmp_path / "file")
    one = Exported(path)
    assert (one.result.cid, one.result.bytes, one.result.files, one.result.exit_code) == (cid, size, 1, ExitCode.OK)
    assert not one.events or one.events[-1] == {"done": size, "total": size, "unit": "bytes", "text": "exporting"}


@pytest.mark.parametrize(("tree", "form", "cid"), [
    (SMALL, NEW, SMALL_CID),
    (SMALL, OLD, "Qme8AXAUVwT7BtwgMCg1Y21KHGNAKa5okZ2rxkoJrow5G2"),
    ({}, NEW, "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"),
    ("nowhere", NEW, "bafybeicfkztyetdy3wus3qxlv2snjunm7kxxfoyexh2tdvdxwlyzobajoy"),
    (ODD, NEW, "bafybeibtvx6ifpyqres463npl6dqvclffaolidziyncjdpmrcsjqh55meq"),
    (WIDE, NEW, "bafybeifddhpjykejoltoaz56ezar2c7edwstjfb6vzx72v2rv7xvgcambm"),
], ids=["small", "small-old", "empty", "symlink", "odd", "wide"])
def test_trees(tree: Tree, form: Form, cid: str, tmp_path: Path):
    path = on_disk(tree, tmp_path / "top")
    one = Exported(path, form=form, car=str(tmp_path / "x.car"))
    root, blocks = blocks_in(tmp_path / "x.car")
    assert one.result.cid == str(root) == cid and read(root, blocks) == tree and one.result.exit_code == ExitCode.OK
    assert sorted(os.listdir(tmp_path)) == ["top", "x.car"]


def test_what_is_the_same_is_in_an_archive_once(tmp_path: Path):
    Exported(on_disk({"a": PATTERN[:1000], "b": PATTERN[:1000]}, tmp_path / "top"), car=str(tmp_path / "x.car"))
    with (tmp_path / "x.car").open("rb") as file:
        assert len(list(Archive(file.read))) == 2


def test_what_is_counted(tmp_path: Path):
    result = Exported(on_disk({**SMALL, "twice": PATTERN[:1000], "copy": PATTERN[:1000]}, tmp_path / "top")).result
    assert (result.files, result.folders, result.symlinks, result.bytes, result.hidden) == (3, 4, 2, 2003, 0)
    assert result.block_bytes == added({**SMALL, "twice": PATTERN[:1000], "copy": PATTERN[:1000]}, NEW, Blocks()).tsize


def test_hidden_names(tmp_path: Path):
    with_hidden: Tree = {**SMALL, ".hidden": {"in": b"1"}, "a": {**A, ".x": b"2"}}
    top = on_disk(with_hidden, tmp_path / ".top")
    result = Exported(top).result
    assert (result.cid, result.hidden, result.exit_code) == (SMALL_CID, 2, ExitCode.OK)
    result = Exported(top, hidden=True).result
    assert (result.cid, result.hidden) == (str(added(with_hidden, NEW, Blocks()).cid), 0)


def test_what_ipfs_has_nothing_for(tmp_path: Path):
    top = on_disk(SMALL, tmp_path / "top")
    os.mkfifo(top / "a" / "fifo")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(top / "socket"))
        found = Exported(top)
    assert found.result.cid == SMALL_CID and found.result.exit_code == ExitCode.UNSUPPORTED
    assert found.lines == [f"{top}/a/fifo: a fifo, left out: IPFS has nothing for that",
                           f"{top}/socket: a socket, left out: IPFS has nothing for that"]
    for path in (top / "a" / "fifo", "/dev/null"):
        with pytest.raises(Unsupported, match="IPFS has nothing for that"):
            Exported(path)
    for nothing in (tmp_path / "nothing", tmp_path / "top" / "a" / "x" / "below"):
        with pytest.raises(SystemFailure, match="there is no such file"):
            Exported(nothing)
    with pytest.raises(SystemFailure, match="there is no such folder"):
        list(tree.Walk(str(tmp_path / "nothing"), with_hidden=False))


def changing(monkeypatch: pytest.MonkeyPatch, path: Path, times: int, change: Callable[[], object]) -> list[int]:
    """`change()` while the file is read, so many times. Returns the counter of reads of its beginning."""
    real, inode, reads = os.pread, path.stat().st_ino, [0]

    def pread(fd: int, size: int, at: int) -> bytes:
        if os.fstat(fd).st_ino == inode and not at and size:
            reads[0] += 1
            if reads[0] <= times:
                change()
        return real(fd, size, at)

    monkeypatch.setattr(os, "pread", pread)
    return reads


def test_a_file_that_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    top = on_disk({"log": b"first", "other": b"x"}, tmp_path / "top")
    reads = changing(monkeypatch, top / "log", 2, lambda: (top / "log").write_bytes(b"now longer"))
    found = Exported(top, car=str(tmp_path / "x.car"))
    assert found.lines == [] and reads == [3] and found.events[-1]["done"] == 11
    assert read(*blocks_in(tmp_path / "x.car")) == {"log": b"now longer", "other": b"x"}


def test_a_file_that_changes_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Named; as much as there was when it was opened is what counts, so one that only grows is the beginning of what it is."""
    top = on_disk({"log": b"first", "other": b"x"}, tmp_path / "top")

    def grow() -> None:
        with (top / "log").open("ab") as file:
            file.write(b"+")

    reads = changing(monkeypatch, top / "log", 100, grow)
    found = Exported(top, car=str(tmp_path / "x.car"))
    assert found.lines == [f"{top}/log: changed while it was read: what is exported may be of no one moment"] and reads == [3]
    assert (found.result.exit_code, found.result.changed) == (ExitCode.DAMAGED, [f"{top}/log"])
    assert read(*blocks_in(tmp_path / "x.car")) == {"log": b"first++", "other": b"x"}


def test_a_file_that_is_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A large one is read once only."""
    path = on_disk(PATTERN[:3 << 20], tmp_path / "file")
    monkeypatch.setattr(reading, "AGAIN_BYTES", 1 << 20)
    reads = changing(monkeypatch, path, 100, lambda: os.truncate(path, 2 << 20))
    found = Exported(path, car=str(tmp_path / "x.car"))
    assert found.result.changed == [str(path)] and reads == [1] and found.result.bytes == 2 << 20
    root, blocks = blocks_in(tmp_path / "x.car")
    assert read(root, blocks) == PATTERN[:2 << 20]


@pytest.mark.parametrize("most", [1000, 0])
def test_short_answers_of_the_system(most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Are gone on from; but where there are no more bytes than that, the file is not what its size says."""
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: real(fd, min(size, most), at))
    found = Exported(on_disk(PATTERN[:2_500_000], tmp_path / "file"))
    assert found.result.exit_code == (ExitCode.OK if most else ExitCode.DAMAGED)
    assert found.result.cid == ("bafybeih7ahcm3l4fztng26so42m3uy3evbq4hfrubw2z4j7hbrq2xyxixe" if most else
                                "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku")


def test_what_becomes_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """After it was looked at: it is left out, and nothing that it leads to is read."""
    top = on_disk({**SMALL, "file": b"1", "fifo": b"2", "folder": {"x": b"3"}, "symlink": "x"}, tmp_path / "top")
    on_disk({"secret": b"4"}, tmp_path / "secret")
    real = tree.look

    def look(path: str) -> tuple[tree.Kind, int]:
        seen, name = real(path), os.path.basename(path)
        if name in ("file", "fifo", "folder", "symlink"):
            os.rename(path, tmp_path / name)
            if name == "fifo":
                os.mkfifo(path)
            else:
                on_disk({"file": "../secret/secret", "folder": "../secret"}.get(name, b"now a file"), Path(path))
        return seen

    monkeypatch.setattr(tree, "look", look)
    found = Exported(top)
    assert found.result.cid == SMALL_CID and found.result.gone == [f"{top}/{name}" for name in ("fifo", "file", "folder", "symlink")]


def test_what_vanishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    top = on_disk({**SMALL, "file": b"1", "folder": {"x": b"2"}, "symlink": "x", "early": b"3"}, tmp_path / "top")
    real = tree.look

    def look(path: str) -> tuple[tree.Kind, int]:
        name = os.path.basename(path)
        if name == "early":
            os.unlink(path)
        seen = real(path)
        if name in ("file", "symlink"):
            os.unlink(path)
        elif name == "folder":
            os.rename(path, tmp_path / "elsewhere")
        return seen

    monkeypatch.setattr(tree, "look", look)
    found = Exported(top)
    assert found.result.cid == SMALL_CID and found.result.exit_code == ExitCode.OBJECT_MISSING
    assert found.result.gone == [f"{top}/{name}" for name in ("early", "file", "folder", "symlink")]
    assert found.lines[0] == f"{top}/early: vanished meanwhile, and is left out"


def test_what_cannot_be_read_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    top = on_disk(SMALL, tmp_path / "top")
    (tmp_path / "x.car").write_bytes(b"of an earlier export")

    def pread(fd: int, size: int, at: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(SystemFailure, match=f"{top}/a/x: Input/output error"):
        Exported(top, car=str(tmp_path / "x.car"))
    assert sorted(os.listdir(tmp_path)) == ["top", "x.car"] and (tmp_path / "x.car").read_bytes() == b"of an earlier export"


def test_interrupted(tmp_path: Path):
    """Readers end at the next leaf, and nothing is left of the archive."""
    top = on_disk({f"{i}": PATTERN[:5 << 20] for i in range(6)}, tmp_path / "top")
    threads = set(threading.enumerate())

    class Enough(Exception): ...

    def progress(event: Mapping[str, Any]) -> None:
        if event["done"] > 3 << 20:
            raise Enough

    with pytest.raises(Enough):
        Exported(top, progress, car=str(tmp_path / "x.car"))
    assert set(threading.enumerate()) == threads and os.listdir(tmp_path) == ["top"]


def test_trouble_ends_all_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also that of a file which is not the next one to be settled; and it is what is told."""
    top = on_disk({"a": PATTERN[:1 << 20], "b": b"", "c": PATTERN[:1 << 20]}, tmp_path / "top")
    real, inode, reads, broken = os.pread, (top / "c").stat().st_ino, [0], threading.Event()

    def pread(fd: int, size: int, at: int) -> bytes:
        if os.fstat(fd).st_ino == inode:
            broken.set()
            raise OSError(5, "Input/output error")
        assert broken.wait(10)
        reads[0] += 1
        return real(fd, size, at)

    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(SystemFailure, match=f"{top}/c: Input/output error"):
        Exported(top, form=Form(leaf_bytes=64))
    assert reads[0] < 10_000


def test_an_archive_lies_elsewhere(tmp_path: Path):
    top = on_disk(SMALL, tmp_path / "top")
    on_disk("top", tmp_path / "link")
    with pytest.raises(ConfigError, match="another place"):
        Exported(top / "a" / "x", car=str(top / "a" / "x"))
    for path in (top / "x.car", top / "a" / "x.car", tmp_path / "link" / "x.car"):
        with pytest.raises(ConfigError, match="another place"):
            Exported(top, car=str(path))
    with pytest.raises(SystemFailure, match="No such file"):
        Exported(top, car=str(tmp_path / "nowhere" / "x.car"))
    Exported(top, car=str(tmp_path / "top.car"))


def test_one_raw_block_in_the_old_form(tmp_path: Path):
    """Its CID is v1, and so longer than the root of all other archives of that form."""
    path = on_disk(b"hello world", tmp_path / "file")
    result = Exported(path, form=Form(0, True), car=str(tmp_path / "x.car")).result
    root, blocks = blocks_in(tmp_path / "x.car")
    assert result.cid == str(root) == "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e" and read(root, blocks) == b"hello world"


def test_deep(tmp_path: Path):
    os.makedirs(tmp_path / "top" / "/".join("d" * 500))
    (tmp_path / "top" / "/".join("d" * 500) / "x").write_bytes(b"1")
    assert Exported(tmp_path / "top").result.folders == 501


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    top = str(on_disk({**SMALL, ".x": b""}, tmp_path / "top"))
    assert cli.main(["ipfs", "export", "--only-hash", top]) == 0
    out, err = capsys.readouterr()
    assert out == f"{SMALL_CID}\n" and err == "1 file, 4 folders, 2 symlinks, 3 B; 1 hidden name left out (--hidden)\n"
    assert cli.main(["ipfs", "export", "-nq", "--cid-version=0", "--chunker=size-262144", top]) == 0
    assert capsys.readouterr() == ("Qme8AXAUVwT7BtwgMCg1Y21KHGNAKa5okZ2rxkoJrow5G2\n", "")
    assert cli.main(["ipfs", "export", "-nq", "--no-raw-leaves", top]) == 0
    assert capsys.readouterr().out == "bafybeicut2ldcmzgqtuwd7teks72wmcbg2fumdjk2uxwc4wnilzs24n2oi\n"
    os.mkfifo(f"{top}/fifo")
    assert cli.main(["ipfs", "export", "--json", "--car", str(tmp_path / "x.car"), top]) == 31
    tsize = added(SMALL, NEW, Blocks()).tsize
    assert json.loads(capsys.readouterr().out) == {
        "cid": SMALL_CID, "files": 1, "folders": 4, "symlinks": 2, "bytes": 3, "block_bytes": tsize, "hidden": 1,
        "changed": [], "gone": [], "special": [f"{top}/fifo"], "exit_code": 31}


def test_where_to_when_nobody_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """The store of the innermost mount that PATH lies in, if that is one of ours."""
    table = "".join(f"30 1 0:{n} / {where} rw - {kind} x rw\n" for n, (where, kind) in enumerate((
        ("/", "ext4"), (f"{tmp_path}/a", "fuse.s3cfs"), (f"{tmp_path}/a/other", "tmpfs"), (f"{tmp_path}/ab", "fuse.s3cfs"))))
    (tmp_path / "mountinfo").write_text(table)
    monkeypatch.setattr(mounttable, "MOUNTINFO", str(tmp_path / "mountinfo"))

    def served(mountpoint: str) -> Any:
        if mountpoint not in (f"{tmp_path}/a", f"{tmp_path}/ab"):
            raise NotAMount("nobody")
        return SimpleNamespace(url=f"local://{mountpoint}.store", socket=mountpoint)

    monkeypatch.setattr(seam, "served", served)
    asked: list[object] = []
    monkeypatch.setattr(seam, "call", lambda socket, op, args: asked.append((socket, op)))
    on_disk("ab/x", tmp_path / "link")
    for path, store in (("a", "a"), ("a/x/y", "a"), ("ab/x", "ab"), ("link", "ab"), ("a/other", ""), ("abc", "")):
        assert cli.main(["ipfs", "export", f"{tmp_path}/{path}"]) == 25
        expected = f"local://{tmp_path}/{store}.store is no IPFS datastore" if store else f"{tmp_path}/{path} lies in no mount of s3cfs"
        assert capsys.readouterr().err.startswith(f"s3cfs: {expected}: say where to (--to URL, --car FILE), or --only-hash")
        assert asked == ([(f"{tmp_path}/{store}", "ping")] if store else [])      # who does not answer would have us hang
        asked.clear()


@pytest.mark.parametrize(("argv", "code", "line"), [
    (["ipfs"], 1, "the following arguments are required: ACTION"),
    (["ipfs", "fly"], 1, "invalid choice: 'fly'"),
    (["ipfs", "export", "--only-hash", "--car", "x", "."], 1, "it goes with neither --to nor --car"),
    (["ipfs", "export", "--chunker=rabin", "."], 1, "'rabin' is not size-N"),
    (["ipfs", "export", "--chunker=size-2097152", "."], 1, "with N from 1 to 2096896"),
    (["ipfs", "export", "--max-file-links=1", "."], 1, "'1' is not a number from 2 to 8192"),
    (["ipfs", "export", "--to", "local:///tmp", "."], 25, "local:///tmp is no IPFS datastore"),
    (["ipfs", "export", "."], 25, ". lies in no mount of s3cfs: say where to"),
    (["ipfs", "export", "-n", "/nothing"], 2, "/nothing: there is no such file"),
])
def test_one_line(argv: list[str], code: int, line: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main(argv) == code
    out, err = capsys.readouterr()
    assert line in err and err.count("\n") == 1 and not out
