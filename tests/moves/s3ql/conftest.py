"""Servers for the samples in buckets."""
from tests.servers import moto_s3

__all__ = ["moto_s3"]
