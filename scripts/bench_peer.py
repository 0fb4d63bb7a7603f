"""The same frames through edge and through what else finds and knows faces offline, one core each, in turn.

    .venv/bin/python scripts/bench_peer.py [--venv FOLDER] [--yunet FILE.onnx] [--known 1] [--rounds 10] [--frames 3]

The peers, from bytes in memory to who it is:

- face_recognition 1.3.0 with dlib, all its defaults: HOG detector with number_of_times_to_upsample=1, small landmarks,
  no jitter, tolerance 0.6;
- OpenCV's FaceDetectorYN with dlib's landmarks and embedder, on the frame as it is and on one shrunk to 640 pixels
  (only with --yunet: OpenCV's model zoo has the file).

edge is the real process with one worker, and its time is that of a whole POST /person/create from another core: HTTP,
decoding, search, history, answer. Every frame shows one person, who is known from another photo, among --known persons
in all. They take turns, so that what else the machine does hits all alike. The peers get an environment of their own in
--venv (default: a temporary folder; a minute to install from PyPI).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench_frame import ROOT, heads, progress, serving, size_of
from bench_memory import seed

from edge import bench, config

REQUIREMENTS = ("dlib-bin>=20", "face_recognition_models==0.3.0", "numpy", "pillow", "opencv-python-headless>=4.11")
SETUPTOOLS = "setuptools<81"
"""face_recognition_models asks it for pkg_resources, which later ones no longer have."""

FACE_RECOGNITION = "face_recognition==1.3.0"
"""Installed without its dependencies: it asks for `dlib`, which is compiled for half an hour; dlib-bin is the same."""

ENROLLED, SHOWN = "obama-1", "obama-2"
SIZES = bench.SIZES[:2]
MATCHED = 201
EDGE = "edge, the whole request"

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

Identify = Callable[[Path], "tuple[float, bool]"]
"""Takes a picture's file; returns milliseconds and whether the person was known."""


def environment(folder: Path) -> Path:
    """Return the Python of the peers' environment, made if it is not there."""
    python = folder / "bin" / "python"
    done = folder / "peers-installed"
    if not done.exists():
        print(f"installing the peers into {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, SETUPTOOLS, *REQUIREMENTS], check=True)
        subprocess.run([*pip, "--no-deps", FACE_RECOGNITION], check=True)
        done.touch()
    return python


@contextlib.contextmanager
def peer(python: Path, kind: str, core: int, known: int, model: Path | None) -> Iterator[Identify]:
    """Yield a peer in its own process."""
    photo = ROOT / "tests" / "photos" / f"{ENROLLED}.jpg"
    side = ROOT / "scripts" / "bench_peer_side.py"
    process = subprocess.Popen(
        [python, side, kind, photo, str(known), str(model or "")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | ONE_THREAD,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    assert process.stdin is not None and process.stdout is not None
    written, read = process.stdin, process.stdout
    if read.readline().strip() != "ready":
        raise RuntimeError(f"{kind} did not start")

    def identify(path: Path) -> tuple[float, bool]:
        print(path, file=written, flush=True)
        milliseconds, is_known = read.readline().split()
        return float(milliseconds), is_known == "1"

    try:
        yield identify
    finally:
        written.close()
        process.wait(30)
        read.close()


@contextlib.contextmanager
def edge(folder: Path, core: int, settings: Sequence[str]) -> Iterator[Identify]:
    """Yield the service on one core, the person enrolled."""
    flags = ("models.workers=1", "new_person.threshold=0.7", *settings)
    with serving(folder, *flags, cores={core}) as service:
        connection = service.connection()
        photo = (ROOT / "tests" / "photos" / f"{ENROLLED}.jpg").read_bytes()
        _, answer = service.post(connection, service.body(photo))
        (mine,) = (person["person_id"] for person in json.loads(answer)["persons"])

        def identify(path: Path) -> tuple[float, bool]:
            body = service.body(path.read_bytes())
            started = time.perf_counter()
            status, answer = service.post(connection, body)
            milliseconds = (time.perf_counter() - started) * 1000
            matches = [match["person_id"] for match in json.loads(answer)["matches"]]
            return milliseconds, status == MATCHED and matches == [mine]

        yield identify


def run(contenders: dict[str, Identify], path: Path, options: argparse.Namespace) -> None:
    """Let them take turns on one frame, and print."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    known = dict.fromkeys(contenders, 0)
    for identify in contenders.values():
        identify(path)  # the first of a size does not count
    for number in range(options.rounds):
        progress(f"{path.stem}: round {number + 1} of {options.rounds}")
        for name, identify in contenders.items():
            for _ in range(options.frames):
                milliseconds, is_known = identify(path)
                times[name].append(milliseconds)
                known[name] += is_known
    progress("")
    mine = statistics.median(times[EDGE])
    print(f"{path.stem}, one known face among {options.known:,}: median milliseconds of {len(times[EDGE])} frames")
    for name, seen in times.items():
        median = statistics.median(seen)
        print(f"  {name:44} {median:8.1f}   {median / mine:6.1f} times edge's   known {known[name]}/{len(seen)}")
    print(flush=True)


def main() -> int:
    """Install the peers if need be, start everybody, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, help="where the peers are installed, or are already")
    parser.add_argument("--yunet", type=Path, metavar="FILE.onnx", help="OpenCV's face detector")
    parser.add_argument("--known", type=int, default=1, help="persons that are known")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--frames", type=int, default=3, help="of each, in every round")
    parser.add_argument("--sizes", type=size_of, nargs="+", default=list(SIZES), metavar="COLUMNSxROWS")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.NAME=VALUE", help="a setting of edge")
    options = parser.parse_args()
    bench.end_tidily()
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as name, contextlib.ExitStack() as running:
        folder = Path(name)
        python = environment((options.venv or folder / "venv").resolve())
        settings = config.load(environment={}, flags=[*options.set, f"data.folder={folder}"])
        paths = []
        with bench.bench(settings, 1.0) as parts:
            print(bench.machine(settings))
            shown = heads(parts, [SHOWN])
            for columns, rows in options.sizes:
                paths.append(folder / f"{columns}x{rows}.jpg")
                paths[-1].write_bytes(bench.frame(shown, columns, rows))
            seed(folder / "data", parts, options.known - 1)
        cores = sorted(os.sched_getaffinity(0))
        core = cores[-1]
        if len(cores) > 1:
            os.sched_setaffinity(0, {cores[0]})  # whoever asks is not in the way of who answers
        print(f"one core each, thread counts 1; load average {os.getloadavg()[0]:.2f}\n")
        contenders = {
            EDGE: running.enter_context(edge(folder / "data", core, options.set)),
            "face_recognition (dlib HOG, upsampled once)": running.enter_context(
                peer(python, "face_recognition", core, options.known, None)
            ),
        }
        if options.yunet is None:
            print("OpenCV's FaceDetectorYN is left out: --yunet names no model file\n")
        else:
            for kind, words in (("yunet-full", "the whole frame"), ("yunet-640", "shrunk to 640")):
                contenders[f"FaceDetectorYN ({words}) and dlib"] = running.enter_context(
                    peer(python, kind, core, options.known, options.yunet.resolve())
                )
        for path in paths:
            run(contenders, path, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
