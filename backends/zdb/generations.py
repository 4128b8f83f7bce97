"""Which namespace of a 0-db holds a server's data now.

What overwrites and deletes leave behind in a namespace comes back only with the whole of it. So what is alive moves into a new one now and
then (reclaim.py): from NAME, where it began, to NAME-g1, NAME-g2 ... The one in force is the highest that holds the server's identity,
which is written last. Names of namespaces can be listed without a password, so a client finds it when it connects, and needs to be told
of nothing: its list says NAME for ever.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from s3cfs.backends.zdb.words import Condition, Trouble

# the connection's namespace is being left, or has been: where its server's data is has to be found out anew
LEFT = frozenset({Condition.GONE, Condition.NO_NAMESPACE, Condition.FROZEN, Condition.READ_ONLY})


def name_of(base: str, number: int) -> str:
    return f"{base}-g{number}" if number else base


def numbers(names: Iterable[str], base: str) -> list[int]:
    """Of the generations of `base` among the names of namespaces, the lowest first."""
    pattern = re.compile(re.escape(base) + r"(?:-g([1-9]\d{0,8}))?")
    return sorted(int(found[1] or 0) for name in names if (found := pattern.fullmatch(name)))


def enter(base: str, names: Callable[[], Iterable[str]], select: Callable[[str], None], has_identity: Callable[[], bool]) -> str:
    """Select the one in force, and say which it is; while none has an identity, it is the lowest. Raises Trouble.

    `names`: of all namespaces of the server. `has_identity`: the selected one. What they say may change in between: then once more.
    """
    try:
        return _entered(base, names, select, has_identity)
    except Trouble as trouble:
        if trouble.condition not in LEFT:
            raise
    return _entered(base, names, select, has_identity)


def _entered(base: str, names: Callable[[], Iterable[str]], select: Callable[[str], None], has_identity: Callable[[], bool]) -> str:
    there = numbers(names(), base) or [0]
    for number in reversed(there[1:]):
        select(name_of(base, number))
        if has_identity():
            return name_of(base, number)
    select(name_of(base, there[0]))
    return name_of(base, there[0])
