"""Search, save, load and enrol in lists of 1,000 to 1,000,000 persons, with the product's own classes.

    .venv/bin/python scripts/bench_gallery.py [--sizes 1000 10000 100000] [--million] [--seconds 5]

For each size a gallery of that many persons, one template each, is written to a temporary folder; every measurement is
a process of its own on that folder, so that its memory is nobody else's. `exact` searches without a graph, `graph` with
the one that was built, saved and loaded again; recall@1 is against exact. Times are of one search in one thread.

The vectors are drawn around real ones: a person is a vector of the pack's cohort moved by 0.6 of the cohort's own
covariance, a picture of them is that moved by 0.25 in all directions alike. With these two spreads 0.1 % of the
comparisons of different people and 98 % of those of the same person reach the similarity at which the pack's operating
points have 0.1 % and 96 %.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge import assembly, catalogue, config
from edge.face.embedding import cohort_similarity
from edge.gallery import persons
from edge.gallery.store import EmbeddedGallery, Probe
from edge.types import Decision, Embedding, NewPerson, Pack, Person, Template, Verdict

MILLION = 1_000_000
BETWEEN_PEOPLE = 0.6
WITHIN_A_PERSON = 0.25
PROBES = 400
WARM_UP = 20
BLOCK = 10_000
NOBODY = NewPerson((), (), None, None, None, None)
ALWAYS_EXACT = 10**9

Vectors = NDArray[np.float32]


# --- people ---


class People:
    """Draws persons, and pictures of them."""

    def __init__(self, pack: Pack, seed: int) -> None:
        """`seed`: the same people for the same seed."""
        assert pack.embedder.cohort is not None, "the people are drawn around the pack's cohort"
        self._cohort = pack.embedder.cohort
        self._dice = np.random.default_rng(seed)
        vectors = self._cohort.vectors
        self._spread = np.linalg.cholesky(np.cov(vectors.T) + 1e-9 * np.eye(vectors.shape[1])).astype(np.float32)

    def persons(self, count: int) -> Vectors:
        """Return the middles of so many persons."""
        centres = self._cohort.vectors[self._dice.integers(0, len(self._cohort.vectors), count)]
        return _units(centres + BETWEEN_PEOPLE * self._normal(centres.shape) @ self._spread.T)

    def pictures(self, of: Vectors) -> list[Embedding]:
        """Return an embedding of each of the persons."""
        noise = self._normal(of.shape) * (WITHIN_A_PERSON / np.sqrt(of.shape[1]))
        return [Embedding(vector, cohort_similarity(vector, self._cohort)) for vector in _units(of + noise)]

    def _normal(self, shape: tuple[int, ...]) -> Vectors:
        return self._dice.standard_normal(shape).astype(np.float32)


def _units(rows: NDArray[Any]) -> Vectors:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def opened(folder: Path, pack: Pack, exact_limit: int) -> EmbeddedGallery:
    """Return the gallery as the service opens it, but for the limit."""
    return EmbeddedGallery.open(
        folder,
        pack_id=pack.id,
        vector_length=pack.embedder.vector_length,
        cohort_weight=pack.embedder.cohort_weight,
        exact_limit=exact_limit,
        main_list_name="main",
        clock=assembly.now_ms,
    )


def fill(folder: Path, pack: Pack, size: int) -> None:
    """Make a gallery of so many persons, and keep other pictures of some of them to search with."""
    people, probes = People(pack, 1), []
    gallery = opened(folder, pack, ALWAYS_EXACT)
    for start in range(0, size, BLOCK):
        middles = people.persons(min(BLOCK, size - start))
        with gallery.database.write() as transaction:
            for number, embedding in enumerate(people.pictures(middles), start=start):
                _insert(transaction, number, gallery.main_list_id, Template(embedding, pack.id, 0.5, None))
        probes += people.pictures(middles[: max(1, PROBES * BLOCK // size)])
    gallery.close()
    rows = [np.append(probe.vector, np.float32(probe.cohort_similarity)) for probe in probes]
    np.save(folder / "probes.npy", np.random.default_rng(2).permutation(np.array(rows, np.float32))[:PROBES])


def _insert(transaction: Any, number: int, list_id: str, template: Template) -> None:
    person_id = f"00000000-0000-1000-8000-{number:012x}"
    person = Person(person_id, list_id, None, None, 1, 1, (), (), None, None, None)
    row = persons.insert(transaction, 1, person)
    persons.insert_template(transaction, row, persons.stored(template, None, 1))


# --- measurements, each in a process of its own ---


def exact(folder: Path, pack: Pack, _: float) -> dict[str, float]:
    """Start and search without a graph; what is found is kept, to be compared with."""
    before = _resident()
    gallery, seconds = _timed(lambda: opened(folder, pack, ALWAYS_EXACT))
    memory = _resident() - before
    found, times = _searched(gallery, folder)
    np.save(folder / "found.npy", found)
    gallery.close()
    return {"open_s": seconds, "exact_mb": memory, **_quantiles("exact", times)}


def build(folder: Path, pack: Pack, _: float) -> dict[str, float]:
    """Build the graph beside the searches, and save it."""
    gallery = opened(folder, pack, 0)
    index = gallery._indexes.of(1)
    began = time.perf_counter()
    while not index.has_graph:
        time.sleep(0.01)
    build_s = time.perf_counter() - began
    _, save_s = _timed(lambda: index.wait_until_built(3600))
    gallery.close()
    size = sum(path.stat().st_size for path in (folder / "indexes").iterdir())
    return {"build_s": build_s, "save_s": save_s, "file_mb": size / 1e6}


def graph(folder: Path, pack: Pack, _: float) -> dict[str, float]:
    """Start with the saved graph and search by it."""
    before = _resident()
    began = time.perf_counter()
    gallery = opened(folder, pack, 0)
    index = gallery._indexes.of(1)
    while not index.has_graph:
        time.sleep(0.01)
    seconds = time.perf_counter() - began
    index.wait_until_built(3600)
    memory = _resident() - before
    found, times = _searched(gallery, folder)
    assert index.graph_searches >= len(times), "the graph did not answer"
    recall = float(np.mean(found == np.load(folder / "found.npy")))
    gallery.close()
    return {"load_s": seconds, "graph_mb": memory, "recall": recall, **_quantiles("graph", times)}


def enrol(folder: Path, pack: Pack, seconds: float) -> dict[str, float]:
    """Identify, or enrol who is unknown, each with a durable commit: all are unknown."""
    gallery = opened(folder, pack, config.load(environment={}, flags=[]).gallery.exact_limit)
    commits: list[str] = []
    with gallery.database._writing:
        gallery.database._writer.set_trace_callback(lambda text: commits.append(text) if text == "COMMIT" else None)
    measured = {}
    for threads in (1, 8):
        people = People(pack, 100 + threads)
        embeddings = people.pictures(people.persons(int(seconds * 5000)))
        del commits[:]
        written, began = _written(), time.perf_counter()
        count = _enrolled(gallery, pack, embeddings, threads, seconds)
        measured[f"enrol_{threads}"] = count / (time.perf_counter() - began)
        measured[f"commits_{threads}"] = len(commits) / count
        measured[f"kb_{threads}"] = (_written() - written) / count / 1000
    gallery.close()
    return measured


def _enrolled(
    gallery: EmbeddedGallery, pack: Pack, embeddings: Sequence[Embedding], threads: int, seconds: float
) -> int:
    end, counts = time.perf_counter() + seconds, [0] * threads

    def run(number: int) -> None:
        for embedding in embeddings[number::threads]:
            if time.perf_counter() > end:
                return
            probe = Probe(embedding, NOBODY, Template(embedding, pack.id, 0.5, None))
            gallery.identify_or_enrol(gallery.main_list_id, [probe], lambda *_: Decision(Verdict.ADD))
            counts[number] += 1

    workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts)


def _searched(gallery: EmbeddedGallery, folder: Path) -> tuple[NDArray[np.int64], list[float]]:
    index, found, times = gallery._indexes.of(1), [], []
    probes = np.load(folder / "probes.npy")
    for probe in [*probes[:WARM_UP], *probes]:
        began = time.perf_counter()
        [(person, _)] = index.search(probe[:-1], float(probe[-1]), 3)[:1]
        times.append(time.perf_counter() - began)
        found.append(person)
    return np.array(found[WARM_UP:]), times[WARM_UP:]


def _quantiles(name: str, times: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.percentile(times, [50, 99]) * 1000
    return {f"{name}_p50": float(p50), f"{name}_p99": float(p99)}


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    return call(), time.perf_counter() - began


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _written() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("write_bytes")))


MEASUREMENTS: dict[str, Callable[[Path, Pack, float], dict[str, float]]] = {
    "exact": exact,
    "build": build,
    "graph": graph,
    "enrol": enrol,
}


# --- the table ---

ROWS = (
    ("start: rows into memory, s", "open_s", "{:.2f}"),
    ("resident, exact, MB", "exact_mb", "{:.0f}"),
    ("exact p50, ms", "exact_p50", "{:.3f}"),
    ("exact p99, ms", "exact_p99", "{:.3f}"),
    ("graph: build, s", "build_s", "{:.1f}"),
    ("graph: save, s", "save_s", "{:.2f}"),
    ("graph: file, MB", "file_mb", "{:.1f}"),
    ("start with it: until the graph answers, s", "load_s", "{:.2f}"),
    ("resident with it, MB", "graph_mb", "{:.0f}"),
    ("  bytes a template", "bytes_each", "{:.0f}"),
    ("graph p50, ms", "graph_p50", "{:.3f}"),
    ("graph p99, ms", "graph_p99", "{:.3f}"),
    ("graph recall@1", "recall", "{:.4f}"),
    ("enrolments a second, 1 thread", "enrol_1", "{:.0f}"),
    ("enrolments a second, 8 threads", "enrol_8", "{:.0f}"),
    ("commits an enrolment", "commits_8", "{:.2f}"),
    ("KB written an enrolment", "kb_1", "{:.1f}"),
)


def measured(size: int, pack: Pack, seconds: float) -> dict[str, float]:
    """Return every figure of one size."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="edge-bench-gallery-") as name:
        fill(Path(name), pack, size)
        for measurement in MEASUREMENTS:
            command = [sys.executable, __file__, "--measure", measurement, name, "--seconds", str(seconds)]
            environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
            result = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment, text=True)
            figures |= json.loads(result.stdout)
    figures["bytes_each"] = figures["graph_mb"] * 1e6 / size
    return figures


