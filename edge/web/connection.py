"""One connection behind the door: its parser, its answers, its time. Used by `server` alone.

Stricter than waitress, whose classes these are: what two programs could read in two ways is refused, a request has a
deadline as a whole, a reader has to read, and every answer of the server's own is JSON in the shape of all others.
"""

# mypy: allow-subclassing-any
# (waitress has no type stubs)

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from waitress.channel import ClientDisconnected, HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.task import ErrorTask, WSGITask

from edge.errors import BodyTooLarge

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from waitress.adjustments import Adjustments

    from edge.web.server import ServerLimits

log = logging.getLogger(__name__)

_CHUNKED_SLICE_BYTES = 4096
"""Bytes of a chunked body parsed at a time: waitress copies the rest of the slice for every chunk, so large slices of
tiny chunks are quadratic and would hold up everybody."""
_FRAMING_BYTES = 65_536
"""Bytes of chunk sizes, extensions and trailers allowed before they are weighed against the body they frame."""
_LEAST_TAKEN_BYTES = 65_536
"""A reader that takes less of a waiting answer in `idle_seconds` is cut: 3 KiB a second, far below any working LAN."""
_LIVE_BYTES = 65_536
"""Of an answer that goes on for ever, what may wait for its reader: its task waits with more, and lets things pass."""
_LINGER_SECONDS = 5.0
"""A refused client may be sending still; closing at once would reset the connection and the answer would be lost."""
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_FORWARDED = ("FOR", "PROTO", "HOST", "PORT", "BY")


@dataclass(frozen=True)
class WireRefusal:
    """An answer of the server's own. Has the `to_response` of waitress's errors, so that its tasks can send it."""

    status: str
    message: str
    field: str
    reason: str
    retry_after_seconds: int | None = None

    @property
    def code(self) -> int:
        """The status code."""
        return int(self.status[:3])

    def to_response(self, _ident: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        """Status, headers and body, as waitress asks for them."""
        errors = [{"field": self.field, "reason": self.reason}]
        body = json.dumps({"message": self.message, "status": "error", "errors": errors}).encode()
        headers = [("Content-Type", "application/json; charset=utf-8")]
        if self.retry_after_seconds is not None:
            headers.append(("Retry-After", str(self.retry_after_seconds)))
        return self.status, headers, body

    def to_bytes(self) -> bytes:
        """The whole answer, for connections that no worker serves."""
        status, headers, body = self.to_response()
        headers += [("Content-Length", str(len(body))), ("Connection", "close"), ("Date", formatdate(usegmt=True))]
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers), "", ""]
        return "\r\n".join(lines).encode("latin-1") + body


def _malformed(field: str, reason: str) -> WireRefusal:
    return WireRefusal("400 Bad Request", "malformed request", field, reason)


_NOT_HTTP = _malformed("request", "is not valid HTTP")
_FOLDED = _malformed("headers", "must not be folded over several lines")
_TWO_LENGTHS = _malformed("Transfer-Encoding", "must not come with Content-Length")
_BAD_CODING = _malformed("Transfer-Encoding", "must be chunked, once, in HTTP/1.1")
_BAD_HOST = _malformed("Host", "must be given exactly once")
_TINY_CHUNKS = _malformed("body", "is cut into too small chunks")
_TOO_LATE = WireRefusal("408 Request Timeout", "request took too long", "request", "did not arrive in full in time")
CROWDED = WireRefusal("429 Too Many Requests", "too many connections", "address", "has too many open connections", 1)
_FAULT = WireRefusal("500 Internal Server Error", "internal error", "server", "failed; its log says why")
_NO_CODING = WireRefusal("501 Not Implemented", "not supported", "Transfer-Encoding", "must be chunked")
STOPPING = WireRefusal("503 Service Unavailable", "service is stopping", "server", "is stopping; try again", 1)
FULL = WireRefusal("503 Service Unavailable", "too many uploads at once", "body", "finds no room now; try again", 1)
_BAD_VERSION = WireRefusal("505 HTTP Version Not Supported", "not supported", "request", "must be HTTP/1.1")


