"""What happens to a file while it is being staged: truncation, removal, writing, reading, failure."""
from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio
import trio.testing

from s3cfs.backends.memory import MemoryBackend
from s3cfs.errors import DataError, NoSpace
from s3cfs.vfs.types import ROOT_CALLER, SetAttr
from tests.vfs.kit import KIB, MIB, Gates, new_file, node_at, until, write


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("inside", [100, 20 * KIB, 500 * KIB])
@pytest.mark.parametrize("slice_bytes", [256 * KIB, 1 * MIB])
@pytest.mark.parametrize("failing", [False, True])
def test_truncated_bytes_do_not_come_back(failing: bool, slice_bytes: int, inside: int, tmp_path: Path) -> None:
    """A long run is being staged; the file is cut inside of the end that is not decided yet, and grows again: that end is zeros,
    whether the staging goes well or fails."""
    data = content(700 * KIB)
    cut = len(data) - inside
    expected = data[:cut] + bytes(inside)
    backend = MemoryBackend("x")

    async def first() -> None:
        threads = Gates()
        async with node_at(tmp_path / "one", backend, threads, stage_slice_bytes=slice_bytes) as node:
            ino = await new_file(node, b"f")
            hold = threads.hold("cut", after=not failing, error=OSError(5, "once") if failing else None)
            await write(node, ino, 0, data)
            await hold.reached.wait()
            await node.vfs.setattr(ino, SetAttr(size=cut), ROOT_CALLER)
            await node.vfs.setattr(ino, SetAttr(size=len(data)), ROOT_CALLER)
            assert await node.vfs.read(ino, 0, MIB) == expected, "while it is staged"
            hold.open()
            if failing:
                with pytest.raises(DataError):
                    await node.vfs.fsync(ino)
            await node.vfs.fsync(ino)
            assert await node.vfs.read(ino, 0, MIB) == expected
            await node.vfs.release(ino)

    async def second() -> None:
        async with node_at(tmp_path / "two", backend) as node:
            found = await node.vfs.lookup(1, b"f")
            assert found is not None and await node.vfs.read(found.ino, 0, MIB) == expected

    trio.run(first)
    trio.run(second)


def test_a_truncation_whose_staging_fails_is_not_forgotten(tmp_path: Path) -> None:
    """The bytes it cut off are in the store."""
    async def main() -> None:
        threads, data = Gates(), content(300 * KIB)
        async with node_at(tmp_path, MemoryBackend("x"), threads) as node:
            ino = await new_file(node, b"f")
            await write(node, ino, 0, data)
            await node.vfs.fsync(ino)
            for size in (100 * KIB, 300 * KIB):
                await node.vfs.setattr(ino, SetAttr(size=size), ROOT_CALLER)
            await write(node, ino, 0, content(90 * KIB, 2))
            hold = threads.hold("cut", error=OSError(5, "once"))
            hold.open()
            with pytest.raises(DataError, match="once"):
                await node.vfs.fsync(ino)
            await node.vfs.flush(ino)
            await node.vfs.fsync(ino)
            assert await node.vfs.read(ino, 0, MIB) == content(90 * KIB, 2) + data[90 * KIB:100 * KIB] + bytes(200 * KIB)

    trio.run(main)


def test_a_close_of_a_file_that_others_have_open_is_a_promise(tmp_path: Path) -> None:
    """What was written until then goes into the next transaction; without a close it may wait."""
    async def main() -> None:
        async with node_at(tmp_path, MemoryBackend("x")) as node:
            ino = await new_file(node, b"f")
            await write(node, ino, 0, content(10 * KIB))
            await node.commits.durable()
            assert node.files.pending_bytes == 0, "a file without content in its row does not wait"
            await write(node, ino, 0, content(10 * KIB, 2))
            await node.commits.durable()
            assert node.files.pending_bytes == 10 * KIB
            await node.vfs.flush(ino)
            await node.commits.durable()
            assert node.files.pending_bytes == 0

    trio.run(main)


