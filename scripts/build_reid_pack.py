#!/usr/bin/env python3
"""Make the pack reid-0095: Intel's face-reidentification-retail-0095 in place of the default pack's embedder.

    python scripts/build_reid_pack.py FOLDER [--out models-of-mine/reid-0095] [--extends default]
    edge models add models-of-mine/reid-0095

FOLDER holds the network as embedder.tflite: 128 x 128 pixels, BGR 0 to 255, to 256 numbers. It is Intel's (Open Model
Zoo, Apache-2.0) and no part of this program, so it does not come with it. What belongs to the pack besides, the crop,
the cohort and the operating points, does: scripts/reid-0095. They were measured with that network and mean nothing
for another one, so the network has to give the vectors that it gave then for two test patterns.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from edge.catalogue import nature
from edge.errors import Refusal
from edge.face.tflite import Model
from edge.types import InputSpec, Picture, unit

FIGURES = Path(__file__).resolve().parent / "reid-0095"

INPUT = InputSpec(rows=128, columns=128, colour="BGR", mean=(0, 0, 0), scale=1)

LEAST_COSINE = 0.999
"""To the vectors recorded in checks.npy. Measured: with the colours swapped it is 0.96, with the pixels a tenth darker
0.98; rounding weights to 16 bits leaves far more than 0.999."""


class BuildError(Exception):
    """The pack cannot be made; the message says why."""


def patterns() -> list[Picture]:
    """Return the two test patterns: coarse squares and fine ones, the same wherever and whenever they are made."""
    fine = np.random.RandomState(95).randint(0, 256, (64, 64, 3))  # the one generator whose stream is frozen
    coarse = fine[:8, :8]
    return [np.kron(one, np.ones((128 // len(one),) * 2 + (1,), int)).astype(np.uint8) for one in (coarse, fine)]


def check(path: Path) -> None:
    """Refuse a file that is not this network."""
    try:
        content = path.read_bytes()
        model = Model(path, INPUT)
    except OSError as error:
        raise BuildError(f"{path}: {error.strerror}") from None
    except Refusal as refusal:
        raise BuildError(f"{refusal} ({nature(content)})") from None
    recorded = np.load(FIGURES / "checks.npy", allow_pickle=False)
    for pattern, expected in zip(patterns(), recorded, strict=True):
        vector = model.run(pattern)[0].ravel()
        if vector.shape != expected.shape:
            raise BuildError(f"{path} gives {vector.size} numbers, the network gives {expected.size}")
        cosine = float(unit(vector) @ unit(expected))
        if not cosine >= LEAST_COSINE:
            raise BuildError(
                f"{path} is another network, or the same with another input: its vector of a test pattern has a cosine"
                f" of {cosine:.4f} to the one recorded, at least {LEAST_COSINE} is expected"
            )


def check_apart(path: Path) -> None:
    """Check in a process of its own: on a file that was cut short, tflite-runtime ends the process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            mistake = pool.submit(mistake_of, path).result()
        except BrokenProcessPool:
            mistake = f"{path} cannot be run ({nature(path.read_bytes())})"
    if mistake is not None:
        raise BuildError(mistake)


def mistake_of(path: Path) -> str | None:
    """Return why the file is not this network, None if it is."""
    try:
        check(path)
    except BuildError as error:
        return str(error)
    return None


def build(folder: Path, out: Path, extends: str) -> None:
    """Write the pack."""
    model = folder / "embedder.tflite"
    check_apart(model)
    out.mkdir(parents=True)
    shutil.copyfile(model, out / "embedder.tflite")
    for name in ("cohort.npy", "NOTICE"):
        shutil.copyfile(FIGURES / name, out / name)
    pack = (FIGURES / "pack.json").read_text(encoding="utf-8")
    pack = pack.replace('"sha256": ""', f'"sha256": "{hashlib.sha256(model.read_bytes()).hexdigest()}"')
    pack = pack.replace('"extends": "default"', f'"extends": {json.dumps(extends)}')
    (out / "pack.json").write_text(pack, encoding="utf-8")


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Make the pack reid-0095.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="with the network as embedder.tflite")
    parser.add_argument("--out", type=Path, default=Path("reid-0095"), metavar="DIR", help="default: ./reid-0095")
    parser.add_argument("--extends", default="default", metavar="NAME", help="the pack that brings the other networks")
    arguments = parser.parse_args()
    try:
        build(arguments.folder, arguments.out, arguments.extends)
    except (BuildError, OSError) as error:
        print(f"build_reid_pack: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.out}: `edge models add {arguments.out}` adds it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
