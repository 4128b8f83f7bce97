"""The superblock: what must be known before anything can be unsealed. JSON text, since it is also for people with no s3cfs at hand.

    {"s3cfs":<version>, "n":…, "fs_id":…, "label":…, … "slots":[…], "mac":"…", "check":"…"}

`check` is BLAKE3 of the text before it and finds damage without a key, first of all (so a flipped bit is never taken for a newer format);
`mac` is keyed by the master key and finds a store that changed parameters or slots. Every change makes a new object, `super/<n + 1>`.
A slot holds the master key, sealed under a key from a passphrase or key file (Argon2id) or a recovery key (256 bits: HKDF will do).
"""
from __future__ import annotations

import re
import unicodedata
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from s3cfs.doors import Randomness
from s3cfs.errors import ConfigError, Damaged, UsageError, WrongPassphrase
from s3cfs.formats import envelope
from s3cfs.formats.chunker import valid_sizes
from s3cfs.formats.envelope import Body, Fields
from s3cfs.formats.keys import FS_ID_BYTES, MASTER_BYTES, KeyRing
from s3cfs.formats.seal import NONCE_BYTES
from s3cfs.ids import FORMAT_VERSION

PASSPHRASE, KEY_FILE, RECOVERY = "passphrase", "key-file", "recovery"
KINDS = (PASSPHRASE, KEY_FILE, RECOVERY)
SLOTS_MAX = 16
LABEL_MAX_CHARS = 255
OBJECT_MAX_BYTES = 64 << 10
KEY_FILE_MIN_BYTES, KEY_FILE_MAX_BYTES = 16, 1 << 20
SALT_BYTES = 16
_WRAPPED_BYTES = NONCE_BYTES + MASTER_BYTES + 16
_MEMORY_MAX_KIB, _PASSES_MAX, _LANES_MAX = 4 << 20, 100, 64     # a store must not make us spend more than this
_CHECK = re.compile(rb',"check":"([0-9a-f]{64})"\}\n')
_CHECK_BYTES = len(b',"check":"') + 64 + len(b'"}\n')

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"                     # Crockford's base32
_RECOVERY_CHARS, _RECOVERY_CHECK_BITS, _RECOVERY_GROUP = 54, 14, 6


@dataclass(frozen=True, slots=True)
class Argon2Params:
    """The cost of trying one passphrase. The default takes some 0.1 to 0.3 s."""

    memory_kib: int = 64 << 10
    passes: int = 3
    lanes: int = 4

    def valid(self) -> bool:
        return 8 * self.lanes <= self.memory_kib <= _MEMORY_MAX_KIB and 1 <= self.passes <= _PASSES_MAX and 1 <= self.lanes <= _LANES_MAX


@dataclass(frozen=True, slots=True)
class KeySlot:
    id: str                        # 8 hex digits
    kind: str
    created_ns: int
    salt: bytes
    argon2: Argon2Params | None    # None: recovery key
    wrapped: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Superblock:
    n: int
    fs_id: bytes
    label: str
    version: int
    plain: bool
    chunk_min: int
    chunk_avg: int
    chunk_max: int
    created_ns: int
    slots: tuple[KeySlot, ...]
    mac: bytes


# ---------------------------------------------------------------- text

def _body(sb: Superblock) -> bytes:
    """The JSON text up to where `mac` begins."""
    return envelope.dump_json({
        "s3cfs": sb.version, "n": sb.n, "fs_id": sb.fs_id.hex(), "label": sb.label, "plain": sb.plain, "chunk_min": sb.chunk_min,
        "chunk_avg": sb.chunk_avg, "chunk_max": sb.chunk_max, "created_ns": sb.created_ns,
        "slots": [{"id": slot.id, "kind": slot.kind, "created_ns": slot.created_ns, "salt": slot.salt.hex(),
                   "argon2": asdict(slot.argon2) if slot.argon2 else None, "wrapped": slot.wrapped.hex()} for slot in sb.slots]})[:-1]


def encode(sb: Superblock) -> bytes:
    text = _body(sb) + b',"mac":"' + sb.mac.hex().encode("ascii") + b'"'
    return text + b',"check":"' + blake3(text).hexdigest().encode("ascii") + b'"}\n'