def test_truncated_bytes_of_a_small_file_do_not_come_back(tmp_path: Path) -> None:
    """The same where the content goes into the file's row."""
    async def main() -> None:
        threads = Gates()
        async with node_at(tmp_path, MemoryBackend("x"), threads) as node:
            big, ino = await new_file(node, b"big"), await new_file(node, b"small")
            await write(node, big, 0, content(200 * KIB))
            await write(node, ino, 0, b"s" * 500)
            for each in (big, ino):
                await node.vfs.flush(each)
            hold = threads.hold("cut")                 # both are staged together, by the next transaction
            await hold.reached.wait()
            for size in (10, 400):
                await node.vfs.setattr(ino, SetAttr(size=size), ROOT_CALLER)
            hold.open()
            await node.vfs.fsync(ino)
            assert await node.vfs.read(ino, 0, 1000) == b"s" * 10 + bytes(390)

    trio.run(main)


def test_a_file_removed_while_it_is_staged_keeps_its_place_in_the_spool(tmp_path: Path) -> None:
    """Its pieces lie in the spool, and a thread is about to read them: nothing may empty it, and nobody else may notice."""
    async def main() -> None:
        threads = Gates()
        async with node_at(tmp_path, MemoryBackend("x"), threads, pool_bytes=512 * KIB) as node:
            victim, other = await new_file(node, b"victim"), await new_file(node, b"other")
            for at in range(40):
                await write(node, victim, at * 100_000, content(30_000, at))
            await until(lambda: node.spool.live_bytes >= 600_000)
            hold = threads.hold("cut")
            await node.vfs.flush(victim)
            await hold.reached.wait()
            await node.vfs.unlink(1, b"victim")
            await node.vfs.release(victim)
            await write(node, other, 0, b"o" * 1000)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.vfs.fsync, other)
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert node.spool.file_bytes
                hold.open()
            assert node.commits.health.writable
            assert await node.vfs.read(other, 0, 2000) == b"o" * 1000
            await node.flush()
            assert (node.spool.file_bytes, node.files.ram_bytes, node.files.pending_bytes) == (0, 0, 0)

    trio.run(main)


def test_a_file_removed_while_a_run_of_it_is_staged_leaves_no_memory_behind(tmp_path: Path) -> None:
    async def main() -> None:
        threads = Gates()
        async with node_at(tmp_path, MemoryBackend("x"), threads) as node:
            ino = await new_file(node, b"f")
            hold = threads.hold("cut")
            await write(node, ino, 0, content(700 * KIB))
            await hold.reached.wait()
            await node.vfs.unlink(1, b"f")
            await node.vfs.release(ino)
            hold.open()
            await until(lambda: (node.files.ram_bytes, node.files.pending_bytes) == (0, 0))

    trio.run(main)


def test_the_spool_has_a_bound(tmp_path: Path) -> None:
    """A file filled in random order, sixteen times as large as memory and spool: it is staged when the spool is full."""
    async def main() -> None:
        pool, bound = 512 * KIB, 1 * MIB
        async with node_at(tmp_path, MemoryBackend("x"), pool_bytes=pool, spool_max_bytes=bound) as node:
            ino, rng = await new_file(node, b"f"), random.Random(2)
            places = rng.sample(range(800), 800)
            expected = bytearray(800 * 40_000)
            most = 0
            for place in places:
                data = rng.randbytes(30_000)
                expected[place * 40_000:place * 40_000 + 30_000] = data
                await node.vfs.write(ino, place * 40_000, data)
                most = max(most, node.spool.file_bytes)
                assert node.files.ram_bytes <= pool + 64 * KIB
            assert bound / 2 < most < bound + pool
            end = max(places) * 40_000 + 30_000
            assert await node.vfs.read(ino, 0, len(expected)) == bytes(expected[:end])
            await node.vfs.release(ino)
            await node.flush()
            assert node.spool.file_bytes == 0

    trio.run(main)


def test_a_spool_that_the_disk_refuses_is_done_without(tmp_path: Path) -> None:
    async def main() -> None:
        async with node_at(tmp_path, MemoryBackend("x"), pool_bytes=512 * KIB) as node:
            def full(data: bytes) -> None:
                raise OSError(28, "no space left on device")

            node.spool.put = full  # type: ignore[method-assign, assignment]
            ino = await new_file(node, b"f")
            for place in range(60):
                await node.vfs.write(ino, place * 100_000, content(30_000, place))
            for place in range(60):
                assert await node.vfs.read(ino, place * 100_000, 30_000) == content(30_000, place)
            await node.vfs.flush(ino)                  # nothing went wrong with it

    trio.run(main)


