"""Whole filesystems on their way."""
