"""A real Kubo with the S3 plugin on a bucket that `ipfs+s3://` wrote: each reads what the other put, and pins decide what its collection
leaves.

It is asked for blocks, and never for its own word: with a rootDirectory its `repo stat` and `repo verify` see none (docs/ipfs.md).
"""
from __future__ import annotations

import http.client
import json
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from s3cfs.backends.ipfs import dag
from s3cfs.backends.ipfs.cid import RAW, Cid, block_key
from s3cfs.backends.ipfs.collector import collect
from s3cfs.backends.ipfs.objects import IpfsBackend
from s3cfs.backends.registry import open_backend
from s3cfs.errors import NotFound, StoreError
from tests.against.kubo_node import KuboNode
from tests.e2e.kit import Filesystem
from tests.e2e.manifest import assert_same, manifest
from tests.e2e.sources import mixed_file, standard_library
from tests.servers import Server, free_port, moto_server, running

MIB = 1 << 20
SIZES = (0, 100, MIB, 2_500_000, 60_000_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """MinIO, where there is one."""
    program = os.environ.get("S3CFS_TEST_MINIO")
    if not program:
        with moto_server() as made:
            yield made
        return
    folder, port = tmp_path_factory.mktemp("minio"), free_port()
    login, password = "test-login", "test-password-01"
    os.environ.update(MINIO_ROOT_USER=login, MINIO_ROOT_PASSWORD=password)
    command = [program, "server", "--address", f"127.0.0.1:{port}", "--console-address", f"127.0.0.1:{free_port()}", str(folder / "data")]
    with running(command, port, folder / "log") as process:
        yield Server("minio", f"127.0.0.1:{port}", login, password, process.pid, True, {"no-ssl": ""})


@dataclass(frozen=True, slots=True)
class Case:
    """One bucket, with a filesystem, a table of objects beside it, and a node."""

    root: str
    mountpoint: str
    bucket: str
    s3: Any
    fs: Filesystem
    options: dict[str, str]
    node: KuboNode

    @property
    def is_visible(self) -> bool:
        """Whether the node's own listings see anything in the bucket."""
        return not self.root

    def block(self, digest: bytes) -> bytes:
        """As it lies in the bucket."""
        parts = [self.root, "blocks" if self.mountpoint == "/" else "", block_key(digest)]
        data: bytes = self.s3.get_object(Bucket=self.bucket, Key="/".join(part for part in parts if part))["Body"].read()
        return data

    def opened(self, **more: str) -> IpfsBackend:
        made = open_backend(self.fs.url, {**self.options, **more}, login=self.fs.login, password=self.fs.password)
        made.assume_create_only(True)
        assert isinstance(made, IpfsBackend)
        return made

    def roots(self, table: str = "main") -> dict[str, tuple[str, int]]:
        """Key -> CID and size, by the command."""
        told = self.fs.run("ipfs", "roots", self.fs.url, "--json", "--backend-options", _text({**self.options, "names": table}))
        assert told.returncode == 0, told.stderr
        found = [json.loads(line) for line in told.stdout.splitlines()]
        return {one["key"]: (one["cid"], one["size"]) for one in found}


def _text(options: dict[str, str]) -> str:
    return ",".join(f"{name}={value}" if value else name for name, value in options.items())


@pytest.fixture(params=[("", "/blocks"), ("node/blocks", "/blocks"), ("", "/"), ("deep", "/")], ids=str)
def case(server: Server, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    root, mountpoint = request.param
    bucket = f"kubo-{['', 'node/blocks', 'deep'].index(root)}-{len(mountpoint)}"
    s3 = boto3.client("s3", endpoint_url=f"http://{server.host}", aws_access_key_id=server.login, aws_secret_access_key=server.password,
                      region_name="us-east-1", config=Config(s3={"addressing_style": "path"}))
    s3.create_bucket(Bucket=bucket)
    options = {**server.options, "mountpoint": mountpoint}
    fs = Filesystem(tmp_path / "fs", f"ipfs+s3://{server.host}/{bucket}/{root}".rstrip("/"), options, server.login, server.password)
    node = KuboNode(os.environ["S3CFS_TEST_KUBO"], tmp_path / "node",
                    {"AWS_ACCESS_KEY_ID": server.login, "AWS_SECRET_ACCESS_KEY": server.password})
    try:
        yield Case(root, mountpoint, bucket, s3, fs, options, node)
    finally:
        fs.close()


def test_one_bucket(case: Case, tmp_path: Path) -> None:
    source = standard_library(tmp_path / "source", 40)
    mixed_file(source / "large", 12 * MIB, 1)
    expected = manifest(source)
    case.fs.mkfs()
    mount = case.fs.mount()
    subprocess.run(["cp", "-a", str(source), str(mount.path / "copy")], check=True)
    mount.umount()
    objects = {f"pack/aa/{size}": random.Random(size).randbytes(size) for size in SIZES}
    with closing(case.opened(names="beside")) as backend:
        for key, data in objects.items():
            backend.put(key, data)
    the_node_is_as_s3cfs_says(case)
    with case.node.daemon():
        ours = {**every_root_is_read(case), **every_root_is_read(case, "beside", objects)}
        theirs = s3cfs_reads_what_the_node_added(case)
    if case.root and case.mountpoint == "/":
        a_listing_ends_it(case)
    with case.node.daemon():                               # nothing in its memory
        every_root_is_read(case)
        if not (case.root and case.mountpoint == "/"):
            its_own_listings_see_nothing_where_there_is_a_root_directory(case)
            pins_decide_what_a_collection_leaves(case, ours, theirs)
        s3cfs_collects_only_its_own(case, objects)
    case.fs.lose()
    mount = case.fs.mount()
    assert_same(expected, manifest(mount.path / "copy"))
    mount.umount()
    case.fs.fsck()


def the_node_is_as_s3cfs_says(case: Case) -> None:
    told = case.fs.run("ipfs", "spec", case.fs.url)
    assert told.returncode == 0, told.stderr
    case.node.init(json.loads(told.stdout), Datastore__BlockKeyCacheSize=0)
    on_disk = case.fs.run("ipfs", "spec", "--on-disk", case.fs.url).stdout
    assert (case.node.repository / "datastore_spec").read_text() == on_disk, "which it made itself"


def every_root_is_read(case: Case, table: str = "main", objects: dict[str, bytes] | None = None) -> dict[str, str]:
    """Block for block: the node's are those of the bucket, and whole files what s3cfs has. CID -> key."""
    roots = case.roots(table)
    assert roots and (objects is None or set(roots) == set(objects))
    with closing(case.opened(names=table)) as backend:
        for key, (cid, size) in roots.items():
            data = case.node.rpc("cat", cid, offline="true")
            assert len(data) == size and data == backend.get(key) and (objects is None or data == objects[key]), key
            tree, blocks = dag.blocks_of(data)
            assert str(tree.cid) == cid
            told = set[str]()
            for number, block in enumerate(blocks):
                name = str(Cid(1, RAW if number < dag.leaf_count(size) else 0x70, block.digest))
                there = case.node.rpc("block/get", name, offline="true")
                assert there == bytes(block.data) == case.block(block.digest), (key, name)
                told.add(name)
            assert case.node.blocks(cid) == told, key
    return {cid: key for key, (cid, _) in roots.items()}


def s3cfs_reads_what_the_node_added(case: Case) -> dict[str, bytes]:
    """In both forms of its `add`, and a directory of many; not pinned. CID -> content of the files."""
    added = {}
    for number, options in enumerate([{"cid_version": "1", "raw_leaves": "true", "chunker": "size-1048576"}, {}]):
        data = random.Random(f"node {number}").randbytes(2_500_000)
        added[case.node.add(data, pin="false", **options)] = data
    with closing(case.opened()) as backend:
        for cid, data in added.items():
            assert b"".join(content(backend, Cid.parse(cid))) == data
            assert {str(Cid.parse(cid)._replace(version=1, codec=RAW))} <= {
                str(Cid.parse(one)._replace(version=1, codec=RAW)) for one in case.node.blocks(cid)}
    return added


def content(backend: IpfsBackend, cid: Cid) -> Iterator[bytes]:
    data = backend.blocks.get(cid.digest)
    if cid.codec == RAW:
        yield data
        return
    node = dag.decode_node(data)
    yield node.data
    for link in node.links:
        yield from content(backend, link.cid)


def a_listing_ends_it(case: Case) -> None:
    """With everything below a rootDirectory the plugin's keys lack what the node has to strip: it panics, "expected prefix not found"."""
    with case.node.daemon():
        with pytest.raises((OSError, http.client.HTTPException)):
            case.node.rpc("repo/stat")
    assert "panic: expected prefix not found" in (case.node.folder / "log").read_text()


def its_own_listings_see_nothing_where_there_is_a_root_directory(case: Case) -> None:
    """The trap: so what it says of a bucket is worth nothing."""
    seen = [line for line in case.node.lines("refs/local") if line.get("Ref")]
    objects = json.loads(case.node.rpc("repo/stat"))["NumObjects"]
    verified = case.node.rpc("repo/verify").decode()
    assert bool(seen) == bool(objects) == case.is_visible
    assert "all blocks validated" in verified, verified


def pins_decide_what_a_collection_leaves(case: Case, ours: dict[str, str], theirs: dict[str, bytes]) -> None:
    loose = next(cid for cid, key in ours.items() if key == "pack/aa/2500000")
    for cid in ours:
        if cid != loose:
            case.node.rpc("pin/add", cid, recursive="true", name=f"s3cfs/{ours[cid]}", offline="true")
    before = names_of(case)
    gone = case.node.collect()
    assert names_of(case) == before, "the name tables are no blocks"
    with closing(case.opened(names="beside")) as backend:
        if case.is_visible:
            assert len(gone) >= 4
            with pytest.raises(StoreError):
                backend.get("pack/aa/2500000")
            for cid in theirs:
                with pytest.raises(NotFound):
                    list(content(backend, Cid.parse(cid)))
        else:
            assert gone == [], "it sees nothing to collect"
            assert backend.get("pack/aa/2500000")
        for cid, key in ours.items():
            if cid != loose:
                assert case.node.rpc("cat", cid, offline="true") is not None, key


def names_of(case: Case) -> set[str]:
    pages = case.s3.get_paginator("list_objects_v2").paginate(Bucket=case.bucket)
    return {one["Key"] for page in pages for one in page.get("Contents", ()) if "s3cfs" in one["Key"]}


def s3cfs_collects_only_its_own(case: Case, objects: dict[str, bytes]) -> None:
    added = case.node.add(random.Random("last").randbytes(2_500_000), pin="true")
    with closing(case.opened(names="beside", collect="0")) as backend:
        backend.delete_many(list(objects))
        result = collect(backend, 0.0)
        assert result.blocks >= 60
        assert list(backend.list("")) == []
        assert b"".join(content(backend, Cid.parse(added))) == random.Random("last").randbytes(2_500_000)
    assert case.node.rpc("cat", added, offline="true") == random.Random("last").randbytes(2_500_000)
    every_root_is_read(case)