class _Parser(HTTPRequestParser):
    """waitress's parser, stricter; every error is a `WireRefusal`. Made when a request's first byte arrives."""

    path = command = ""  # logged for requests that were refused before these were parsed
    error: Any = None  # waitress's, until it is replaced by ours
    objection: WireRefusal | None = None

    def __init__(self, adj: Adjustments, limits: ServerLimits) -> None:
        super().__init__(adj)
        self.limits = limits
        self.started = time.monotonic()

    def received(self, data: bytes) -> int:
        consumed: int = super().received(data[:_CHUNKED_SLICE_BYTES] if self.chunked else data)
        if self.error is None:
            self.error = self._excess()
        else:
            waitress_refusals = {413: self._large_body(), 431: self._large_headers(), 501: _NO_CODING}
            self.error = self.objection or waitress_refusals.get(self.error.code, _NOT_HTTP)
        if self.error is not None:
            self.completed = True
        if self.completed:
            # waitress would send 100 Continue even to what it has refused, or to a request without a body, and wait
            self.expect_continue = False
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # urlsplit's "[", a Content-Length of 5,000 digits: waitress lets both through
            raise ParsingError("unreadable") from error
        self.objection = self._ambiguity(header_plus)
        if self.objection is not None:
            raise ParsingError(self.objection.reason)

    def _ambiguity(self, header_plus: bytes) -> WireRefusal | None:
        """What waitress takes and another program might read otherwise, judged from the lines as they were sent."""
        fields = [line.partition(b":") for line in header_plus.split(b"\r\n")[1:]]
        names = [name.lower() for name, _, _ in fields]
        codings = [value.strip().lower() for name, _, value in fields if name.lower() == b"transfer-encoding"]
        if _CONTROL.search(header_plus.partition(b"\r\n")[0]):
            return _NOT_HTTP
        if self.version not in ("1.0", "1.1"):
            return _BAD_VERSION if self.version else _NOT_HTTP
        if re.search(rb"\r\n[ \t]", header_plus):
            return _FOLDED
        if codings and b"content-length" in names:
            return _TWO_LENGTHS
        if codings and (codings != [b"chunked"] or self.version == "1.0"):
            return _BAD_CODING
        if names.count(b"host") > 1 or (self.version == "1.1" and b"host" not in names):
            return _BAD_HOST
        return None

    def _excess(self) -> WireRefusal | None:
        if self.content_length > self.limits.max_body_bytes:
            return self._large_body()
        if self.chunked:
            payload = len(self.body_rcv)
            if payload + self.body_rcv.chunk_remainder > self.limits.max_body_bytes:
                return self._large_body()
            if self.body_bytes_received - payload > _FRAMING_BYTES + payload // 8:
                return _TINY_CHUNKS
        return None

    def _large_body(self) -> WireRefusal:
        reason = f"exceeds {self.limits.max_body_bytes} bytes"
        return WireRefusal("413 Content Too Large", BodyTooLarge.message, "body", reason)

    def _large_headers(self) -> WireRefusal:
        reason = f"exceed {self.limits.max_header_bytes} bytes"
        return WireRefusal("431 Request Header Fields Too Large", "headers are too large", "headers", reason)


class _RefusalTask(ErrorTask):
    """Sends a `WireRefusal` from a worker: the answers on one connection keep their order."""

    def execute(self) -> None:
        if not isinstance(self.request.error, WireRefusal):
            self.request.error = _FAULT
        self.channel.refused = True
        self.channel.server.refused(self.request.error.code)
        super().execute()

    def write(self, data: bytes) -> None:
        super().write(b"" if self.request.command == "HEAD" else data)


