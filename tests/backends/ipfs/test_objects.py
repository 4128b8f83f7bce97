"""What the suite of the contract does not see: which blocks are asked for, and what becomes of those that are lost, rotten or late."""
from __future__ import annotations

import hashlib
import logging
import threading

import pytest

from s3cfs.backends.base import Listing
from s3cfs.backends.ipfs.cid import DAG_PB, RAW, Cid
from s3cfs.backends.ipfs.crowd import Crowd
from s3cfs.backends.ipfs.dag import blocks_of
from s3cfs.backends.progress import told_to
from s3cfs.errors import Denied, Exists, NotFound, StoreError, Temporary, Throttled
from tests.backends.ipfs.kit import MIB, Bucket, block_names, list_of, opened, some_bytes

KEY = "pack/aa/7-aa"


def asked(bucket: Bucket, operation: str) -> list[str]:
    found = [key for done, key in bucket.calls if done == operation]
    bucket.calls.clear()
    return found


def test_blocks_are_what_a_node_finds_by_the_root() -> None:
    """And the root is what `roots` lists."""
    bucket, data = Bucket(), some_bytes(2 * MIB + 17)
    backend = opened(bucket)
    backend.put(KEY, data)
    tree, blocks = blocks_of(data)
    made = dict(zip(block_names(backend, data), blocks, strict=True))
    assert {name: bucket.objects[name] for name in bucket.blocks()} == {name: block.data for name, block in made.items()}
    (key, entry), = backend.listed("")
    assert key == KEY and entry is not None and entry.tree.cid == tree.cid
    assert all(hashlib.sha256(bucket.objects[name]).digest() == block.digest for name, block in made.items())


def test_the_entry_comes_after_all_blocks() -> None:
    bucket = Bucket()
    opened(bucket).put(KEY, some_bytes(3 * MIB))
    names = asked(bucket, "put")
    assert len(names) == 5 and names[-1].endswith(KEY) and not any(name.endswith(KEY) for name in names[:-1])


def test_a_range_gets_its_blocks_only() -> None:
    bucket, data = Bucket(), some_bytes(10 * MIB + 5)
    backend = opened(bucket)
    backend.put(KEY, data)
    blocks = block_names(backend, data)
    for offset, size, which in ((0, 10, [0]), (MIB - 1, 2, [0, 1]), (4 * MIB, MIB, [4]), (10 * MIB, None, [10]), (11 * MIB, 5, [])):
        bucket.calls.clear()
        fresh = opened(bucket)
        for again in range(2):
            assert fresh.get(KEY, offset, size) == data[offset:][:size]
            gets = asked(bucket, "get")
            assert sum(name.endswith(KEY) for name in gets) == 1, "the entry is asked for each time"
            assert sorted(name for name in gets if not name.endswith(KEY)) == sorted(blocks[at] for at in which if not again)


def test_what_another_one_did_is_seen_at_once() -> None:
    bucket = Bucket()
    one, other = opened(bucket), opened(bucket)
    one.put(KEY, b"first" * 100)
    assert other.get(KEY) == one.get(KEY) == b"first" * 100
    one.put(KEY, some_bytes(MIB + 1))
    assert other.get(KEY) == some_bytes(MIB + 1) and other.stat(KEY).size == MIB + 1
    one.delete(KEY)
    for ask in (other.get, other.stat):
        with pytest.raises(NotFound):
            ask(KEY)


def test_a_lost_block_is_named_and_costs_its_range_only() -> None:
    bucket, data = Bucket(), some_bytes(3 * MIB)
    opened(bucket).put(KEY, data)
    backend = opened(bucket)
    del bucket.objects[block_names(backend, data)[1]]
    cid = str(Cid(1, RAW, list_of(data)[1].digest))
    with pytest.raises(NotFound, match=f"its block {cid} is missing") as caught:
        backend.get(KEY)
    assert (caught.value.operation, caught.value.key) == ("get", KEY)
    assert backend.get(KEY, 0, MIB) == data[:MIB] and backend.get(KEY, 2 * MIB) == data[2 * MIB:] and backend.stat(KEY).size == 3 * MIB


