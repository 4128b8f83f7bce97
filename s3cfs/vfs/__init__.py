"""The filesystem as operations on inodes and names: what `fuse`, the gateways and the simulator call. See core.py."""
