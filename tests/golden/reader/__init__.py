"""A second reader of the format, written from docs/format.md and the public specifications that it names, and from nothing of s3cfs.

It imports nothing of s3cfs and no SQLite (test_second_reader.py sees to that): so what it can read is what docs/format.md says, and a
format that changed without its text is noticed. It is not fast, holds all metadata in dictionaries, writes nothing, and believes nothing:
whatever is not as the document says is `Wrong`, with the key of the object.

    store.py        where objects come from
    sealed.py       headers, seals, keys, padded JSON, zstd
    superblock.py   from the store and a secret to the keys
    changeset.py    the bytes of an SQLite changeset
    tables.py       the replicated tables: columns, initial state, changes applied, what must be true of the rows
    history.py      records, the tip, the chain, checkpoints: to the rows of the newest commit
    packs.py        packs, and chunks out of them
    tree.py         rows to files
    listing.py      all that a user can see, to be compared, or written into a folder

    python -m tests.golden.reader FOLDER [--extract INTO] < passphrase
"""
