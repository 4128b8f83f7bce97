"""s3cfs: an encrypted, deduplicating, compressing filesystem whose only durable home is an object store."""

__version__ = "0.1.0"