def crossing(sizes: Sequence[int], figures: Sequence[dict[str, float]]) -> str:
    """Say from how many templates on the graph is faster, between the sizes that were measured."""
    for (small, one), (large, other) in zip(
        zip(sizes, figures, strict=True), zip(sizes[1:], figures[1:], strict=True), strict=False
    ):
        gain, more = (np.log(now["exact_p50"] / now["graph_p50"]) for now in (one, other))
        if gain <= 0 < more:
            at = np.exp(np.interp(0, [gain, more], [np.log(small), np.log(large)]))
            return f"the graph is faster from about {at:,.0f} templates on"
    return "between these sizes the faster of the two does not change"


def main() -> int:
    """Measure the sizes that were asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--million", action="store_true", help="1,000,000 as well: half an hour, 1.5 GB")
    parser.add_argument("--seconds", type=float, default=5, help="of enrolling, for each number of threads")
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    settings = config.load(environment={}, flags=[])
    pack = catalogue.find("default", assembly.pack_folders(settings))
    if options.measure:
        name, folder = options.measure
        print(json.dumps(MEASUREMENTS[name](Path(folder), pack, options.seconds)))
        return 0
    sizes = sorted({*options.sizes, *([MILLION] if options.million else [])})
    print(
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}: {machine()}"
    )
    figures = [measured(size, pack, options.seconds) for size in sizes]
    print(f"{'persons in the list':44}" + "".join(f"{size:>12,}" for size in sizes))
    for title, key, form in ROWS:
        print(f"{title:44}" + "".join(f"{form.format(one[key]):>12}" for one in figures))
    print(crossing(sizes, figures))
    return 0


def machine() -> str:
    """Return the name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return "an unnamed processor"


if __name__ == "__main__":
    sys.exit(main())
