"""How a store on 0-dbs is, as plain data: for `s3cfs zdb status`, `stat --json`, and for whoever watches it."""
from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from s3cfs.backends.zdb.cluster import Cluster, Member
from s3cfs.backends.zdb.looking import Looked
from s3cfs.backends.zdb.placing import Quorum
from s3cfs.backends.zdb.setup import Server, Setup
from s3cfs.backends.zdb.words import Condition, Trouble

POLL_S = 5.0                       # that a server has for its answer
SILENT = "silent"


def ask(cluster: Cluster, members: Iterable[Member]) -> None:
    """How they are, all at once."""
    cluster.fanout.all(members, lambda member: member.node.poll(timeout_s=POLL_S))


def told(cluster: Cluster) -> dict[str, Any]:
    """As of the last look at each server; makes no request. `degraded`: one line, or None when all is as it should be."""
    setup, roll = cluster.setup, cluster.roll
    members = {member.server.name: member for member in cluster}
    servers = []
    for server in setup.everyone:
        member, stranger = members.get(server.name), cluster.strangers.get(server.name)
        if member is not None:
            about = _node(member) | {"id": f"{member.id:08x}", "replica": member.id in roll.replicas, "joining": member.id in roll.joining,
                                     "may_read": member.may_read, "may_write": _takes(member)}
        else:
            about = _unknown(server, stranger or Trouble(Condition.STRANGER, "is not admitted yet"))
        servers.append(about | {"domain": server.domain, "drain": server.drain})
    replicas = [cluster.member(number) for number in roll.replicas]
    up = sum(member is not None and member.may_read for member in replicas)
    quorum = Quorum.of(len(replicas))
    records = {"replicas": len(replicas), "up": up, "read": quorum.read, "write": quorum.write, "joining": len(roll.joining),
               "epoch": roll.epoch}
    return _all(setup, servers, records, _degraded(servers, len(replicas), up, quorum))


def told_without_opening(setup: Setup, looked: Looked, why: str) -> dict[str, Any]:
    """Of servers with which nothing can be done: `why`."""
    servers = []
    for server in setup.everyone:
        trouble = looked.troubles.get(server.name)
        about = _unknown(server, trouble or Trouble(Condition.OK, ""))
        servers.append(about | {"may_read": trouble is None, "may_write": trouble is None, "domain": server.domain, "drain": server.drain})
    replicas = looked.roll.replicas if looked.roll is not None else ()
    up = sum(face.identity is not None and face.identity.server_id in replicas for face in looked.faces.values())
    quorum = Quorum.of(len(replicas))
    return _all(setup, servers, {"replicas": len(replicas), "up": up, "read": quorum.read, "write": quorum.write, "joining": 0,
                                 "epoch": looked.roll.epoch if looked.roll is not None else 0}, why)


def _all(setup: Setup, servers: list[dict[str, Any]], records: Mapping[str, int], degraded: str | None) -> dict[str, Any]:
    return {"list": setup.path, "data": setup.data, "parity": setup.parity, "acknowledgements": setup.acknowledgements, "servers": servers,
            "records": records, "degraded": degraded}


def _unknown(server: Server, trouble: Trouble) -> dict[str, Any]:
    """One on which no calls are made."""
    return {"name": server.name, "address": server.address, "id": None, "condition": trouble.condition.value, "words": trouble.words,
            "since": None, "latency_s": None, "damaged": 0, "space": None, "replica": False, "joining": False, "may_read": False,
            "may_write": False}


def _node(member: Member) -> dict[str, Any]:
    """One that owes an answer is known by that, before its silence is an error."""
    node = member.node
    if not (node.is_silent and node.health.status.condition is Condition.OK):
        return node.status()
    silent_s = node.links.silent_s
    return node.status() | {"condition": SILENT, "words": f"owes an answer for {silent_s:.0f} s", "since": time.time() - silent_s}


def _takes(member: Member) -> bool:
    return member.node.health.status.condition.may_write and not member.node.is_silent


def _degraded(servers: list[dict[str, Any]], replicas: int, up: int, quorum: Quorum) -> str | None:
    bad = [one for one in servers if not (one["may_read"] and one["may_write"])]
    if up < quorum.write:
        return f"{up} of {replicas} replicas of the records answer, and writing needs {quorum.write}"
    if not bad:
        return None
    shown = ", ".join(f"{one['name']} {one['condition']}" for one in bad[:4]) + (" ..." if len(bad) > 4 else "")
    return f"{len(bad)} of {len(servers)} servers cannot be used as they should: {shown}"
