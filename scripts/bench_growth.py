"""Whether a request costs more the more persons there are: a frame of somebody known, in galleries of several sizes.

    .venv/bin/python scripts/bench_growth.py [--persons 10 1000 10000 100000] [--count 300] [--size 640x480]
        [--set SECTION.NAME=VALUE ...]

A service for each number of persons, all of one list and all at once, and the same frame to each in turn, so that
whatever else the machine does meets them alike. It prints what a client waits, and that beside the smallest gallery's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench_frame import heads, progress, serving, size_of
from bench_memory import seed

from edge import bench, config

WARM_UP = 20


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--persons", type=int, nargs="+", default=[10, 1000, 10_000, 100_000])
    parser.add_argument("--count", type=int, default=300, help="frames to each")
    parser.add_argument("--size", type=size_of, default=bench.SIZES[0], metavar="COLUMNSxROWS")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.NAME=VALUE", help="a setting")
    options = parser.parse_args()
    bench.end_tidily()
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as name, contextlib.ExitStack() as services:
        folder = Path(name)
        settings = config.load(environment={}, flags=[*options.set, f"data.folder={folder}"])
        with bench.bench(settings, 1.0) as parts:
            print(f"{bench.machine(settings)}\nload average {os.getloadavg()[0]:.2f}\n", flush=True)
            picture = bench.frame(heads(parts)[:1], *options.size)
            for count in options.persons:
                seed(folder / f"{count}", parts, count)
        running = [services.enter_context(serving(folder / f"{count}", *options.set)) for count in options.persons]
        callers = [(service, service.connection(), service.body(picture, multi=False)) for service in running]
        waited: list[list[float]] = [[] for _ in callers]
        for number in range(WARM_UP + options.count):
            progress(f"{number} of {WARM_UP + options.count} frames")
            for times, (service, connection, body) in zip(waited, callers, strict=True):
                started = time.perf_counter()
                status, answer = service.post(connection, body)
                times.append((time.perf_counter() - started) * 1000)
                if status not in (200, 201):
                    raise RuntimeError(f"the service answered {status}: {answer[:500].decode()}")
        progress("")
        medians = [statistics.median(times[WARM_UP:]) for times in waited]
        for count, times, median in zip(options.persons, waited, medians, strict=True):
            tail = statistics.quantiles(times[WARM_UP:], n=20)[18]
            print(
                f"{count:9,} persons  p50 {median:6.2f}  p95 {tail:6.2f} ms   p50 / smallest {median / medians[0]:.3f}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