def test_where_answers_may_be_old_a_missing_block_may_come() -> None:
    bucket = Bucket(linearizable=False)
    opened(bucket).put(KEY, b"x" * 100)
    backend = opened(bucket)
    del bucket.objects[block_names(backend, b"x" * 100)[0]]
    with pytest.raises(Temporary, match="is missing"):
        backend.get(KEY)


def test_a_rotten_block_is_asked_for_again_and_then_given_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """What stands above finds out what it hits; the log names the block."""
    bucket, data = Bucket(), some_bytes(2 * MIB)
    opened(bucket).put(KEY, data)
    backend = opened(bucket)
    name = block_names(backend, data)[1]
    rotten = bytearray(data[MIB:])
    rotten[5] ^= 1
    bucket.objects[name] = bytes(rotten)
    with caplog.at_level(logging.WARNING):
        assert backend.get(KEY) == data[:MIB] + rotten
    assert str(Cid(1, RAW, list_of(data)[1].digest)) in caplog.text and asked(bucket, "get").count(name) == 2
    bucket.objects[name] = data[MIB:-1]
    with pytest.raises(NotFound, match=f"has {MIB - 1} bytes, not {MIB}"):
        backend.get(KEY)
    bucket.objects[name] = data[MIB:]
    assert backend.get(KEY) == data


def test_a_rotten_entry_makes_the_object_missing_and_hides_no_other() -> None:
    bucket = Bucket()
    backend = opened(bucket)
    for key in (KEY, f"{KEY}2"):
        backend.put(key, b"x" * 100)
    name = backend.table.object_of(KEY)
    bucket.objects[name] = bucket.objects[name][:-1] + b"!"
    for ask in (backend.get, backend.stat):
        with pytest.raises(NotFound, match="its entry in the name table cannot be used"):
            ask(KEY)
    assert {info.key: info.size for info in backend.list("pack/")} == {KEY: 0, f"{KEY}2": 100}
    backend.put(KEY, b"x" * 100)
    assert backend.get(KEY) == b"x" * 100, "a put mends it"
    bucket.objects[name] = b""
    backend.delete(KEY)
    assert [info.key for info in backend.list("")] == [f"{KEY}2"]


def test_what_a_node_of_ipfs_misses_is_found_though_it_can_be_read() -> None:
    bucket, data = Bucket(), some_bytes(2 * MIB)
    opened(bucket).put(KEY, data)
    backend = opened(bucket)
    assert backend.examine(KEY) is None and backend.capabilities.examines
    root = block_names(backend, data)[-1]
    bucket.objects[root] += b"!"
    cid = str(Cid(1, DAG_PB, list_of(data)[-1].digest))
    assert cid in (opened(bucket).examine(KEY) or "")
    del bucket.objects[root]
    assert f"its node {cid} is missing" in (opened(bucket).examine(KEY) or "") and backend.get(KEY) == data
    with pytest.raises(NotFound):
        backend.examine("pack/none")


@pytest.mark.parametrize("fails", [Denied("put", "", "no"), Throttled("put", "", "slow", 3.0)])
def test_a_put_that_failed_goes_on_where_it_was(fails: StoreError) -> None:
    bucket, data = Bucket(), some_bytes(6 * MIB)
    backend = opened(bucket, crowd=Crowd(0))               # one after the other
    bucket.fails["put", block_names(backend, data)[4]] = fails
    with pytest.raises(type(fails)) as caught:
        backend.put(KEY, data)
    assert (caught.value.operation, caught.value.key) == ("put", KEY)
    assert len(asked(bucket, "put")) == 5 and backend.table.object_of(KEY) not in bucket.objects
    backend.put(KEY, data)
    assert asked(bucket, "put") == [*block_names(backend, data)[4:], backend.table.object_of(KEY)] and backend.get(KEY) == data
    bucket.calls.clear()
    backend.put(KEY, data)
    assert len(asked(bucket, "put")) == 8, "when all of it was there it is put again: its age matters"


