#!/usr/bin/env python3
"""Plays a camera's clips to the appliance from several sources at once, with its Live page open beside them.

    scripts/playback.py FOLDER [--minutes 5] [--sources 4] [--rate 5] [--route frame] [--set NAME=VALUE ...]

FOLDER holds a folder of frames for each clip, and people.json: person -> their clips. The process is a real one on a
data folder of its own; each source plays every clip in an order of its own, again and again, a frame each 1/RATE of a
second whether or not the last one was answered. By default nobody is added, so that everybody is a stranger until the
end, when the groups of POST /unknowns are held against people.json; --route create lets them be added.

Needs Chromium and its driver (Debian: chromium, chromium-driver) and what the tests need (scripts/setup test).
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import requests

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

if TYPE_CHECKING:
    from browser import Browser
    from real_process import Service

LOOK_SECONDS = 5.0
MEMORY_SECONDS = 30.0
POSTING_AT_ONCE = 8
"""Frames of one source on their way at once: a camera that waits for no answer, within reason."""

WATCH = """
window.played = {gaps: [], tasks: [], shown: [], last: performance.now()};
const frame = (now) => {
  played.gaps.push(now - played.last);
  played.last = now;
  requestAnimationFrame(frame);
};
requestAnimationFrame(frame);
new PerformanceObserver((list) => played.tasks.push(...list.getEntries().map((one) => one.duration)))
  .observe({type: "longtask"});
new MutationObserver((changes) => {
  for (const change of changes)
    for (const one of change.addedNodes) if (one.sighting) played.shown.push([one.sighting.id, Date.now()]);
}).observe(document.body, {childList: true, subtree: true});
"""
"""In the page: gaps between animation frames and long tasks (over 50 ms) in ms; when each sighting's card came."""

NEWEST = "return [...document.querySelectorAll('.sighting')].map((one) => one.sighting.id)"
SIZE = "return [document.getElementsByTagName('*').length, performance.memory.usedJSHeapSize]"


@dataclass
class Player:
    """One camera: what it sends, and what became of it."""

    url: str
    token: str
    source_id: str
    route: str
    frames: Sequence[tuple[str, bytes]]
    milliseconds: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    clips: dict[str, str] = field(default_factory=dict)
    """The clip of each sighting's id."""

    def play(self, rate: float, until: float) -> None:
        """Post a frame each 1/rate of a second until then."""
        with ThreadPoolExecutor(POSTING_AT_ONCE) as pool:
            due = time.monotonic()
            for clip, image in itertools.cycle(self.frames):
                if due >= until:
                    return
                time.sleep(max(0.0, due - time.monotonic()))
                pool.submit(self._post, clip, image)
                due += 1 / rate

    def _post(self, clip: str, image: bytes) -> None:
        headers = {"Authorization": f"Bearer {self.token}"}
        started = time.perf_counter()
        try:
            if self.route == "frame":
                address = f"{self.url}/v1/source/{self.source_id}/frame?multi=true"
                kind = {"Content-Type": "image/jpeg"}
                answer = requests.post(address, data=image, headers=headers | kind, timeout=60)
            else:
                texts = {"multi": "true", "source_id": self.source_id}
                address, files = f"{self.url}/v1/person/create", {"image": image}
                answer = requests.post(address, data=texts, files=files, headers=headers, timeout=60)
        except requests.RequestException as error:
            self.answers[type(error).__name__] += 1
            return
        self.milliseconds.append((time.perf_counter() - started) * 1000)
        told = answer.json()
        is_superseded = "superseded" in told.get("message", "")
        self.answers["superseded" if is_superseded else str(answer.status_code)] += 1
        for face in itertools.chain(*(told.get(name, ()) for name in ("results", "persons", "matches", "rejected"))):
            self.clips[face.get("sighting_id", "")] = clip


def frames_of(folder: Path, people: dict[str, list[str]], seed: int) -> list[tuple[str, bytes]]:
    """Return the frames of all clips, each clip's in order, the clips in an order of the seed's."""
    clips = sorted(clip for ones in people.values() for clip in ones)
    order = np.random.default_rng(seed).permutation(len(clips))
    return [(clips[one], path.read_bytes()) for one in order for path in sorted((folder / clips[one]).glob("*.jpg"))]


