"""What becomes of whatever a command raises: one line on stderr and an exit code, never a traceback.

A bug (an exception that is no S3cfsError) leaves its traceback in a file only its owner can read; with S3CFS_DEBUG=1 it is
printed as well. Exceptions come in groups from trio: of those the first that says something to the user is told.
"""
from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence

from s3cfs.cli import streams
from s3cfs.errors import Interrupted, S3cfsError, SystemFailure


def own_code(error: S3cfsError) -> int:
    return int(error.exit_code)


def guarded(name: str, function: Callable[[list[str]], int], argv: Sequence[str],
            exit_code: Callable[[S3cfsError], int] = own_code) -> int:
    """Run `function(argv)`; the process's exit code. `exit_code` maps an error where another table rules (mount(8), fsck(8))."""
    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(logging.NullHandler())      # else Python prints warnings beside the one line
    streams.open_all()
    try:
        return _run(function, list(argv))
    except streams.OutputLost as lost:
        streams.drop_stdout()
        if not lost.nobody_reads:
            say(f"s3cfs: {lost}")
        return exit_code(lost)
    except BaseException as raised:
        error = _the_one(raised)
        if isinstance(error, S3cfsError):
            if _debug():
                traceback.print_exception(raised)
            say(f"s3cfs: {one_line(str(error)) or type(error).__name__}")
            return exit_code(error)
        if isinstance(error, KeyboardInterrupt):
            say("s3cfs: interrupted")
            return exit_code(Interrupted("interrupted"))
        if isinstance(error, FileNotFoundError) and _homeless():
            say("s3cfs: the current folder does not exist any more")
            return exit_code(SystemFailure("no current folder"))
        where = _keep_traceback(name, raised)
        if isinstance(error, OSError) and error.strerror:
            what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
            say(f"s3cfs: {one_line(what)} (details: {where})")
            return exit_code(SystemFailure(what))
        say(f"s3cfs: internal error, {type(error).__name__} (please report it with {where})")
        return exit_code(S3cfsError())


def _run(function: Callable[[list[str]], int], argv: list[str]) -> int:
    try:
        code = int(function(argv))
    except SystemExit as leaving:                                  # argparse's --help
        code = leaving.code if isinstance(leaving.code, int) else 0
    sys.stdout.flush()
    return code


def say(text: str) -> None:
    """One line to stderr; one that nobody reads is nobody's business."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass


def one_line(text: str) -> str:
    """Control characters (of a name, of a server's answer) must not reach a terminal."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


@contextlib.contextmanager
def resumable(what: str) -> Iterator[None]:
    """Of long work whose state is on the disk."""
    try:
        yield
    except BaseException as raised:
        if isinstance(_the_one(raised), KeyboardInterrupt):
            raise Interrupted(f"interrupted; the same {what} goes on where it was") from None
        raise


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _the_one(error: BaseException) -> BaseException:
    leaves = list(_leaves(error))
    for kind in (S3cfsError, KeyboardInterrupt):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    return leaves[0]


def _homeless() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _debug() -> bool:
    return os.environ.get("S3CFS_DEBUG", "") not in ("", "0")


def _keep_traceback(name: str, error: BaseException) -> str:
    if _debug():
        traceback.print_exception(error)
    try:
        handle, path = tempfile.mkstemp(prefix=f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-", suffix=".log")
        with os.fdopen(handle, "w") as file:
            traceback.print_exception(error, file=file)
        return path
    except OSError:
        return "S3CFS_DEBUG=1 set to see the traceback"

