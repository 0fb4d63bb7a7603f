"""Signed addresses of stored pictures: unguessable, expiring, and good for one picture."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_SIGNATURE_BYTES = 16
"""128 bits of HMAC-SHA256: out of reach of guessing over a network."""

_HOST = re.compile(r"[A-Za-z0-9.\-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")


class Signer:
    """Signs and checks `/images/<person id>/<name>/<token>`."""

    def __init__(self, secrets: Callable[[], Sequence[bytes]], *, valid_seconds: int) -> None:
        """`secrets`: each 32 random bytes, of which a key of its own is derived; the first signs, all verify."""
        self._secrets = secrets
        self._valid_seconds = valid_seconds

    def path(self, person_id: str, name: str, *, now_seconds: int) -> str:
        """Return the address of a picture, good from now on for as long as the settings say."""
        expires = now_seconds + self._valid_seconds
        return f"/images/{person_id}/{name}/{_token(self._secrets()[0], person_id, name, expires)}"

    def allows(self, person_id: str, name: str, token: str, *, now_seconds: int) -> bool:
        """Whether the token was made here for this person and picture, and has not expired."""
        try:
            (expires,) = struct.unpack_from(">Q", base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        except (ValueError, binascii.Error, struct.error):
            return False
        right = [
            hmac.compare_digest(token.encode(), _token(secret, person_id, name, expires).encode())
            for secret in self._secrets()
        ]
        return any(right) and now_seconds < expires


def _token(secret: bytes, person_id: str, name: str, expires: int) -> str:
    key = hmac.digest(secret, b"addresses of pictures", hashlib.sha256)
    stamp = struct.pack(">Q", expires)
    # the separator cannot stand in an identifier or a name, so no two pictures sign alike
    message = stamp + person_id.encode() + b"\n" + name.encode()
    signature = hmac.digest(key, message, hashlib.sha256)[:_SIGNATURE_BYTES]
    return base64.urlsafe_b64encode(stamp + signature).rstrip(b"=").decode("ascii")


def origin(environ: Mapping[str, Any]) -> str:
    """Return the scheme and host that the client used, empty (a relative address) where its Host is no host."""
    host = str(environ.get("HTTP_HOST", ""))
    if not _HOST.fullmatch(host):
        return ""
    return f"{environ.get('wsgi.url_scheme', 'http')}://{host}"
