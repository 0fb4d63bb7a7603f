"""Do strangers stay strangers? Post the clips of one camera, in many orders, to an empty gallery, and count.

    .venv/bin/python scripts/clip_trial.py FOLDER [--seeds 20] [--data DATA] [--set new_person.square_min=50 ...]

FOLDER holds a folder of frames for each clip, and people.json: person -> their clips. Every order begins with an empty
gallery in a real process of its own, and each clip's frames are posted to /v1/person/create with multi=true, as a
source, with the settings given. Nothing else is told to it. Counted are

- persons: how many came out; missing: people that have none; split: persons too many for one of the people,
- matches, and false ones: to a person first seen as somebody else,
- uncertain: neither matched nor added, because a face fits two persons or the score does not suffice,
- refused: new to the list, but not good enough to be added (too small, hidden, seen in too few frames).

Where passage_seconds is set, the script waits that long between clips, as one visitor leaves and the next one comes.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import requests

SOURCE = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
COUNTED = ("persons", "missing", "split", "matches", "false", "uncertain", "refused")


@contextmanager
def service(data: Path, settings: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Run the appliance on a data folder of its own; yield its address and a token."""
    flags = [part for setting in (f"data.folder={data}", *settings) for part in ("--set", setting)]
    edge = [sys.executable, "-m", "edge"]
    made = subprocess.run(
        [*edge, "token", "create", "--name", "trial", "--quiet", "--scope", "enrol", *flags],
        check=True,
        capture_output=True,
        text=True,
    )
    process = subprocess.Popen(
        [*edge, "serve", *flags, "--set", "server.port=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.search(r"ready on (http://\S+)", process.stdout.readline())
        if found is None:
            raise SystemExit("the appliance did not start; try `edge serve` with these settings")
        yield found[1], made.stdout.strip()
    finally:
        process.terminate()
        process.wait()


def trial(
    folder: Path, people: dict[str, list[str]], seed: int, settings: Sequence[str], packs: Path | None, pause: float
) -> Counter[str]:
    """Return the counts of one order. `packs`: a folder of further packs."""
    clips = sorted((clip, person) for person, ones in people.items() for clip in ones)
    clips = [clips[number] for number in np.random.default_rng(seed).permutation(len(clips))]
    counts: Counter[str] = Counter()
    owner: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as data, requests.Session() as session:
        if packs is not None:
            (Path(data) / "models").symlink_to(packs.resolve())
        with service(Path(data), settings) as (url, token):
            session.headers["Authorization"] = f"Bearer {token}"
            for clip, person in clips:
                for frame in sorted((folder / clip).glob("*.jpg")):
                    answer = session.post(
                        f"{url}/v1/person/create",
                        files={"image": frame.read_bytes()},
                        data={"multi": "true", "source_id": SOURCE},
                        timeout=60,
                    )
                    counted(answer.json(), person, owner, counts)
                time.sleep(pause)
    persons = Counter(owner.values())
    counts["persons"] = len(owner)
    counts["missing"] = len(people) - len(persons)
    counts["split"] = len(owner) - len(persons)
    return counts


def counted(answer: dict[str, Any], person: str, owner: dict[str, str], counts: Counter[str]) -> None:
    """Add up what became of one frame's faces."""
    for one in answer.get("persons", ()):
        owner[one["person_id"]] = person
    for one in answer.get("matches", ()):
        counts["matches"] += 1
        counts["false"] += owner[one["person_id"]] != person
    for one in answer.get("rejected", ()):
        uncertain = any(reason["check"] == "uncertain_match" for reason in one["reasons"])
        counts["uncertain" if uncertain else "refused"] += 1


def main() -> None:
    """Run the trials, and print a line for each and their means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--data", type=Path, help="a data folder to which other packs were added")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="settings")
    arguments = parser.parse_args()
    people = json.loads((arguments.folder / "people.json").read_text())
    settings = list(arguments.settings)
    packs = arguments.data and arguments.data / "models"
    asked = [float(text.split("=")[1]) for text in settings if text.startswith("new_person.passage_seconds=")]
    pause = asked[-1] + 0.1 if asked and asked[-1] > 0 else 0.0
    print("| order | " + " | ".join(COUNTED) + " |\n|" + "---|" * (len(COUNTED) + 1))
    rows = []
    for seed in range(arguments.seeds):
        counts = trial(arguments.folder, people, seed, settings, packs, pause)
        rows.append([counts[name] for name in COUNTED])
        print(f"| {seed} | " + " | ".join(map(str, rows[-1])) + " |", flush=True)
    means = [f"{statistics.mean(column):.1f}" for column in zip(*rows, strict=True)]
    print("| mean | " + " | ".join(means) + " |")


if __name__ == "__main__":
    main()
