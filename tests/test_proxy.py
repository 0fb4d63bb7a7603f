"""The shipped haproxy configuration, by the real haproxy before the real process; nothing where haproxy is not."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import requests
from real_process import Service

CONFIGURATION = Path(__file__).resolve().parent.parent / "systemd" / "haproxy-edge.cfg"
HAPROXY = os.environ.get("EDGE_TEST_HAPROXY") or shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
MOST_WRONG = 4

pytestmark = pytest.mark.skipif(
    HAPROXY is None or shutil.which("openssl") is None, reason="haproxy or openssl is not here"
)


class Proxied(NamedTuple):
    service: Service
    port: int
    certificate: Path

    def ask(self, token: str, **headers: str) -> requests.Response:
        headers = {"token": token, **{name.replace("_", "-"): text for name, text in headers.items()}}
        url = f"https://127.0.0.1:{self.port}/v1/person/lists"
        return requests.post(url, headers=headers, timeout=60, verify=str(self.certificate))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[Proxied]:
    """The configuration as it is shipped, but for ports, paths, haproxy's own user, and a shorter patience."""
    port, pem = free_port(), tmp_path / "edge.pem"
    subject = ["-subj", "/CN=edge", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *subject]
    files = [tmp_path / "key.pem", tmp_path / "certificate.pem"]
    subprocess.run([*command, "-keyout", files[0], "-out", files[1]], check=True, capture_output=True)
    pem.write_text("".join(file.read_text() for file in files))
    settings = ("server.trusted_proxy=127.0.0.1", f"server.wrong_tokens_per_minute={MOST_WRONG}")
    service = Service(tmp_path / "data", *settings).start()
    text = CONFIGURATION.read_text()
    for shipped, here in (
        ("bind :8443 ssl crt /etc/haproxy/edge.pem", f"bind 127.0.0.1:{port} ssl crt {pem}"),
        ("127.0.0.1:8080", service.url.removeprefix("http://")),
        ("    user haproxy\n    group haproxy\n", ""),
        ("timeout http-request 15s", "timeout http-request 1s"),
    ):
        assert shipped in text
        text = text.replace(shipped, here)
    (tmp_path / "haproxy.cfg").write_text(text)
    assert HAPROXY is not None
    pid = tmp_path / "haproxy.pid"
    # in the background, so that it listens when the command returns
    subprocess.run([HAPROXY, "-D", "-q", "-p", pid, "-f", tmp_path / "haproxy.cfg"], check=True)
    try:
        yield Proxied(service, port, files[1])
    finally:
        for line in pid.read_text().split():
            os.kill(int(line), signal.SIGTERM)
        service.end()


def test_the_proxy_says_who_asks_and_clients_cannot(proxied: Proxied) -> None:
    good = proxied.service.token("admin")
    assert proxied.ask(good).status_code == 200
    codes = [proxied.ask("wrong", X_Forwarded_For=f"192.0.2.{n}").status_code for n in range(MOST_WRONG + 1)]
    assert codes == [401] * MOST_WRONG + [429]
    assert proxied.ask(good).status_code == 200


def test_addresses_of_pictures_are_https(proxied: Proxied) -> None:
    photo = (Path(__file__).parent / "photos" / "obama-1.jpg").read_bytes()
    url = f"https://127.0.0.1:{proxied.port}/v1/person/create"
    headers = {"token": proxied.service.camera, "X-Forwarded-Proto": "http"}
    answer = requests.post(
        url, files={"image": photo}, headers=headers, timeout=60, verify=str(proxied.certificate)
    ).json()
    address = answer["persons"][0]["image_url"]
    assert address.startswith(f"https://127.0.0.1:{proxied.port}/images/")
    assert requests.get(address, timeout=60, verify=str(proxied.certificate)).status_code == 200


def test_old_tls_is_refused_and_a_slow_client_is_cut(proxied: Proxied) -> None:
    assert proxied.ask("wrong").status_code == 401
    context = ssl.create_default_context(cafile=str(proxied.certificate))
    slow = socket.create_connection(("127.0.0.1", proxied.port), timeout=60)
    with context.wrap_socket(slow, server_hostname="127.0.0.1") as secured:
        secured.sendall(b"POST /v1/person/lists HTTP/1.1\r\nHost: edge\r\n")
        assert secured.recv(1000).startswith(b"HTTP/1.1 408")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection(("127.0.0.1", proxied.port), timeout=60) as sock, pytest.raises(OSError):
        context.wrap_socket(sock, server_hostname="127.0.0.1")
