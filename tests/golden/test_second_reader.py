"""What a second program, made from docs/format.md alone, reads in the golden stores; and that it names the object that is damaged."""
from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from tests.golden.reader import history, packs, sealed, superblock, tables
from tests.golden.reader.__main__ import main as reader_main
from tests.golden.reader.changeset import UNDEFINED, Change, Cut, changes
from tests.golden.reader.listing import listing
from tests.golden.reader.store import Folder, NoKey, Objects, Wrong
from tests.golden.reader.tree import Filesystem, open_filesystem
from tests.golden.soundness import sound

GOLDEN = Path(__file__).parent
FILESYSTEMS = sorted(GOLDEN.glob("v*/filesystem*"))
OBJECTS = sorted(folder for folder in GOLDEN.glob("v*/*") if (folder / "expected.json").exists())


def name(folder: Path) -> str:
    return f"{folder.parent.name}-{folder.name}"


def objects(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".json"}


@pytest.fixture(params=FILESYSTEMS, ids=name)
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


@pytest.fixture
def expected(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "tree.json").read_text())
    return found


@pytest.fixture
def secret(expected: dict[str, Any]) -> dict[str, Any]:
    return {"passphrase": expected["passphrase"] or ""}


def test_it_is_another_program():
    """Nothing of s3cfs and no SQLite is in memory after it has read a store; nor is any of its files named."""
    text = (f"import sys, pathlib; from tests.golden.reader import listing, tree, store; f = pathlib.Path({str(FILESYSTEMS[0])!r}); "
            "import json; e = json.loads((f / 'tree.json').read_text()); "
            "listing.listing(tree.open_filesystem(store.Folder(f / 'store'), passphrase=e['passphrase'])); "
            "print([m for m in sys.modules if m.partition('.')[0] in ('s3cfs', 'backends', 'apsw', 'sqlite3', 'pyfastcdc', 'trio')])")
    done = subprocess.run([sys.executable, "-c", text], cwd=GOLDEN.parent.parent, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert not [path for path in (GOLDEN / "reader").glob("*.py") if "import s3cfs" in path.read_text() or "from s3cfs" in path.read_text()]


@pytest.mark.parametrize("by", ["passphrase", "second", "recovery_key"])
def test_the_whole_filesystem(folder: Path, expected: dict[str, Any], by: str):
    """... with every secret; that of a later slot is in the newer superblock only."""
    filesystem = open_filesystem(Folder(folder / "store"), **{"passphrase" if by == "second" else by: expected[by] or ""})
    assert listing(filesystem) == expected["tree"]
    assert not list(tables.problems(filesystem.tables))


def test_everything_else_in_it(folder: Path, secret: dict[str, Any]):
    """Every commit, checkpoint and pack; between them they have a change of every table, and records of every kind."""
    seen = sound(Folder(folder / "store"), **secret)
    assert {table for table, _ in seen.changes} == set(tables.COLUMNS) - {"fsmeta"}
    assert {operation for _, operation in seen.changes} == {"insert", "update", "delete"}
    assert seen.records["release"] and seen.records["commit"] and seen.records["claim"] + seen.records["seal"] >= 5
    assert seen.checkpoints > 3 and seen.left_out == 2 and seen.riders and seen.copied


# ---------------------------------------------------------------- damage

def outcome(store: Objects, secret: dict[str, Any]) -> Any:
    """The tree, or the key of the object that is wrong."""
    try:
        return listing(open_filesystem(store, **secret))
    except Wrong as error:
        return error.key


@pytest.mark.parametrize("how", ["first bit", "some bit", "cut", "gone", "another"])
def test_it_names_the_object_that_is_damaged(folder: Path, expected: dict[str, Any], secret: dict[str, Any], how: str):
    """Or does without it: the other copy of the superblock, an older checkpoint, the log. What it does not ask for may be as it likes."""
    whole = objects(folder / "store")
    newest = max((key for key in whole if history.parse_manifest_key(key)), key=lambda key: history.parse_manifest_key(key) or 0)
    behind = [key for key in whole if (place := history.parse_key(key)) and place[2] < (history.parse_manifest_key(newest) or 0)]
    needed = needed_for(Objects(whole), secret)
    tip = max(needed, key=lambda key: history.parse_key(key) or (0, "", 0))
    for key in needed:
        damaged, data = dict(whole), whole[key]
        if how == "gone":
            del damaged[key]
        elif how == "another":
            kin = sorted(whole, key=lambda one: one.split("/")[0] != key.split("/")[0])
            damaged[key] = next(whole[one] for one in kin if whole[one] != data)
        else:
            at = {"first bit": 0, "cut": -1}.get(how, len(key) * 7919 % len(data))
            damaged[key] = data[:-1] if how == "cut" else data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]
        found, whose = outcome(Objects(damaged), secret), owner(whole, key)
        if key.startswith(("super/", newest.rpartition("/")[0])):
            assert found == expected["tree"], key
        elif how == "gone" and key == tip:
            assert isinstance(found, dict)                 # the store as it was before: only who has seen more can tell
        elif whose in behind and how != "another":         # asked for what rides in it, and only that is looked at
            assert found in (whose, expected["tree"])
        else:
            assert found == whose


