"""Where a file is cut: FastCDC (2020, normalised), by content, so an insertion moves boundaries only near itself.

pyfastcdc was read and measured for this: `cut_buf` makes no copy, releases the GIL while it scans, and keeps its state in the iterator,
so one FastCDC may serve several threads (its caution against that concerns nothing that is written after construction). Its cut
decisions look at no byte behind the cut and at no more than `max_bytes` from the start of the chunk; hence every piece but a last one
shorter than `max_bytes` would be cut just so with more data behind it. `avg_bytes` sets the mask; the true mean on random
data is about avg + min / 2.
"""
from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")        # that its compiled part is missing is said below, in a way that reaches somebody
    from pyfastcdc import FastCDC

from s3cfs.formats.envelope import Body

MIN_RANGE = (1 << 10, 1 << 20)     # bytes; what a superblock may ask for (the library's own bounds above)
AVG_RANGE = (4 << 10, 4 << 20)
MAX_RANGE = (8 << 10, 16 << 20)

#: False when only the library's pure Python code is there: the same cuts, a few hundred times slower; then SLOW is a line for the user.
ACCELERATED = "py.fastcdc" not in FastCDC.__module__
SLOW = "" if ACCELERATED else ("pyfastcdc is installed without its compiled part: cutting is some 400 times slower, about 10 MB/s "
                               "(with a C compiler: pip install --force-reinstall --no-binary pyfastcdc pyfastcdc)")


def valid_sizes(min_bytes: int, avg_bytes: int, max_bytes: int) -> bool:
    """Even, because the scan goes in pairs and an odd minimum would be undercut by one byte."""
    return (all(low <= size <= high and size % 2 == 0 for size, (low, high) in
                zip((min_bytes, avg_bytes, max_bytes), (MIN_RANGE, AVG_RANGE, MAX_RANGE), strict=True))
            and min_bytes < avg_bytes < max_bytes)


class Chunker:
    """Deterministic for its sizes and seed; thread-safe."""

    def __init__(self, min_bytes: int, avg_bytes: int, max_bytes: int, seed: int = 0) -> None:
        """Sizes come from the superblock, `seed` from `KeyRing.chunker_seed()`."""
        if not valid_sizes(min_bytes, avg_bytes, max_bytes):
            raise ValueError(f"chunk sizes {min_bytes}, {avg_bytes}, {max_bytes} are out of range")
        if not 0 <= seed < 1 << 62:
            raise ValueError("the seed has at most 62 bits")
        self.min_bytes, self.avg_bytes, self.max_bytes = min_bytes, avg_bytes, max_bytes
        self._cdc = FastCDC(avg_bytes, min_size=min_bytes, max_size=max_bytes, normalized_chunking=1, seed=seed)

    def cut(self, data: Body, final: bool) -> list[int]:
        """Lengths of the chunks from the start of `data`; their sum is len(data) when `final`.

        Otherwise an undecided last piece (shorter than max_bytes) is left out: put its bytes before what comes next and call again;
        the cuts are the same as of everything at once.
        """
        lengths = [piece.length for piece in self._cdc.cut_buf(data)]
        if not final and lengths and lengths[-1] < self.max_bytes:
            lengths.pop()
        return lengths
