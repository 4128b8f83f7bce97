"""A set of 0-dbs as one store: erasure-coded objects, records of where their shards are in several replicas (docs/zdb.md).

    resp.py      the bytes of requests and replies            words.py    what a server's own words mean
    link.py      connections to one server, and calls on them commands.py the commands by name, with types
    fanout.py    calls on several servers at once             health.py   how each server is, and since when
    generations.py in which namespace a server's data is      reclaim.py   moving it into a new one, which gives space back
    backup.py    a copy of all records, on all servers        restore.py  putting records back, from it or from shards
    coder.py     Reed-Solomon                                 shard.py    how an object is cut, named and sealed
"""
