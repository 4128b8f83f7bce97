"""Whether what a store answers agrees with what is known, and what is wrong with it if not. Pure."""
from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from s3cfs.backends.consistency.conditions import Kind
from s3cfs.backends.consistency.truth import ANY, Content, Known, Sizes
from s3cfs.backends.types import ObjectInfo


@dataclass(frozen=True, slots=True)
class Wrong:
    kind: Kind
    text: str                      # goes on after "the store shows", and before "N seconds ago"
    absent: bool = False           # nothing is shown


def of_size(known: Known, sizes: Sizes | None, size: int | None, age_s: float, young_s: float) -> Wrong | None:
    """The store shows an object of this size, or none, where it may be one of `sizes`. What is absent is lost, and not late, when it had
    longer than `young_s` to appear."""
    if sizes is None or size in sizes:
        return None
    if size is None:
        return Wrong(Kind.LOST if age_s > young_s else Kind.STALE, f"nothing, where {_told(known)} was put", absent=True)
    return _other(known, f"{size} bytes")


def of_content(known: Known, found: Content) -> Wrong | None:
    fits = known.base == ANY or any(held is not None and held.agrees(found) for held in known.may_be)
    return None if fits else _other(known, "other bytes")


def of_part(known: Known, offset: int, size: int | None, found: int) -> Wrong | None:
    """So many bytes of one that was never another came."""
    held = known.base
    if not known.only or held is None or found == max(0, min(held.size - offset, held.size if size is None else size)):
        return None
    return Wrong(Kind.CORRUPT, f"{found} bytes from {offset}, where {_told(known)} was put")


def _other(known: Known, shown: str) -> Wrong:
    if known.base is None:
        return Wrong(Kind.GHOST, f"{shown}, where everything was deleted")
    return Wrong(Kind.CORRUPT if known.only else Kind.STALE, f"{shown}, where {_told(known)} was put")


def _told(known: Known) -> str:
    return f"an object of {' or '.join(str(held.size) for held in known.may_be if held is not None)} bytes"


Below = Iterable[tuple[str, Known, Sizes]]
Found = tuple[str, Known, Wrong]


def of_listing(found: Mapping[str, ObjectInfo], known: Below, now: float, young_s: float) -> list[Found]:
    """What of the known is not as it must be among all that was found."""
    judged = ((key, one, of_size(one, sizes, found[key].size if key in found else None, now - one.since, young_s))
              for key, one, sizes in known)
    return [(key, one, wrong) for key, one, wrong in judged if wrong is not None]


def put_right(found: Mapping[str, ObjectInfo], wrong: Collection[Found]) -> list[ObjectInfo]:
    """With what is wrong as it must be, by the last operation that was answered."""
    right = dict(found)
    for key, known, _ in wrong:
        right.pop(key, None)
        if known.base is not None:
            right[key] = ObjectInfo(key, known.base.size)
    return list(right.values())


def of_folders(prefix: str, found: Collection[str], known: Below, now: float, young_s: float) -> dict[str, Found]:
    """Folders that must be there and were not found, each with a key that lies in it. One that should be gone may hold what others put."""
    missing: dict[str, Found] = {}
    for key, one, sizes in known:
        name, slash, _ = key[len(prefix):].partition("/")
        if slash and name not in found and (wrong := of_size(one, sizes, None, now - one.since, young_s)) is not None:
            missing.setdefault(name, (key, one, wrong))
    return missing
