"""`migrate` between two folders: what goes over, in which order, and what it refuses."""
from __future__ import annotations

import random
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from s3cfs.app import store, verdict
from s3cfs.app.moved import refuse_moved
from s3cfs.app.node import Node
from s3cfs.backends.base import Backend, Body, Capabilities, Degraded
from s3cfs.backends.local import LocalBackend
from s3cfs.backends.wrapper import Wrapper
from s3cfs.errors import (
    AlreadyMounted,
    Denied,
    Diverged,
    ExitCode,
    FilesystemExists,
    NoFilesystem,
    StoreFull,
    Temporary,
    Unsupported,
    UsageError,
)
from s3cfs.limits import DEFAULTS
from s3cfs.moves import places
from s3cfs.moves.kinds import Kind, kind_of
from s3cfs.moves.migrate import MigrateResult, State
from s3cfs.moves.targets import refuse_same_place
from tests.check.kit import World
from tests.moves.kit import Moving, moving  # noqa: F401 - a fixture


def test_a_filesystem_goes_over_object_by_object(moving: Moving):  # noqa: F811
    result = moving.migrate(passphrase=None, unmounted=True)
    there = moving.objects(moving.target_url)
    assert there == moving.objects(moving.source_url)
    assert (result.state, result.exit_code, result.objects) == (State.WHOLE, ExitCode.OK, len(there))
    assert result.tally.copied == len(there) and result.tally.copied_bytes == sum(map(len, there.values()))
    other = World(LocalBackend(str(moving.root / "target")), moving.root, moving.source.superblock, moving.source.keyring,
                  moving.source.content)
    checked = other.fsck(full=True)
    assert checked.code == 0, checked.lines
    assert other.read_everything() == moving.source.content


def test_order_packs_first_superblocks_last(moving: Moving):  # noqa: F811
    moving.more(1)
    moving.migrate()
    order = [kind_of(call.key) for call in moving.recorders[moving.target_url].calls if call.operation == "put"]
    assert order == sorted(order) and set(order) >= {Kind.PACK, Kind.RECORD, Kind.SUPER}


def test_again_copies_nothing_and_without_its_journal_reads_and_sends_nothing_twice(moving: Moving):  # noqa: F811
    moving.wrap[moving.target_url] = lambda backend: Failing(backend, after=3)
    with pytest.raises(StoreFull, match=r"put .*: no room .*target"):
        moving.migrate()
    moving.wrap.clear()
    kept = list((moving.root / "cache" / "moves").rglob("ledger.db*"))
    assert kept
    for path in kept:
        path.unlink()
    there = len(moving.objects(moving.target_url))
    result = moving.migrate()
    assert result.state is State.WHOLE and result.tally.compared == there and result.tally.copied == result.objects - there
    again = moving.migrate()
    assert (again.state, again.tally.copied, again.tally.compared) == (State.WHOLE, 0, 2)     # the superblocks are read
    assert not moving.put_count(moving.target_url)


def test_with_its_journal_nothing_is_read_twice(moving: Moving):  # noqa: F811
    moving.wrap[moving.target_url] = lambda backend: Failing(backend, after=3)
    with pytest.raises(StoreFull):
        moving.migrate(at_once=1)
    moving.wrap.clear()
    result = moving.migrate()
    assert result.state is State.WHOLE and (result.tally.compared, result.tally.copied) == (0, result.objects - 3)


def test_what_the_target_damaged_or_lost_meanwhile_is_sent_again(moving: Moving):  # noqa: F811
    moving.wrap[moving.target_url] = lambda backend: Failing(backend, super_too=True)
    with pytest.raises(Denied):
        moving.migrate()
    moving.wrap.clear()
    torn, lost, *_ = (key for key in moving.objects(moving.target_url) if key.startswith("pack/"))
    (moving.root / "target" / torn).write_bytes(b"torn")
    moving.remove(lost, moving.target_url)
    result = moving.migrate()
    assert result.tally.mended == 1 and result.tally.copied == 4
    assert moving.objects(moving.target_url) == moving.objects(moving.source_url)


