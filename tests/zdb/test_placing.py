"""Where shards go: distinct servers, even over domains, a code for as many as there are."""
from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3cfs.backends.zdb.placing import Candidate, Quorum, most_in_one_domain, narrowed, replicas_for, spread
from s3cfs.backends.zdb.shard import Code


@given(st.lists(st.integers(1, 8), min_size=1, max_size=8), st.integers(1, 30), st.integers(0, 2**32))
def test_domains_are_as_even_as_they_can_be(sizes, count, seed):
    candidates = [Candidate(10 * domain + number + 1, str(domain)) for domain, size in enumerate(sizes) for number in range(size)]
    chosen = spread(candidates, count, random.Random(seed))
    assert len(chosen) == len(set(chosen)) == min(count, len(candidates))
    domains = {candidate.id: candidate.domain for candidate in candidates}
    used = Counter(domains[server] for server in chosen)
    most = max(used.values())
    assert all(used[str(domain)] >= min(size, most - 1) for domain, size in enumerate(sizes)), "one has room while another has two more"
    assert most_in_one_domain(chosen, domains) == most


def test_what_is_taken_counts():
    candidates = [Candidate(1, "a"), Candidate(2, "a"), Candidate(3, "b"), Candidate(4, "b"), Candidate(5, "c")]
    for seed in range(20):
        chosen = spread(candidates, 2, random.Random(seed), {1: "a", 9: "c"})
        assert len(chosen) == 2 and 1 not in chosen and set(chosen) & {3, 4}
        assert spread(candidates, 1, random.Random(seed), {1: "a", 5: "c"})[0] in (3, 4)


def test_every_server_has_its_turn_by_its_weight():
    rng, candidates = random.Random(1), [Candidate(1, "a", 3.0), Candidate(2, "a", 1.0), Candidate(3, "b")]
    used = Counter(server for _ in range(1000) for server in spread(candidates, 2, rng))
    assert used[3] == 1000 and 650 < used[1] < 850 and used[1] + used[2] == 1000
    assert len({spread(candidates, 3, rng)[0] for _ in range(50)}) == 3, "no server has always the first shard"


@pytest.mark.parametrize(("servers", "expected"), [(25, Code(16, 4)), (20, Code(16, 4)), (19, Code(15, 4)), (16, Code(12, 4)),
                                                   (5, Code(1, 4)), (4, None), (0, None)])
def test_fewer_servers_make_a_narrower_code_and_as_many_may_be_lost(servers, expected):
    assert narrowed(Code(16, 4), servers) == expected


@pytest.mark.parametrize(("replicas", "write", "read"), [(1, 1, 1), (3, 2, 2), (4, 3, 2), (9, 5, 5)])
def test_quorums_meet(replicas, write, read):
    quorum = Quorum.of(replicas)
    assert (quorum.write, quorum.read) == (write, read)
    assert quorum.write + quorum.read > replicas and 2 * quorum.write > replicas


def test_a_majority_of_replicas_outlives_parity():
    for parity in range(1, 20):
        replicas = replicas_for(parity)
        assert replicas - parity >= Quorum.of(replicas).write
