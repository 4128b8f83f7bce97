"""Whether another process of this machine is dead: said only when it is certain."""
from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from s3cfs.app.host import process_alive, this_host
from s3cfs.history.log import Host
from tests.e2e.kit import LET_GO

NEW_MOUNTS, PRIVATE = 0x00020000, 1 << 18 | 1 << 14
NOBODY = 65534


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with process:
        yield process
        process.kill()


def host_of(pid: int) -> Host:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return replace(this_host(), pid=pid, start_ticks=int(fields[19]))


def in_child(question: Callable[[], bool]) -> bool:
    """Asked by a child that may change itself."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            code = int(question())
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 1), "the child could not ask"
    return bool(code)


def hide_processes_of_others() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(NEW_MOUNTS) == 0
    assert libc.mount(b"none", b"/", None, PRIVATE, None) == 0
    subprocess.run(LET_GO, shell=True, stderr=subprocess.DEVNULL, check=False)
    assert libc.mount(b"proc", b"/proc", b"proc", 0, b"hidepid=2") == 0
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def test_alive_dead_and_used_again(sleeper: subprocess.Popen[bytes]) -> None:
    me, other = this_host(), host_of(sleeper.pid)
    assert process_alive(me) and me.same_machine(other) and process_alive(other)
    assert not process_alive(replace(other, start_ticks=other.start_ticks - 1)), "the number was used again"
    sleeper.kill()
    end = time.monotonic() + 20
    while process_alive(other):                            # a zombie as long as nobody waits for it
        assert time.monotonic() < end, "a zombie passes for alive"
    sleeper.wait()
    assert not process_alive(other)


def test_a_process_that_proc_hides_is_not_dead(sleeper: subprocess.Popen[bytes]) -> None:
    """hidepid=2: other users' processes are not in /proc; a living writer must not be taken for a dead one."""
    other = host_of(sleeper.pid)

    def alive() -> bool:
        hide_processes_of_others()
        assert not os.path.exists(f"/proc/{other.pid}")
        return process_alive(other)
    assert in_child(alive)
    sleeper.kill()
    sleeper.wait()
    assert not in_child(alive)


def test_another_worlds_proc_names_nobody() -> None:
    """A new pid namespace with the old /proc: the number there is another process's."""
    code = "from s3cfs.app.host import this_host; h = this_host(); print(repr((h.boot_id, h.pid_namespace)))"
    said = [subprocess.run(["unshare", "--pid", "--fork", *more, sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                           check=True).stdout for more in ([], ["--mount-proc", "sh", "-c", LET_GO + '; exec "$@"', "sh"])]
    assert said[0].strip() == "('', '')" and "pid:[" in said[1]
    assert said[1].split("'")[3] != this_host().pid_namespace


def test_without_a_name_nobody_is_the_same_machine() -> None:
    assert not Host().same_machine(Host()) and not Host("boot").same_machine(Host("boot"))
