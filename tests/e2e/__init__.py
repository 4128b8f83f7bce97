"""The whole of s3cfs as a user has it: commands, real mounts, real servers.

What takes minutes is marked `soak` and skipped unless asked for: `make test ARGS="-m soak tests/e2e"`. S3CFS_TEST_LARGE=1 makes the large
file of test_trees 1 GiB.
"""
