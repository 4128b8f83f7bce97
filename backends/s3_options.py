"""Options that every kind of S3 has, and what they say of an upload."""
from __future__ import annotations

from s3cfs.backends.url import Options
from s3cfs.errors import ConfigError
from s3cfs.limits import DEFAULTS

CONSISTENCY = {"linearizable": True, "eventual": False, "unknown": None}

COMMON: dict[str, str] = {
    "ssl-ca-path": "file or folder of CA certificates to trust instead of the system's",
    "tcp-timeout": f"seconds without any progress until a connection is given up (default {DEFAULTS.store_timeout_s:g})",
    "disable-expect100": "send bodies at once instead of waiting for '100 Continue'",
    "dumb-copy": "accepted for S3QL's sake: s3cfs never copies objects in the store",
    "session-token": "token of temporary credentials (better: the AWS variables or a profile)",
    "storage-class": "storage class of new objects, as the store names it (STANDARD_IA ...)",
    "sse": "server-side encryption of new objects: AES256, aws:kms or aws:kms:KEY-ID",
    "addressing": "auto, path (host/bucket) or virtual (bucket.host)",
    "payload-signing": "auto (all but AWS over HTTPS), on or off",
    "consistency": "linearizable, eventual or unknown (then it is tried out where it matters): whether answers may be old",
    "upload-checksum": "auto, md5, crc32 or none: what the store checks uploads against",
}


def put_arguments(options: Options) -> dict[str, str]:
    arguments: dict[str, str] = {}
    if "storage-class" in options.values:
        arguments["StorageClass"] = options.text("storage-class")
    if "sse" in options.values:
        kind = options.text("sse")
        algorithm, _, key_id = kind.partition(":") if not kind.startswith("aws:kms") else ("aws:kms", ":", kind[len("aws:kms:"):])
        if algorithm not in ("AES256", "aws:kms"):
            raise ConfigError(f"backend option sse is AES256, aws:kms or aws:kms:KEY-ID, not {kind!r}")
        arguments["ServerSideEncryption"] = algorithm
        if key_id:
            arguments["SSEKMSKeyId"] = key_id
    return arguments
