"""The table of docs/performance.md from the results of one run.

    python -m contrib.bench.table .bench/plain.json .bench/s3cfs.json

The first file is what the others are compared with: in brackets the ratio, above 1 is faster (below 1 where the unit is seconds).
"""
from __future__ import annotations

import json
import sys
from pathlib import Path


def results(path: str) -> dict[str, tuple[float, str]]:
    return {found["name"]: (found["value"], found["unit"]) for found in json.loads(Path(path).read_text())["results"]}


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def main(paths: list[str]) -> int:
    base, others = results(paths[0]), [results(path) for path in paths[1:]]
    names = list(dict.fromkeys([name for found in [*others, base] for name in found]))
    heads = [Path(path).stem for path in paths]
    print(f"| result | unit | {' | '.join(heads)} |\n|---|---|{'---|' * len(heads)}")
    for name in names:
        unit = next(found[name][1] for found in [base, *others] if name in found)
        cells = [number(base[name][0]) if name in base else "–"]
        for found in others:
            if name not in found:
                cells.append("–")
                continue
            ratio = f" ({found[name][0] / base[name][0]:.2g})" if name in base and base[name][0] else ""
            cells.append(number(found[name][0]) + ratio)
        print(f"| {name} | {unit} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
