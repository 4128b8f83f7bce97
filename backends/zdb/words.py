"""What a 0-db's own words mean.

Its errors have no codes: they are recognised by how their text begins. The texts are those of v2.0.7 (seen, and read in its sources).
"""
from __future__ import annotations

import enum

from s3cfs.errors import BucketMissing, ConfigError, Corrupt, Denied, S3cfsError, StoreError, StoreFull, Temporary


class Condition(enum.Enum):
    """How a server is, by what it (or the network) last said. The value is for people."""

    OK = "ok"                                  # of a refusal: it is about that one command and says nothing of the server
    UNREACHABLE = "unreachable"                # no connection, or it broke
    TIMED_OUT = "timed out"                    # a connection, and silence on it
    READ_ONLY = "read-only"                    # locked, or the password is missing where the public may read
    LOW_SPACE = "low on space"                 # the namespace's limit is reached
    DISK_FULL = "disk full"                    # it can neither write nor delete; what is there can be read
    WRONG_PASSWORD = "wrong password"          # or none where one is needed, or no administrator's rights
    NO_NAMESPACE = "no such namespace"
    WRONG_MODE = "wrong mode"                  # a sequential namespace: keys are the server's, not ours
    FROZEN = "frozen"                          # neither read nor written, for now
    WORM = "write once"                        # nothing can be deleted or overwritten
    DAMAGED = "damaged"                        # its files are not what its index says
    GONE = "namespace removed"                 # under this connection; it may have been made anew
    STRANGER = "another server"                # it answers, and is not the one it should be (members.py)
    STRANGE = "not understood"                 # no 0-db, or words that we do not know

    @property
    def may_read(self) -> bool:
        """Whether a read has a chance at all."""
        return self in _READABLE

    @property
    def may_write(self) -> bool:
        """Whether a new key can be written."""
        return self in (Condition.OK, Condition.WORM, Condition.DAMAGED)

    @property
    def passes(self) -> bool:
        """Whether it may be over soon by itself, so that trying again makes sense."""
        return self in (Condition.OK, Condition.UNREACHABLE, Condition.TIMED_OUT, Condition.FROZEN, Condition.GONE)


_READABLE = {Condition.OK, Condition.READ_ONLY, Condition.LOW_SPACE, Condition.DISK_FULL, Condition.WORM, Condition.DAMAGED}

# the beginning of the text, without the "-"; the first that fits
_WORDS: tuple[tuple[str, Condition], ...] = (
    ("Namespace is in read-only mode", Condition.READ_ONLY),
    ("Namespace is temporarily locked", Condition.READ_ONLY),
    ("Namespace is temporarily frozen", Condition.FROZEN),
    ("Namespace is protected by worm", Condition.WORM),
    ("Cannot delete a key when namespace is in worm", Condition.WORM),
    ("No space left on this namespace", Condition.LOW_SPACE),
    ("Cannot write", Condition.DISK_FULL),                 # "data right now", "index right now"
    ("Cannot delete key", Condition.DISK_FULL),            # "(data)", "(index)"
    ("Could not create namespace", Condition.DISK_FULL),
    ("Access denied", Condition.WRONG_PASSWORD),
    ("Namespace protected and private", Condition.WRONG_PASSWORD),
    ("Permission denied", Condition.WRONG_PASSWORD),
    ("Password too long", Condition.WRONG_PASSWORD),
    ("Namespace not found", Condition.NO_NAMESPACE),
    ("This namespace doesn't exists", Condition.NO_NAMESPACE),
    ("Namespace too long", Condition.NO_NAMESPACE),
    ("Your active namespace is not available", Condition.GONE),
    ("Invalid argument, key needed", Condition.OK),        # an empty key: ours to avoid
    ("Invalid key, only update authorized", Condition.WRONG_MODE),
    ("Index running mode doesn't support", Condition.WRONG_MODE),
    ("Internal ", Condition.DAMAGED),                      # "Error", "Error (bulk)", "Memory Error", "Server Error"
    ("Unexpected Internal Error", Condition.DAMAGED),
    ("Command not supported", Condition.STRANGE),
    ("Malformed request", Condition.STRANGE),
    # of the one command only
    *((start, Condition.OK) for start in (
        "Key not found", "No more data", "No more history", "Invalid ", "Key too large", "Payload too big", "Too many arguments",
        "Missing arguments", "Unexpected arguments", "Argument too long", "This name", "Cannot ", "No CHALLENGE requested",
        "Authentication disabled")),
)


def condition_of(words: str) -> Condition:
    """Of the text of an error reply."""
    return next((condition for start, condition in _WORDS if words.startswith(start)), Condition.STRANGE)


class Trouble(Exception):
    """A call that a server did not carry out, or of which it is not known. `words`: the server's own where it said something."""

    def __init__(self, condition: Condition, words: str, server: str = "") -> None:
        self.condition, self.words, self.server = condition, words, server
        super().__init__(condition, words, server)

    def __str__(self) -> str:
        return f"{self.server}: {self.words}" if self.server else self.words

    def as_error(self, operation: str, key: str) -> S3cfsError:
        """The same in the words of the backends' contract."""
        if self.condition is Condition.WRONG_MODE:
            return ConfigError(f"{self}: the namespace is sequential; s3cfs needs one in user mode")
        return _ERRORS.get(self.condition, Temporary)(operation, key, str(self))


_ERRORS: dict[Condition, type[StoreError]] = {
    Condition.READ_ONLY: Denied, Condition.WORM: Denied, Condition.WRONG_PASSWORD: Denied,
    Condition.LOW_SPACE: StoreFull, Condition.DISK_FULL: StoreFull,
    Condition.NO_NAMESPACE: BucketMissing, Condition.DAMAGED: Corrupt,
    Condition.STRANGE: StoreError, Condition.OK: StoreError,
}