def owner(whole: dict[str, bytes], key: str) -> str:
    """The object that a piece is of; any other key itself."""
    token = bytes.fromhex(key.split("/")[1]) if key.startswith("piece/") else None
    return next(one for one, data in whole.items() if (data[28:44] == token if token else one == key))


def needed_for(store: Objects, secret: dict[str, Any]) -> set[str]:
    """Keys that are asked for on the way to the tree."""
    asked: set[str] = set()

    class Watched(Objects):
        def raw(self, key: str) -> bytes:
            asked.add(key)
            return super().raw(key)

    listing(open_filesystem(Watched({key: store.raw(key) for key in store.names()}), **secret))
    return asked


def test_a_wrong_secret_opens_nothing(folder: Path, expected: dict[str, Any]):
    with pytest.raises(NoKey):
        open_filesystem(Folder(folder / "store"), passphrase="another")


def test_by_hand(folder: Path, expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                 capsys: pytest.CaptureFixture[str]):
    """`python -m tests.golden.reader`: a line for each path, the files themselves, one line for what is wrong."""
    def run(*words: str, secret: str) -> int:
        monkeypatch.setattr(sys, "argv", ["reader", str(folder / "store"), *words])
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{secret}\n"))
        return reader_main()

    plain = [] if expected["passphrase"] else ["--plain"]
    assert run(*plain, secret=expected["passphrase"] or "") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line.pop("path").rstrip("/"): line for line in lines} == expected["tree"]
    assert run("--extract", str(tmp_path / "out"), *plain, secret=expected["passphrase"] or "") == 0
    assert (tmp_path / "out/renamed").read_bytes() == b"a file of A FILEtes lives in its row\n"
    assert run(secret="another") == 1 and capsys.readouterr().err.startswith("NoKey: ")


# ---------------------------------------------------------------- objects one by one

@pytest.fixture(params=OBJECTS, ids=name)
def single(request: pytest.FixtureRequest) -> tuple[Objects, dict[str, Any]]:
    return Objects(objects(request.param)), json.loads((request.param / "expected.json").read_text())


