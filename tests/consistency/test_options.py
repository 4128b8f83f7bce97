"""The options that every backend has are written down, with their defaults."""
from __future__ import annotations

import re
from pathlib import Path

from s3cfs.backends.consistency import bounds, guard

PAGE = (Path(__file__).parents[2] / "docs" / "backends.md").read_text()


def test_every_option_is_on_the_page_with_its_default() -> None:
    rows = {name: row.group(2) for row in re.finditer(r"^\| (`[^|]*(?:\\\|[^|]*)*) \| ([^|]*) \|", PAGE, re.MULTILINE)
            for name in re.findall(r"`([a-z-]+)", row.group(1))}
    told = bounds.DEFAULTS.told()
    assert guard.OPTIONS.keys() <= rows.keys()
    for name, value in told.items():
        assert value in rows[name].split(", "), name
