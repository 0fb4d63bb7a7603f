"""The running appliance as one of its clients sees it: requests over one connection, tried again while it is busy."""

from __future__ import annotations

import http.client
import json
import re
import secrets
import ssl
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edge.errors import Mistake, Refusal, invalid

ANSWER_SECONDS = 120.0
"""For one answer: a picture of 40 megapixels takes a slow board some ten seconds, with others waiting before it."""

BUSY_STATUSES = (429, 503)
BUSY_SECONDS = 300.0
"""For how long a busy or restarting appliance is asked again, in all."""

WAIT_SECONDS = 1.0
"""Between two tries where the answer has no Retry-After."""

LONGEST_WAIT_SECONDS = 60.0

SECRET = re.compile(r"[\x21-\x7e]{1,4096}")
"""What may stand in a header."""

Parts = Sequence[tuple[str, str | bytes]]
"""Names and values of a form; bytes are a file."""


class ApiRefusal(Refusal):
    """The appliance (or another server) declined a request, or is not there."""

    message = "the request was declined"

    def __init__(self, *mistakes: Mistake, message: str | None = None, status: int = 0) -> None:
        super().__init__(*mistakes, message=message)
        self.status = status
        """Of HTTP; 0: nobody answered."""


class Api:
    """A server's API by its address, and the header that lets in. One connection, one thread."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        """`url`: http://host:port or https://…, a path before the routes allowed. InvalidSchema: it is none."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            raise invalid("--url", f"{url} has no port from 0 to 65535") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise invalid("--url", f"{url} is not of the form http://host:port")
        self.url = url
        self._has_answered = False
        self._path = parts.path.rstrip("/")
        self._headers = dict(headers)
        self._connection: http.client.HTTPConnection = (
            http.client.HTTPSConnection(
                parts.hostname, port, timeout=ANSWER_SECONDS, context=ssl.create_default_context()
            )
            if parts.scheme == "https"
            else http.client.HTTPConnection(parts.hostname, port, timeout=ANSWER_SECONDS)
        )

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON of a GET. ApiRefusal: see `bytes`."""
        return _json(path, self.bytes("GET", path))

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a body of JSON."""
        return _json(path, self.bytes("POST", path, json.dumps(body).encode(), "application/json"))

    def send(self, path: str, parts: Parts) -> dict[str, Any]:
        """Return the answer to a form with files."""
        body, content_type = _form(parts)
        return _json(path, self.bytes("POST", path, body, content_type))

    def bytes(self, method: str, path: str, body: bytes | None = None, content_type: str = "") -> bytes:
        """Return the answer's body, asked for again while the server is busy or away.

        ApiRefusal: it declined, with its own reasons, or did not answer for `BUSY_SECONDS` (the first time: at once).
        """
        headers = {**self._headers, **({"Content-Type": content_type} if content_type else {})}
        until = time.monotonic() + BUSY_SECONDS
        while True:
            wait = WAIT_SECONDS
            try:
                self._connection.request(method, self._path + path, body, headers)
                answer = self._connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                if not self._has_answered or time.monotonic() > until:  # at first it is the address that is wrong
                    why = getattr(error, "strerror", None) or type(error).__name__
                    raise ApiRefusal(message=f"{self.url} does not answer: {why}") from None
            else:
                self._has_answered = True
                if answer.status in (200, 201):
                    return content
                refusal = _refusal(answer.status, content)
                if answer.status not in BUSY_STATUSES or time.monotonic() > until:
                    raise refusal
                wait = _retry_after(answer.headers.get("Retry-After"))
            time.sleep(wait)


def _retry_after(text: str | None) -> float:
    return min(float(text), LONGEST_WAIT_SECONDS) if text and text.isdecimal() else WAIT_SECONDS


def _json(path: str, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ApiRefusal(message=f"the answer of {path} is no JSON object: is this the right address?")
    return value


def _refusal(status: int, content: bytes) -> ApiRefusal:
    """Return the refusal with the server's own sentence, as far as it has one."""
    try:
        told = json.loads(content)
        message = str(told["message"])
        mistakes = [Mistake(str(one["field"]), str(one["reason"])) for one in told.get("errors", ())]
    except (ValueError, KeyError, TypeError, AttributeError):
        message, mistakes = f"answered with {status}", []
    return ApiRefusal(*mistakes, message=message, status=status)


def _form(parts: Parts) -> tuple[bytes, str]:
    """Return a multipart body and its content type."""
    boundary = secrets.token_hex(16)
    pieces = []
    for name, value in parts:
        filename = '; filename="picture"' if isinstance(value, bytes) else ""
        pieces.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'.encode())
        pieces.append(value if isinstance(value, bytes) else value.encode())
        pieces.append(b"\r\n")
    pieces.append(f"--{boundary}--\r\n".encode())
    return b"".join(pieces), f"multipart/form-data; boundary={boundary}"


def token(file: Path | None, environment: Mapping[str, str], otherwise: Path) -> str:
    """Return the token of the file, else of $EDGE_TOKEN, else of the file that a first start has made.

    Never of a flag: what is on a command line, every user of the machine can read. InvalidSchema: there is none.
    """
    if file is None and environment.get("EDGE_TOKEN"):
        text = environment["EDGE_TOKEN"]
    else:
        path = file or otherwise
        try:
            text = path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "is not ASCII"
            raise invalid("--token-file", f"{path}: {why}; or put the token into $EDGE_TOKEN") from None
    text = text.strip()
    if not SECRET.fullmatch(text):
        raise invalid("--token-file", "holds no token, one word on one line")
    return text
