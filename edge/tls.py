"""Certificates for the TLS proxy before edge: a CA of the box's own and a server certificate of it, or the site's own.

In a folder for its owner alone: ca.pem and ca-key.pem (not where the site brings its own), and certificate and key
together in the one file that haproxy reads. The CA's certificate is what clients are given, once: server certificates
come and go, and are all of that CA.
"""

from __future__ import annotations

import datetime
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge import durable
from edge.errors import Mistake, Unusable

CA_NAME, CA_KEY_NAME = "ca.pem", "ca-key.pem"

CA_DAYS = 3650
"""A box's life: clients would have to be given another."""

SERVER_DAYS = 397
"""What browsers take: 398 days at most."""

RENEW_DAYS = 30
"""Before the end: a timer that fails is seen long before anybody is locked out."""

BACKDATED = datetime.timedelta(days=1)
"""Of a new certificate's begin: a client's clock may be behind."""

EARLIEST = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
"""A clock that says less was not set: see gallery.trusted_time."""

PRIVATE = (
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "127.0.0.0/8",
    "fc00::/7",
    "fe80::/10",
    "::1",
)
"""What the box's CA may vouch for, beside its names: a key that leaks makes nobody the bank."""

SIOCGIFADDR = 0x8915
"""<linux/sockios.h>: the address of an interface."""