def test_a_spool_that_cannot_be_read_is_an_error_of_the_file(tmp_path: Path) -> None:
    async def main() -> None:
        async with node_at(tmp_path, MemoryBackend("x"), pool_bytes=512 * KIB) as node:
            ino = await new_file(node, b"f")
            for place in range(60):
                await node.vfs.write(ino, place * 100_000, content(30_000, place))
            spool = node.spool._file
            assert spool is not None and node.spool.live_bytes

            class Broken:
                def pread(self, size: int, offset: int) -> bytes:
                    raise OSError(5, "input/output error")

            node.spool._file = Broken()  # type: ignore[assignment]
            answers = set()
            for place in range(60):
                try:
                    assert await node.vfs.read(ino, place * 100_000, 30_000) == content(30_000, place)
                except DataError as error:
                    answers.add(str(error).partition(":")[0])
            assert answers == {"what was written cannot be read back from the spool"}
            node.spool._file = spool

    trio.run(main)


def test_writers_wait_when_memory_is_full(tmp_path: Path) -> None:
    """V3: with staging at a standstill no more is taken than the pool's bound and one write for each writer."""
    async def main() -> None:
        threads, pool = Gates(), 1 * MIB
        async with node_at(tmp_path, MemoryBackend("x"), threads, pool_bytes=pool) as node:
            ino = await new_file(node, b"f")
            hold = threads.hold("cut")
            taken = 0

            async def writer() -> None:
                nonlocal taken
                for _ in range(64):
                    await node.vfs.write(ino, taken, content(64 * KIB, taken))
                    taken += 64 * KIB

            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer)
                await hold.reached.wait()
                await until(lambda: taken >= pool - 64 * KIB)
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert pool - 64 * KIB <= taken <= pool + 64 * KIB and node.files.ram_bytes <= pool + 65 * KIB
                hold.open()
            assert taken == 4 * MIB

    trio.run(main)


@pytest.mark.parametrize(("how", "number", "said"), [("write", 5, DataError), ("flush", 5, DataError), ("fsync", 28, NoSpace)])
def test_what_could_not_be_staged_is_said_once_and_kept(how: str, number: int, said: type[Exception], tmp_path: Path) -> None:
    async def main() -> None:
        threads, data = Gates(), content(700 * KIB)
        async with node_at(tmp_path, MemoryBackend("x"), threads) as node:
            ino, other = await new_file(node, b"f"), await new_file(node, b"other")
            hold = threads.hold("cut", error=OSError(number, "once"))
            await write(node, ino, 0, data)
            await hold.reached.wait()
            hold.open()
            await trio.testing.wait_all_tasks_blocked()
            await node.vfs.write(other, 0, b"fine")
            with pytest.raises(said, match="once"):
                match how:
                    case "write": await node.vfs.write(ino, 0, b"x")
                    case "flush": await node.vfs.flush(ino)
                    case "fsync": await node.vfs.fsync(ino)
            await node.vfs.write(ino, 1, data[1:2])
            await node.vfs.flush(ino)
            await node.vfs.fsync(ino)
            assert await node.vfs.read(ino, 0, MIB) == data
            assert node.commits.health.writable

    trio.run(main)


def test_an_fsync_beside_a_writer_ends(tmp_path: Path) -> None:
    """Staging takes what was there when it began, however fast more comes."""
    async def main() -> None:
        threads = Gates()
        async with node_at(tmp_path, MemoryBackend("x"), threads, pool_bytes=64 * MIB, stage_run_bytes=32 * MIB) as node:
            ino = await new_file(node, b"f")
            await write(node, ino, 0, content(1 * MIB))
            written, synced = 1 * MIB, trio.Event()

            async def sync() -> None:
                await node.vfs.fsync(ino)
                synced.set()

            async with trio.open_nursery() as nursery:
                hold = threads.hold("cut")
                nursery.start_soon(sync)
                for _ in range(10):                       # beside each slice as much again is written as there was
                    await until(lambda: synced.is_set() or hold.reached.is_set())      # noqa: B023
                    if synced.is_set():
                        break
                    await write(node, ino, written, content(1 * MIB, written))
                    written += 1 * MIB
                    hold.open()
                    hold = threads.hold("cut")
                else:
                    raise AssertionError("it goes on and on")
                hold.open()
            assert node.files.pending_bytes >= MIB, "what came later is for another time"

    trio.run(main)


