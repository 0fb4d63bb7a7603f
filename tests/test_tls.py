"""`edge tls`: certificates that Python's own TLS takes, by the real haproxy where there is one."""

from __future__ import annotations

import datetime
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge import tls
from edge.errors import Unusable
from edge.tls import Tls

CONFIGURATION = Path(__file__).resolve().parent.parent / "systemd" / "haproxy-edge.cfg"
HAPROXY = os.environ.get("EDGE_TEST_HAPROXY") or shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.timezone.utc)
TODAY = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
NAMES = ["localhost", "box", "box.local", "127.0.0.1", "192.168.7.20"]


@pytest.fixture
def made(tmp_path: Path) -> Tls:
    return Tls(tmp_path / "tls", tmp_path / "edge.pem")


def served(pem: Path, ca: Path, name: str) -> str:
    """Let a server of Python's own serve it; return the issuer that a client saw, who takes the CA alone."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    client = ssl.create_default_context(cafile=str(ca))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    here, there = socket.socketpair()

    def serve() -> None:
        with here, server.wrap_socket(here, server_side=True) as secured:
            secured.recv(1)

    def quietly() -> None:
        try:
            serve()
        except OSError:
            here.close()

    thread = threading.Thread(target=quietly)
    thread.start()
    try:
        with there, client.wrap_socket(there, server_hostname=name) as secured:
            found = secured.getpeercert()
            secured.sendall(b"1")
            return str(dict(one[0] for one in found["issuer"])["commonName"])  # type: ignore[index, union-attr]
    finally:
        thread.join()


def own(folder: Path, name: str, **changes: object) -> tuple[Path, Path]:
    """Make what a site might bring; return certificate and key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "site")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(changes.get("begins", NOW - DAY))  # type: ignore[arg-type]
        .not_valid_after(changes.get("ends", NOW + 90 * DAY))  # type: ignore[arg-type]
    )
    if changes.get("named", True):
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("box.example.org")]), critical=False)
    usage = x509.ExtendedKeyUsage([changes.get("usage", x509.ExtendedKeyUsageOID.SERVER_AUTH)])  # type: ignore[list-item]
    certificate = builder.add_extension(usage, critical=False).sign(key, hashes.SHA256())
    paths = folder / f"{name}.pem", folder / f"{name}-key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    paths[1].write_bytes(key.private_bytes(*pem))
    return paths


def test_clients_that_have_the_ca_take_it_by_every_name_and_nobody_else_does(made: Tls, tmp_path: Path) -> None:
    shown = made.init(NAMES, TODAY)
    assert list(shown.names) == NAMES and shown.days_left(TODAY) in (396, 397)
    for name in NAMES:
        assert served(tmp_path / "edge.pem", made.ca, name).startswith("edge on ")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        served(tmp_path / "edge.pem", made.ca, "elsewhere.local")
    other = Tls(tmp_path / "other", tmp_path / "other.pem")
    other.init(NAMES, TODAY)
    with pytest.raises(ssl.SSLCertVerificationError):
        served(tmp_path / "edge.pem", other.ca, "box")


def test_keys_are_for_their_owner_alone_and_nothing_else_is_left(made: Tls, tmp_path: Path) -> None:
    made.init(NAMES, NOW)
    files = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*")}
    assert sorted(files) == ["edge.pem", "tls", "tls/ca-key.pem", "tls/ca.pem"]
    modes = {name: stat.S_IMODE(path.stat().st_mode) for name, path in files.items()}
    assert modes == {"edge.pem": 0o600, "tls": 0o700, "tls/ca-key.pem": 0o600, "tls/ca.pem": 0o600}


