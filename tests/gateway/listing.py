"""Answers to ListObjects, versions 1 and 2, by the gateway's rules."""
from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote
from xml.sax.saxutils import escape

from tests.gateway.index import Entry, Page

if TYPE_CHECKING:
    from tests.gateway.gateway import Gateway

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
PAGE_KEYS = 1000


class TooMany(Exception):
    """The gateway would have to look at everything and filter by itself, and does not."""

    def __init__(self) -> None:
        super().__init__("ListObjects(V2): listing too many items for gateway-side filtering using arbitrary delimiter/prefix")


def listed(gateway: Gateway, bucket: str, query: Mapping[str, str], age: float) -> str:
    """The document; TooMany, index.BadToken."""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    limit = min(int(query.get("max-keys", PAGE_KEYS)), gateway.page_keys)
    second = query.get("list-type") == "2"
    token = query.get("continuation-token", "") if second else query.get("marker", "")
    path = f"{bucket}/{prefix}"
    native = (not prefix or prefix.endswith("/")) and delimiter in ("", "/")
    page = gateway.index.page(path, token, delimiter == "/", limit, age) if native else _exhaustive(gateway, bucket, path, delimiter, age)
    return _document(page, bucket, query, second)


def _exhaustive(gateway: Gateway, bucket: str, path: str, delimiter: str, age: float) -> Page:
    """As projects of before 30 November 2025 have it: everything below the last '/' is read, up to a limit, and sorted. One page."""
    below = path[:path.rfind("/") + 1]
    if not gateway.exhaustive or gateway.index.count(below, gateway.exhaustive_limit + 1) > gateway.exhaustive_limit:
        raise TooMany
    objects: list[tuple[str, Entry]] = []
    folders: dict[str, None] = {}
    for key, entry in sorted(gateway.index.page(below, "", False, gateway.exhaustive_limit, age).objects):
        if key.startswith(path):
            name, found, _ = key[len(path):].partition(delimiter) if delimiter else (key, "", "")
            if found:
                folders[path + name + delimiter] = None
            else:
                objects.append((key, entry))
    return Page(objects, [*folders], None)


def _document(page: Page, bucket: str, query: Mapping[str, str], second: bool) -> str:
    url = query.get("encoding-type") == "url"
    skip = len(bucket) + 1

    def name(text: str) -> str:
        return quote(text, safe="/~") if url else escape(text)

    said = [f"<Name>{bucket}</Name><Prefix>{name(query.get('prefix', ''))}</Prefix><MaxKeys>{PAGE_KEYS}</MaxKeys>",
            f"<KeyCount>{len(page.objects) + len(page.folders)}</KeyCount><IsTruncated>{str(bool(page.token)).lower()}</IsTruncated>",
            "<EncodingType>url</EncodingType>" if url else "",
            f"<Delimiter>{name(query['delimiter'])}</Delimiter>" if "delimiter" in query else ""]
    if page.token:
        tag = "NextContinuationToken" if second else "NextMarker"
        said.append(f"<{tag}>{page.token}</{tag}>")
    for key, entry in page.objects:
        moment = datetime.fromtimestamp(entry.modified, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        said.append(f"<Contents><Key>{name(key[skip:])}</Key><LastModified>{moment}</LastModified><ETag>{escape(entry.etag)}</ETag>"
                    f"<Size>{entry.size}</Size><StorageClass>STANDARD</StorageClass></Contents>")
    said += [f"<CommonPrefixes><Prefix>{name(folder[skip:])}</Prefix></CommonPrefixes>" for folder in page.folders]
    return f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="{NAMESPACE}">{"".join(said)}</ListBucketResult>'
