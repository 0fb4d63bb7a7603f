"""The code that makes a box one of a fleet: what it says, and the secrets that every box makes of it for itself.

Whoever has the code can read and change the shared gallery: it is given from hand to hand, like a password.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edge.errors import Mistake, Unusable

VERSION = 1
SECRET_BYTES = 32
CHECK_BYTES = 5
GROUP = 5
"""Characters between two hyphens, for whoever reads it aloud."""

MOST_SERVERS = 5
CLIENT_PORT = 4222
MOST_HOST_CHARACTERS = 200
ROUTE_PORT_ABOVE = 2000
"""A server's port for the other servers, above that for boxes: 6222 by default, as NATS has it."""

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""FIPS 186-4, D.1.2.3."""


@dataclass(frozen=True)
class Membership:
    """What all boxes of a fleet know."""

    secret: bytes
    main_list_id: str
    servers: tuple[str, ...]
    """Addresses (host:port) of the boxes whose NATS servers keep the stream; none: it is the site's own server."""

    @property
    def code(self) -> str:
        """The text that another box joins with."""
        body = bytes([VERSION]) + self.secret + uuid.UUID(self.main_list_id).bytes
        for server in self.servers:
            body += bytes([len(server)]) + server.encode()
        text = base64.b32encode(body + _check(body)).decode().rstrip("=")
        return "-".join(text[start : start + GROUP] for start in range(0, len(text), GROUP))

    @property
    def client_password(self) -> str:
        """By which boxes reach the servers."""
        return self._derived("clients").hex()

    @property
    def route_password(self) -> str:
        """By which the servers reach each other."""
        return self._derived("routes").hex()

    @property
    def ca_key(self) -> ec.EllipticCurvePrivateKey:
        """The key that signs the servers' certificates: the same on every box."""
        number = int.from_bytes(self._derived("certificates", 48), "big") % (P256_ORDER - 1) + 1
        return ec.derive_private_key(number, ec.SECP256R1())

    def _derived(self, purpose: str, length: int = 32) -> bytes:
        return HKDF(hashes.SHA256(), length, salt=None, info=f"edge fleet {purpose}".encode()).derive(self.secret)


def new(main_list_id: str, servers: Sequence[str]) -> Membership:
    """Return a fleet that nobody has joined yet. Raises Unusable as `addresses` does."""
    return Membership(secrets.token_bytes(SECRET_BYTES), main_list_id, addresses(servers))


def addresses(servers: Sequence[str]) -> tuple[str, ...]:
    """Return the servers' addresses with their ports. Raises Unusable for those that are none, or too few or many."""
    if len(servers) > MOST_SERVERS or len(servers) == 2:
        reason = "one server, or three of which one may fail; two stop as soon as one does"
        raise Unusable(Mistake("--servers", reason), message="nothing was changed")
    return tuple(addressed(one) for one in servers)


def read(code: str) -> Membership:
    """Return what the code says. Raises Unusable where it is none, or was mistyped."""
    text = "".join(code.split()).replace("-", "").upper()
    try:
        data = base64.b32decode(text + "=" * (-len(text) % 8))
    except binascii.Error:
        raise _mistyped("has characters that no code has") from None
    body, check = data[:-CHECK_BYTES], data[-CHECK_BYTES:]
    at = 1 + SECRET_BYTES + 16
    if len(body) < at or check != _check(body):
        raise _mistyped("is not whole, or was mistyped: its check does not fit")
    if body[0] != VERSION:
        raise _mistyped("is of a release that this one does not know")
    servers = []
    rest = body[at:]
    while rest:
        servers.append(rest[1 : 1 + rest[0]].decode())
        rest = rest[1 + rest[0] :]
    return Membership(body[1 : 1 + SECRET_BYTES], str(uuid.UUID(bytes=body[1 + SECRET_BYTES : at])), tuple(servers))


def addressed(text: str) -> str:
    """Return the address with its port. Raises Unusable."""
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?", text)
    port = int(found[2] or CLIENT_PORT) if found else 0
    if found is None or len(found[1]) > MOST_HOST_CHARACTERS or not 0 < port <= 65_535 - ROUTE_PORT_ABOVE:
        reason = f"'{text[:80]}' is no address: a host or [an IPv6 address], and a port behind a colon if it is another"
        raise Unusable(Mistake("--servers", reason), message="nothing was changed")
    return f"{found[1]}:{port}"


def split(server: str) -> tuple[str, int]:
    """Return host and port."""
    host, _, port = server.rpartition(":")
    return host.strip("[]"), int(port)


def _check(body: bytes) -> bytes:
    return hashlib.sha256(b"edge fleet code" + body).digest()[:CHECK_BYTES]


def _mistyped(reason: str) -> Unusable:
    return Unusable(Mistake("code", reason), message="the code is not one of a fleet; nothing was changed")