def test_a_block_is_tried_twice_where_that_may_help() -> None:
    bucket = Bucket()
    backend = opened(bucket)
    bucket.fails["put", "node/"] = Temporary("put", "", "line")
    backend.put(KEY, b"x" * 100)
    assert len(asked(bucket, "put")) == 3


def test_who_loses_a_race_leaves_word_of_its_blocks() -> None:
    bucket = Bucket()
    backend = opened(bucket)
    backend.put(KEY, b"winner" * 100, only_if_absent=True)
    with pytest.raises(Exists) as caught:
        backend.put(KEY, b"loser!" * 100, only_if_absent=True)
    assert caught.value.key == KEY and len(list(bucket.list(backend.table.gone))) == 1
    for same in (b"winner" * 100, b"small"):
        with pytest.raises(Exists):
            backend.put(KEY, same, only_if_absent=True)
    assert len(list(bucket.list(backend.table.gone))) == 1, "nothing of ours is left over, or it is too small to matter"


def test_of_several_errors_the_one_that_stays_is_told() -> None:
    def work(error: Exception) -> None:
        both.wait(10)
        raise error

    for errors in ([Temporary("put", ""), Denied("put", "")], [Denied("put", ""), Temporary("put", "")]):
        both = threading.Barrier(2)
        with pytest.raises(Denied):
            Crowd(1).each(work, errors)


def test_a_listing_goes_on_after_an_error() -> None:
    bucket = Bucket()
    backend = opened(bucket)
    for number in range(300):
        backend.put(f"pack/{number}", bytes(number))
    asked(bucket, "get")
    listing = backend.list("pack/")
    assert isinstance(listing, Listing)
    found = [next(listing).key for _ in range(128)]
    bucket.fails["get", "pack/200"] = Temporary("get", "", "line")
    with pytest.raises(Temporary) as caught:
        next(listing)
    assert (caught.value.operation, caught.value.key) == ("list", "pack/")
    found += [info.key for info in listing]
    assert len(found) == 300 and set(found) == {f"pack/{number}" for number in range(300)}
    assert asked(bucket, "get").count(backend.table.object_of("pack/1")) == 1, "what was listed is not asked for again"


def test_what_goes_while_it_is_listed_is_left_out() -> None:
    bucket = Bucket()
    backend = opened(bucket)
    for number in range(3):
        backend.put(f"pack/{number}", b"x")
    bucket.fails["get", "pack/1"] = NotFound("get", "", "gone")
    assert [info.key for info in backend.list("")] == ["pack/0", "pack/2"]


def test_what_moves_in_other_threads_is_told_to_the_caller() -> None:
    class Slow(Bucket):
        """Each get waits for another one to begin: so there are two threads at least."""
        begun = threading.Barrier(2)

        def get(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
            if "CIQ" in key:
                self.begun.wait(10)
            return super().get(key, offset, size)

    bucket, told = Slow(), list[int | None]()
    backend = opened(bucket)
    backend.put(KEY, some_bytes(8 * MIB))
    with told_to(lambda: told.append(threading.current_thread().ident)):
        opened(bucket).get(KEY)
    assert len(told) >= 8 and len(set(told)) > 1


def test_two_filesystems_and_a_node_beside_them() -> None:
    bucket = Bucket()
    one, other, elsewhere = opened(bucket), opened(bucket, "second"), opened(bucket, mountpoint="/")
    bucket.put("node/CIQFOREIGN", b"theirs")
    for backend in (one, other, elsewhere):
        backend.put("super/0", backend.table.entries.encode())
    for backend in (one, other, elsewhere):
        assert [(info.key, backend.get(info.key)) for info in backend.list("")] == [("super/0", backend.table.entries.encode())]
        assert list(backend.folders("")) == ["super"]
