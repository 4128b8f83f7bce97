"""From the store and a secret to the keys."""
from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .sealed import VERSION, Keys, bounded, fields, from_hex, parse
from .store import Newer, NoKey, Store, Wrong

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
CHECK, MAC = len(',"check":"') + 64 + len('"}\n'), len(',"mac":"') + 64 + len('"')
SIZES = ((1 << 10, 1 << 20), (4 << 10, 4 << 20), (8 << 10, 16 << 20))


@dataclass(frozen=True)
class Superblock:
    key: str
    values: dict[str, Any]
    signed: bytes                  # the text that `mac` is of


def current(store: Store) -> Superblock:
    """Of the highest number of which any copy is whole."""
    places: dict[int, list[tuple[int, str]]] = {}
    for key in store.keys("super/"):
        if found := re.fullmatch(r"super/([1-9]\d{0,18})(?:\.([2-9]|[1-9]\d{1,8}))?", key):
            places.setdefault(int(found[1]), []).append((int(found[2] or 1), key))
    damage: Wrong | None = None
    for n in sorted(places, reverse=True):
        for _, key in sorted(places[n]):
            try:
                return decode(key, store.get(key), n)
            except Wrong as error:
                damage = damage or error
    raise damage or Wrong("super/", "there is no superblock")


def decode(key: str, data: bytes, n: int) -> Superblock:
    text = data[:-CHECK]
    whole = len(data) <= 64 << 10 and data == text + b',"check":"' + blake3(text).hexdigest().encode() + b'"}\n'
    if not whole or not data.startswith(b'{"s3cfs":'):
        raise Wrong(key, "damaged, or no superblock")
    values = parse(key, text + b"}")
    if type(values.get("s3cfs")) is int and values["s3cfs"] > VERSION:
        raise Newer(key)
    fields(key, values, s3cfs=int, n=int, fs_id=str, label=str, plain=bool, chunk_min=int, chunk_avg=int, chunk_max=int, created_ns=int,
           slots=list, mac=str)
    sizes = [bounded(key, values[name], *span) for name, span in zip(("chunk_min", "chunk_avg", "chunk_max"), SIZES, strict=True)]
    if values["n"] != n or len(values["label"]) > 255 or sizes != sorted(set(sizes)) or any(size % 2 for size in sizes):
        raise Wrong(key, "a field is not possible")
    from_hex(key, values["fs_id"], 16)
    ids = [_slot(key, slot) for slot in values["slots"]]
    if len(set(ids)) != len(ids) or len(ids) > 16 or values["plain"] == bool(ids):
        raise Wrong(key, "its key slots are not possible")
    return Superblock(key, values, text[:-MAC])


def _slot(key: str, slot: Any) -> str:
    recovery = isinstance(slot, dict) and slot.get("kind") == "recovery"
    fields(key, slot, id=str, kind=str, created_ns=int, salt=str, argon2=type(None) if recovery else dict, wrapped=str)
    if not recovery:
        cost = fields(key, slot["argon2"], memory_kib=int, passes=int, lanes=int)
        lanes = bounded(key, cost["lanes"], 1, 64)
        bounded(key, cost["memory_kib"], 8 * lanes, 4 << 20)
        bounded(key, cost["passes"], 1, 100)
    if slot["kind"] not in ("passphrase", "key-file", "recovery"):
        raise Wrong(key, "a key slot of an unknown kind")
    from_hex(key, slot["id"], 4)
    from_hex(key, slot["salt"], 16)
    from_hex(key, slot["wrapped"], 60)
    return str(slot["id"])


def unlock(found: Superblock, *, passphrase: str = "", key_file: bytes = b"", recovery_key: str = "") -> Keys:
    """NoKey when the secret is not the right one, Wrong when somebody without the key wrote the superblock."""
    fs_id, kind = bytes.fromhex(found.values["fs_id"]), "passphrase"
    secret = unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogateescape")
    if key_file:
        kind, secret = "key-file", key_file
    if recovery_key:
        kind, secret = "recovery", _from_print(recovery_key)
    if found.values["plain"]:
        if secret:
            raise NoKey("it is not encrypted")
        keys: Keys | None = Keys(fs_id, None)
    else:
        masters = [_open(fs_id, slot, secret) for slot in found.values["slots"] if slot["kind"] == kind]
        keys = next((Keys(fs_id, master) for master in masters if master is not None), None)
    if keys is None:
        raise NoKey(f"no key slot of kind {kind} opens with it")
    if keys.mac(found.signed).hex() != found.values["mac"]:
        raise Wrong(found.key, "changed by somebody without the key")
    return keys


def _open(fs_id: bytes, slot: dict[str, Any], secret: bytes) -> bytes | None:
    salt, wrapped = bytes.fromhex(slot["salt"]), bytes.fromhex(slot["wrapped"])
    if slot["kind"] == "recovery":
        key = HKDF(hashes.SHA256(), 32, salt, b"s3cfs/recovery-slot").derive(secret)
    else:
        cost = slot["argon2"]
        key = Argon2id(salt=salt, length=32, iterations=cost["passes"], lanes=cost["lanes"], memory_cost=cost["memory_kib"]).derive(secret)
    try:
        return AESGCM(key).decrypt(wrapped[:12], wrapped[12:], b"key slot" + fs_id + f"{slot['kind']}/{slot['id']}".encode())
    except InvalidTag:
        return None


def _from_print(text: str) -> bytes:
    """54 digits of 5 bits, most significant first: 256 bits of the key, 14 of the checksum."""
    letters = re.sub(r"[-\s]", "", text).upper().replace("O", "0").replace("I", "1").replace("L", "1")
    if len(letters) != 54 or not set(letters) <= set(CROCKFORD):
        raise NoKey("a recovery key has 54 letters and digits")
    number = 0
    for letter in letters:
        number = number * 32 + CROCKFORD.index(letter)
    secret = (number >> 14).to_bytes(32, "big")
    if int.from_bytes(blake3(secret, derive_key_context="s3cfs recovery key check").digest(2), "big") >> 2 != number & 0x3FFF:
        raise NoKey("the recovery key is mistyped")
    return secret
