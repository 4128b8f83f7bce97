"""IPFS as a store: CIDs, UnixFS graphs and archives of blocks (pure), the datastore on S3, a running node's RPC."""
