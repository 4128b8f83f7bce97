"""The samples (make_samples.py) as they are used, and imports into a filesystem in memory."""
from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import trio

from s3cfs.app.node import Node
from s3cfs.backends.memory import MemoryBackend
from s3cfs.config import ImportOptions, Secret
from s3cfs.moves.plant import MARK, Planted, Planter
from s3cfs.moves.s3ql.importing import ImportResult, open_source
from s3cfs.moves.s3ql.place import Access, Place
from s3cfs.moves.s3ql.tree import S3qlTree
from s3cfs.moves.source import Finding, Kind
from tests.check.kit import World
from tests.moves.trees import Entry, Tree, tree_of
from tests.servers import Server

SAMPLES = Path(__file__).parent / "samples"


def tree_from(manifest: dict[str, dict[str, Any]]) -> Tree:
    found: Tree = {}
    for path, entry in manifest.items():
        made: Entry = {**entry, "same_as": bytes.fromhex(entry["same_as"]),
                       "xattrs": {bytes.fromhex(name): bytes.fromhex(value) for name, value in sorted(entry["xattrs"].items())}}
        if "target" in made:
            made["target"] = bytes.fromhex(made["target"])
        found[bytes.fromhex(path)] = made
    return found


@dataclass
class Sample:
    """Extracted at `root`."""

    name: str
    root: Path
    expected: Tree
    url: str
    passphrase: str | None
    block: int
    access: Access

    @classmethod
    def at(cls, root: Path, name: str, host: str = "", server: Server | None = None, *, data: bool = True) -> Sample:
        """`server`: for one in a bucket, whose objects (without `data`: only the metadata) go to `host`, which knows its keys."""
        with tarfile.open(SAMPLES / f"{name}.tar.xz") as tar:
            tar.extractall(root, filter="data")
        about = json.loads((root / "about.json").read_text())
        url = about["url"].format(root=root, host=host)
        expected = tree_from(json.loads((root / "manifest.json").read_text()))
        made = cls(name, root, expected, url, about["passphrase"], about["block"], Access())
        if server is not None:
            made.upload(host, server, data)
        return made

    def upload(self, host: str, server: Server, data: bool) -> None:
        """Its objects, with their metadata, into the bucket of that name."""
        s3: Any = boto3.session.Session(server.login, server.password, region_name="us-east-1").client(
            "s3", endpoint_url=f"http://{host}")
        bucket = Place.parse(self.url).bucket
        direct: Any = boto3.session.Session(server.login, server.password, region_name="us-east-1").client(
            "s3", endpoint_url=f"http://{server.host}")
        direct.create_bucket(Bucket=bucket)
        direct.close()
        for number, item in enumerate(json.loads((self.root / "objects.json").read_text())):
            if data or "s3ql_data" not in item["key"]:
                s3.put_object(Bucket=bucket, Key=item["key"], Metadata=item["metadata"],
                              Body=(self.root / "objects" / str(number)).read_bytes())
        self.access = Access(server.login, Secret(server.password), options={"no-ssl": ""})
        s3.close()

    @property
    def cache(self) -> Path:
        """S3QL's cache folder, with the names that it has for this URL."""
        folder = self.root / "cache"
        for entry in list(folder.iterdir()):
            if entry.name.startswith("base"):
                entry.rename(folder / (Place.parse(self.url).cache_name() + entry.name.removeprefix("base")))
        return folder

    def object(self, number: int) -> Path:
        digits = str(number)
        return self.root.joinpath("store", "s3ql_data_", *(digits[:end] for end in range(3, len(digits), 3)), f"s3ql_data_{digits}")

    def need(self) -> Secret:
        assert self.passphrase is not None, "a plain filesystem was said to need a passphrase"
        return Secret(self.passphrase)


@dataclass
class Imported:
    tree: Tree
    result: ImportResult
    findings: list[Finding] = field(default_factory=list)
    planted: Planted | None = None

    @property
    def told(self) -> set[tuple[str, bytes]]:
        """Findings but those of features that are dropped."""
        return {(str(finding.kind), finding.path) for finding in self.findings if finding.kind is not Kind.DROPPED}


def imported(sample: Sample, world: World | None = None, folder: Path | None = None, *, options: ImportOptions | None = None,
             before: Callable[[S3qlTree], None] = lambda tree: None) -> Imported:
    """Into a filesystem in memory (or `world`), whose tree is read back."""
    world = world or World.make(MemoryBackend(), Path(tempfile.mkdtemp(dir=sample.root)))
    made: list[Imported] = []

    async def main(node: Node) -> None:
        findings: list[Finding] = []
        async with open_source(Place.parse(sample.url), sample.access, options or ImportOptions(), str(sample.root / "scratch"),
                               sample.need, findings.append, lambda event: None) as (tree, result):
            before(tree)
            planted = await Planter(node.doors, node.vfs, tree, 1, report=findings.append).run()
            found = await tree_of(node)
            found[b""]["xattrs"].pop(MARK, None)
        made.append(Imported(found, result, findings, planted))
    world.on_node(main, folder, process_alive=lambda host: False)
    return made[0]


def opened(sample: Sample, look: Callable[[S3qlTree], None] = lambda tree: None, **options: Any) -> tuple[ImportResult, list[Finding]]:
    """A look only."""
    findings: list[Finding] = []

    async def main() -> ImportResult:
        async with open_source(Place.parse(sample.url), sample.access, ImportOptions(**options), str(sample.root / "scratch"), sample.need,
                               findings.append, lambda event: None) as (tree, result):
            look(tree)
        return result
    return trio.run(main), findings
