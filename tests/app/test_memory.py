"""Memory that is free is given back, once a burst of work is over."""
from __future__ import annotations

import subprocess
import sys

from s3cfs.app.memory import QUIET_BYTES, Burst

GIVEN_BACK = """
from s3cfs.app.memory import bound_the_allocator, give_back
bound_the_allocator()

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon:")) // 1024

held = [bytearray(b"x" * (1 << 20)) for _ in range(200)]
keep = held[::20]                       # the kernel gets nothing of what lies below these by itself
del held
before = anonymous()
give_back()
print(before, anonymous())
"""


def test_what_is_free_between_what_is_used_is_given_back():
    done = subprocess.run([sys.executable, "-c", GIVEN_BACK], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before > 150 and after < 60, done.stdout


def test_a_burst_is_over_once():
    burst = Burst()
    assert not burst.is_over(0)
    assert not burst.is_over(QUIET_BYTES), "it goes on"
    assert not burst.is_over(3 * QUIET_BYTES)
    assert burst.is_over(3 * QUIET_BYTES + 1)
    assert not burst.is_over(3 * QUIET_BYTES + 2), "once"
    assert not burst.is_over(5 * QUIET_BYTES) and burst.is_over(5 * QUIET_BYTES)


KEPT = """
import gc
import s3cfs.app.daemon
from s3cfs.app.memory import keep_the_start
keep_the_start()
objects = gc.get_freeze_count()
gc.collect()
print(objects, len(gc.get_objects()))
"""


def test_what_is_there_at_the_start_is_not_looked_through_again():
    """A full collection of it would hold up everybody for tens of ms, now and then."""
    done = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True, check=True)
    kept, looked_through = map(int, done.stdout.split())
    assert kept > 20_000 and looked_through < 1000, done.stdout