@pytest.mark.parametrize("meanwhile", ["staged", "cut"])
def test_a_read_that_waits_while_staging_ends(meanwhile: str, tmp_path: Path) -> None:
    """V2: what a read lays together is the file in one moment, though it has to wait for the store in the middle of it, and all of the
    file is in other extents, or cut off, when it goes on."""
    async def main() -> None:
        threads, data, new = Gates(), content(300 * KIB), content(100 * KIB, 2)
        async with node_at(tmp_path, MemoryBackend("x"), threads) as node:
            ino = await new_file(node, b"f")
            await write(node, ino, 0, data)
            await node.flush()
            await node.drop_cache()
            await write(node, ino, 100 * KIB, new)
            seen: list[bytes] = []

            async def read() -> None:
                seen.append(await node.vfs.read(ino, 0, MIB))

            async with trio.open_nursery() as nursery:
                staging, fetching = threads.hold("cut"), threads.hold("_in_thread")
                nursery.start_soon(node.vfs.fsync, ino)
                await staging.reached.wait()
                await write(node, ino, 150 * KIB, b"d" * 1000)
                nursery.start_soon(read)
                await fetching.reached.wait()
                if meanwhile == "staged":
                    staging.open()
                    await node.vfs.fsync(ino)
                    await write(node, ino, 100 * KIB, b"m" * len(new))
                else:
                    await node.vfs.setattr(ino, SetAttr(size=50 * KIB), ROOT_CALLER)
                    await node.vfs.setattr(ino, SetAttr(size=300 * KIB), ROOT_CALLER)
                    staging.open()
                await node.vfs.fsync(ino)
                fetching.open()
            assert seen == [data[:100 * KIB] + new[:50 * KIB] + b"d" * 1000 + new[50 * KIB + 1000:] + data[200 * KIB:]]

    trio.run(main)


def test_the_same_new_content_in_two_files_is_stored_once(tmp_path: Path) -> None:
    """Both look it up before either has stored it."""
    async def main() -> None:
        threads, data = Gates(), content(300 * KIB)
        async with node_at(tmp_path, MemoryBackend("x"), threads) as node:
            inos = [await new_file(node, name) for name in (b"one", b"two")]
            for ino in inos:
                await write(node, ino, 0, data, piece=len(data))
            hold = threads.hold("_seal")
            async with trio.open_nursery() as nursery:
                for ino in inos:
                    nursery.start_soon(node.vfs.fsync, ino)
                await hold.reached.wait()
                await trio.testing.wait_all_tasks_blocked(0.05)
                hold.open()
            assert node.stager is not None and node.stager.new_chunk_bytes == len(data)
            assert node.journal.bytes_total < 1.5 * len(data)

    trio.run(main)


def test_what_is_appended_is_stored_a_few_times_and_not_many(tmp_path: Path) -> None:
    """A log that grows by a KiB between two fsyncs: its last chunk is taken along while that is short, or shorter than what is appended."""
    async def main() -> None:
        async with node_at(tmp_path / "one", MemoryBackend("x"), tail_max_bytes=2 * KIB) as node:
            assert node.stager is not None
            data = content(40 * KIB)
            ino = await new_file(node, b"log")
            for at in range(0, len(data), KIB):
                await write(node, ino, at, data[at:at + KIB])
                await node.vfs.fsync(ino)
            assert node.stager.new_chunk_bytes <= 3 * len(data)
            assert len(await node.meta.extents(ino, 0, MIB)) <= len(data) // (3 * KIB) + 1
            before = node.stager.new_chunk_bytes
            await write(node, ino, len(data), content(5 * KIB, 2))                # longer than the last chunk, which comes along
            await node.vfs.fsync(ino)
            assert 5 * KIB < node.stager.new_chunk_bytes - before <= 8 * KIB
            assert await node.vfs.read(ino, 0, MIB) == data + content(5 * KIB, 2)

    trio.run(main)