class _Task(WSGITask):
    """Runs the application for one request: the last boundary for its faults.

    In place of waitress's `service`, which takes every OSError for the client's, the application's full disk included.
    """

    def service(self) -> None:
        try:
            self.start()
            self.execute()
            self.finish()
        except ClientDisconnected:
            self.close_on_finish = True
        except BaseException:  # SystemExit too: nothing an application raises may leave the connection hanging
            log.exception("fault while serving %s %r", self.request.command, self.request.path)
            self.close_on_finish = True
            if not self.wrote_header:  # otherwise the answer stays visibly incomplete
                self.request.error = _FAULT
                with contextlib.suppress(ClientDisconnected, OSError):
                    _RefusalTask(self.channel, self.request).service()

        finally:
            self.channel.live = None

    def build_response_header(self) -> bytes:
        # the last answer before a stop says so, unless requests that were received behind it are still to be answered
        if self.channel.server.draining and len(self.channel.requests) <= 1:
            if self.version == "1.1":
                self.set_close_on_finish()
            self.close_on_finish = True
        header: bytes = super().build_response_header()
        return header

    def get_environment(self) -> WSGIEnvironment:
        # waitress's own proxy middleware answers 400 in its own words, and believes whatever is not even an address
        environ: WSGIEnvironment = super().get_environment()
        environ["SERVER_SOFTWARE"] = "edge"  # waitress: None, which WSGI forbids
        environ["edge.live"] = self.channel.go_live
        forwarded = {name: environ.pop(f"HTTP_X_FORWARDED_{name}", "") for name in _FORWARDED}
        environ.pop("HTTP_FORWARDED", None)
        if environ["REMOTE_ADDR"] == self.channel.server.limits.trusted_proxy:
            with contextlib.suppress(ValueError):
                origin = str(ipaddress.ip_address(forwarded["FOR"].rpartition(",")[2].strip()))
                environ["REMOTE_ADDR"] = environ["REMOTE_HOST"] = origin
            scheme = forwarded["PROTO"].strip().lower()
            if scheme in ("http", "https"):
                environ["wsgi.url_scheme"] = scheme
        return environ