def test_a_mounted_source_is_copied_and_the_target_stays_no_filesystem(moving: Moving):  # noqa: F811
    seen: list[MigrateResult] = []

    async def work(node: Node) -> None:
        seen.append(await trio.to_thread.run_sync(moving.migrate))
        seen.append(await trio.to_thread.run_sync(lambda: moving.migrate(passphrase=None)))

    moving.mounted(work)
    with_key, without = seen
    assert (with_key.state, with_key.exit_code) == (State.MOUNTED, ExitCode.ALREADY_MOUNTED) and "process" in with_key.who
    assert (without.state, without.exit_code, without.tally.copied) == (State.UNKNOWN, ExitCode.ALREADY_MOUNTED, 0)
    assert not any(key.startswith("super/") for key in moving.objects(moving.target_url))
    last = moving.migrate()
    assert last.state is State.WHOLE and last.tally.copied <= 4
    assert moving.objects(moving.target_url) == moving.objects(moving.source_url)


def test_follow_goes_on_until_the_source_is_unmounted(moving: Moving):  # noqa: F811
    seen: list[MigrateResult] = []

    def follow() -> None:
        seen.append(moving.migrate(follow=True, interval=0.05))

    async def work(node: Node) -> None:
        thread.start()
        while len(moving.objects(moving.target_url)) < 5:  # noqa: ASYNC110 - what another process would do
            await trio.sleep(0.01)
        await moving.source.write(node, 1, b"late", random.Random(1).randbytes(200_000))
        await node.flush()
        assert not seen

    thread = threading.Thread(target=follow)
    moving.mounted(work)
    thread.join()
    assert seen[0].state is State.WHOLE and seen[0].passes > 2
    assert moving.objects(moving.target_url) == moving.objects(moving.source_url)


def test_when_the_source_went_on_after_all_the_target_follows_in_order(moving: Moving):  # noqa: F811
    moving.migrate()
    for seed in (1, 2, 3):
        moving.more(seed)
    result = moving.migrate(at_once=8)
    assert result.state is State.WHOLE and moving.objects(moving.target_url) == moving.objects(moving.source_url)
    numbers = [int(call.key.rpartition("/")[2]) for call in moving.recorders[moving.target_url].calls
               if call.operation == "put" and call.kind == "log"]
    assert numbers == sorted(numbers) and len(numbers) >= 9
    assert result.tally.compared == 2


def test_two_histories_are_refused_and_a_target_that_went_on_is_left_alone(moving: Moving):  # noqa: F811
    moving.migrate()
    target = World(LocalBackend(str(moving.root / "target")), moving.root, moving.source.superblock, moving.source.keyring)

    async def work(node: Node) -> None:
        await target.write(node, 1, b"there", b"x" * 5000)

    target.on_node(work, moving.root / "elsewhere")
    before = moving.objects(moving.target_url)
    result = moving.migrate()
    assert (result.state, result.gone_on, result.exit_code) == (State.WHOLE, True, ExitCode.OK)
    moving.more(1)
    with pytest.raises(Diverged, match="both written"):
        moving.migrate()
    assert moving.objects(moving.target_url) == before


def test_without_a_listing_of_packs(moving: Moving):  # noqa: F811
    moving.more(1)
    (moving.root / "source" / "pack" / "00").mkdir(exist_ok=True)
    moving.wrap[moving.source_url] = NoListing
    result = moving.migrate(no_list=True)
    assert result.state is State.WHOLE and moving.objects(moving.target_url) == moving.objects(moving.source_url)
    moving.wrap.clear()
    # from the store alone, without what no file needs
    stray = "pack/00/1-" + "00" * 32
    (moving.root / "source" / stray).write_bytes(b"stray")
    alone = moving.migrate(no_list=True, to=f"local://{moving.root}/third")
    assert alone.state is State.WHOLE
    assert moving.objects(moving.source_url).keys() - moving.objects(f"local://{moving.root}/third").keys() == {stray}


def test_a_dry_run_says_how_much_and_writes_nothing(moving: Moving):  # noqa: F811
    whole = moving.objects(moving.source_url)
    result = moving.migrate(dry_run=True)
    assert result.state is State.PLANNED and result.to_copy == (len(whole), sum(map(len, whole.values())))
    assert not Path(moving.root, "target").exists() and result.exit_code is ExitCode.OK
    moving.migrate()
    made = sum(moving.recorders[moving.source_url].counts().values())
    assert made * 0.7 <= result.source_requests <= made * 1.5
    assert moving.migrate(dry_run=True).to_copy == (0, 0)