def anonymous_megabytes(pid: int) -> float:
    """Return the process's anonymous memory."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Anonymous:")).split()[1]) * 1024 / 1e6


def ask(service: Service, token: str, path: str, **body: Any) -> Any:
    """Return what a route answers."""
    headers = {"Authorization": f"Bearer {token}"}
    answer = service.session.post(f"{service.url}/v1{path}", json=body, headers=headers, timeout=60)
    answer.raise_for_status()
    return answer.json()


def history(service: Service, token: str) -> Iterator[dict[str, Any]]:
    """Yield every sighting, the newest first."""
    cursor = ""
    while cursor is not None:
        page = ask(service, token, "/history", limit=100, cursor=cursor)
        yield from page["sightings"]
        cursor = page["cursor"] or None


def milliseconds(time_text: str) -> float:
    """Return a time of an answer in milliseconds since 1970."""
    return datetime.fromisoformat(time_text.replace("Z", "+00:00")).timestamp() * 1000


def of(values: Sequence[float], digits: int = 0) -> str:
    """Return p50, p95 and the most."""
    if not values:
        return "none"
    p50, p95, most = statistics.median(values), float(np.percentile(values, 95)), max(values)
    return f"p50 {p50:.{digits}f}, p95 {p95:.{digits}f}, max {most:.{digits}f}"


def watch(service: Service, token: str, browser: Browser, until: float) -> tuple[list[float], list[int]]:
    """Look at page and process until then; return the memory each half minute, and sightings the page was behind by."""
    assert service.process is not None
    memory, behind = [anonymous_megabytes(service.process.pid)], []
    measured = time.monotonic()
    while time.monotonic() < until:
        time.sleep(min(LOOK_SECONDS, max(0.0, until - time.monotonic())))
        told = [one["id"] for one in ask(service, token, "/history", limit=50)["sightings"]]
        shown = set(browser.driver.execute_script(NEWEST))
        behind.append(next((place for place, one in enumerate(told) if one in shown), len(told)))
        if time.monotonic() - measured >= MEMORY_SECONDS - 0.5:
            measured = time.monotonic()
            memory.append(anonymous_megabytes(service.process.pid))
            print(f"{memory[-1]:.1f} MB, {behind[-1]} behind", file=sys.stderr, flush=True)
    return memory, behind


def open_live(browser: Browser, service: Service, token: str) -> None:
    """Sign in, and begin to watch the Live page."""
    browser.driver.get(service.url)
    browser.press("Use a token instead")
    browser.fill("Token", token)
    browser.press("Sign in with the token")
    browser.go("Live")
    browser.driver.execute_script(WATCH)


def tell_page(service: Service, token: str, browser: Browser, sizes: Sequence[Sequence[float]]) -> None:
    """Print how the page followed."""
    time.sleep(3)  # what was recorded last is told a second later
    played = browser.driver.execute_script("return window.played")
    told = {one["id"]: milliseconds(one["time"]) for one in history(service, token)}
    shown = dict(played["shown"])
    lags = [(at - told[one]) / 1000 for one, at in shown.items() if one in told]
    print(f"sightings: {len(told)} recorded, {len(shown.keys() & told.keys())} shown")
    print(f"from the sighting to its card, seconds: {of(lags, 2)}")
    print(
        f"between animation frames, ms: {of(played['gaps'])}; long tasks: {len(played['tasks'])}, {of(played['tasks'])}"
    )
    (nodes, heap), (nodes_last, heap_last) = sizes
    print(f"elements: {nodes} to {nodes_last}; JS heap: {heap / 1e6:.1f} to {heap_last / 1e6:.1f} MB")


def tell_groups(service: Service, token: str, browser: Browser, people: dict[str, list[str]], clips: Any) -> None:
    """Print how the groups of strangers, and persons who were added, answer to the people."""
    owner = {clip: person for person, ones in people.items() for clip in ones}
    groups = ask(service, token, "/unknowns", limit=2000)["groups"]
    of_person: Counter[str] = Counter()
    pure = total = 0
    for group in groups:
        whose = Counter(owner[clips[one]] for one in group["sighting_ids"] if one in clips)
        if not whose:
            continue
        ((person, count),) = whose.most_common(1)
        of_person[person] += 1
        pure, total = pure + count, total + whose.total()
        print(f"  a group of {dict(whose.most_common())}")
    told = ", ".join(f"{person} {of_person[person]}" for person in people)
    print(f"groups: {len(groups)} of {len(people)} people ({told}), purity {pure / max(1, total):.3f}")
    ((main),) = [one["id"] for one in ask(service, token, "/person/lists")["lists"]]
    added = ask(service, token, "/persons", list_id=main, limit=100)["persons"]
    print(f"persons added: {len(added)}")
    browser.go("Unknowns")
    print(f"groups on the page: {len(browser.driver.find_elements('css selector', '.groups > .card'))}")


def main() -> int:
    """Play, watch, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--sources", type=int, default=4)
    parser.add_argument("--rate", type=float, default=5, help="frames a second of each source")
    parser.add_argument("--route", choices=("frame", "create"), default="frame", help="create: strangers are added")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="settings")
    parser.add_argument("--screenshot", type=Path, help="a picture of the Unknowns page at the end")
    options = parser.parse_args()
    from browser import Browser
    from real_process import Service

    people = json.loads((options.folder / "people.json").read_text())
    with tempfile.TemporaryDirectory(prefix="edge-playback-") as temporary:
        service = Service(Path(temporary) / "data", *options.settings).start()
        browser = Browser(Path(temporary))
        try:
            play(service, browser, people, options)
        finally:
            browser.quit()
            service.end()
    return 0


def play(service: Service, browser: Browser, people: dict[str, list[str]], options: argparse.Namespace) -> None:
    """Play the clips and tell what was seen of it."""
    admin = service.token("admin")
    scope = "recognize" if options.route == "frame" else "enrol"
    players = []
    for number in range(options.sources):
        source_id = ask(service, admin, "/source/create", name=f"camera {number + 1}")["source_id"]
        frames = frames_of(options.folder, people, number)
        players.append(Player(service.url, service.token(scope, source=source_id), source_id, options.route, frames))
    open_live(browser, service, admin)
    begun = browser.driver.execute_script(SIZE)
    until = time.monotonic() + 60 * options.minutes
    threads = [threading.Thread(target=one.play, args=(options.rate, until)) for one in players]
    for thread in threads:
        thread.start()
    memory, behind = watch(service, admin, browser, until)
    for thread in threads:
        thread.join()
    answers = sum((one.answers for one in players), Counter[str]())
    times = [one for player in players for one in player.milliseconds]
    print(f"posts: {dict(answers)}; ms: {of(times)}")
    print(f"anonymous memory, MB: {', '.join(f'{one:.0f}' for one in memory)}")
    print(f"sightings that the history had and the page not yet: {of(behind)}")
    tell_page(service, admin, browser, [begun, browser.driver.execute_script(SIZE)])
    clips = {one: clip for player in players for one, clip in player.clips.items()}
    tell_groups(service, admin, browser, people, clips)
    if options.screenshot is not None:
        browser.screenshot(options.screenshot)


if __name__ == "__main__":
    sys.exit(main())
