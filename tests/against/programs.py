"""Programs that a test kills: told what to do in JSON on their standard input, they say on their standard output how far they are."""
from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parents[2]


class Program:
    """`with Program(module, told) as program: for line in program.lines(): ...`. Afterwards `errors` is what it left on stderr."""

    def __init__(self, module: str, told: Mapping[str, Any]) -> None:
        self._process = subprocess.Popen([sys.executable, "-m", module], cwd=REPOSITORY, text=True, stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self._process.stdin
        self._process.stdin.write(json.dumps(told))
        self._process.stdin.close()
        self.errors = ""

    def __enter__(self) -> Self:
        return self

    def lines(self) -> Iterator[str]:
        """Whole ones: it may be killed in the middle of one. To its end."""
        assert self._process.stdout and self._process.stderr
        for line in self._process.stdout:
            if not line.endswith("\n"):
                break
            yield line
        self.errors = self._process.stderr.read()

    def kill_after(self, seconds: float) -> None:
        """Unless it ends before."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()

    @property
    def code(self) -> int:
        return self._process.wait()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._process.kill()
        self._process.__exit__(kind, error, trace)