def test_fields_of_every_kind_of_object(single: tuple[Objects, dict[str, Any]]):
    store, expected = single
    block = superblock.current(store)
    for name, value in expected["superblock"].items():
        assert block.values["s3cfs" if name == "version" else name] == value or name == "slots"
    keys = superblock.unlock(block, passphrase=expected["passphrase"] or "")
    if expected["passphrase"]:
        for other in ({"key_file": bytes.fromhex(expected["key_file"])}, {"recovery_key": expected["recovery_key"].lower()}):
            assert superblock.unlock(block, **other).derive("x") == keys.derive("x")
    found = history.History(store, keys)
    for field in expected["records"]:
        record = found.record(field["key"])
        assert [record.hash, record.kind, record.n, record.epoch, record.writer, record.prev, record.info, record.changeset.hex()] == \
            [field[name] for name in ("hash", "kind", "n", "epoch", "writer", "prev", "info", "changeset")]
        list(changes(record.changeset))
        assert [[one.pack, one.name, one.offset, one.size] for one in record.riders] == field["riders"]
        data = store.get(record.key)
        assert all(blake3(data[one.offset:one.offset + one.size]).hexdigest() in one.name for one in record.riders)
    fields = expected["checkpoint"]
    manifest = found.manifest(fields["key"])
    assert (manifest.commit, manifest.record_key, manifest.record_hash, manifest.counters) == \
        (fields["commit"], fields["record_key"], fields["record_hash"], fields["counters"])
    assert [list(one) for one in manifest.riding] == fields["riding"]
    assert [[one.hex() for one in found.part(manifest, part)] for part in manifest.parts] == fields["changesets"]
    pack, pack_name = packs.Packs(store, keys), expected["pack"]["key"].rpartition("/")[2]
    for entry, field in zip(pack.index(pack_name), expected["pack"]["entries"], strict=True):
        assert (entry.chunk.hex(), entry.offset, entry.size, entry.length) == \
            tuple(field[name] for name in ("chunk_id", "offset", "size", "length"))
        assert pack.chunk(pack_name, entry.chunk, entry.offset, entry.size, entry.length).hex() == field["content"]


# ---------------------------------------------------------------- the bytes of a changeset

def test_a_changeset_by_hand():
    row = (b"T\x03\x01\x00\x00t\0" b"\x17\x01" b"\x01\xff\xff\xff\xff\xff\xff\xff\xfe" b"\x03\x02hi" b"\0" b"\0" b"\x05" b"\0"
           b"\x12\x00" b"\x01\0\0\0\0\0\0\x01\x00" b"\x04\x81\x00" + bytes(128) + b"\x02\x3f\xf8\0\0\0\0\0\0")
    assert list(changes(row)) == [
        Change("t", (0,), 3, "update", True, (-2, "hi", UNDEFINED), (UNDEFINED, None, UNDEFINED)),
        Change("t", (0,), 3, "insert", False, None, (256, bytes(128), 1.5))]
    for cut in range(1, len(row)):
        if cut not in (7, len(row) - 151):      # after the table's head, after the first change
            with pytest.raises(Cut):
                list(changes(row[:cut]))


@pytest.mark.parametrize("wrong", [
    b"T\x02\x01\x00nothing\0\x12\0\x05\x05", b"T\x01\x01trash\0\x12\0\x05", b"T\x01\x00orphan\0\x12\0\x05",
    b"T\x01\x01orphan\0\x09\0\x01" + bytes(8), b"T\x01\x01orphan\0\x12\0\x04\x01a",
    b"T\x02\x01\x00counter\0\x12\0\x03\x06inodes\x01" + bytes(8)])
def test_a_changeset_of_another_state_is_refused(wrong: bytes):
    with pytest.raises(Wrong, match="here"):
        tables.Tables().apply("here", wrong)


def test_what_the_document_says_of_crc_and_json():
    assert sealed.crc16(b"123456789") == 0x29B1                    # the check value of CRC-16/CCITT-FALSE
    for text in (b'{"a":1,"a":2}', b"[]", b'{"a":NaN}', b"\xff", b"{" * 100_000):
        with pytest.raises(Wrong):
            sealed.parse("key", text)


def test_a_filesystem_without_a_writer_is_the_initial_state(folder: Path, secret: dict[str, Any]):
    store = Objects({key: data for key, data in objects(folder / "store").items() if key.startswith("super/")})
    keys = superblock.unlock(superblock.current(store), **secret)
    found = history.History(store, keys)
    filesystem = Filesystem(found.tables(), packs.Packs(store, keys, found.riding))
    assert [(node.path, node.ino, node.inode["mode"]) for node in filesystem.walk()] == [(b"", 1, 0o40755)]