IFA_F_TEMPORARY = 0x01
"""<linux/if_addr.h>: an address for a day, by which nobody calls."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Shown:
    """What there is to know of the certificate in use."""

    names: tuple[str, ...]
    ends: datetime.datetime
    fingerprint: str
    """SHA-256 of the certificate, as browsers show it."""
    ca_fingerprint: str | None
    """Of the box's own CA; None: the certificate is the site's own."""

    def days_left(self, now: datetime.datetime) -> int:
        """Return the whole days until the end; less than 0 after it."""
        return (self.ends - now) // datetime.timedelta(days=1)


class Tls:
    """The certificates of one box: the CA's folder, and the file that the proxy reads."""

    def __init__(self, folder: Path, pem: Path) -> None:
        self._ca = folder / CA_NAME
        self._ca_key = folder / CA_KEY_NAME
        self._folder = folder
        self._pem = pem

    @property
    def ca(self) -> Path:
        """The CA's certificate: for the clients."""
        return self._ca

    # --- making ---

    def init(self, names: Sequence[str], now: datetime.datetime, *, anew: bool = False) -> Shown:
        """Make a CA and a server certificate for these names and addresses.

        Raises Unusable: there is one already and `anew` is not said, the clock was not set, or a name is none.
        """
        _check_clock(now)
        general = general_names(names)
        if not anew and (self._pem.exists() or self._ca_key.exists()):
            there = self._pem if self._pem.exists() else self._ca_key
            reason = "is there already: `edge tls renew` renews it; --anew makes a CA that every client must be given"
            raise _unusable(str(there), reason)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        ca = _ca(key, general, now)
        write(self._ca_key, _key_pem(key))
        write(self._ca, ca.public_bytes(serialization.Encoding.PEM))
        self._issue(ca, key, general, now)
        return self.shown()

    def renew(self, names: Sequence[str], now: datetime.datetime) -> Shown | None:
        """Make a new server certificate if one is due; None: none is.

        Raises Unusable: there is none, it is the site's own and about to end, the CA has ended or may not vouch for a
        name, or the clock was not set.
        """
        _check_clock(now)
        why = self.due(names, now)
        if why is None:
            return None
        if not self._ca_key.exists():
            raise _unusable(str(self._pem), f"{why}, and it is your own: bring another with `edge tls use CERT KEY`")
        ca = _certificates(self._ca)[0]
        if now > ca.not_valid_after_utc:
            raise _unusable(str(self._ca), "has ended: `edge tls init --anew` makes another, for every client")
        key = _key(self._ca_key)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != ca.public_key():
            raise _unusable(str(self._ca_key), f"is not the key of {self._ca}")
        general = general_names(names)
        _check_permitted(ca, general)
        self._issue(ca, key, general, now)
        return self.shown()

    def permitted(self, names: Sequence[str]) -> list[str]:
        """Return those of the names that the CA may vouch for: an address that came later may be none of them.

        Raises Unusable where there is no CA: the certificate is the site's own, or there is none.
        """
        ca = _certificates(self._ca)[0]
        permitted = ca.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or []
        return [name for name in names if _is_within(general_names([name])[0], permitted)]

    def due(self, names: Sequence[str], now: datetime.datetime) -> str | None:
        """Return why a new certificate is due, None where none is: it ends soon, or the box has other names.

        Raises Unusable: there is none, or the clock is before its begin.
        """
        certificate = _certificates(self._pem)[0]
        if now < certificate.not_valid_before_utc:
            raise _unusable("clock", f"{now:%Y-%m-%d} is before the certificate was made: nothing is done")
        left = (certificate.not_valid_after_utc - now) // datetime.timedelta(days=1)
        if left <= RENEW_DAYS:
            return f"ends in {left} days" if left >= 0 else "has ended"
        missing = [name for name in names if name not in _names(certificate)] if self._ca_key.exists() else []
        return f"is not for {', '.join(missing)}" if missing else None

    def use(self, certificate: Path, key: Path, now: datetime.datetime) -> Shown:
        """Take the site's own certificate (with what stands between it and its CA, if anything) and key.

        Raises Unusable: they do not belong together, it has ended or not begun, names nobody, or is no server's.
        """
        _check_clock(now)
        chain, secret = _certificates(certificate), _key(key)
        leaf = chain[0]
        if leaf.public_key() != secret.public_key():
            raise _unusable(str(key), f"is not the key of {certificate}, whose first certificate must be the server's")
        if not leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
            begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
            raise _unusable(
                str(certificate), f"holds from {begins:%Y-%m-%d} to {ends:%Y-%m-%d}, and it is {now:%Y-%m-%d}"
            )
        if not _names(leaf):
            raise _unusable(str(certificate), "names no host or address (subjectAltName), so no client takes it")
        if not _serves(leaf):
            raise _unusable(str(certificate), "is not for servers (its extendedKeyUsage says otherwise)")
        write(self._pem, b"".join(_pem(one) for one in chain) + _key_pem(secret))
        for left in (self._ca_key, self._ca):  # a CA that signs nothing any more is only a risk
            left.unlink(missing_ok=True)
        return self.shown()

    def shown(self) -> Shown:
        """Return what the certificate in use says. Raises Unusable where there is none."""
        leaf = _certificates(self._pem)[0]
        ca = _certificates(self._ca)[0] if self._ca.exists() else None
        return Shown(
            tuple(_names(leaf)), leaf.not_valid_after_utc, fingerprint(leaf), None if ca is None else fingerprint(ca)
        )

    def _issue(
        self,
        ca: x509.Certificate,
        ca_key: ec.EllipticCurvePrivateKey,
        names: Sequence[x509.GeneralName],
        now: datetime.datetime,
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())  # with each certificate: one that leaked does not outlast it
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edge")]))
            .issuer_name(ca.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(min(now + datetime.timedelta(days=SERVER_DAYS), ca.not_valid_after_utc))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        write(self._pem, _pem(certificate) + _key_pem(key))


def _ca(key: ec.EllipticCurvePrivateKey, names: Sequence[x509.GeneralName], now: datetime.datetime) -> x509.Certificate:
    """Return the CA's own certificate: for the names and for private addresses alone."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"edge on {socket.gethostname()[:40]}, {now:%Y-%m-%d}")])
    permitted = [x509.IPAddress(ipaddress.ip_network(network)) for network in PRIVATE]
    permitted += [
        x509.IPAddress(ipaddress.ip_network(one.value))
        for one in names
        if isinstance(one, x509.IPAddress) and not _is_within(one, permitted)
    ]
    hosts = [x509.DNSName("local"), *(one for one in names if isinstance(one, x509.DNSName))]
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        # not critical, as RFC 5280 has it: the TLS libraries of cameras that do not know it would refuse everything
        .add_extension(x509.NameConstraints([*hosts, *permitted], None), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


# --- names ---


def own_names() -> list[str]:
    """Return the box's names and addresses: by whichever its clients may call it."""
    host = socket.gethostname().lower()
    names = [host, f"{host}.local"] if host and "." not in host else [host]
    found = ["localhost", *filter(None, names), "127.0.0.1", "::1", *_ipv4(), *_ipv6()]
    return list(dict.fromkeys(found))


def _ipv4() -> Iterable[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, interface in socket.if_nameindex():
            request = struct.pack("256s", interface.encode()[:15])
            try:
                yield socket.inet_ntoa(fcntl.ioctl(sock.fileno(), SIOCGIFADDR, request)[20:24])
            except OSError:  # without an address
                continue


def _ipv6() -> Iterable[str]:
    """Yield the addresses that hold beyond one link: those of one link need an interface's name beside them."""
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        address = ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))
        is_temporary = int(line.split()[4], 16) & IFA_F_TEMPORARY
        if not address.is_link_local and not address.is_loopback and not is_temporary:
            yield str(address)