def decode(data: Body, n: int | None = None) -> Superblock:
    """Damaged, NewerFormat; with `n`, Damaged too when it is not the one that number names. Keyed checks come with `unlock`."""
    what = "superblock" if n is None else f"superblock {n}"
    text = bytes(data) if len(data) <= OBJECT_MAX_BYTES else b""
    found = _CHECK.fullmatch(text[-_CHECK_BYTES:])
    if not found or not text.startswith(b'{"s3cfs":') or blake3(text[:-_CHECK_BYTES]).hexdigest().encode("ascii") != found[1]:
        raise Damaged(f"{what}: it is damaged, or no superblock at all")
    fields = Fields.parse(text[:-_CHECK_BYTES] + b"}", what)
    version = fields.integer("s3cfs")
    envelope.check_version(version, what)
    number, fs_id, label = fields.integer("n", 1), fields.hex("fs_id", FS_ID_BYTES), fields.text("label", LABEL_MAX_CHARS)
    plain, sizes = fields.boolean("plain"), [fields.integer(name) for name in ("chunk_min", "chunk_avg", "chunk_max")]
    created_ns = fields.integer("created_ns", -(2**63))
    slots = tuple(_slot(value, what) for value in fields.items("slots", SLOTS_MAX))
    mac = fields.hex("mac", 32)
    fields.done()
    if not valid_sizes(*sizes):
        raise fields.wrong("chunk_min, chunk_avg or chunk_max")
    if plain == bool(slots) or len({slot.id for slot in slots}) != len(slots):
        raise fields.wrong("slots")
    if n is not None and number != n:
        raise Damaged(f"{what}: it says it is number {number}")
    return Superblock(number, fs_id, label, version, plain, sizes[0], sizes[1], sizes[2], created_ns, slots, mac)


def _slot(value: Any, what: str) -> KeySlot:
    fields = Fields(value, f"{what}, key slot")
    kind = fields.text("kind")
    if kind not in KINDS:
        raise fields.wrong("kind")
    if kind == RECOVERY:
        params = None
        fields.nothing("argon2")
    else:
        cost = Fields(fields.mapping("argon2"), f"{what}, key slot")
        params = Argon2Params(*(cost.integer(name) for name in ("memory_kib", "passes", "lanes")))
        cost.done()
        if not params.valid():
            raise fields.wrong("argon2")
    slot = KeySlot(fields.hex("id", 4).hex(), kind, fields.integer("created_ns", -(2**63)), fields.hex("salt", SALT_BYTES), params,
                   fields.hex("wrapped", _WRAPPED_BYTES))
    fields.done()
    return slot


# ---------------------------------------------------------------- making and changing

def create(label: str, random: Randomness, plain: bool, chunk_min: int, chunk_avg: int, chunk_max: int, passphrase: str | None, *,
           now_ns: int, key_file: bytes | None = None, argon2: Argon2Params = Argon2Params()) -> tuple[Superblock, KeyRing, str | None]:
    """A new filesystem's first superblock, its keys, and the recovery key to be shown once (None when plain)."""
    if len(label) > LABEL_MAX_CHARS or not label.isprintable():
        raise UsageError(f"the label must be at most {LABEL_MAX_CHARS} printable characters")
    if not valid_sizes(chunk_min, chunk_avg, chunk_max):
        raise UsageError(f"chunk sizes {chunk_min}, {chunk_avg}, {chunk_max} (least, mean, most) are not possible")
    if plain and (passphrase is not None or key_file is not None):
        raise UsageError("--plain means no encryption: give it no passphrase and no key file")
    if not plain and passphrase is None and key_file is None:
        raise UsageError("a passphrase or a key file is needed (or --plain)")
    fs_id = random.bytes(FS_ID_BYTES)
    keyring = KeyRing(fs_id, None if plain else random.bytes(MASTER_BYTES), random)
    sb = Superblock(1, fs_id, label, FORMAT_VERSION, plain, chunk_min, chunk_avg, chunk_max, now_ns, (), b"")
    if plain:
        return _with_mac(sb, keyring), keyring, None
    slots = []
    if passphrase is not None:
        slots.append(_new_slot(sb, keyring, PASSPHRASE, _passphrase_bytes(passphrase), random, now_ns, argon2))
    if key_file is not None:
        slots.append(_new_slot(sb, keyring, KEY_FILE, _key_file_bytes(key_file), random, now_ns, argon2))
    secret = random.bytes(32)
    slots.append(_new_slot(sb, keyring, RECOVERY, secret, random, now_ns, argon2))
    return _with_mac(replace(sb, slots=tuple(slots)), keyring), keyring, format_recovery_key(secret)


