"""`s3cfs probe URL`"""
from __future__ import annotations

import json
from collections.abc import Sequence

from s3cfs.cli import arguments, exitcodes, seam
from s3cfs.config import load
from s3cfs.errors import ExitCode

EPILOG = """\
A store that can refuse to overwrite (create-only puts) is tier T1, every other one T2: docs/backends.md. Each filesystem notes what
its first mount found, and every machine goes by that note, since machines that found different things would not notice one another.
Mounts only look whether it still holds, and refuse when it does not. Then, or when a store has learned it, this command tries again
and changes the note. For that nobody may have the filesystem mounted, and nobody may mount it meanwhile.

examples:
  s3cfs probe s3c://s3.example.com/my-bucket/home
  s3cfs probe --takeover local:///srv/store
      Although the last machine that had it mounted did not unmount: it is certainly gone.

"""


def parser(prog: str) -> arguments.Parser:
    made = arguments.Parser(
        prog=prog, description="Try what a store can do, and note it in the filesystem there if it has changed.",
        epilog=EPILOG + exitcodes.epilog((
            ExitCode.WRONG_PASSPHRASE, ExitCode.ACCESS_DENIED, ExitCode.BUCKET_MISSING, ExitCode.WRONG_REGION, ExitCode.STORE_UNREACHABLE,
            ExitCode.CLOCK_SKEW, ExitCode.ALREADY_MOUNTED, ExitCode.DAMAGED)))
    made.add_argument("url", metavar="URL", help="where: a filesystem, or a place for one")
    made.add_argument("--takeover", action="store_true", help="the last machine that had it mounted is certainly gone")
    arguments.add_store(made)
    arguments.add_output(made)
    return made


def run(argv: Sequence[str], prog: str) -> int:
    args = parser(prog).parse(argv)
    settings, _ = load(args.url, arguments.given(args), ask=arguments.asker())
    found = seam.app().probe(settings, takeover=args.takeover)
    if args.json:
        print(json.dumps({"tier": found.tier, "before": found.before, "noted": found.noted}))
        return 0
    holds = "hold: of each race one won" if found.tier == "T1" else "do not hold"
    print(f"create-only puts {holds} (tier {found.tier})")
    if found.noted:
        print(f"the filesystem was under {found.before}; from now on it is under {found.tier}")
    elif found.before is not None:
        print("as the filesystem there says")
    return 0