def general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    """Return hosts' names and addresses as certificates have them. Raises Unusable for what is neither."""
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
            continue
        except ValueError:
            pass
        labels = name.removeprefix("*.").split(".")
        if len(name) > 253 or not all(_is_label(label) for label in labels):
            raise _unusable("tls.names", f"'{name[:80]}' is neither a host's name nor an address")
        found.append(x509.DNSName(name))
    return found


def _is_label(text: str) -> bool:
    inner = text.replace("-", "").replace("_", "")
    return 0 < len(text) <= 63 and text.isascii() and inner.isalnum() and text.strip("-") == text


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def _check_permitted(ca: x509.Certificate, names: Sequence[x509.GeneralName]) -> None:
    permitted = ca.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or []
    for one in names:
        if not _is_within(one, permitted):
            reason = (
                f"the CA may not vouch for {one.value}: `edge tls init --anew` makes one that may, for every client"
            )
            raise _unusable("tls.names", reason)


def _is_within(one: x509.GeneralName, permitted: Sequence[x509.GeneralName]) -> bool:
    if isinstance(one, x509.IPAddress):
        networks = [tree.value for tree in permitted if isinstance(tree, x509.IPAddress)]
        return any(not isinstance(network, Address) and one.value in network for network in networks)
    hosts = [tree.value for tree in permitted if isinstance(tree, x509.DNSName)]
    name = str(one.value).removeprefix("*.")
    return any(name == host.removeprefix("*.") or name.endswith(f".{host}") for host in hosts)


def _serves(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.SERVER_AUTH in usage


# --- files ---


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate, as browsers show it."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def write(path: Path, content: bytes) -> None:
    """Write a file, for its owner alone, whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    durable.sync(path.parent)


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except FileNotFoundError:
        raise _unusable(str(path), "is not there: `edge tls init` makes it") from None
    except ValueError as error:
        raise _unusable(str(path), f"holds no certificate (PEM): {error}") from None


def _key(path: Path) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        raise _unusable(str(path), "is not there") from None
    except TypeError:
        raise _unusable(str(path), "is encrypted: haproxy could not read it either") from None
    except ValueError as error:
        raise _unusable(str(path), f"holds no private key (PEM): {error}") from None


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _check_clock(now: datetime.datetime) -> None:
    if now < EARLIEST:
        raise _unusable("clock", f"it says {now:%Y-%m-%d}: set it first, certificates begin and end by it")


def _unusable(field: str, reason: str) -> Unusable:
    return Unusable(Mistake(field, reason), message="nothing was changed")
