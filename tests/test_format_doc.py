"""docs/format.md against the code: tables and their columns, the initial state, keys, bounds, fields, and every example in hex."""
from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from s3cfs import ids
from s3cfs.backends.memory import MemoryBackend
from s3cfs.backends.pieces import HEAD_BYTES, LARGEST_MADE_BYTES, MAGIC, PIECES_MAX
from s3cfs.check.dump import dump
from s3cfs.formats import checkpoint, chunker, envelope, record, seal, superblock
from s3cfs.formats.keys import KeyRing
from s3cfs.formats.record import Kind, Record
from s3cfs.formats.superblock import Argon2Params, KeySlot, Superblock
from s3cfs.history.log import GENESIS
from s3cfs.meta import schema
from tests.golden.reader import changeset as second
from tests.golden.reader import tables as second_tables
from tests.golden.reader.history import History
from tests.golden.reader.store import Folder
from tests.golden.reader.superblock import current, unlock
from tests.remote.kit import ask

TEXT = (Path(__file__).parent.parent / "docs/format.md").read_text("utf-8")


class Counting:
    """Bytes that count up from 00, anew each time."""

    def bytes(self, count: int) -> bytes:
        return bytes(range(count))

    def uniform(self, low: float, high: float) -> float:
        return low


FS_ID, MASTER = bytes(range(16)), bytes(range(32))
RING, PLAIN = KeyRing(FS_ID, MASTER, Counting()), KeyRing(FS_ID, None, Counting())


def part(heading: str) -> str:
    """What stands under a heading, up to the next one."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


def rows(text: str) -> list[list[str]]:
    """Cells of the tables in it, heads apart."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for at, line in enumerate(lines)
            if not line.startswith("|---") and not lines[at + 1:at + 2] == ["|---|" + "---|" * (line.count("|") - 2)]]


