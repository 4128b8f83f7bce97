"""Filesystems of S3QL (revisions 24 to 26, its Storj fork's too), read from their objects. Nothing is ever written to them."""
