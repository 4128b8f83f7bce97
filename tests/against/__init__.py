"""Everything that can be tried on a store that somebody has: `make backends URL=... AUTHFILE=...`, docs/backends.md."""
