"""What the verbs share: the real process, raw sockets, the shape that every answer has, and the last line."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent.parent
PHOTOS = ROOT / "tests" / "photos"
BOUNDARY = "edge-torture"
ANSWER_SECONDS = 120.0
"""To wait for an answer: a bound for busy machines, not a promise."""

for folder in (ROOT, ROOT / "scripts", ROOT / "tests"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

if TYPE_CHECKING:
    from real_process import Service


def corpus(name: str) -> list[Path]:
    """Return the files of a folder of shared/data, beside the repository or where EDGE_SHARED_DATA says; maybe none."""
    places = [Path(os.environ["EDGE_SHARED_DATA"])] if "EDGE_SHARED_DATA" in os.environ else []
    places += [parent / "shared" / "data" for parent in ROOT.parents]
    found = next((place / name for place in places if (place / name).is_dir()), None)
    return sorted(path for path in found.iterdir() if path.is_file()) if found else []


@contextlib.contextmanager
def serving(*settings: str) -> Iterator[Service]:
    """Yield the real process on a data folder of its own; RuntimeError where it did not end tidily, or logged a fault.

    With as many wrong tokens a minute as come: the limits of that kind are not what is tried here.
    """
    from real_process import Service

    with tempfile.TemporaryDirectory(prefix="edge-torture-") as folder:
        service = Service(Path(folder) / "data", "server.wrong_tokens_per_minute=100000", *settings)
        service.start()
        try:
            yield service
        finally:
            running = service.process is not None and service.process.poll() is None
            code = service.end() if running else -1
        if code or "Traceback" in service.logged():
            raise RuntimeError(f"the process ended with {code} and logged {service.logged()[-2000:]}")


def port_of(service: Service) -> int:
    """Return the port."""
    return int(service.url.rpartition(":")[2])


def pid_of(service: Service) -> int:
    """Return the process's id."""
    assert service.process is not None
    return service.process.pid


# --- requests and answers ---


def request(path: str, body: bytes = b"", *, method: str = "POST", **headers: str) -> bytes:
    """Return a request as bytes; a header's name is written with _ for -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1", "Host: edge", *(f"{name}: {value}" for name, value in named.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("latin-1") + body


def form(image: bytes, **texts: str) -> bytes:
    """Return a multipart body with that picture."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
        for name, text in texts.items()
    ]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="frame"\r\n\r\n'
    return b"".join([*parts, head.encode(), image, f"\r\n--{BOUNDARY}--\r\n".encode()])


FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


@dataclass(frozen=True)
class Answer:
    """One answer as it came over the wire."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body; None where it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def connected(port: int, source: str = "127.0.0.1", seconds: float = ANSWER_SECONDS) -> socket.socket:
    """Return a connection from that address of this machine."""
    return socket.create_connection(("127.0.0.1", port), timeout=seconds, source_address=(source, 0))


def read_answer(sock: socket.socket, rest: bytes = b"") -> tuple[Answer | None, bytes]:
    """Return the next answer and what came behind it; None where the connection ended without one."""
    data = rest
    while b"\r\n\r\n" not in data:
        piece = _received(sock)
        if not piece:
            return None, data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    status = int(first.split()[1])
    if status == 100:
        return read_answer(sock, body)
    length = int(headers.get("content-length", 0))
    while len(body) < length:
        piece = _received(sock)
        if not piece:
            return None, data
        body += piece
    return Answer(status, headers, body[:length]), body[length:]


def _received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65_536)
    except ConnectionError:
        return b""


def exchange(port: int, data: bytes, source: str = "127.0.0.1") -> tuple[list[Answer], bool]:
    """Send the bytes on a connection of their own; return all answers, and whether the server ended it."""
    with connected(port, source) as sock:
        with contextlib.suppress(OSError):  # it may have refused and closed before all was sent
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        answers, rest = [], b""
        while True:
            try:
                answer, rest = read_answer(sock, rest)
            except TimeoutError:
                return answers, False
            if answer is None:
                return answers, True
            answers.append(answer)


def misshapen(answer: Answer) -> str:
    """Return what of an answer is not as the contract says; empty where all is."""
    content = answer.json
    if answer.status >= 500 and answer.status not in (501, 503, 505, 507):
        return f"status {answer.status}: {answer.body[:300]!r}"
    if answer.headers.get("content-type") != "application/json; charset=utf-8":
        return f"type {answer.headers.get('content-type')!r}"
    if not isinstance(content, dict):
        return f"status {answer.status} with body {answer.body[:300]!r}"
    if answer.status >= 300:
        told = content.get("message"), content.get("status")
        wanted = "failed" if answer.status in (401, 403) else "error"
        if not isinstance(told[0], str) or told[1] != wanted:
            return f"status {answer.status} with body {answer.body[:300]!r}"
    return ""


# --- the last line ---


def report(verb: str, figures: Mapping[str, Any], violations: Sequence[str]) -> int:
    """Print violations, then the figures in one line; return the exit code."""
    for violation in violations[:20]:
        print(f"violation: {violation}", file=sys.stderr)
    told = ", ".join(f"{name} {figure}" for name, figure in figures.items())
    print(f"{verb}: {told}, violations {len(violations)}", flush=True)
    return 1 if violations else 0


def progress(text: str) -> None:
    """Show what is being done: on one line for whoever looks on, line by line in a log."""
    ends = {"end": "", "flush": True} if sys.stderr.isatty() else {"flush": True}
    print(f"\r{text}\033[K" if sys.stderr.isatty() else text, file=sys.stderr, **ends)
