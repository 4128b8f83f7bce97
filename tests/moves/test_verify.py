"""`verify`: what it finds, that it goes on where it was, and that it asks for each object."""
from __future__ import annotations

from collections import Counter

import pytest
import trio

from s3cfs.app.node import Node
from s3cfs.backends.base import Backend
from s3cfs.backends.types import ObjectInfo
from s3cfs.backends.wrapper import Wrapper
from s3cfs.errors import Denied, ExitCode, ObjectMissing, WrongPassphrase
from s3cfs.moves import VerifyResult
from tests.moves.kit import Moving, moving  # noqa: F401 - a fixture


def test_all_well_and_every_object_was_asked_for(moving: Moving):  # noqa: F811
    result = moving.verify()
    objects = moving.objects(moving.source_url)
    asked = {call.key for call in moving.recorders[moving.source_url].calls if call.operation == "stat"}
    assert (result.exit_code, result.objects, asked) == (ExitCode.OK, len(objects), set(objects))
    assert not any(call.operation == "list" and call.kind == "pack" for call in moving.recorders[moving.source_url].calls)
    assert not moving.lines and not list((moving.root / "cache" / "moves").rglob("ledger*"))


def test_data_reads_and_opens_every_byte(moving: Moving):  # noqa: F811
    result = moving.verify(data=True)
    assert (result.exit_code, result.read_bytes) == (ExitCode.OK, sum(map(len, moving.objects(moving.source_url).values())))


@pytest.mark.parametrize("keyless", [False, True])
def test_damage_in_every_kind_of_object(moving: Moving, keyless: bool):  # noqa: F811
    objects = moving.objects(moving.source_url)
    packs = [key for key in objects if key.startswith("pack/")]
    records = moving.source.log()
    hit = [packs[0], records[1], "super/1.2"]
    for key in hit:
        moving.damage(key, at=9 if keyless and key.startswith("log/") else -1)      # the seal cannot be looked at without a key
    result = moving.verify(data=True, keyless=keyless, passphrase=None if keyless else "secret")
    assert sorted(result.damaged) == sorted(hit) and not result.missing and result.exit_code is ExitCode.DAMAGED
    assert len(moving.lines) == 3


def test_missing_and_short_objects_and_the_lists_of_them(moving: Moving):  # noqa: F811
    missing, short = moving.source.pack_of("/big"), moving.source.pack_of("/sub/other")
    moving.remove(missing)
    path = moving.root / "source" / short
    path.write_bytes(path.read_bytes()[:-1])
    lists = moving.root / "missing", moving.root / "corrupt"
    result = moving.verify(missing_file=str(lists[0]), corrupt_file=str(lists[1]))
    assert (result.missing, result.damaged, result.exit_code) == ([missing], [short], ExitCode.OBJECT_MISSING)
    assert [path.read_text() for path in lists] == [f"{missing}\n", f"{short}\n"]
    assert moving.verify(keyless=True).exit_code is ExitCode.OK                     # the store lists what it has


def test_the_log_and_what_comes_before_a_record_that_is_gone(moving: Moving):  # noqa: F811
    for seed in (1, 2):
        moving.more(seed)
    records = moving.source.log()
    moving.remove(records[0])
    assert moving.verify().missing == [records[0]]
    assert any("known" not in line and records[0] in line for line in moving.lines)
    moving.remove(records[-1])
    moving.remove(records[-2])
    with pytest.raises(ObjectMissing, match="--keyless"):
        moving.verify()


def test_it_goes_on_where_it_was(moving: Moving):  # noqa: F811
    lost = sorted(key for key in moving.objects(moving.source_url) if key.startswith("pack/"))[0]
    moving.remove(lost)
    moving.wrap[moving.source_url] = lambda backend: Interrupting(backend, after=4)
    with pytest.raises(Denied):
        moving.verify(at_once=1)
    moving.wrap.clear()
    moving.lines.clear()
    result = moving.verify()
    asked = Counter(call.key for call in moving.recorders[moving.source_url].calls if call.operation == "stat")
    assert result.before >= 2 and result.before + len(asked) == result.objects and lost not in asked
    assert result.missing == [lost] and [line for line in moving.lines if lost in line]
    moving.wrap[moving.source_url] = lambda backend: Interrupting(backend, after=4)
    with pytest.raises(Denied):
        moving.verify(at_once=1)
    moving.wrap.clear()
    assert moving.verify(restart=True).before == 0


def test_beside_a_mount(moving: Moving):  # noqa: F811
    seen: list[VerifyResult] = []

    async def work(node: Node) -> None:
        await moving.source.write(node, 1, b"new", bytes(100_000))
        seen.append(await trio.to_thread.run_sync(moving.verify))
        await node.flush()
        seen.append(await trio.to_thread.run_sync(lambda: moving.verify(data=True)))

    moving.mounted(work)
    assert [result.exit_code for result in seen] == [ExitCode.OK, ExitCode.OK] and seen[1].objects > seen[0].objects


def test_a_sample(moving: Moving):  # noqa: F811
    counts = {moving.verify(sample=0.3).objects for _ in range(6)}
    assert max(counts) < moving.verify().objects and len(counts) > 1


def test_wrong_passphrase(moving: Moving):  # noqa: F811
    with pytest.raises(WrongPassphrase):
        moving.verify(passphrase="other")


class Interrupting(Wrapper):
    """Answers so many questions for objects, and then no more."""

    def __init__(self, inner: Backend, after: int) -> None:
        super().__init__(inner)
        self._left = after

    def stat(self, key: str) -> ObjectInfo:
        if self._left <= 0:
            raise Denied("stat", key, "no more")
        self._left -= 1
        return super().stat(key)