def _with_mac(sb: Superblock, keyring: KeyRing) -> Superblock:
    return replace(sb, mac=keyring.mac(_body(sb)))


def _new_slot(sb: Superblock, keyring: KeyRing, kind: str, secret: bytes, random: Randomness, now_ns: int, argon2: Argon2Params) -> KeySlot:
    taken = {slot.id for slot in sb.slots}
    slot_id = next(found for found in iter(lambda: random.bytes(4).hex(), "") if found not in taken)
    slot = KeySlot(slot_id, kind, now_ns, random.bytes(SALT_BYTES), None if kind == RECOVERY else argon2, b"")
    return replace(slot, wrapped=keyring.wrap_master(_wrapping_key(slot, secret), _slot_aad(sb, slot)))


def add_slot(sb: Superblock, keyring: KeyRing, random: Randomness, *, now_ns: int, passphrase: str | None = None,
             key_file: bytes | None = None, argon2: Argon2Params = Argon2Params()) -> tuple[Superblock, str | None]:
    """The next superblock, with one more slot: for `passphrase`, or `key_file`, or with neither a new recovery key, which is returned."""
    if sb.plain or keyring.fs_id != sb.fs_id:
        raise UsageError("a plain filesystem has no keys" if sb.plain else "these are the keys of another filesystem")
    if len(sb.slots) >= SLOTS_MAX:
        raise UsageError(f"all {SLOTS_MAX} key slots are taken: remove one first")
    recovery: str | None = None
    if passphrase is not None:
        kind, secret = PASSPHRASE, _passphrase_bytes(passphrase)
    elif key_file is not None:
        kind, secret = KEY_FILE, _key_file_bytes(key_file)
    else:
        kind, secret = RECOVERY, random.bytes(32)
        recovery = format_recovery_key(secret)
    slot = _new_slot(sb, keyring, kind, secret, random, now_ns, argon2)
    return _with_mac(replace(sb, n=sb.n + 1, slots=(*sb.slots, slot)), keyring), recovery


def remove_slot(sb: Superblock, keyring: KeyRing, slot_id: str) -> Superblock:
    """The next superblock, without that slot. Who kept a copy of an older superblock can still use it: docs/threat-model.md."""
    if keyring.fs_id != sb.fs_id:
        raise UsageError("these are the keys of another filesystem")
    kept = tuple(slot for slot in sb.slots if slot.id != slot_id)
    if len(kept) == len(sb.slots):
        raise UsageError(f"there is no key slot {slot_id}")
    if not kept:
        raise UsageError("the last key slot cannot be removed: nobody could open the filesystem again")
    return _with_mac(replace(sb, n=sb.n + 1, slots=kept), keyring)


# ---------------------------------------------------------------- unlocking

def unlock(sb: Superblock, *, passphrase: str | None = None, recovery_key: str | None = None, key_file: bytes | None = None,
           random: Randomness) -> KeyRing:
    """The keys. WrongPassphrase when no slot opens with what was given; Damaged when the superblock is not what its owner wrote.

    ConfigError when a secret is given for a plain one: a store that swaps the superblock must not get plain text from an owner who expects
    encryption.
    """
    if sb.plain:
        if passphrase is not None or recovery_key is not None or key_file is not None:
            raise ConfigError("the filesystem is not encrypted (--plain), but a passphrase or key was given: leave it out if that is right")
        keyring: KeyRing | None = KeyRing(sb.fs_id, None, random)
    else:
        secrets: dict[str, bytes] = {}
        if passphrase is not None:
            secrets[PASSPHRASE] = _passphrase_bytes(passphrase)
        if key_file is not None:
            secrets[KEY_FILE] = _key_file_bytes(key_file)
        if recovery_key is not None:
            secrets[RECOVERY] = parse_recovery_key(recovery_key)
        if not secrets:
            raise WrongPassphrase("the filesystem is encrypted: give a passphrase, a key file or the recovery key")
        keyring = next((found for slot in sb.slots if slot.kind in secrets and (found := _try(sb, slot, secrets[slot.kind], random))), None)
    if keyring is None:
        raise WrongPassphrase("wrong passphrase, key file or recovery key")
    if keyring.mac(_body(sb)) != sb.mac:
        raise Damaged("superblock: it was changed by somebody without the key")
    return keyring


