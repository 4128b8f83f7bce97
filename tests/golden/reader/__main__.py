"""Read a store in a local folder: every path with what is known of it, one JSON line each, or (--extract) the files themselves."""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from .listing import extract, listing
from .store import Folder, Newer, NoKey, Wrong
from .tables import problems
from .tree import open_filesystem


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden.reader", description=__doc__)
    parser.add_argument("folder", type=Path, help="the store: one file for each object")
    parser.add_argument("--recovery-key", action="store_true", help="standard input has that, and not the passphrase")
    parser.add_argument("--plain", action="store_true", help="the store is not encrypted")
    parser.add_argument("--extract", type=Path, metavar="INTO", help="write the files there, into a folder that is not there yet")
    options = parser.parse_args()
    secret = "" if options.plain else sys.stdin.readline().rstrip("\n")
    try:
        store = Folder(options.folder)
        filesystem = open_filesystem(store, **{"recovery_key" if options.recovery_key else "passphrase": secret})
        for problem in problems(filesystem.tables):
            print(f"the metadata: {problem}", file=sys.stderr)
        if options.extract is not None:
            extract(filesystem, options.extract)
        else:
            for path, entry in listing(filesystem).items():
                print(json.dumps({"path": path or "/", **entry}))
    except (Wrong, Newer, NoKey, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
