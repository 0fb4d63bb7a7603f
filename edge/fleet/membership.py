"""What a box keeps of its fleet, in <data>/fleet: the code, and for a box that runs a server, its settings."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import shutil
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge import tls
from edge.errors import Mistake, Unusable
from edge.fleet import code
from edge.fleet.code import ROUTE_PORT_ABOVE, Membership

FOLDER = "fleet"
CODE_NAME, CA_NAME, SERVER_NAME, KEY_NAME, SETTINGS_NAME = "code", "ca.pem", "server.pem", "server-key.pem", "nats.conf"
STORE_NAME = "store"

USER, ROUTE_USER = "edge", "route"

BEGINS = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
ENDS = datetime.datetime(2066, 1, 1, tzinfo=datetime.timezone.utc)
"""Certificates that nobody but the fleet's own boxes sees, of keys that end with the fleet: what renews nothing cannot
fail to."""

KNOCK_SECONDS = 2.0
"""For this box's own server to answer."""

STORE_MEGABYTES_ABOVE = 200
"""Of the server's store, above what the stream may take: for its own books."""


def load(data_folder: Path) -> Membership | None:
    """Return what the box knows of its fleet; None where it is in none. Raises Unusable."""
    try:
        text = (data_folder / FOLDER / CODE_NAME).read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    return code.read(text)


def save(data_folder: Path, membership: Membership) -> None:
    """Keep the code, and the certificate that servers are known by."""
    folder = data_folder / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    tls.write(folder / CA_NAME, _ca(membership.ca_key).public_bytes(serialization.Encoding.PEM))
    tls.write(folder / CODE_NAME, membership.code.encode())


def forget(data_folder: Path) -> None:
    """Let go of everything, the stream that a server of this box kept too: nobody would clear it of the erased."""
    folder = data_folder / FOLDER
    if folder.exists():
        shutil.rmtree(folder)


def check_server_stopped(data_folder: Path) -> None:
    """Raise Unusable while a server of this box's settings takes connections."""
    settings = data_folder / FOLDER / SETTINGS_NAME
    found = re.search(r"^listen: .*:(\d+)", settings.read_text(), re.M) if settings.exists() else None
    if found is None:
        return
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(found[1])), KNOCK_SECONDS):
        raise Unusable(Mistake("edge-nats", "still runs here: systemctl disable --now edge-nats first"))


def own_server(membership: Membership, names: Sequence[str]) -> str | None:
    """Return which of the servers is this box's, by its names and addresses (with a port or not); None: none is."""
    return next((one for one in membership.servers if one in names or code.split(one)[0] in names), None)


def save_server(data_folder: Path, membership: Membership, server: str, *, stream_megabytes: int) -> Path:
    """Write the settings of this box's NATS server, with a certificate of its own; return the file."""
    folder = data_folder / FOLDER
    key = ec.generate_private_key(ec.SECP256R1())
    host, port = code.split(server)
    names = [*tls.own_names(), host]
    tls.write(
        folder / SERVER_NAME, _certificate(membership.ca_key, key, names).public_bytes(serialization.Encoding.PEM)
    )
    tls.write(
        folder / KEY_NAME,
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    settings = _settings(folder, membership, server, port, stream_megabytes + STORE_MEGABYTES_ABOVE)
    tls.write(folder / SETTINGS_NAME, settings.encode())
    return folder / SETTINGS_NAME


def context(ca_file: Path) -> ssl.SSLContext:
    """Return what a connection to the servers is held against. Raises Unusable."""
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise Unusable(Mistake(str(ca_file), f"cannot be used: {error}")) from error


def _settings(folder: Path, membership: Membership, server: str, port: int, store_megabytes: int) -> str:
    """Return a settings file of nats-server. Strings in JSON's form are strings there too."""
    files = {"cert_file": folder / SERVER_NAME, "key_file": folder / KEY_NAME, "ca_file": folder / CA_NAME}
    tls_lines = "".join(f"  {name}: {json.dumps(str(path))}\n" for name, path in files.items())
    # on trial nobody else is to reach it; else every address of the box: who has the password is one of the fleet
    interface = "127.0.0.1" if code.split(server)[0].startswith("127.") else "0.0.0.0"  # noqa: S104
    client = {"user": USER, "password": membership.client_password}
    lines = [
        "# Written by `edge fleet`; it holds passwords.",
        f"server_name: {json.dumps(server)}",
        f"listen: {json.dumps(f'{interface}:{port}')}",
        f"tls {{\n{tls_lines}}}",
        f"authorization {{ user: {json.dumps(client['user'])}, password: {json.dumps(client['password'])} }}",
        # what is acknowledged is on the disk: the default syncs every two minutes
        f"jetstream {{\n  store_dir: {json.dumps(str(folder / STORE_NAME))}\n  sync_interval: always\n"
        f"  max_file_store: {store_megabytes}MB\n  max_memory_store: 64MB\n}}",
    ]
    if len(membership.servers) > 1:
        password = membership.route_password
        routes = [
            f"nats-route://{ROUTE_USER}:{password}@{host}:{route}"
            for host, route in ((one.rpartition(":")[0], _route_port(one)) for one in membership.servers)
        ]
        lines.append(
            "cluster {\n"
            "  name: edge\n"
            f"  listen: {json.dumps(f'{interface}:{_route_port(server)}')}\n"
            f"  authorization {{ user: {json.dumps(ROUTE_USER)}, password: {json.dumps(password)} }}\n"
            f"  tls {{\n{tls_lines}  }}\n"
            f"  routes: {json.dumps(routes)}\n"
            "}"
        )
    return "\n".join(lines) + "\n"


def _route_port(server: str) -> int:
    return code.split(server)[1] + ROUTE_PORT_ABOVE


def _ca(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """Return the CA's own certificate: every box makes it for itself, of the same key and name."""
    name = _ca_name(key)
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    return (
        _builder(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _certificate(
    ca_key: ec.EllipticCurvePrivateKey, key: ec.EllipticCurvePrivateKey, names: Sequence[str]
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"edge fleet on {socket.gethostname()[:40]}")])
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]  # servers call each other
    return (
        _builder(_ca_name(ca_key), subject, key.public_key())
        .add_extension(x509.SubjectAlternativeName(tls.general_names(list(dict.fromkeys(names)))), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _ca_name(key: ec.EllipticCurvePrivateKey) -> x509.Name:
    known = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:12]
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"edge fleet {known}")])


def _builder(issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(BEGINS)
        .not_valid_after(ENDS)
    )