def test_read_back(moving: Moving):  # noqa: F811
    moving.wrap[moving.target_url] = Garbling
    result = moving.migrate(verify_data=True)
    assert result.state is State.WHOLE and result.tally.read_back == 2 * result.objects and result.tally.mended == result.objects
    assert moving.objects(moving.target_url) == moving.objects(moving.source_url)


def test_what_is_damaged_or_missing_in_the_source_is_named_and_the_rest_goes_over(moving: Moving):  # noqa: F811
    big, other = moving.source.pack_of("/big"), moving.source.pack_of("/sub/other")
    moving.damage(big)
    result = moving.migrate()
    assert (result.state, result.damaged, result.exit_code) == (State.WHOLE, [big], ExitCode.DAMAGED) and big in moving.lines[0]
    assert moving.objects(moving.target_url) == moving.objects(moving.source_url)
    moving.remove(other)
    result = moving.migrate(no_list=True, to=f"local://{moving.root}/third")
    assert (result.missing, result.damaged, result.exit_code) == ([other], [big], ExitCode.OBJECT_MISSING)


def test_refusals(moving: Moving):  # noqa: F811
    for place in (moving.source_url, moving.source_url + "/below", str(moving.source_url).rpartition("/")[0]):
        with pytest.raises(UsageError, match="same place|lies in the other"):
            moving.migrate(to=place)
    with pytest.raises(UsageError, match="same place"):
        refuse_same_place("s3c://host:1/bucket/a", "storjs3://host:1/bucket/a")
    refuse_same_place("s3c://host:1/bucket/a", "s3c://host:1/bucket/ab")
    World.make(LocalBackend(str(moving.root / "target")), moving.root)
    with pytest.raises(FilesystemExists, match="another filesystem"):
        moving.migrate()
    third = World.make(LocalBackend(str(moving.root / "third")), moving.root)
    third.fill()
    for copy in ("super/1", "super/1.2"):
        moving.remove(copy, f"local://{moving.root}/third")
    with pytest.raises(FilesystemExists, match="whose superblock is gone"):
        moving.migrate(to=f"local://{moving.root}/third")
    Path(moving.root, "empty").mkdir()
    with pytest.raises(NoFilesystem):
        moving.source_url = f"local://{moving.root}/empty"
        moving.migrate()


def test_this_machine_does_not_go_on_writing_at_the_former_place(moving: Moving):  # noqa: F811
    cache, found = str(moving.root / "cache"), moving.source.superblock
    refuse_moved(cache, found, moving.source_url)
    moving.migrate()
    with pytest.raises(Diverged, match=f"moved to {moving.target_url}"):
        refuse_moved(cache, found, moving.source_url)
    refuse_moved(cache, found, moving.target_url)
    moving.source_url, moving.target_url = moving.target_url, moving.source_url      # and back
    assert moving.migrate().state is State.WHOLE
    refuse_moved(cache, found, moving.target_url)
    with pytest.raises(Diverged):
        refuse_moved(cache, found, moving.source_url)


def test_one_at_a_time(moving: Moving):  # noqa: F811
    from s3cfs.moves.places import remembered
    with remembered(str(moving.root / "cache"), "migrate", moving.source.superblock, moving.source_url, moving.target_url), \
            pytest.raises(AlreadyMounted, match="migrate under way"):
        moving.migrate()


class Failing(Wrapper):
    """Takes so many objects; `super_too`: no superblock."""

    def __init__(self, inner: Backend, after: int = 1 << 30, super_too: bool = False) -> None:
        super().__init__(inner)
        self._left, self._super = after, super_too

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> Degraded | None:
        if self._super and key.startswith("super/"):
            raise Denied("put", key, "not that one")
        if self._left <= 0:
            raise StoreFull("put", key, "no room")
        self._left -= 1
        return super().put(key, data, only_if_absent)


class NoListing(Wrapper):
    """Lists no packs."""

    def list(self, prefix: str):
        if prefix.startswith("pack/") or not prefix:
            raise Denied("list", prefix, "no packs are listed here")
        return super().list(prefix)

    def folders(self, prefix: str):
        if prefix.startswith("pack/") or not prefix:
            raise Denied("list", prefix, "no packs are listed here")
        return super().folders(prefix)


