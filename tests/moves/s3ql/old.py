"""A writer of the metadata of S3QL's revisions 24 and 25, from the facts of the format: for states of which there is no real sample."""
from __future__ import annotations

import base64
import bz2
import sqlite3
from pathlib import Path

from s3cfs.moves.s3ql.dumps import TABLES
from s3cfs.moves.s3ql.envelope import Value, pack

Rows = list[tuple[int | bytes, ...]]


def integer(value: int) -> bytes:
    sign, magnitude = (128, -value) if value < 0 else (0, value)
    if magnitude <= 123:
        return bytes((sign | magnitude,))
    for mark, size in ((127, 1), (126, 2), (125, 4), (124, 8)):
        if magnitude < 1 << 8 * size:
            return bytes((sign | mark,)) + magnitude.to_bytes(size, "little")
    raise OverflowError(value)


def dump(revision: int, tables: dict[str, Rows]) -> bytes:
    made = bytearray()
    for name, columns in TABLES[revision]:
        rows = tables[name]
        made += integer(len(rows))
        before = [0] * len(columns)
        for row in rows:
            for number, (column, value) in enumerate(zip(columns, row, strict=True)):
                if column.kind == "hash":
                    assert isinstance(value, bytes) and len(value) == 32
                    made += value
                    continue
                plain = len(value) if isinstance(value, bytes) else value
                made += integer(plain - before[number] - column.step)
                before[number] = plain
                if isinstance(value, bytes):
                    made += value
    return bz2.compress(bytes(made))


def tables_of(database: str, revision: int) -> dict[str, Rows]:
    """Of a database of revision 26, in the order in which S3QL writes them."""
    sql = sqlite3.connect(database)
    sql.text_factory = bytes

    def rows(table: str, columns: str, order: str) -> Rows:
        return sql.execute(f"SELECT {columns} FROM {table} ORDER BY {order}").fetchall()
    found = {
        "objects": rows("objects", "id, hash, refcount, phys_size, length", "id"),
        "inodes": rows("inodes", "id, uid, gid, mode, mtime_ns, atime_ns, ctime_ns, size, rdev, locked, refcount", "id"),
        "inode_blocks": rows("inode_blocks", "inode, blockno, obj_id", "inode, blockno"),
        "symlink_targets": rows("symlink_targets", "inode, target", "inode"), "names": rows("names", "id, name, refcount", "id"),
        "contents": rows("contents", "name_id, inode, parent_inode", "name_id, inode"),
        "ext_attributes": rows("ext_attributes", "inode, name_id, value", "inode, name_id")}
    sql.close()
    if revision == 24:                                   # blocks have numbers of their own
        objects = found["objects"]
        blocks = {number: 5000 - number for number, *_ in objects if isinstance(number, int)}
        found["blocks"] = sorted((blocks[int(number)], digest, length, number, count) for number, digest, count, _, length in objects)
        found["objects"] = [(number, size, 1) for number, _, _, size, _ in objects]
        found["inode_blocks"] = [(ino, block, blocks[int(number)]) for ino, block, number in found["inode_blocks"]]
    return found


def literal(values: dict[str, Value]) -> str:
    return repr(values)


def make_old(store: Path, database: str, revision: int, seq: int, block: int) -> None:
    """Turn the plain filesystem in `store` into one of that revision."""
    for path in store.glob("s3ql_[mp]*"):
        path.unlink()
    inner: dict[str, Value] = {"revision": revision, "seq_no": seq, "label": "old", "max_obj_size": block, "needs_fsck": False,
                               "inode_gen": 0, "last_fsck": 1.5, "last-modified": 2.5}
    coded = base64.b64encode(literal(inner).encode())
    header = f"{{ 'format_version': 2, 'compression': 'None', 'encryption': 'None', 'data': {coded!r} }}"
    (store / "s3ql_metadata").write_bytes(pack(header, dump(revision, tables_of(database, revision))))
    (store / f"s3ql_seq_no_{seq}").write_bytes(pack("{ 'format_version': 2 }", b"x"))