def block(name: str) -> list[str]:
    found = re.search(rf"^```{name}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert found
    return found[1].splitlines()


@pytest.fixture
def database() -> apsw.Connection:
    made = apsw.Connection(":memory:")
    for sql, values in schema.statements():
        made.execute(sql, values)
    return made


# ---------------------------------------------------------------- tables

def test_every_table_is_there_and_no_other():
    assert re.findall(r"^### `(\w+)`$", TEXT, re.MULTILINE) == [table.name for table in schema.REPLICATED]


@pytest.mark.parametrize("table", schema.REPLICATED, ids=lambda table: table.name)
def test_columns_and_their_types_are_those_of_the_schema(table: schema.Table, database: apsw.Connection):
    described = [(name.strip("`"), kind) for name, kind, _ in rows(part(f"`{table.name}`"))]
    columns = list(database.execute(f"PRAGMA table_info({table.name})"))
    assert described == [(name, kind + (f", key {key}" if key else "" if not_null else " or NULL"))
                         for _, name, kind, not_null, _, key in columns]


def test_the_initial_state(database: apsw.Connection):
    described = []
    for line in block("initial"):
        table, values = line.split(None, 1)
        described.append((table, next(iter(database.execute(f"VALUES {values}")))))
    assert described == list(schema.INITIAL)
    assert schema.SCHEMA_VERSION == 0 and "in decimal: 0." in part("`fsmeta`")


def example() -> bytes:
    """The changeset that is there in hex."""
    return bytes.fromhex("".join(re.split(r"\s{2,}", line.strip())[0] for line in block("changeset")))


def test_the_changeset_in_hex(database: apsw.Connection):
    """SQLite and the second reader see in it what stands beside it, and it fits the initial state."""
    data = example()
    time = 1_750_000_000_123_456_789
    apsw.Changeset.apply(data, database)
    assert set(database.execute("SELECT * FROM counter")) == {
        ("inodes", 2), ("next_chunk", 1), ("next_ino", 3), ("next_pack", 1), ("used_bytes", 3)}
    assert list(database.execute("SELECT * FROM inode ORDER BY ino")) == [
        (1, 0o40755, 2, 0, 0, 0, 0, 0, 0, time, time, 1, None, None),
        (2, 0o100644, 1, 1000, 1000, 0, 3, 3, time, time, time, 0, None, b"hi\n")]
    assert list(database.execute("SELECT * FROM dentry")) == [(1, b"a", 2)]
    found = list(second.changes(data))
    assert [(one.operation, one.table) for one in found] == [
        (change.op.lower(), change.name) for change in apsw.Changeset.iter(data)]
    made = second_tables.Tables()
    made.apply("here", data)
    assert all(sorted(made.rows[table.name].values(), key=repr) == sorted(database.execute(f"SELECT * FROM {table.name}"), key=repr)
               for table in schema.REPLICATED)


# ---------------------------------------------------------------- keys of objects, fields, bounds

def test_keys_of_objects():
    """The examples are what the code makes of such numbers; the patterns are theirs."""
    writer, nonce = "94fe726de8d4b89c", "73846b391e510205"
    digest = bytes.fromhex("bbecfc3cbec9d1d7f67ac12c02aa09e6a66e1ae63c1d3bb4cd04c65bdc1ad7b4")
    made = [ids.super_key(3), ids.super_key(3, 2), ids.log_key(1007, writer, 2_000_019), ids.claim_key(1007, writer),
            ids.checkpoint_key(1019, f"manifest-{nonce}"), ids.checkpoint_key(1019, f"{nonce}-1"), ids.pack_key(ids.pack_name(7, digest))]
    described = [(re.findall(r"`([^`]*)`", pattern), re.findall(r"`([^`]*)`", example))
                 for pattern, example, _ in rows(part("Keys of the store"))]
    assert [one for _, examples in described for one in examples] == made
    for patterns, examples in described:
        for pattern, example in zip(patterns, examples, strict=True):
            assert re.fullmatch(re.sub(r"<[^>]*>", "[^/]+", re.escape(pattern).replace(r"\ ", " ")), example)
    assert GENESIS == "log/main/0/0-0000000000000000/" and GENESIS.replace("main", "<branch>") in TEXT and ids.BRANCH == "main"


def names(heading: str) -> list[str]:
    """Names in the first column of the tables under a heading."""
    return [name for row in rows(part(heading)) for name in re.findall(r"`(\w+)`", row[0])]


def test_fields_of_json():
    """All of them, in the order in which they are written."""
    slot = KeySlot("00010203", superblock.PASSPHRASE, 0, bytes(16), Argon2Params(), bytes(60))
    block = json.loads(superblock.encode(Superblock(1, FS_ID, "", 0, False, 1024, 4096, 8192, 0, (slot,), bytes(32))))
    assert names("Superblock") == list(block) == re.findall(r'"(\w+)":', part("Superblock").partition("⏎")[0])
    assert names("Key slots")[:len(block["slots"][0])] == list(block["slots"][0])
    assert all(f"`{name}`" in part("Key slots") for name in block["slots"][0]["argon2"])
    made = record.encode(Record(Kind.COMMIT, 1, 1, "0" * 16, ids.ZERO_HASH, 0), PLAIN.sealer("record", 1))
    fields = inner_json(made[record.SEAL_AT + 16 + 8:])
    assert names("The log")[:len(fields)] == list(fields)
    manifest = checkpoint.encode_manifest(checkpoint.Manifest(1, 1, "0" * 64, "", [], 0), PLAIN.sealer("checkpoint", 1))
    assert names("Checkpoints") == list(inner_json(manifest[16 + 16 + 4:]))


def inner_json(data: bytes) -> dict[str, Any]:
    """What begins there in clear text."""
    found: dict[str, Any] = json.JSONDecoder().raw_decode(data.decode("latin-1"))[0]
    return found


def test_names_in_info():
    """Those that the golden stores have, and one more."""
    described = names("The log")[names("The log").index("prev_key"):]
    seen: set[str] = set()
    for folder in (Path(__file__).parent / "golden" / f"v{ids.FORMAT_VERSION}").glob("filesystem*"):
        store = Folder(folder / "store")
        secret = json.loads((folder / "tree.json").read_text())["passphrase"] or ""
        seen |= {name for one in History(store, unlock(current(store), passphrase=secret)).back() for name in one.info}
    assert seen | {"every"} == set(described)


def test_bounds():
    described = {what: int(value) for what, value in rows(part("What a reader refuses"))}
    assert described == {
        "uncompressed changeset of a record; raw content of a part": envelope.PLAIN_MAX_BYTES,
        "a piece that is sealed": seal.OPEN_MAX_BYTES,
        "least head of a record": record.HEAD_MIN_BYTES, "riders of a record": record.RIDERS_MAX,
        "parts of a checkpoint": checkpoint.PARTS_MAX, "superblock, in bytes": superblock.OBJECT_MAX_BYTES,
        "key slots": superblock.SLOTS_MAX, "content of a chunk": chunker.MAX_RANGE[1], "size of a pack": 2**32 - 1}
    assert f"a *head* of {HEAD_BYTES} bytes" in part("Objects in pieces") and MAGIC.decode().strip() in part("Objects in pieces")
    most = f"names at most {LARGEST_MADE_BYTES >> 30} GiB in at most {PIECES_MAX:,} pieces"
    assert most in " ".join(part("Objects in pieces").split())
    assert str(envelope.PLAIN_MAX_BYTES) in part("The log") and str(envelope.PLAIN_MAX_BYTES) in part("Checkpoints")
    assert f"{superblock.LABEL_MAX_CHARS} characters at most" in " ".join(part("Superblock").split())
    assert set(re.findall(r"`(commit|claim|release|seal)`", part("The log"))) == set(Kind)


# ---------------------------------------------------------------- examples

def slot(kind: str, cost: Argon2Params | None) -> KeySlot:
    return KeySlot("00010203", kind, 0, bytes(range(16)), cost, b"")


def test_examples_in_hex():
    block = Superblock(1, FS_ID, "", 0, False, 1024, 4096, 8192, 0, (), b"")
    by_passphrase, by_recovery = slot(superblock.PASSPHRASE, Argon2Params(64, 1, 1)), slot(superblock.RECOVERY, None)
    key = superblock._wrapping_key(by_passphrase, superblock._passphrase_bytes("Zu\u0308rich"))        # composed on the way
    labels = [f'`key("{label}")`' for label in ("chunk/1", "index/1", "record/1", "checkpoint/1", "chunk-id", "superblock-mac")]
    made: dict[str, bytes] = {label: RING._derive(label[6:-3]) for label in labels}
    made[f'`key("chunker-seed")`, 8 bytes: the seed is {RING.chunker_seed()}'] = RING._derive("chunker-seed", 8)
    made["root with `--plain`"] = PLAIN._root
    made["id of the chunk `abc`"] = RING.chunk_id(b"abc")
    made["header of a record of epoch 1"] = envelope.header(envelope.RECORD, 1)
    made["seal of `abc`, purpose record, epoch 1, aad `aad`"] = RING.sealer("record", 1).seal(b"abc", b"aad")
    made["the same with `--plain`"] = PLAIN.sealer("record", 1).seal(b"abc", b"aad")
    made["key of a slot for the passphrase `Zürich`, 64 KiB, 1 pass, 1 lane"] = key
    made["`wrapped` of that slot, its id 00010203"] = RING.wrap_master(key, superblock._slot_aad(block, by_passphrase))
    made["key of a slot for the recovery key 00 01 … 1f"] = superblock._wrapping_key(by_recovery, MASTER)
    assert {what: value.strip("`") for what, value in rows(part("Examples"))} == {what: value.hex() for what, value in made.items()}
    assert f"`{superblock.format_recovery_key(MASTER)}`" in part("Examples")


def test_padme_as_it_says():
    for before, after in re.findall(r"(\d+) becomes (\d+)", part("Padmé")):
        assert envelope.padme(int(before)) == int(after)


def test_the_costs_that_are_refused():
    assert "above 4 GiB, 100 passes or 64 lanes, or of less than 8 KiB a lane" in " ".join(part("Key slots").split())
    refused: list[dict[str, Any]] = [{"memory_kib": (4 << 20) + 1}, {"passes": 101}, {"lanes": 65, "memory_kib": 1024}, {"memory_kib": 31}]
    assert not any(Argon2Params(**cost).valid() for cost in refused) and Argon2Params(4 << 20, 100, 64).valid() and Argon2Params().valid()
    assert Argon2Params() == Argon2Params(64 << 10, 3, 4)


def test_an_example_of_each_key_is_known_to_dump():
    """`s3cfs debug dump KEY` shows any object: none of the examples is refused for its name."""
    for key in [one for row in rows(part("Keys of the store")) for one in re.findall(r"`([^`]*)`", row[1])]:
        with pytest.raises(Exception, match="no such object"):
            ask(MemoryBackend(), partial(dump, key=key, keyring=RING))