def _try(sb: Superblock, slot: KeySlot, secret: bytes, random: Randomness) -> KeyRing | None:
    nonce, rest = slot.wrapped[:NONCE_BYTES], slot.wrapped[NONCE_BYTES:]
    try:
        return KeyRing(sb.fs_id, AESGCM(_wrapping_key(slot, secret)).decrypt(nonce, rest, _slot_aad(sb, slot)), random)
    except InvalidTag:
        return None


def _slot_aad(sb: Superblock, slot: KeySlot) -> bytes:
    return b"key slot" + sb.fs_id + slot.kind.encode("ascii") + b"/" + slot.id.encode("ascii")


def _wrapping_key(slot: KeySlot, secret: bytes) -> bytes:
    if slot.argon2 is None:
        return HKDF(hashes.SHA256(), 32, slot.salt, b"s3cfs/recovery-slot").derive(secret)
    cost = slot.argon2
    return Argon2id(salt=slot.salt, length=32, iterations=cost.passes, lanes=cost.lanes, memory_cost=cost.memory_kib).derive(secret)


def _passphrase_bytes(passphrase: str) -> bytes:
    """NFC, so that it does not matter how the keyboard composes letters; bytes that are no UTF-8 stay what they are."""
    if not passphrase:
        raise WrongPassphrase("the passphrase is empty")
    return unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogateescape")


def _key_file_bytes(content: bytes) -> bytes:
    if not KEY_FILE_MIN_BYTES <= len(content) <= KEY_FILE_MAX_BYTES:
        raise UsageError(f"a key file has {KEY_FILE_MIN_BYTES} to {KEY_FILE_MAX_BYTES} bytes, not {len(content)}")
    return content


# ---------------------------------------------------------------- the recovery key as people see it

def _recovery_check(secret: bytes) -> int:
    return int.from_bytes(blake3(secret, derive_key_context="s3cfs recovery key check").digest(2), "big") >> 16 - _RECOVERY_CHECK_BITS


def format_recovery_key(secret: bytes) -> str:
    """256 bits and 14 of a checksum as nine groups of six: no I, L, O or U to be misread."""
    number = int.from_bytes(secret, "big") << _RECOVERY_CHECK_BITS | _recovery_check(secret)
    text = "".join(_DIGITS[number >> 5 * at & 31] for at in reversed(range(_RECOVERY_CHARS)))
    return "-".join(text[at:at + _RECOVERY_GROUP] for at in range(0, _RECOVERY_CHARS, _RECOVERY_GROUP))


def parse_recovery_key(text: str) -> bytes:
    """Case, hyphens and spaces do not matter, O is 0, I and L are 1. WrongPassphrase says when it is mistyped."""
    plain = re.sub(r"[-\s]", "", text).upper().translate(str.maketrans("OIL", "011"))
    if len(plain) != _RECOVERY_CHARS or any(letter not in _DIGITS for letter in plain):
        raise WrongPassphrase(f"a recovery key has {_RECOVERY_CHARS} letters and digits in groups of {_RECOVERY_GROUP}")
    number = 0
    for letter in plain:
        number = number << 5 | _DIGITS.index(letter)
    secret = (number >> _RECOVERY_CHECK_BITS).to_bytes(32, "big")
    if number & (1 << _RECOVERY_CHECK_BITS) - 1 != _recovery_check(secret):
        raise WrongPassphrase("the recovery key is mistyped")
    return secret
