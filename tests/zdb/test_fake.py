"""What the fake can do that a conversation does not show: what is lost with the power, the process of its own."""
from __future__ import annotations

import subprocess
import sys

import pytest

from tests.servers import _die_with_parent
from tests.zdb.server import running
from tests.zdb.talk import Talk


@pytest.fixture
def talk_to():
    made: list[Talk] = []

    def talk_to(port: int) -> Talk:
        made.append(Talk(port))
        return made[-1]

    yield talk_to
    for talk in made:
        talk.close()


def test_a_power_cut_takes_what_was_not_flushed_and_brings_back_what_was_deleted(fake_zdb, talk_to):
    talk = talk_to(fake_zdb.port)
    for key in ("kept", "deleted", "overwritten"):
        talk("SET", key, "old")
    fake_zdb.flush()
    talk("SET", "new", "value")
    talk("SET", "overwritten", "other")
    talk("DEL", "deleted")
    fake_zdb.power_cut()
    fake_zdb.start()
    talk = talk_to(fake_zdb.port)
    assert talk("MGET", "kept", "deleted", "overwritten", "new") == [b"old", b"old", b"old", None]
    assert talk("DBSIZE") == 3
    assert talk("SET", "new", "again") == b"new"
    fake_zdb.kill()
    fake_zdb.start()
    assert talk_to(fake_zdb.port)("GET", "new") == b"again", "a process that dies takes nothing with it"


def test_a_wiped_one_knows_its_namespaces_and_nothing_else(fake_zdb, talk_to):
    fake_zdb.make("mine", password="secret", public=False)
    talk = talk_to(fake_zdb.port)
    talk("SELECT", "mine", "secret")
    talk("SET", "key", "value")
    fake_zdb.wipe()
    talk = talk_to(fake_zdb.port)
    assert talk("SELECT", "mine") == "-Namespace protected and private"
    assert talk("SELECT", "mine", "secret") == "+OK" and talk("GET", "key") is None and talk("DBSIZE") == 0


def test_a_planned_refusal_and_what_was_counted(fake_zdb, talk_to):
    talk = talk_to(fake_zdb.port)
    fake_zdb.refuse("Internal Error", "GET", count=2)
    assert talk("SET", "key", "value") == b"key"
    assert [talk("GET", "key") for _ in range(3)] == ["-Internal Error", "-Internal Error", b"value"]
    assert fake_zdb.counted["GET"] == 3 and fake_zdb.counted["SET"] == 1


def test_more_requests_at_once_than_it_bears_are_a_stall(fake_zdb, talk_to):
    talk = talk_to(fake_zdb.port)
    talk.raw(b"*1\r\n$6\r\nDBSIZE\r\n" * 513)          # 16 bytes each
    assert talk.reply() == 0 and talk.is_silent()


def test_a_small_disk_fills_with_what_was_overwritten(talk_to):
    with running(1, disk_bytes=20 << 20, datasize=4 << 20) as (zdb,):
        talk = talk_to(zdb.port)
        answers = [talk("SET", "key", bytes([number]) * (1 << 20)) for number in range(30)]
        assert answers[:10] == [b"key"] * 10 and answers[-1] == "-Cannot write data right now"
        assert talk("DEL", "key") == "-Cannot delete key (data)" and talk("NSNEW", "one") == "-Could not create namespace"


def test_a_process_of_its_own(talk_to):
    command = [sys.executable, "-m", "tests.zdb.server", "--count", "3", "--admin", "root", "--namespace", "mine", "--password", "secret"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=_die_with_parent) as process:
        assert process.stdin is not None and process.stdout is not None

        def ask(line: str) -> str:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(line + "\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        ports = [int(process.stdout.readline().rpartition(":")[2]) for _ in range(3)]
        talk = talk_to(ports[1])
        assert talk("SELECT", "mine", "secret") == "+OK" and talk("SET", "key", "value") == b"key"
        assert ask("kill 1") == "done" and talk.is_closed
        with pytest.raises(ConnectionRefusedError):
            Talk(ports[1])
        assert ask("start 1") == "done" and ask("full 1 on") == "done"
        talk = talk_to(ports[1])
        assert talk("SELECT", "mine", "secret") == "+OK" and talk("GET", "key") == b"value"
        assert talk("SET", "key", "other") == "-Cannot write data right now"
        process.stdin.close()
        assert process.wait(20) == 0
