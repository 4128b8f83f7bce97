"""`s3cfs mkfs URL`"""
from __future__ import annotations

import json
from collections.abc import Sequence

from s3cfs.cli import arguments, exitcodes, seam, streams, version
from s3cfs.cli.run import say
from s3cfs.config import load
from s3cfs.config.settings import PLACES
from s3cfs.errors import ConfigError, ExitCode, UsageError

LABEL_MAX_BYTES = 255
EPILOG = """\
examples:
  s3cfs mkfs s3c://s3.example.com/my-bucket/home
      Make a filesystem; login and passphrase come from ~/.config/s3cfs/auth.ini, or the passphrase is asked for twice.
  s3cfs mkfs --label backups --passphrase-fd 3 local:///srv/store 3</run/secrets/passphrase
      Make one in a folder, the passphrase from a file.
  s3cfs mkfs --plain s3://eu-central-1/my-bucket/public
      Without encryption.

The recovery key is printed once and kept nowhere. Write it down: it opens the filesystem when the passphrase is lost. It is printed
before the filesystem is made: where it cannot be printed, or an error follows, there is none.

"""


def parser(prog: str) -> arguments.Parser:
    made = arguments.Parser(
        prog=prog, description="Make an empty filesystem in a store. Refused where there is one already; nothing is ever overwritten.",
        epilog=EPILOG + exitcodes.epilog((
            ExitCode.ACCESS_DENIED, ExitCode.BUCKET_MISSING, ExitCode.WRONG_REGION, ExitCode.STORE_UNREACHABLE, ExitCode.CLOCK_SKEW,
            ExitCode.FILESYSTEM_EXISTS, ExitCode.STORE_FULL, ExitCode.UNSUPPORTED)))
    made.add_argument("url", metavar="URL", help="where: s3c://HOST/BUCKET/PREFIX, s3://REGION/BUCKET/PREFIX or local:///FOLDER")
    made.add_argument("--label", "-L", default="", help="a name for people (not sealed: the store can read it)")
    made.add_argument("--plain", action="store_true", help="no encryption: for stores that are encrypted already, or public data")
    arguments.add_store(made)
    arguments.add_output(made)
    return made


def check_label(label: str) -> str:
    if len(label.encode("utf-8", "surrogateescape")) > LABEL_MAX_BYTES or not (label.isprintable() or not label):
        raise UsageError(f"--label: at most {LABEL_MAX_BYTES} bytes of printable text")
    return label


def run(argv: Sequence[str], prog: str) -> int:
    args = parser(prog).parse(argv)
    check_label(args.label)
    settings, _ = load(args.url, arguments.given(args))
    passphrase = None if args.plain else settings.passphrase or arguments.ask_twice()
    if passphrase is None and not args.plain:
        raise ConfigError(f"a passphrase is needed: {PLACES} (or --plain for no encryption)")

    def show(coming: seam.MkfsResult) -> None:
        if args.json:
            print(json.dumps({"fs_id": coming.fs_id, "location": coming.location, "recovery_key": coming.recovery_key}))
        elif coming.recovery_key:
            if not args.quiet:
                say("Recovery key, shown this once and kept nowhere; it opens the filesystem without the passphrase. Write it down:")
            print(coming.recovery_key)
        streams.keep_stdout()

    for text in version.warnings():
        say(f"s3cfs: {text}")
    made = seam.app().mkfs(settings, label=args.label, plain=args.plain, passphrase=passphrase, show=show)
    if not args.quiet and not args.json:
        say(f"made filesystem {made.fs_id} at {made.location}")
    return 0
