"""What the user configured: command line, environment, credentials of systemd, authentication file, defaults - in this order.

`options.OPTIONS` is the one table of everything that can be set; argparse, `-o`, the environment, the file, the
completions and the table of docs/configuration.md come from it.
"""
from __future__ import annotations

from .options import OPTIONS, FsckOptions, ImportOptions, MigrateOptions, MountOptions, Option, VerifyOptions
from .quantities import format_duration, format_size, parse_duration, parse_size
from .secret import Secret
from .settings import Settings, load, load_pair
from .url import normalise

__all__ = [
    "OPTIONS", "FsckOptions", "ImportOptions", "MigrateOptions", "MountOptions", "Option", "Secret", "Settings",
    "VerifyOptions", "format_duration",
    "format_size", "load", "load_pair", "normalise", "parse_duration", "parse_size",
]
