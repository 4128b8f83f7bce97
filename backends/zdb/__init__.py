"""A set of 0-dbs as one store: erasure-coded objects, records of where their shards are in several replicas (docs/zdb.md)."""
