"""Bytes of every object in the store: pure encoding and decoding, no store, no disk, no event loop. docs/format.md is their text."""