class Connection(HTTPChannel):
    """One connection."""

    task_class = _Task
    error_task_class = _RefusalTask
    request: Any = None  # the one being received
    requests: list[Any]  # received in full, the first of them in a worker's hands
    close_when_flushed: bool = False
    refused = False  # a worker refused a request that may not have been read to its end
    live: Callable[[], None] | None = None  # the answer goes on for ever; what to call when it has to end
    discarding_until: float | None = None  # we have said our last word; what still comes is thrown away until then

    def __init__(self, server: Any, sock: socket.socket, addr: Any, adj: Adjustments, map: Any) -> None:
        super().__init__(server, sock, addr, adj, map=map)
        self.touched = time.monotonic()
        self.taken_bytes = 0
        self.taken_mark: tuple[float, int] | None = None

    def parser_class(self, adj: Adjustments) -> _Parser:
        """Make a parser that knows our limits; waitress calls this where it expects a class."""
        return _Parser(adj, self.server.limits)

    @property
    def body_bytes(self) -> int:
        """Memory held by the bodies of this connection."""
        requests = [*self.requests, *([self.request] if self.request is not None else [])]
        return sum(request.body_bytes_received for request in requests)

    @property
    def in_hand(self) -> bool:
        """A complete request waits for its answer, or an answer for its reader."""
        return bool(self.requests or self.total_outbufs_len)

    @property
    def waiting_since(self) -> float:
        """When the request that is being received began; where there is none, when a byte last came or went."""
        return float(self.touched if self.request is None else self.request.started)

    def readable(self) -> bool:
        """Whether to read: also what is to be thrown away."""
        return self.discarding_until is not None or self.live is not None or super().readable()

    def received(self, data: bytes) -> bool:
        """Parse what came, or throw it away."""
        self.touched = time.monotonic()
        return self.discarding_until is None and self.live is None and super().received(data)

    # --- an answer that goes on for ever ---

    def go_live(self, over: Callable[[], None]) -> None:
        """Send what the task writes as it is written, until the reader leaves; then, or at a stop, call `over`.

        From the task's thread, before it writes. Reading goes on, so that it is seen when the reader leaves; one that
        is there no more, or does not read, is cut after `idle_seconds`, by the kernel or by `sweep`.
        """
        patience_ms = int(self.server.limits.idle_seconds * 1000)
        with contextlib.suppress(OSError):  # gone already: the loop says so
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LIVE_BYTES)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience_ms)
        self.live = over
        if self.server.draining or not self.connected:
            over()
        self.server.pull_trigger()  # the loop waits with what it was to wait for before

    def write_soon(self, data: Any) -> int:
        """Take data to be sent; where the answer goes on for ever send it at once, and wait for a slow reader."""
        written: int = super().write_soon(data)
        if self.live is not None:
            self.server.pull_trigger()  # the loop flushes; waitress would gather more before
            with self.outbuf_lock:
                while self.connected and self.total_outbufs_len > _LIVE_BYTES:
                    self.outbuf_lock.wait()
            if not self.connected:
                raise ClientDisconnected
        return written

    def handle_close(self) -> None:
        """Close, and end an answer that would go on."""
        over = self.live  # before its task sees that nobody reads any more, and takes it away
        super().handle_close()
        if over is not None:
            over()

    def end_live(self) -> bool:
        """End an answer that goes on for ever, at a stop; False if this is none (any more)."""
        over = self.live
        if over is None:
            return False
        over()
        if self.total_outbufs_len > _LIVE_BYTES:  # its task waits for the reader
            self.handle_close()
        return True

    def send(self, data: bytes, do_close: bool = True) -> int:
        """Send and take note of how much the reader took."""
        sent: int = super().send(data, do_close=do_close)
        if sent:
            self.taken_bytes += sent
            self.touched = time.monotonic()
        return sent

    def handle_write(self) -> None:
        """Flush; where waitress would then close after a refusal, stay to discard the rest of the request."""
        if self.live is not None and self.total_outbufs_len:  # waitress waits for more while a task runs
            self._flush_exception(self._flush_some_if_lockable)
        stay = self.refused and self.close_when_flushed
        if stay:
            self.close_when_flushed = False
        super().handle_write()
        if stay and self.connected:
            if self.total_outbufs_len:
                self.close_when_flushed = True
            else:
                self._discard()

    def refuse(self, refusal: WireRefusal) -> None:
        """Answer an unfinished request from this thread, at once, whatever the workers are doing."""
        with self.requests_lock:
            self.request.close()
            self.request = None
        self.server.refused(refusal.code)
        try:
            self.send(refusal.to_bytes())
        except OSError:
            self.handle_close()
        if self.connected:
            self._discard()

    def _discard(self) -> None:
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.handle_close()
        else:
            self.discarding_until = time.monotonic() + _LINGER_SECONDS

    def sweep(self, now: float) -> None:
        """Cut this connection if its time is up.

        By handle_close and not waitress's will_close, which waits for a peer that reads nothing to become writable.
        """
        limits = self.server.limits
        if self.discarding_until is not None:
            if now >= self.discarding_until:
                self.handle_close()
        elif self.in_hand:
            if self.request is not None:  # sent behind the one in hand: the clock stands while we ourselves do not read
                self.request.started = now
            self._cut_slow_reader(now, limits)
        elif self.request is not None:
            if now - self.request.started >= limits.request_deadline_seconds:
                self.refuse(_TOO_LATE)
        elif now - self.touched >= limits.idle_seconds:
            self.handle_close()

    def _cut_slow_reader(self, now: float, limits: ServerLimits) -> None:
        if not self.total_outbufs_len:
            self.taken_mark = None
        elif self.taken_mark is None or self.taken_bytes - self.taken_mark[1] >= _LEAST_TAKEN_BYTES:
            self.taken_mark = (now, self.taken_bytes)
        elif now - self.taken_mark[0] >= limits.idle_seconds:
            self.handle_close()
