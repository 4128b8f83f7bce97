"""Chunks and where their sealed bytes lie: the journal (not in the store yet), the cache (may go), the store."""
