"""Which servers an object goes to: all distinct, the failure domains as evenly as they can be. Pure; chance is handed in."""
from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from s3cfs.backends.zdb.shard import Code


class Candidate(NamedTuple):
    """A server that may be written. `weight`: how much of what its domain gets goes there, above 0 (its free space, say)."""

    id: int
    domain: str
    weight: float = 1.0


def spread(candidates: Iterable[Candidate], count: int, chance: random.Random, taken: Mapping[int, str] | None = None) -> list[int]:
    """`count` servers, or as many as there are, in random order. `taken`: servers that have a shard of it already, and their domains."""
    taken = taken or {}
    used = Counter(taken.values())
    by_domain: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        if candidate.id not in taken:
            by_domain.setdefault(candidate.domain, []).append(candidate)
    chosen: list[int] = []
    while len(chosen) < count and by_domain:
        least = min(used[domain] for domain in by_domain)
        domain = chance.choice([domain for domain in by_domain if used[domain] == least])
        there = by_domain[domain]
        picked = chance.choices(there, [candidate.weight for candidate in there])[0]
        there.remove(picked)
        if not there:
            del by_domain[domain]
        used[domain] += 1
        chosen.append(picked.id)
    chance.shuffle(chosen)
    return chosen


def narrowed(code: Code, servers: int) -> Code | None:
    """The code for so many servers: as many parity shards as ever, so that as many of them may be lost, and fewer of data if it must be."""
    k = min(code.k, servers - code.m)
    return Code(k, code.m) if k >= 1 else None


def most_in_one_domain(servers: Collection[int], domains: Mapping[int, str]) -> int:
    """How many of them go with the domain that has the most."""
    return max(Counter(domains.get(server, f"?{server}") for server in servers).values(), default=0)


def replicas_for(parity: int) -> int:
    """How many replicas of records there shall be: with any `parity` of them gone, a majority is left."""
    return 2 * parity + 1


class Quorum(NamedTuple):
    """Of `replicas`, so many have to take a write, and so many to answer a read: any two such sets have one in common."""

    write: int
    read: int

    @classmethod
    def of(cls, replicas: int) -> Quorum:
        write = replicas // 2 + 1
        return cls(write, replicas - write + 1)
