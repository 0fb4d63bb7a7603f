"""Frames for hours: memory, descriptors, threads and the write-ahead logs stay what they were.

Every third frame shows nobody, every third somebody known, every third somebody too blurred to be added, in two sizes.
What grows is told by least squares over what was measured after settling.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench_frame import Service, serving, size_of
from bench_memory import SAMPLES, frames, growth, memory, post

from edge import bench, config
from torture_door.common import progress, report

SETTLING_SHARE = 5
"""The first part of so many does not count."""

LEAST_SETTLING = 10_000
"""Frames until every thread has opened its files, and the log, which gains 2.4 MB a thousand, is at its 16 MB; a run
that settles for less is told, not judged."""

FLAT = {"anonymous MB": 8.0, "descriptors": 4.0, "threads": 2.0, "WAL MB": 8.0}
"""What the line may rise over the whole run after settling. Sightings are rows: the page cache and the log's own size
wander within the 16 MB of the settings."""


@dataclass(frozen=True)
class State:
    """Of the process and its files, by name."""

    figures: dict[str, float]

    @classmethod
    def of(cls, service: Service, folder: Path) -> State:
        """Look."""
        pid = service.process.pid
        logs = sum(path.stat().st_size for path in folder.rglob("*-wal"))
        return cls(
            {
                "anonymous MB": memory(pid).anonymous,
                "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
                "threads": len(list(Path(f"/proc/{pid}/task").iterdir())),
                "WAL MB": logs / 1e6,
            }
        )

    def __str__(self) -> str:
        """As progress shows it."""
        return ", ".join(f"{figure:.1f} {name}" for name, figure in self.figures.items())


def main(arguments: list[str]) -> int:
    """Post them all and hold what grew against the limits."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="frames (default: 100,000)")
    parser.add_argument("--callers", type=int, default=2)
    parser.add_argument("--sizes", type=size_of, nargs="+", default=[(320, 240), (640, 480)], metavar="COLUMNSxROWS")
    options = parser.parse_args(arguments)
    violations = []
    with tempfile.TemporaryDirectory(prefix="edge-soak-") as name:
        folder = Path(name) / "data"
        settings = config.load(environment={}, flags=[f"data.folder={folder}"])
        with bench.bench(settings, 1.0) as parts:
            pictures = frames(parts, options.sizes)
        with serving(folder) as service:
            bodies = itertools.cycle([service.body(picture) for picture in pictures])
            settling = options.count // SETTLING_SHARE
            step = max(1, (options.count - settling) // SAMPLES)
            post(service, bodies, settling, options.callers)
            at, seen, started = [], [], time.perf_counter()
            for done in range(settling + step, options.count + 1, step):
                post(service, bodies, step, options.callers)
                at.append(done)
                seen.append(State.of(service, folder))
                if len(seen) % 10 == 0:
                    progress(f"soak: {done:,} of {options.count:,} frames: {seen[-1]}")
            rate = (at[-1] - settling) / (time.perf_counter() - started)
    figures: dict[str, object] = {"frames": f"{at[-1]:,}", "a second": f"{rate:.1f}"}
    for what, most in FLAT.items():
        slope, error = growth(at, [one.figures[what] for one in seen])
        figures[what] = f"{seen[-1].figures[what]:.1f} ({slope:+.4f} +- {error:.4f} a thousand)"
        if settling >= LEAST_SETTLING and (slope - 2 * error) * (at[-1] - at[0]) / 1000 > most:
            violations.append(f"{what} rises: {slope:+.4f} +- {error:.4f} a thousand frames")
    return report("soak", figures, violations)
