"""Little bytes that mean much: huge declared pictures, thousands of parts, deep JSON, gzip. Refused, fast and small."""

from __future__ import annotations

import argparse
import base64
import gzip
import statistics
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench_memory import memory

from torture_door.common import (
    BOUNDARY,
    FORM_TYPE,
    Answer,
    connected,
    form,
    misshapen,
    pid_of,
    port_of,
    progress,
    read_answer,
    report,
    request,
    serving,
)

MOST_MILLISECONDS = 100.0
MOST_MEGABYTES = 50.0

HUGE_PIXELS = 20_000
SAMPLE_SECONDS = 0.002


@dataclass(frozen=True)
class Bomb:
    """What is sent, and whether the answer is a refusal by status, or the contract's 201 that names no picture."""

    name: str
    content_type: str
    body: bytes
    encoding: str = ""
    is_picture: bool = False


# --- pictures ---


def png(columns: int, rows: int, *, bits: int = 1) -> bytes:
    """Return a sound grey PNG of that size, all of one colour, deflated as far as it goes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    line = bytes(1 + (columns * bits + 7) // 8)
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(line) for _ in range(rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", columns, rows, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def webp(kind: bytes, content: bytes) -> bytes:
    """Return a WebP of one chunk."""
    chunk = kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


def pictures() -> Iterator[Bomb]:
    """Yield pictures whose headers promise more than any box holds."""
    side = 16_383  # the most that WebP can say outside VP8X
    extended = bytes(4) + (HUGE_PIXELS - 1).to_bytes(3, "little") * 2
    images = {
        "PNG of 20,000 x 20,000, 1 bit": png(HUGE_PIXELS, HUGE_PIXELS),
        "PNG of 2^31-1 x 2^31-1": png(64, 64)[:16] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + png(64, 64)[24:],
        "PNG of 400,000 x 100": png(400_000, 100),
        "PNG whose end declares 4 GB": png(64, 64)[:-12] + b"\xff\xff\xff\x64IEND" + bytes(4),
        "PNG of a million chunks": png(64, 64)[:33] + b"\0\0\0\0teXt\0\0\0\0" * 1_000_000,
        "WebP VP8 of 16,383 x 16,383": webp(
            b"VP8 ", b"\x30\x01\x00\x9d\x01\x2a" + struct.pack("<HH", side, side) + bytes(50)
        ),
        "WebP VP8L of 16,384 x 16,384": webp(b"VP8L", b"\x2f" + struct.pack("<I", side | side << 14) + bytes(50)),
        "WebP VP8X of 20,000 x 20,000": webp(b"VP8X", extended),
        "JPEG of 65,535 x 65,535": b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff"
        + bytes(12)
        + b"\xff\xda\x00\x02\xff\xd9",
        "JPEG of 10,000 scans": b"\xff\xd8\xff\xc2\x00\x11\x08\x02\x00\x02\x00"
        + bytes(12)
        + b"\xff\xda\x00\x02" * 10_000,
        "BMP of 2^31-1 x -2^31": b"BM" + struct.pack("<IIIIii", 54, 0, 54, 40, 2**31 - 1, -(2**31)) + bytes(28),
    }
    for name, data in images.items():
        yield Bomb(name, FORM_TYPE, form(data), is_picture=True)
    in_text = base64.b64encode(images["PNG of 20,000 x 20,000, 1 bit"]).decode()
    yield Bomb("the same PNG in JSON", "application/json", f'{{"image": "{in_text}"}}'.encode(), is_picture=True)


# --- bodies ---


def bodies() -> Iterator[Bomb]:
    """Yield bodies that cost more to take apart than to send."""
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="fields"\r\n\r\nx\r\n'.encode()
    end = f"--{BOUNDARY}--\r\n".encode()
    json_type, pairs_type = "application/json", "application/x-www-form-urlencoded"
    yield Bomb("10,000 parts", FORM_TYPE, part * 10_000 + end)
    yield Bomb("a million line ends in a part", FORM_TYPE, part[:-3] + b"\r\n" * 1_000_000 + end)
    yield Bomb("a part of 10,000 headers", FORM_TYPE, part[:-7] + b"\r\nX: y" * 10_000 + b"\r\n\r\nx\r\n" + end)
    yield Bomb("1,000,000 pairs", pairs_type, b"a=b&" * 1_000_000)
    yield Bomb("JSON of 100,000 levels", json_type, b"[" * 100_000 + b"]" * 100_000)
    yield Bomb("JSON of 100,000 objects deep", json_type, b'{"a":' * 100_000 + b"1" + b"}" * 100_000)
    yield Bomb("JSON of 5,000,000 values", json_type, b'{"fields": [' + b"[]," * 5_000_000 + b"1]}")
    yield Bomb("JSON with a number of 1,000,000 digits", json_type, b'{"yaw": ' + b"9" * 1_000_000 + b"}")
    packed = gzip.compress(bytes(100_000_000), 9)
    for encoding in ("gzip", "deflate", "br", "zstd"):
        yield Bomb(f"100 MB in {len(packed) // 1000} KB of gzip, as {encoding}", json_type, packed, encoding)


# --- measuring ---


class Peak:
    """The most anonymous memory, in megabytes above that at the beginning, while the `with` lasts."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._floor = self._now()
        self._most = self._floor
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _now(self) -> float:
        found = next(line for line in self._status.read_text().splitlines() if line.startswith("RssAnon"))
        return int(found.split()[1]) * 1024 / 1e6

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self._most = max(self._most, self._now())

    def __enter__(self) -> Callable[[], float]:
        self._thread.start()
        return lambda: max(self._most, self._now()) - self._floor

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def ask(port: int, data: bytes, body_bytes: int) -> tuple[Answer | None, float]:
    """Return the answer, and milliseconds from when all but the last byte was sent to it, or from its first byte on.

    What a refusal costs, and not what the line costs: a body that is refused by its headers is answered before it ends.
    """
    with connected(port) as sock:
        started = time.perf_counter()
        try:
            sock.sendall(data[:-1])
            if body_bytes:
                started = time.perf_counter()
            sock.sendall(data[-1:])
        except OSError:  # refused in the middle of it
            started = time.perf_counter()
        answer, _ = read_answer(sock)
        return answer, (time.perf_counter() - started) * 1000


