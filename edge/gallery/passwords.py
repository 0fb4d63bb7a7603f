"""Passwords as they are kept: scrypt with a salt of their own, the parameters beside them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
import unicodedata

COST = 1 << 15
"""scrypt's N; with BLOCK_SIZE the memory of one hash: 32 MB, which a board with 1 GB can spare for a moment."""

BLOCK_SIZE = 8
PARALLEL = 3
"""With N = 2^15 what OWASP's password storage sheet asks for; some 0.2 s on a desktop core, 0.7 s on a small board."""

KEY_BYTES = 32
SALT_BYTES = 16
MEMORY_LIMIT = 256 << 20
"""Bytes that a hash read from the file may ask for; a damaged one cannot ask for all there are."""

_one_at_a_time = threading.Lock()
"""Many logins at once must not take the memory that recognition needs."""


def hashed(password: str) -> str:
    """Return what to keep of the password: `scrypt$N$r$p$salt$key`, different each time."""
    salt = secrets.token_bytes(SALT_BYTES)
    key = _key(password, salt, COST, BLOCK_SIZE, PARALLEL)
    return f"scrypt${COST}${BLOCK_SIZE}${PARALLEL}${_text(salt)}${_text(key)}"


def matches(password: str, kept: str | None) -> bool:
    """Whether the password is the one that `kept` was made of; None: nobody's, which takes as long to find out."""
    if kept is None:
        hmac.compare_digest(_key(password, bytes(SALT_BYTES), COST, BLOCK_SIZE, PARALLEL), bytes(KEY_BYTES))
        return False
    _, cost, block_size, parallel, salt, key = kept.split("$")
    made = _key(password, base64.b64decode(salt), int(cost), int(block_size), int(parallel))
    return hmac.compare_digest(made, base64.b64decode(key))


def _key(password: str, salt: bytes, cost: int, block_size: int, parallel: int) -> bytes:
    # NFC: keyboards and systems write the same letters in different bytes
    secret = unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
    with _one_at_a_time:
        return hashlib.scrypt(secret, salt=salt, n=cost, r=block_size, p=parallel, maxmem=MEMORY_LIMIT, dklen=KEY_BYTES)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
