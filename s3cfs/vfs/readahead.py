"""Read-ahead: a file that is read from front to back is fetched before it is asked for, in a window that grows.

The kernel reads ahead too, a few MiB at a time and only into its own cache; this one hides the latency of the store.
"""
from __future__ import annotations

from s3cfs import limits
from s3cfs.blocks.blockstore import BlockStore
from s3cfs.meta import Meta

from .state import FileState

FIRST_BYTES = 1 * limits.MIB
ROWS = 512                         # extents looked up at a time
SLACK_BYTES = 4 * limits.MIB       # the kernel's requests overtake each other


class ReadAhead:
    def __init__(self, meta: Meta, blocks: BlockStore, max_bytes: int) -> None:
        self._meta, self._blocks, self._max_bytes = meta, blocks, max_bytes

    async def note(self, state: FileState, offset: int, end: int) -> None:
        """A read of [offset, end) is about to happen. Never waits for the store."""
        sequential = state.read_end >= 0 and abs(offset - state.read_end) <= SLACK_BYTES
        state.read_end = max(end, state.read_end) if sequential else end
        if not sequential:
            state.readahead_bytes = state.readahead_to = 0
            return
        ahead = state.readahead_to - state.read_end
        if ahead > state.readahead_bytes // 2 or state.readahead_to >= state.size:
            return
        state.readahead_bytes = min(max(FIRST_BYTES, 2 * state.readahead_bytes), self._max_bytes)
        low, high = max(state.read_end, state.readahead_to), min(state.read_end + state.readahead_bytes, state.size)
        if low < high:
            state.readahead_to = high                    # before anything is awaited: reads overtake each other
            if self._meta.warmth.wary:
                await self._meta.warmth.extents([(state.ino, low, high)])
            found = await self._meta.extents(state.ino, low, high, ROWS)
            if len(found) == ROWS:
                state.readahead_to = high = found[-1][0].off + found[-1][0].len
            taken = await self._blocks.prefetch([chunk for _, chunk in found])
            if taken < len(found):                       # asked for again when half of what is on its way was read
                state.readahead_to = max(low, found[taken][0].off)
                state.readahead_bytes = max(0, state.readahead_to - state.read_end)