def wrong_with(bomb: Bomb, answer: Answer | None) -> str:
    """Return what is wrong with the answer itself."""
    if answer is None:
        return "no answer"
    if bomb.is_picture:
        told = answer.json.get("message") if answer.status == 201 and answer.json else ""
        return (
            ""
            if told in ("image format is unknown", "image is too small")
            else f"answered {answer.status} {answer.body[:200]!r}"
        )
    return misshapen(answer) or ("" if answer.status in (400, 413, 415) else f"answered {answer.status}")


def main(arguments: list[str]) -> int:
    """Send each bomb so many times; hold the median time and the greatest memory against the limits."""
    parser = argparse.ArgumentParser(prog="bombs", description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="times that each is sent (default: 20)")
    parser.add_argument("--milliseconds", type=float, default=MOST_MILLISECONDS, help="the limit (default: 100)")
    options = parser.parse_args(arguments)
    violations, slowest, largest, sent = [], (0.0, ""), (0.0, ""), 0
    with serving("models.workers=1") as service:
        port, token, pid = port_of(service), service.token("enrol"), pid_of(service)
        for bomb in (*pictures(), *bodies()):
            headers = {"token": token, "Content_Type": bomb.content_type}
            headers |= {"Content_Encoding": bomb.encoding} if bomb.encoding else {}
            data, times = request("/v1/person/create", bomb.body, **headers), []
            ask(port, data, len(bomb.body))  # what the body itself takes to hold is not what it unfolds to
            with Peak(pid) as risen:
                for _ in range(options.count):
                    answer, milliseconds = ask(port, data, len(bomb.body))
                    times.append(milliseconds)
                    sent += 1
                    if wrong := wrong_with(bomb, answer):
                        violations.append(f"{bomb.name}: {wrong}")
                megabytes = risen()
            middle = statistics.median(times)
            progress(f"bombs: {bomb.name} ({len(bomb.body):,} bytes): {middle:.1f} ms, {megabytes:+.1f} MB")
            slowest, largest = max(slowest, (middle, bomb.name)), max(largest, (megabytes, bomb.name))
            if middle > options.milliseconds:
                violations.append(f"{bomb.name}: {middle:.1f} ms")
            if megabytes > MOST_MEGABYTES:
                violations.append(f"{bomb.name}: {megabytes:.1f} MB")
        after = memory(pid)
    figures = {
        "sent": sent,
        "slowest": f"{slowest[0]:.1f} ms ({slowest[1]})",
        "largest": f"{largest[0]:.1f} MB ({largest[1]})",
        "after it": f"{after.anonymous:.0f} MB anonymous",
    }
    return report("bombs", figures, violations)
