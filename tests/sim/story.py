"""Tells a story in a process that has its own things to do: logging off, a watchdog on, and no garbage of it left."""
from __future__ import annotations

import contextlib
import gc
import logging
import signal
from collections.abc import Iterator
from typing import Any

from .assembly import Assembly
from .crash import Plan
from .driver import Story, Teller
from .nature import Families
from .runtime import Stuck

REAL_MAX_S = 60


@contextlib.contextmanager
def _watchdog() -> Iterator[None]:
    """A loop that never gives way is beyond the counting of steps: the only thing here that looks at the real clock."""
    def bark(number: int, frame: Any) -> None:
        raise Stuck(f"no end after {REAL_MAX_S} real seconds")

    kept = signal.signal(signal.SIGALRM, bark)
    signal.setitimer(signal.ITIMER_REAL, REAL_MAX_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, kept)


def tell(seed: int, assembly: Assembly, plans: list[Plan] | None = None, families: Families | None = None) -> Story:
    """Run one seed. The story has a `finding` when something was wrong; it never raises for that."""
    story = Story(seed, assembly, plans, families or Families())
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with _watchdog():
            Teller(story).tell()
    except Exception as error:
        story.finding = error
    except BaseExceptionGroup as error:
        if error.split(KeyboardInterrupt)[0] is not None:
            raise
        story.finding = error
    finally:
        logging.disable(level)
    if seed % 16 == 0:
        gc.collect()
    return story
