"""Whole filesystems on their way: verified, migrated from store to store, imported from others. No mount takes part."""
