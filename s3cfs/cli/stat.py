"""`s3cfs stat MNT`: a table for people, or the JSON of docs/stat.md."""
from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from s3cfs.cli import arguments, exitcodes, seam
from s3cfs.cli.run import one_line
from s3cfs.cli.style import Style
from s3cfs.config import format_duration, format_size
from s3cfs.errors import ExitCode

EPILOG = """\
examples:
  s3cfs stat /mnt/home
  s3cfs stat --json /mnt/home | jq .lag.bytes

The lag is what would be lost if this machine vanished now: how old the oldest change is that is not yet in the store, and how
many bytes are not yet there. docs/stat.md describes the JSON.

"""


def parser(prog: str) -> arguments.Parser:
    made = arguments.Parser(prog=prog, description="What a mounted filesystem does. Makes no request to the store.",
                            epilog=EPILOG + exitcodes.epilog((ExitCode.NOT_A_MOUNT, ExitCode.NO_ANSWER)))
    made.add_argument("mountpoint", metavar="MOUNTPOINT")
    made.add_argument("--json", action="store_true", help="as JSON with stable names")
    return made


def run(argv: Sequence[str], prog: str) -> int:
    args = parser(prog).parse(argv)
    found = seam.call(seam.served(args.mountpoint).socket, "stat", {})
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        for line in render(found, Style.of_stdout()):
            print(line)
    return 0


def render(found: Mapping[str, Any], style: Style) -> Iterator[str]:
    """Rows of label and text; what an older or newer process does not tell is left out."""
    for label, text in _rows(found, style):
        yield f"{style.dim(label.ljust(14))} {text}" if label else ""


def _rows(s: Mapping[str, Any], style: Style) -> Iterator[tuple[str, str]]:
    def part(name: str) -> Mapping[str, Any]:
        value = s.get(name)
        return value if isinstance(value, Mapping) else {}

    files, data, lag, commit = part("files"), part("data"), part("lag"), part("commit")
    state = str(s.get("state", "ok"))
    yield "filesystem", f"{_line(s, 'label') or '(no label)'}  {s.get('fs_id', '')}"
    yield "store", _line(s, "url")
    yield "mounted on", f"{_line(s, 'mountpoint')}, process {s.get('pid')}, s3cfs {s.get('version')}, since {_ago(s.get('uptime_s'))}" + (
        ", read-only" if s.get("read_only") else "")
    about = f": {_line(s, 'message')}" if s.get("message") else ""
    yield "state", (style.good if state in ("ok", "read-only") else style.bad)(state) + about
    damage = part("damage")
    for find in damage.get("last") or ():
        if isinstance(find, Mapping):
            where = f"{find.get('path')} bytes {find.get('start')}-{int(find.get('end') or 1) - 1}, pack {find.get('pack')}"
            yield one_line(str(find.get("what"))), style.bad(one_line(where))
    for text in s.get("warnings") or ():
        yield "warning", style.bad(str(text))
    yield "", ""
    bound = lag.get("bound_seconds")
    behind = f"{_ago(lag.get('seconds'))}, {_size(lag.get('bytes'))} not yet in the store"
    late = bound is not None and (lag.get("seconds") or 0) > bound
    nothing = not lag.get("bytes") and not lag.get("seconds")
    yield "lag", ("none, everything is in the store" if nothing else style.bad(behind) if late else behind) + (
        f" (bound: {format_duration(bound)})" if bound is not None else "")
    yield "commit", f"{commit.get('number')}:{str(commit.get('hash') or '')[:16]}, epoch {commit.get('epoch')}, " \
                    f"{_count(commit.get('transactions'))} transactions, {_size(commit.get('outbox_bytes'))} of metadata waiting"
    yield "", ""
    yield "files", f"{_count(files.get('inodes'))} inodes, {_size(files.get('logical_bytes'))}"
    yield "after dedup", f"{_size(data.get('unique_bytes'))}, {_ratio(data.get('dedup_ratio'))}"
    yield "stored", f"{_size(data.get('stored_bytes'))}, {_ratio(data.get('compression_ratio'))}, " \
                    f"{_count(data.get('chunks'))} chunks in {_count(data.get('packs'))} packs" + (
                        f" ({_ago(data.get('as_of_s'))} ago)" if (data.get("as_of_s") or 0) >= 1 else "")
    yield "", ""
    dirty, journal, cache, store = part("dirty"), part("journal"), part("cache"), part("store")
    yield "dirty", f"{_size(dirty.get('ram_bytes'))} in memory, {_size(dirty.get('spool_bytes'))} spooled"
    yield "journal", f"{_size(journal.get('bytes'))} of {_size(journal.get('limit_bytes'))}"
    hits, misses = cache.get("hits") or 0, cache.get("misses") or 0
    yield "cache", f"{_size(cache.get('bytes'))} of {_size(cache.get('limit_bytes'))} on disk, " \
                   f"{_size(cache.get('decoded_bytes'))} in memory, {100 * hits / (hits + misses) if hits + misses else 100:.0f} % hits"
    yield "", ""
    moved = store.get("bytes") or {}
    last = store.get("last_success_s")
    yield "requests", ", ".join(f"{_count(n)} {op}" for op, n in (store.get("requests") or {}).items() if n) or "none"
    yield "transferred", f"{_size(moved.get('up'))} up, {_size(moved.get('down'))} down; {_count(store.get('errors'))} errors, " \
                         f"last answer {'never' if last is None else f'{_ago(last)} ago'}; tier {store.get('tier') or '-'}"
    if store.get("last_error") and state in ("waiting", "store-away", "failed"):
        yield "last error", style.bad(one_line(str(store["last_error"])))
    yield from _by_kind(store.get("by_kind") or {})
    for name, told in (store.get("layers") or {}).items():
        shown = [f"{word.replace('_', ' ')} {_value(value)}" for word, value in told.items() if not isinstance(value, Mapping)]
        yield one_line(f"layer {name}"), one_line(str(told.get("summary") or ", ".join(shown)))


def _line(s: Mapping[str, Any], name: str) -> str:
    return one_line(str(s.get(name) or ""))


def _by_kind(by_kind: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The counters turned round: a row a kind of object."""
    rows: dict[str, list[str]] = {}
    for operation, kinds in (by_kind.get("requests") or {}).items():
        for kind, count in kinds.items():
            rows.setdefault(kind, []).append(f"{_count(count)} {operation}")
    for way in ("up", "down"):
        for kind, size in (by_kind.get(f"bytes_{way}") or {}).items():
            if size:
                rows.setdefault(kind, []).append(f"{_size(size)} {way}")
    for kind in sorted(rows):
        yield f"  {kind}", ", ".join(rows[kind])


def _value(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _size(value: Any) -> str:
    return "-" if value is None else format_size(value)


def _count(value: Any) -> str:
    return "-" if value is None else f"{value:,}"


def _ratio(value: Any) -> str:
    return "-" if value is None else f"{value:.2f} times smaller"


def _ago(value: Any) -> str:
    return "-" if value is None else format_duration(value)