class Garbling(Wrapper):
    """The first copy of each object is damaged on its way."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self._seen: set[str] = set()

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> Degraded | None:
        if key not in self._seen:
            self._seen.add(key)
            data = bytes(data[:-1]) + bytes([data[-1] ^ 1])
        return super().put(key, data, only_if_absent)


def test_objects_in_pieces_are_whole_on_the_other_side(moving: Moving):  # noqa: F811
    third = f"local://{moving.root}/third"
    moving.wrap[moving.target_url] = Small
    assert moving.migrate(verify_data=True).state is State.WHOLE
    there = moving.objects(moving.target_url)
    assert any(key.startswith("piece/") for key in there) and max(map(len, there.values())) <= Small.LARGEST
    assert moving.verify(moving.target_url, data=True).exit_code is ExitCode.OK
    before = moving.objects(moving.source_url)
    moving.source_url = moving.target_url
    assert moving.migrate(to=third).state is State.WHOLE and moving.objects(third) == before


def test_from_a_store_that_refuses_to_overwrite_to_one_that_does_not(moving: Moving, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    monkeypatch.setattr(verdict, "open_store", store.open_store)
    moving.wrap[moving.target_url] = Overwriting
    result = moving.migrate()
    assert result.tier == "T1"
    target = World(Overwriting(LocalBackend(str(moving.root / "target"))), moving.root, moving.source.superblock, moving.source.keyring)

    async def work(node: Node) -> None:
        await target.write(node, 1, b"more", b"x" * 1000)

    with pytest.raises(Unsupported, match="s3cfs probe"):
        target.on_node(work)
    assert verdict.probe(moving.settings(moving.target_url), takeover=False, large=False, progress=lambda event: None).noted
    target.on_node(work)
    assert target.fsck(full=True).code == 0


class Small(Wrapper):
    """Takes no large objects."""

    LARGEST = 64 << 10

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, largest_object_bytes=self.LARGEST)


class Overwriting(Wrapper):
    """Says that it can do create-only puts, as some stores do, and takes all of them."""

    def put(self, key: str, data: Body, only_if_absent: bool = False) -> Degraded | None:
        return super().put(key, data)

    def probe_create_only(self, rounds: int = 1) -> bool:
        self.assume_create_only(False)
        return False

    def assume_create_only(self, holds: bool) -> None:
        self._holds = holds

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, create_only=getattr(self, "_holds", None))


def test_what_comes_during_the_last_pass_is_no_part_of_a_whole_that_is_not(moving: Moving):  # noqa: F811
    class Meanwhile(Wrapper):
        """When the whole log is there already and is listed once more, somebody mounts the source, writes, and unmounts."""

        def list(self, prefix: str):
            with one_at_a_time:
                if prefix.startswith("log/") and not came and set(moving.source.log()) <= moving.objects(moving.target_url).keys():
                    moving.more(1)
                    came.append(True)
            return super().list(prefix)

    came, one_at_a_time = list[bool](), threading.Lock()
    moving.wrap[moving.target_url] = Meanwhile
    result = moving.migrate()
    assert came and (result.state, result.passes) == (State.WHOLE, 4)
    assert moving.objects(moving.target_url) == moving.objects(moving.source_url)


def test_follow_bears_an_outage_and_lists_nothing_while_nothing_comes(moving: Moving, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    class Away(Wrapper):
        """Until somebody has been told of it."""

        def list(self, prefix: str):
            if prefix.startswith("pack/") and not moving.said:
                raise Temporary("list", prefix, "no route to host")
            return super().list(prefix)

    monkeypatch.setattr(places, "DEFAULTS", replace(DEFAULTS, store_deadline_s=0.3))
    moving.wrap[moving.source_url] = Away
    seen: list[MigrateResult] = []
    thread = threading.Thread(target=lambda: seen.append(moving.migrate(follow=True, interval=0.02)))

    async def work(node: Node) -> None:
        await node.flush()
        thread.start()
        while not moving.recorders.get(moving.target_url) or not moving.put_count(moving.target_url):  # noqa: ASYNC110
            await trio.sleep(0.01)
        await trio.sleep(0.5)                                      # some looks

    moving.mounted(work)
    thread.join()
    assert seen[0].state is State.WHOLE and any("no route to host" in text and "trying again" in text for text in moving.said)
    shards = len({key[:8] for key in moving.objects(moving.source_url) if key.startswith("pack/")})
    calls = [call for call in moving.recorders[moving.source_url].calls if call.operation == "list" and not call.error]
    assert sum(call.kind == "pack" for call in calls) <= (seen[0].passes + 2) * (shards + 1) and seen[0].passes <= 4
    assert sum(call.kind == "log" for call in calls) > 30          # it looked
