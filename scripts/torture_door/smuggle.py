"""Requests that two programs could read in two ways: straight to the process, and through the shipped haproxy.

Behind each trick comes a second request, for `/smuggled`, that only a program which read the first one otherwise would
see. It must never be answered, and no answer may be a fault or hang. Through haproxy, which answers some itself and
reads some as several, none may be a fault, and the next client's answer must be its own.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torture_door.common import (
    ANSWER_SECONDS,
    ROOT,
    Answer,
    connected,
    misshapen,
    port_of,
    progress,
    read_answer,
    report,
    serving,
)

if TYPE_CHECKING:
    from real_process import Service

CONFIGURATION = ROOT / "systemd" / "haproxy-edge.cfg"
HAPROXY = os.environ.get("EDGE_TEST_HAPROXY") or shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: edge\r\n\r\n"
QUIET_SECONDS = 1.0
"""Without a further byte, nothing more comes: the process answers such requests in milliseconds."""


@dataclass(frozen=True)
class Trick:
    """What is sent, and which statuses the process itself may answer it with; empty: none, it waits for more."""

    name: str
    data: bytes
    statuses: frozenset[int] = frozenset({400})
    several: bool = False
    """Whether what is behind is, read as RFC 9112 has it, a request of its own, which may be answered."""


def posted(*lines: bytes, body: bytes = b"") -> bytes:
    """Return a POST with those headers."""
    return b"\r\n".join([b"POST /v1/person/lists HTTP/1.1", b"Host: edge", *lines, b"", b""]) + body


def got(
    target: bytes = b"/health", *lines: bytes, version: bytes = b"HTTP/1.1", host: bytes | None = b"Host: edge"
) -> bytes:
    """Return a GET with those headers."""
    return b"\r\n".join([b"GET " + target + b" " + version, *([host] if host else []), *lines, b"", b""])


def codings() -> Iterator[Trick]:
    """Yield CL.TE, TE.CL and TE.TE in the spellings that have parted programs before."""
    whole = b"0\r\n\r\n" + SMUGGLED
    length = b"Content-Length: %d" % len(whole)
    spelled = {
        "CL.TE": b"Transfer-Encoding: chunked",
        "space before the colon": b"Transfer-Encoding : chunked",
        "tab after the colon": b"Transfer-Encoding:\tchunked",
        "xchunked": b"Transfer-Encoding: xchunked",
        "quoted": b'Transfer-Encoding: "chunked"',
        "identity first": b"Transfer-Encoding: identity, chunked",
        "chunked twice": b"Transfer-Encoding: chunked, chunked",
        "chunked first": b"Transfer-Encoding: chunked, identity",
        "vertical tab": b"Transfer-Encoding: \x0bchunked",
        "NUL": b"Transfer-Encoding: chunked\x00",
        "a line of its own": b"Transfer-Encoding:\r\n chunked",
        "capitals": b"TRANSFER-ENCODING: CHUNKED",
        "an underscore": b"Transfer_Encoding: chunked",
        "bare CR": b"X: y\rTransfer-Encoding: chunked",
        "bare LF": b"X: y\nTransfer-Encoding: chunked",
        "a leading space": b" Transfer-Encoding: chunked",
        "high byte": b"Transfer-Encoding: chunked\xa0",
        "a parameter": b"Transfer-Encoding: chunked;q=1",
        "gzip": b"Transfer-Encoding: gzip, chunked",
        "empty": b"Transfer-Encoding:",
    }
    short = b"5c\r\n" + SMUGGLED + b"\r\n0\r\n\r\n"
    for name, coding in spelled.items():
        statuses = frozenset({400, 401, 501})
        several = name == "an underscore"  # the name of another header, which means nothing
        yield Trick(f"CL.TE, {name}", posted(length, coding, body=whole), statuses)
        yield Trick(f"TE.CL, {name}", posted(coding, b"Content-Length: 4", body=short), statuses, several)
        yield Trick(f"TE.TE, {name}", posted(b"Transfer-Encoding: chunked", coding, body=whole), statuses, several)
    yield Trick(
        "TE in HTTP/1.0",
        posted(b"Transfer-Encoding: chunked", body=whole).replace(b"HTTP/1.1\r\nHost", b"HTTP/1.0\r\nHost", 1),
    )


def lengths() -> Iterator[Trick]:
    """Yield Content-Length in two ways, and chunks of odd sizes."""
    for value in (
        b"+5",
        b"-1",
        b"0x5",
        b"5 5",
        b"5,5",
        b"5, 6",
        b"5;",
        b"1e1",
        b"",
        b"\xb2",
        b"9" * 5000,
        b"0_5",
        b"5\x00",
    ):
        yield Trick(
            f"Content-Length {value[:8]!r}",
            posted(b"Content-Length: " + value, body=b"12345" + SMUGGLED),
            frozenset({400, 413}),
        )
    yield Trick("two Content-Lengths", posted(b"Content-Length: 5", b"Content-Length: 6", body=b"12345" + SMUGGLED))
    yield Trick("the same one twice", posted(b"Content-Length: 5", b"Content-Length: 5", body=b"12345" + SMUGGLED))
    for size in (
        b"0x5",
        b"+5",
        b"-5",
        b"5 ",
        b" 5",
        b"5\x00",
        b"f" * 17,
        b"1" + b"0" * 16,
        b"\n5",
        b"0_5",
        b"g",
        b"5\r5",
    ):
        body = size + b"\r\n12345\r\n0\r\n\r\n" + SMUGGLED
        yield Trick(f"chunk size {size[:8]!r}", posted(b"Transfer-Encoding: chunked", body=body), frozenset({400, 413}))
    tails = {
        "bare LF": b"5\n12345\n0\n\n",
        "no end of a chunk": b"5\r\n12345678\r\n0\r\n\r\n",
        "bare CR": b"5\r12345\r0\r\r",
    }
    for name, body in tails.items():
        yield Trick(f"chunks ended by {name}", posted(b"Transfer-Encoding: chunked", body=body + SMUGGLED))
    empty = b"\r\n5\r\n12345\r\n0\r\n\r\n"  # waitress passes over it, and so do all whom it could be read for
    yield Trick(
        "an empty line for a chunk size", posted(b"Transfer-Encoding: chunked", body=empty), frozenset({400, 401})
    )
    extension = b"5;" + b"a" * 100_000 + b"\r\n12345\r\n0\r\n\r\n"
    yield Trick("a chunk extension of 100 KB", posted(b"Transfer-Encoding: chunked", body=extension + SMUGGLED))
    yield Trick(
        "trailers that are headers",
        posted(b"Transfer-Encoding: chunked", body=b"0\r\nContent-Length: 5\r\nHost: x\r\n\r\n"),
        frozenset({401, 400}),
    )


def heads() -> Iterator[Trick]:
    """Yield request lines and headers."""
    yield Trick("folded header", got(b"/health", b"X: a", b" b") + SMUGGLED)
    yield Trick("folded first header", b"GET /health HTTP/1.1\r\n Host: edge\r\n\r\n" + SMUGGLED)
    yield Trick("bare LF lines", got().replace(b"\r\n", b"\n") + SMUGGLED)
    yield Trick("bare CR in a value", got(b"/health", b"X: a\rHost: b") + SMUGGLED)
    yield Trick("NUL in a value", got(b"/health", b"X: a\x00b") + SMUGGLED)
    yield Trick("NUL in a name", got(b"/health", b"X\x00: a") + SMUGGLED)
    yield Trick("NUL in the target", got(b"/hea\x00lth") + SMUGGLED)
    yield Trick("Host twice", got(b"/health", b"Host: other") + SMUGGLED)
    yield Trick("no Host", got(host=None) + SMUGGLED)
    yield Trick("two spaces in the line", got(b" /health") + SMUGGLED)
    yield Trick("no version", b"GET /health\r\n\r\n" + SMUGGLED)
    yield Trick("HTTP/0.9", got(version=b"HTTP/0.9") + SMUGGLED, frozenset({400, 505}))
    yield Trick("HTTP/2.0", got(version=b"HTTP/2.0") + SMUGGLED, frozenset({400, 505}))
    yield Trick("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED, frozenset({400, 505}))
    yield Trick("no name", got(b"/health", b": a") + SMUGGLED)
    yield Trick("no colon", got(b"/health", b"nothing") + SMUGGLED)
    yield Trick("space in a name", got(b"/health", b"X y: a") + SMUGGLED)
    yield Trick("headers of 20 KB", got(b"/health", b"X: " + b"a" * 20_000) + SMUGGLED, frozenset({400, 431}))
    yield Trick("pipelined after an error", got(host=None) + got() + SMUGGLED)


def harmless() -> Iterator[Trick]:
    """Yield what may be answered as one request, and is followed by nothing."""
    closed = b"Connection: close"
    yield Trick("absolute form", got(b"http://other.example/health", closed) + SMUGGLED, frozenset({200, 400, 404}))
    yield Trick("absolute form of a file", got(b"file:///etc/passwd", closed) + SMUGGLED, frozenset({400, 404}))
    yield Trick("authority form", got(b"other.example:443", closed) + SMUGGLED, frozenset({400, 404, 405}))
    yield Trick(
        "CONNECT",
        got(b"other.example:443", closed).replace(b"GET", b"CONNECT", 1) + SMUGGLED,
        frozenset({400, 404, 405}),
    )
    yield Trick("OPTIONS *", got(b"*", closed).replace(b"GET", b"OPTIONS", 1) + SMUGGLED, frozenset({400, 404, 405}))
    yield Trick(
        "TRACE",
        got(b"/health", closed, b"Cookie: secret").replace(b"GET", b"TRACE", 1) + SMUGGLED,
        frozenset({400, 404, 405}),
    )
    yield Trick("an upgrade to h2c", got(b"/health", b"Connection: Upgrade", b"Upgrade: h2c"), frozenset({200, 400}))
    yield Trick("a path upwards", got(b"/../../etc/passwd", closed) + SMUGGLED, frozenset({400, 404}))
    yield Trick(
        "a method of another header",
        got(b"/health", closed, b"X-HTTP-Method-Override: DELETE") + SMUGGLED,
        frozenset({200}),
    )
    yield Trick(
        "another path of a header", got(b"/health", closed, b"X-Original-URL: /tokens") + SMUGGLED, frozenset({200})
    )


TRICKS = (*codings(), *lengths(), *heads(), *harmless())


# --- sending ---


def answers(sock: socket.socket, data: bytes) -> list[Answer]:
    """Return what comes until the connection ends, or nothing more comes."""
    found: list[Answer] = []
    with contextlib.suppress(OSError):
        sock.sendall(data)
    rest = b""
    sock.settimeout(ANSWER_SECONDS)
    with contextlib.suppress(TimeoutError):
        while True:
            answer, rest = read_answer(sock, rest)
            if answer is None:
                break
            found.append(answer)
            sock.settimeout(QUIET_SECONDS)
    return found


def straight(port: int) -> tuple[Counter[int], list[str]]:
    """Send every trick to the process itself."""
    seen: Counter[int] = Counter()
    violations = []
    for trick in TRICKS:
        with connected(port) as sock:
            found = answers(sock, trick.data)
        seen.update(answer.status for answer in found)
        statuses = [answer.status for answer in found]
        behind = [] if trick.several else statuses[1:]
        if behind or not found or found[0].status not in trick.statuses:
            violations.append(f"{trick.name}: answered {statuses}, not one of {sorted(trick.statuses)}")
        elif b"smuggled" in found[0].body or (found[0].status >= 300 and misshapen(found[0])):
            violations.append(f"{trick.name}: {found[0].body[:200]!r}")
    return seen, violations


def through(connect: Callable[[], socket.socket]) -> tuple[Counter[int], list[str]]:
    """Send every trick through the proxy, and after each an honest request on another connection."""
    seen: Counter[int] = Counter()
    violations = []
    for trick in TRICKS:
        with connect() as sock:
            found = answers(sock, trick.data)
        seen.update(answer.status for answer in found)
        statuses = [answer.status for answer in found]
        # what haproxy itself reads as several requests it passes on as several, and each has an answer of its own
        if any(status >= 500 and status not in (501, 505) for status in statuses):
            violations.append(f"{trick.name}: answered {statuses}")
        with connect() as sock:
            honest = answers(sock, got(b"/health", b"Connection: close"))
        if [answer.status for answer in honest] != [200] or b"version" not in honest[0].body:
            violations.append(f"{trick.name}: the next client got {[(a.status, a.body[:80]) for a in honest]}")
    return seen, violations


@contextlib.contextmanager
def proxied(service: Service) -> Iterator[Callable[[], socket.socket]]:
    """Run the shipped configuration before the process, with ports and paths of its own; yield how to connect."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="edge-haproxy-") as name:
        folder = Path(name)
        command = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=edge",
        ]
        files = folder / "key.pem", folder / "certificate.pem"
        subprocess.run([*command, "-keyout", files[0], "-out", files[1]], check=True, capture_output=True)
        (folder / "edge.pem").write_text("".join(file.read_text() for file in files))
        text = CONFIGURATION.read_text()
        for shipped, here in (
            ("bind :8443 ssl crt /etc/haproxy/edge.pem", f"bind 127.0.0.1:{port} ssl crt {folder / 'edge.pem'}"),
            ("127.0.0.1:8080", f"127.0.0.1:{port_of(service)}"),
            ("    user haproxy\n    group haproxy\n", ""),
        ):
            assert shipped in text, f"the configuration has no {shipped!r} any more"
            text = text.replace(shipped, here)
        (folder / "haproxy.cfg").write_text(text)
        assert HAPROXY is not None
        pid = folder / "haproxy.pid"
        subprocess.run([HAPROXY, "-D", "-q", "-p", str(pid), "-f", str(folder / "haproxy.cfg")], check=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            yield lambda: context.wrap_socket(connected(port))
        finally:
            for line in pid.read_text().split():
                os.kill(int(line), signal.SIGTERM)


def main(arguments: list[str]) -> int:
    """Send all tricks both ways; the second only where haproxy is installed."""
    parser = argparse.ArgumentParser(prog="smuggle", description=__doc__)
    parser.add_argument("--straight", action="store_true", help="only to the process itself")
    options = parser.parse_args(arguments)
    figures: dict[str, object] = {"tricks": len(TRICKS)}
    with serving("models.workers=1", "server.trusted_proxy=127.0.0.1") as service:
        progress(f"smuggle: {len(TRICKS)} tricks to the process itself")
        seen, violations = straight(port_of(service))
        figures["straight"] = " ".join(f"{status}x{count}" for status, count in sorted(seen.items()))
        if not options.straight and HAPROXY is not None and shutil.which("openssl") is not None:
            progress("smuggle: the same through haproxy")
            with proxied(service) as connect:
                seen, wrong = through(connect)
            violations += [f"through haproxy, {one}" for one in wrong]
            figures["through haproxy"] = " ".join(f"{status}x{count}" for status, count in sorted(seen.items()))
        else:
            figures["through haproxy"] = "not tried"
    return report("smuggle", figures, violations)
