from __future__ import annotations

import json
from typing import Any

import pytest

from s3cfs import ids
from s3cfs.backends.pieces import Head
from s3cfs.check import dump as dumping
from s3cfs.errors import Damaged, NotFound, UsageError
from s3cfs.formats import record, superblock
from s3cfs.formats.keys import KeyRing
from tests.formats.kit import DictStore, FixedRandomness, both_modes
from tests.golden import make
from tests.remote.kit import ask


def dump(objects: DictStore, key: str, ring: KeyRing | None, *, rows: bool = False) -> dict[str, Any]:
    return ask(objects, lambda remote: dumping.dump(remote, key, ring, rows=rows))


def store(plain: bool = False) -> tuple[DictStore, KeyRing, dict[str, Any]]:
    objects, expected = make.make(plain)
    ring = superblock.unlock(superblock.decode(objects["super/1"]), passphrase=expected["passphrase"], random=FixedRandomness())
    return DictStore(objects), ring, expected


@both_modes
def test_all_kinds(plain: bool) -> None:
    objects, ring, expected = store(plain)
    shown = {key: dump(objects, key, ring) for key in objects.objects}
    text = json.dumps(shown)
    assert shown["super/1"]["label"] == "golden" and dump(objects, "super/1", None) == shown["super/1"]
    made = shown[expected["pack"]["key"]]
    assert made["name_matches"] and [e["intact"] for e in made["chunks"]] == [True] * 3 and made["chunks"][0]["length"] == 4600
    commit = shown[expected["records"][1]["key"]]
    assert (commit["record"], commit["n"], commit["prev"]) == ("commit", 2, expected["records"][0]["hash"])
    assert commit["changes"] == {"golden": {"insert": 1, "update": 1}}
    manifest = shown[expected["checkpoint"]["key"]]
    assert manifest["kind"] == "manifest" and shown[manifest["parts"][0]["key"]]["changes"] == {"golden": {"insert": 1, "update": 1}}
    for secret in (expected["passphrase"], expected["recovery_key"], (ring.database_key() or b"\0").hex()):
        assert not secret or secret == "00" or secret not in text


def test_rows() -> None:
    objects, ring, expected = store()
    rows = dump(objects, expected["records"][1]["key"], ring, rows=True)["rows"]
    assert {"table": "golden", "operation": "insert", "old": None, "new": [2, {"hex": "6e616d65"}, None]} in rows
    assert {"table": "golden", "operation": "update", "old": [1, "-", 1], "new": ["-", "-", 7]} in rows


def test_a_damaged_chunk_is_shown_not_hidden() -> None:
    objects, ring, expected = store()
    key, entry = expected["pack"]["key"], expected["pack"]["entries"][1]
    data = bytearray(objects.objects[key])
    data[entry["offset"] + 50] ^= 1
    objects.objects[key] = bytes(data)
    shown = dump(objects, key, ring)
    assert (
        not shown["name_matches"]
        and [e["intact"] for e in shown["chunks"]] == [True, False, True]
        and "seal" in shown["chunks"][1]["problem"]
    )


def test_a_rider_is_shown_as_the_pack_that_it_is() -> None:
    """Also when it is damaged: the record is whole then, all the same."""
    objects, ring, expected = store()
    key, data = expected["records"][1]["key"], bytearray(objects.objects[expected["records"][1]["key"]])
    pack, name, offset, size = expected["records"][1]["riders"][0]
    alone = dump(objects, expected["pack"]["key"], ring)
    (shown,) = dump(objects, key, ring)["riders"]
    assert (shown["pack"], shown["name"], shown["offset"], shown["size"], shown["chunks"]) == (pack, name, offset, size, alone["chunks"])
    data[offset + expected["pack"]["entries"][1]["offset"] + 50] ^= 1
    objects.objects[key] = bytes(data)
    (shown,) = dump(objects, key, ring)["riders"]
    assert not shown["name_matches"] and [one["intact"] for one in shown["chunks"]] == [True, False, True]
    objects.objects[key] = bytes(data[:-1])
    (shown,) = dump(objects, key, ring)["riders"]
    assert not shown["name_matches"] and "damaged or missing" in shown["problem"]


def test_claims_and_what_is_none() -> None:
    objects, ring, expected = store()
    key = ids.claim_key(5, "0123456789abcdef")
    info = {"by": {"host": "somewhere"}}
    made = record.Record(record.Kind.CLAIM, 1, 5, "0123456789abcdef", ids.ZERO_HASH, 7, info)
    objects.put(key, record.encode(made, ring.sealer("record", 5)))
    shown = dump(objects, key, ring)
    assert (shown["kind"], shown["record"], shown["epoch"], shown["writer"], shown["info"]) == ("claim", "claim", 5, made.writer, info)
    for wrong in ("", "super/x", "pack/00/1-00", "log/main/1", "other/1", "checkpoint/main/1/x"):
        with pytest.raises(UsageError, match="no object"):
            dump(objects, wrong, ring)
    with pytest.raises(NotFound):
        dump(objects, "super/2", None)
    with pytest.raises(UsageError, match="keys are needed"):
        dump(objects, expected["pack"]["key"], None)


def test_an_object_in_pieces_is_shown_as_one() -> None:
    objects, ring, expected = store()
    whole = {key: dump(objects, key, ring) for key in (expected["pack"]["key"], "super/1")}
    for number, (key, shown) in enumerate(whole.items()):
        data, head = objects.objects[key], Head(shown["size"], 100, f"{number:032x}")
        objects.objects[key] = head.encode()
        objects.objects |= {head.key(at): data[at * 100:(at + 1) * 100] for at in range(head.count)}
        assert dump(objects, key, ring) == shown


def test_objects_under_one_anothers_names() -> None:
    """The parts of one checkpoint are told apart by the hashes in its manifest, not by their own seals."""
    objects, ring, _ = store()
    parts = {key for key in objects.objects if key.startswith("checkpoint/") and "manifest" not in key}
    for key in list(objects.objects):
        for other in objects.objects:
            if other != key and not {key, other} <= parts:
                swapped = DictStore({key: objects.objects[other]})
                with pytest.raises(Damaged):
                    dump(swapped, key, ring)