def test_a_ca_that_leaks_vouches_for_nobody_else(made: Tls, tmp_path: Path) -> None:
    made.init(NAMES, TODAY)
    ca = x509.load_pem_x509_certificate(made.ca.read_bytes())
    key = serialization.load_pem_private_key((tmp_path / "tls" / "ca-key.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    made._issue(ca, key, [x509.DNSName("bank.example.org")], TODAY)
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree"):
        served(tmp_path / "edge.pem", made.ca, "bank.example.org")


def test_it_is_renewed_before_its_end_under_the_same_ca(made: Tls, tmp_path: Path) -> None:
    first = made.init(NAMES, NOW)
    before = (tmp_path / "edge.pem").read_bytes()
    soon = first.ends - 31 * DAY
    assert made.renew(NAMES, soon) is None and made.due(NAMES, soon) is None
    assert made.due(NAMES, soon + DAY) == "ends in 30 days"
    renewed = made.renew(NAMES, soon + DAY)
    assert renewed is not None and renewed.ends > first.ends
    assert renewed.ca_fingerprint == first.ca_fingerprint and renewed.fingerprint != first.fingerprint
    assert (tmp_path / "edge.pem").read_bytes() != before


def test_another_address_of_the_box_is_a_reason_and_a_name_of_somebody_else_is_refused(
    made: Tls, tmp_path: Path
) -> None:
    made.init(NAMES, TODAY)
    moved = [*NAMES[:-1], "192.168.7.99"]
    assert made.due(moved, TODAY) == "is not for 192.168.7.99"
    renewed = made.renew(moved, TODAY)
    assert renewed is not None and list(renewed.names) == moved
    assert served(tmp_path / "edge.pem", made.ca, "192.168.7.99")
    assert made.renew(moved, TODAY) is None
    with pytest.raises(Unusable, match=r"may not vouch for bank.example.org.*--anew"):
        made.renew([*moved, "bank.example.org"], TODAY)
    with pytest.raises(Unusable, match="neither a host's name nor an address"):
        made.renew([*moved, "no name"], TODAY)
    assert made.renew(moved, TODAY) is None, "a refusal changes nothing"


def test_nothing_is_made_by_a_clock_that_was_not_set(made: Tls) -> None:
    with pytest.raises(Unusable, match="clock: it says 1970-01-01"):
        made.init(NAMES, datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc))
    made.init(NAMES, NOW)
    with pytest.raises(Unusable, match="before the certificate was made"):
        made.renew(NAMES, NOW - 10 * DAY)


def test_a_ca_is_not_replaced_by_accident(made: Tls) -> None:
    first = made.init(NAMES, NOW)
    with pytest.raises(Unusable, match="is there already"):
        made.init(NAMES, NOW)
    assert made.shown() == first
    assert made.init(NAMES, NOW, anew=True).ca_fingerprint != first.ca_fingerprint


def test_the_site_brings_its_own(made: Tls, tmp_path: Path) -> None:
    made.init(NAMES, NOW)
    certificate, key = own(tmp_path, "site")
    shown = made.use(certificate, key, NOW)
    assert shown.names == ("box.example.org",) and shown.ca_fingerprint is None
    assert stat.S_IMODE((tmp_path / "edge.pem").stat().st_mode) == 0o600
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "edge.pem")
    assert not (tmp_path / "tls" / "ca-key.pem").exists()
    assert made.renew(NAMES, NOW + 59 * DAY) is None
    with pytest.raises(Unusable, match="ends in 30 days, and it is your own"):
        made.renew(NAMES, NOW + 60 * DAY)


def test_what_no_client_would_take_is_refused(made: Tls, tmp_path: Path) -> None:
    there = made.init(NAMES, NOW)
    good = own(tmp_path, "good")
    refused = {
        "is not the key of": (good[0], own(tmp_path, "other")[1]),
        "holds from .* and it is 2026-06-01": own(tmp_path, "past", begins=NOW - 9 * DAY, ends=NOW - DAY),
        "holds from 2026-06-03": own(tmp_path, "future", begins=NOW + 2 * DAY),
        "names no host": own(tmp_path, "nameless", named=False),
        "is not for servers": own(tmp_path, "client", usage=x509.ExtendedKeyUsageOID.CLIENT_AUTH),
        "holds no certificate": (good[1], good[1]),
        "holds no private key": (good[0], good[0]),
    }
    for reason, (certificate, key) in refused.items():
        with pytest.raises(Unusable, match=reason):
            made.use(certificate, key, NOW)
    assert made.shown() == there


