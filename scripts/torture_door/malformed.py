"""Malformed requests: the shared broken pictures and bodies, then as many as are wanted from a generator."""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Sequence

import hypothesis
from bench_memory import growth, memory
from hypothesis import HealthCheck, Phase

from torture_door.common import (
    BOUNDARY,
    FORM_TYPE,
    Answer,
    corpus,
    exchange,
    form,
    misshapen,
    pid_of,
    port_of,
    progress,
    report,
    request,
    serving,
)
from torture_door.fuzz import pictures
from torture_door.generator import requests

BATCH = 500
"""Requests drawn together: hypothesis keeps what it has drawn, and memory is looked at in between."""

SETTLING_SHARE = 4
"""The first part of so many does not count as growth: until then buffers, caches and threads find their size."""

FLAT_MEGABYTES = 8.0
"""What the least-squares line may rise over the run after settling, if it rises at all: a leak of 100 bytes a request
shows in 100,000, and lists and tokens that well-formed requests made stay in memory rightly."""


class Tally:
    """What came back, and what should not have."""

    def __init__(self) -> None:
        self.sent = self.cut = 0
        self.statuses: Counter[int] = Counter()
        self.violations: list[str] = []

    def add(self, data: bytes, answers: Sequence[Answer], ended: bool) -> None:
        """Count the answers of one connection."""
        self.sent += 1
        self.cut += not answers
        for answer in answers:
            self.statuses[answer.status] += 1
            head = data.startswith(b"HEAD ") and not answer.body
            wrong = "" if head or answer.headers.get("content-type", "").startswith("text/plain") else misshapen(answer)
            if wrong or answer.status == 500:
                self.violations.append(f"{wrong or 'status 500'} to {data[:400]!r}")
        if not ended:
            self.violations.append(f"no end to {data[:400]!r}")


def shared(token: str) -> list[bytes]:
    """Return a request for each broken picture and each broken body of the shared data."""
    made = []
    for path in corpus("bad-images"):
        headers = {"token": token, "Content_Type": FORM_TYPE}
        made.append(request("/v1/person/create", form(path.read_bytes(), multi="true"), **headers))
    for path in corpus("bad-multipart"):
        body = path.read_bytes()
        first = re.match(rb"\s*--([^\s]{1,70})", body)  # its own boundary, where it has one
        boundary = first[1].decode("latin-1") if first else BOUNDARY
        headers = {"token": token, "Content_Type": f'multipart/form-data; boundary="{boundary}"'}
        made.append(request("/v1/person/create", body, **headers))
    return made


def batch(tally: Tally, port: int, token: str, count: int, seed: int, bodies: Sequence[bytes]) -> None:
    """Draw so many requests and send each on a connection of its own."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(requests(token, pictures(), bodies))
    def send(data: bytes) -> None:
        tally.add(data, *exchange(port, data))

    send()


def main(arguments: list[str]) -> int:
    """Send them all; the process must live, answer in shape, and not grow."""
    parser = argparse.ArgumentParser(prog="malformed", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="requests in all (default: 100,000)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed sends the same")
    options = parser.parse_args(arguments)
    tally, at, seen = Tally(), [], []
    with serving("models.workers=1") as service:
        port, token, pid = port_of(service), service.token("admin"), pid_of(service)
        known = shared(token)
        for data in known[: options.count]:
            tally.add(data, *exchange(port, data))
        bodies = [path.read_bytes() for path in corpus("bad-multipart") if path.stat().st_size < 10_000]
        seed = options.seed * 1_000_000
        while tally.sent < options.count:
            batch(tally, port, token, min(BATCH, options.count - tally.sent), seed, bodies)
            seed += 1
            now = memory(pid)
            if tally.sent >= options.count // SETTLING_SHARE:
                at.append(tally.sent)
                seen.append(now.anonymous)
            progress(f"malformed: {tally.sent:,} of {options.count:,}: {now}, {len(tally.violations)} violations")
    statuses = " ".join(f"{status}x{count}" for status, count in sorted(tally.statuses.items()))
    figures = {"requests": f"{tally.sent:,}", "of the shared data": len(known), "cut": tally.cut, "statuses": statuses}
    if len(at) > 3:
        slope, error = growth(at, seen)
        figures["anonymous MB a thousand"] = f"{slope:+.4f} +- {error:.4f}"
        risen = (slope - 2 * error) * (at[-1] - at[0]) / 1000
        if risen > FLAT_MEGABYTES:
            tally.violations.append(f"memory rises: {slope:+.4f} +- {error:.4f} MB a thousand requests")
    return report("malformed", figures, tally.violations)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
