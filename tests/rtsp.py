"""A camera that speaks RTSP (RFC 2326) over TCP, its pictures as RTP packets of JPEG (RFC 2435)."""

from __future__ import annotations

import base64
import itertools
import re
import socketserver
import struct
import time
from collections.abc import Iterator, Sequence
from typing import ClassVar

PAYLOAD_BYTES = 1400
JPEG = 26
"""The payload type of JPEG: RFC 3551."""

TICKS_A_SECOND = 90_000
OWN_TABLES = 255
"""The value of Q that says that the tables come along."""

SDP = """v=0\r
o=- 0 0 IN IP4 127.0.0.1\r
s=camera\r
c=IN IP4 0.0.0.0\r
t=0 0\r
m=video 0 RTP/AVP 26\r
a=control:track\r
"""


def packets(jpeg: bytes, width: int, height: int) -> Iterator[tuple[bool, bytes]]:
    """Yield what the payloads of a picture's packets are, and which is the last. A baseline JPEG of 4:2:0."""
    tables = b"".join(jpeg[at + 5 : at + 69] for at in (one.start() for one in re.finditer(rb"\xff\xdb\x00\x43", jpeg)))
    scan = jpeg.index(b"\xff\xda")
    data = jpeg[scan + 2 + struct.unpack_from(">H", jpeg, scan + 2)[0] : jpeg.rindex(b"\xff\xd9")]
    for start in range(0, len(data), PAYLOAD_BYTES):
        head = struct.pack(">I4B", start, 1, OWN_TABLES, width // 8, height // 8)
        if start == 0:
            head += struct.pack(">BBH", 0, 0, len(tables)) + tables
        yield start + PAYLOAD_BYTES >= len(data), head + data[start : start + PAYLOAD_BYTES]


class RtspCamera(socketserver.StreamRequestHandler):
    """Plays its pictures once to whoever asks with the password, and hangs up; set FRAMES and USER of a subclass."""

    FRAMES: ClassVar[Sequence[bytes]] = ()
    SIZE: ClassVar[tuple[int, int]] = (640, 480)
    USER: ClassVar[str | None] = None
    """`name:password`, where there is one."""

    def handle(self) -> None:
        """Answer one request after the other, up to PLAY."""
        while (request := self._request()) is not None:
            verb, headers = request
            wanted = None if self.USER is None else "Basic " + base64.b64encode(self.USER.encode()).decode()
            if verb == "OPTIONS":
                self._answer(headers, "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
            elif wanted not in (None, headers.get("authorization")):
                self._answer(headers, 'WWW-Authenticate: Basic realm="camera"', status="401 Unauthorized")
            elif verb == "DESCRIBE":
                self._answer(headers, "Content-Type: application/sdp", body=SDP)
            elif verb == "SETUP":
                self._answer(headers, "Session: 1", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
            elif verb == "PLAY":
                self._answer(headers, "Session: 1")
                self._play()
                return
            else:
                self._answer(headers)
                return

    def _request(self) -> tuple[str, dict[str, str]] | None:
        line = self.rfile.readline().decode()
        if not line:
            return None
        headers = {}
        while (header := self.rfile.readline().decode().strip()) != "":
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        return line.split()[0], headers

    def _answer(self, asked: dict[str, str], *lines: str, status: str = "200 OK", body: str = "") -> None:
        head = [f"RTSP/1.0 {status}", f"CSeq: {asked['cseq']}", *lines, f"Content-Length: {len(body)}", "", body]
        self.wfile.write("\r\n".join(head).encode())

    def _play(self) -> None:
        numbers = itertools.count(1)
        for picture, frame in enumerate(self.FRAMES):
            for is_last, payload in packets(frame, *self.SIZE):
                ticks = picture * TICKS_A_SECOND // 25
                head = struct.pack(">BBHII", 0x80, is_last << 7 | JPEG, next(numbers), ticks, 1)
                self.wfile.write(struct.pack(">cBH", b"$", 0, len(head) + len(payload)) + head + payload)
            time.sleep(0.01)
