"""The whole of s3cfs as a user has it: commands, real mounts, real servers."""
