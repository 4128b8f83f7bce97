"""Another machine takes over this very moment: its SEAL is put into the log behind the writer's back."""
from __future__ import annotations

from s3cfs import ids
from s3cfs.formats import record
from s3cfs.formats.record import Kind, Record
from tests.sim.doors import Bucket

from .kit import KEYRING

NONCE = "feed" * 4


def seal_now(bucket: Bucket) -> None:
    folder, n = max((ids.parse_log_key(key)[1:3], ids.parse_log_key(key)[3]) for key in bucket.objects if key.startswith("log/"))
    key = ids.log_key(*folder, n)
    data = bucket.objects[key]
    last = record.decode(data, n, KEYRING.sealer("record", 0))
    if last.kind is Kind.SEAL:
        prefix = str(last.info["next"])
    else:
        prefix = ids.folder_of(key)
    epoch = last.epoch + 1
    made = Record(Kind.SEAL, n + 1, epoch, NONCE, record.record_hash(data), 0, {"prev_key": key, "next": ids.epoch_prefix(epoch, NONCE)})
    assert bucket.put(ids.record_key(prefix, n + 1), record.encode(made, KEYRING.sealer("record", epoch)), True)


def claim_over_last(bucket: Bucket) -> None:
    """T2: a taker that read the tip before the newest record arrived."""
    folder, n = max((ids.parse_log_key(key)[1:3], ids.parse_log_key(key)[3]) for key in bucket.objects if key.startswith("log/"))
    last = record.decode(bucket.objects[ids.log_key(*folder, n)], n, KEYRING.sealer("record", 0))
    epoch = last.epoch + 1
    made = Record(Kind.CLAIM, n, epoch, NONCE, last.prev, 0, {"prev_key": last.info["prev_key"]})
    bucket.put(ids.claim_key(epoch, NONCE), b"claim", False)
    assert bucket.put(ids.log_key(epoch, NONCE, n), record.encode(made, KEYRING.sealer("record", epoch)), False)
