"""What a server's words are taken for. The texts are written out here once more, from the server's sources and from experiments."""
from __future__ import annotations

import pytest

from s3cfs.backends.zdb.words import Condition, Trouble, condition_of
from s3cfs.errors import BucketMissing, ConfigError, Corrupt, Denied, StoreFull, Temporary

TEXTS = {
    "Namespace is in read-only mode": (Condition.READ_ONLY, Denied),
    "Namespace is temporarily locked (read-only)": (Condition.READ_ONLY, Denied),
    "Namespace is temporarily frozen (read-write disabled)": (Condition.FROZEN, Temporary),
    "Namespace is protected by worm mode": (Condition.WORM, Denied),
    "Cannot delete a key when namespace is in worm mode": (Condition.WORM, Denied),
    "No space left on this namespace": (Condition.LOW_SPACE, StoreFull),
    "Cannot write data right now": (Condition.DISK_FULL, StoreFull),
    "Cannot write index right now": (Condition.DISK_FULL, StoreFull),
    "Cannot delete key (data)": (Condition.DISK_FULL, StoreFull),
    "Access denied": (Condition.WRONG_PASSWORD, Denied),
    "Namespace protected and private": (Condition.WRONG_PASSWORD, Denied),
    "Permission denied": (Condition.WRONG_PASSWORD, Denied),
    "Namespace not found": (Condition.NO_NAMESPACE, BucketMissing),
    "Invalid key, only update authorized": (Condition.WRONG_MODE, ConfigError),
    "Internal Error": (Condition.DAMAGED, Corrupt),
    "Your active namespace is not available anymore (probably removed).": (Condition.GONE, Temporary),
}


@pytest.mark.parametrize("words", TEXTS)
def test_each_is_recognised(words):
    condition, error = TEXTS[words]
    assert condition_of(words) is condition
    made = Trouble(condition, words, "shelf 3").as_error("put", "packs/1")
    assert type(made) is error
    assert words in str(made)
    assert "shelf 3" in str(made)


@pytest.mark.parametrize("words", [
    "Key not found", "No more data", "Invalid key format", "Invalid argument", "Key too large", "Payload too big",
    "Cannot remove default namespace", "This namespace is not available", "Cannot change mode of used namespace"])
def test_what_is_about_one_command_says_nothing_of_the_server(words):
    assert condition_of(words) is Condition.OK


def test_what_nobody_knows_is_strange():
    assert condition_of("LOADING Redis is loading the dataset in memory") is Condition.STRANGE
    assert condition_of("") is Condition.STRANGE


def test_what_can_be_read_and_written():
    readable = {condition for condition in Condition if condition.may_read}
    writable = {condition for condition in Condition if condition.may_write}
    assert readable == {Condition.OK, Condition.READ_ONLY, Condition.LOW_SPACE, Condition.DISK_FULL, Condition.WORM, Condition.DAMAGED}
    assert writable < readable and not writable & {Condition.READ_ONLY, Condition.LOW_SPACE, Condition.DISK_FULL}
    assert Condition.UNREACHABLE.passes and not Condition.WRONG_PASSWORD.passes
