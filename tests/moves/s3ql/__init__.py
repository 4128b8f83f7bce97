"""Filesystems of S3QL, read without S3QL."""
