"""Random work on a real mount, with crashes and lost caches: `make soak MINUTES=30 SEED=1`."""