def test_an_address_that_came_later_and_is_nobodys_to_vouch_for_is_left_out(made: Tls) -> None:
    made.init(NAMES, NOW)
    later = ["10.9.8.7", "203.0.113.9", "2001:db8::9", "fd00::9", "other.local"]
    assert made.permitted(later) == ["10.9.8.7", "fd00::9", "other.local"]


def test_the_box_has_names_and_addresses() -> None:
    names = tls.own_names()
    assert {"localhost", "127.0.0.1", "::1"} <= {*names} and len({*names}) == len(names)
    assert tls.general_names(names)


# --- the verb, and haproxy ---


def edge(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    settings = [f"tls.folder={folder / 'tls'}", f"tls.pem={folder / 'edge.pem'}", f"data.folder={folder / 'data'}"]
    command = [sys.executable, "-m", "edge", *arguments, *(part for one in settings for part in ("--set", one))]
    return subprocess.run(command, capture_output=True, text=True)


def fingerprint_at(port: int, ca: Path) -> str:
    context = ssl.create_default_context(cafile=str(ca))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as secured,
    ):
        certificate = secured.getpeercert(binary_form=True)
    assert certificate is not None
    return tls.fingerprint(x509.load_der_x509_certificate(certificate))


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[tuple[int, Path, subprocess.Popen[bytes]]]:
    """The shipped configuration on the certificate of `edge tls init`."""
    if HAPROXY is None:
        pytest.skip("haproxy is not here")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = int(sock.getsockname()[1])
    assert edge(tmp_path, "tls", "init").returncode == 0
    text = CONFIGURATION.read_text().replace("    user haproxy\n    group haproxy\n", "")
    text = text.replace(
        "bind :8443 ssl crt /etc/haproxy/edge.pem", f"bind 127.0.0.1:{port} ssl crt {tmp_path / 'edge.pem'}"
    )
    (tmp_path / "haproxy.cfg").write_text(text)
    process = subprocess.Popen([HAPROXY, "-W", "-q", "-f", tmp_path / "haproxy.cfg"])
    try:
        for _ in range(100):
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield port, tmp_path, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def test_haproxy_serves_it_and_the_next_one_after_a_reload(
    proxy: tuple[int, Path, subprocess.Popen[bytes]],
) -> None:
    port, folder, process = proxy
    shown = edge(folder, "tls", "show").stdout
    (folder / "edge-ca.pem").write_text(edge(folder, "tls", "show", "--ca").stdout)
    first = fingerprint_at(port, folder / "edge-ca.pem")
    assert first in shown and ("in 397 days" in shown or "in 396 days" in shown)
    checked = edge(folder, "tls", "renew", "--check")
    assert (checked.returncode, checked.stdout) == (1, "the certificate is good\n")
    due = ("--set", "tls.names=other.local")
    assert edge(folder, "tls", "renew", "--check", *due).returncode == 0
    assert edge(folder, "tls", "renew", *due).returncode == 0
    again = edge(folder, "tls", "init")
    assert again.returncode == 1 and "is there already" in again.stderr
    assert fingerprint_at(port, folder / "edge-ca.pem") == first, "it waits for the reload"
    process.send_signal(signal.SIGUSR2)  # what `systemctl reload haproxy` sends
    deadline = time.monotonic() + 30
    while fingerprint_at(port, folder / "edge-ca.pem") == first:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert fingerprint_at(port, folder / "edge-ca.pem") in edge(folder, "tls", "show").stdout
