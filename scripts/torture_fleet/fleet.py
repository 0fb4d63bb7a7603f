"""A fleet of three boxes with a cluster of three NATS servers, each in a network of its own, under eight callers.

In each round something is killed (a box, its broker, or both), cut off from the others, or wiped; then it is healed. In
30 s all boxes must hold the same, nobody who was answered as enrolled may be missing at any of them, nobody who was
answered as erased may be there, and a face that two boxes added in the same moment must be one person. A box is wiped
only once its outbox is empty: what was never published dies with the card that it is on, and nothing can help that.

In the end somebody is erased, and after a while no file of any box or server may hold their vector.
"""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import sqlite3
import time
from collections import Counter
from pathlib import Path

import numpy as np
import requests
from torture_data import report
from torture_data.report import Report

from tests.fleet.process import FleetBox
from tests.real_process import ROOT_OF_PHOTOS
from torture_fleet import network
from torture_fleet.callers import Callers, Told

BOXES = 3
PORT = 4222
PHOTOS = ("biden-1", "collins-1", "obama-3")
"""Whose mean is what faces have in common: vectors that are nothing but chance are like no faces at all."""

LOAD_SECONDS = (0.3, 1.2)
"""Before something happens, and while it lasts."""

HEAL_SECONDS = 30.0
START_SECONDS = 60.0
KINDS = {"kill box": 5, "kill broker": 5, "kill both": 3, "partition": 5, "wipe": 2}
"""Of twenty rounds."""

SETTINGS = (
    "new_person.threshold=1",  # vectors of chance are not all strangers to each other
    "server.plain_http_on_the_network=true",
    "server.max_connections_per_address=1000",
    "log.level=warning",
)
CANNOT_BE_TRIED = 77


def main(arguments: list[str]) -> int:
    """Run the verb."""
    parser = report.options(__doc__, "fleet")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--gone-seconds", type=int, default=400, help="for the bytes of somebody erased; 0: not looked")
    options = parser.parse_args(arguments)
    with report.working_folder(options.folder) as folder:
        try:
            with network.places(BOXES) as places:
                return Trial(folder, places, options.seed).run(options.rounds, options.gone_seconds)
        except network.Unavailable as error:
            print(f"fleet: networks of their own cannot be made here: {error}")
            return CANNOT_BE_TRIED


class Trial:
    """The rounds."""

    def __init__(self, folder: Path, places: list[network.Place], seed: int) -> None:
        self._folder = folder
        self._places = places
        self._dice = random.Random(seed)
        self._seed = seed
        self._report = Report("fleet")
        self._told = Told()
        self._servers = [f"{place.fleet_address}:{PORT}" for place in places]
        self._boxes = [
            FleetBox(
                folder / place.name,
                place.name,
                server,
                *SETTINGS,
                f"server.host={place.caller_address}",
                within=place.within,
            )
            for place, server in zip(places, self._servers, strict=True)
        ]
        self._code = ""
        self._face = np.zeros(0)
        self._done: Counter[str] = Counter()
        self._healed: list[float] = []
        self._gone_after: float | None = None

    def run(self, rounds: int, gone_seconds: int) -> int:
        """Run so many, and look for so long for the bytes of somebody erased; return the exit code."""
        try:
            self._begin()
            for number in range(rounds):
                (kind,) = self._dice.choices(list(KINDS), list(KINDS.values()))
                self._round(number, kind)
                self._report.progress(
                    f"{number + 1} rounds, {self._told.answered} answers, {len(self._told.enrolled)} persons,"
                    f" alike after {self._healed[-1]:.1f} s, {len(self._report.violations)} violations"
                )
            if gone_seconds:
                self._erase_to_the_last_byte(gone_seconds)
        finally:
            for box in self._boxes:
                with contextlib.suppress(Exception):
                    box.end()
        logged = "".join(box.service.logged() for box in self._boxes)
        self._report.check("the logs", "Traceback" not in logged, "a traceback: " + logged[-3000:])
        self._report.add("the callers", self._told.unexpected)
        kinds = {
            kind: sum(f": {kind}" in one for one in self._report.violations)
            for kind in ("lost", "back", "two of one face", "differ")
        }
        gone = {} if self._gone_after is None else {"s until an erased vector was in no file": round(self._gone_after)}
        noticed = set(re.findall(r"differ at position (\d+)", logged))
        return self._report.end(
            {"rounds": sum(self._done.values()), **self._done, "answers": self._told.answered}
            | {"enrolled": len(self._told.enrolled), "erased": len(self._told.erased)}
            | {"faces at two boxes at once": len(self._told.pairs)}
            | {"differences noticed": len(noticed)}
            | {"s until alike": report.middle_and_most(self._healed), **kinds}
            | gone
        )

    def _begin(self) -> None:
        first, *others = self._boxes
        self._code = first.init(self._servers)
        for box in others:
            box.join(self._code)
        for box in self._boxes:
            box.start_nats()
        for box in self._boxes:
            box.start()
            _ = box.service.camera
        self._alike("the start", START_SECONDS)
        photos = [(ROOT_OF_PHOTOS / f"{name}.jpg").read_bytes() for name in PHOTOS]
        faces = [first.service.create(photo, embedding_only="true").json()["faces"][0] for photo in photos]
        self._face = np.mean([face["embedding"] for face in faces], axis=0)

    def _round(self, number: int, kind: str) -> None:
        name = f"round {number}, {kind}"
        at = self._dice.randrange(BOXES)
        box, place = self._boxes[at], self._places[at]
        with Callers(self._boxes, self._told, self._face, f"{self._seed} {number}").at_work():
            time.sleep(self._dice.uniform(*LOAD_SECONDS))
            if kind in ("kill box", "kill both"):
                box.kill()
            if kind in ("kill broker", "kill both"):
                box.kill_nats()
            if kind == "partition":
                place.cut()
            time.sleep(self._dice.uniform(*LOAD_SECONDS))
            if kind in ("kill broker", "kill both"):
                box.start_nats()
            if kind in ("kill box", "kill both"):
                box.start()
            if kind == "partition":
                place.heal()
        if kind == "wipe":
            self._wipe(box, name)
        self._done[kind] += 1
        self._alike(name, HEAL_SECONDS)
        self._hold(name)

    def _wipe(self, box: FleetBox, name: str) -> None:
        until = time.monotonic() + HEAL_SECONDS
        while self._state(box)["outbox"]:
            if time.monotonic() > until:
                self._report.check(name, False, "the outbox was not emptied")
                return
            time.sleep(0.05)
        box.kill()
        box.kill_nats()
        shutil.rmtree(box.folder)
        del box.service._camera
        box.join(self._code)
        box.start_nats()
        box.start()
        _ = box.service.camera

    def _erase_to_the_last_byte(self, seconds: float) -> None:
        """Add somebody, erase them, and look into every file for their vector."""
        name, box = "the last erasure", self._boxes[0]
        person_id = box.add([float(one) for one in -self._face]).json()["persons"][0]["person_id"]
        self._alike(name, HEAL_SECONDS)
        statement = "SELECT vector FROM templates JOIN persons ON persons.number = person WHERE person_id = ?"
        with contextlib.closing(sqlite3.connect(f"file:{box.folder / 'gallery.sqlite3'}?mode=ro", uri=True)) as rows:
            ((vector,),) = rows.execute(statement, (person_id,)).fetchall()
        self._report.check(name, bool(self._files_with(vector)), "the vector is in no file before")
        box.erase(person_id).raise_for_status()
        begun = time.monotonic()
        while (found := self._files_with(vector)) and time.monotonic() < begun + seconds:
            time.sleep(2)
        self._gone_after = time.monotonic() - begun
        self._report.check(name, not found, f"still in {', '.join(map(str, found))}")

    def _files_with(self, data: bytes) -> list[Path]:
        found = []
        for path in self._folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # a server has removed it meanwhile
                if path.is_file() and data in path.read_bytes():
                    found.append(path)
        return found

    def _state(self, box: FleetBox) -> dict[str, object]:
        return dict(box.state())

    def _alike(self, name: str, seconds: float) -> None:
        """Wait until all hold the same."""
        begun = time.monotonic()
        states: list[dict[str, object]] = []
        while time.monotonic() < begun + seconds:
            try:
                states = [self._state(box) for box in self._boxes]
            except requests.RequestException:
                states = []
            digests = {state["digest"] for state in states}
            positions = {state["position"] for state in states}
            is_quiet = states and not any(state["outbox"] for state in states)
            is_alike = len(digests) == 1 and None not in digests and len(positions) == 1
            if is_quiet and is_alike and self._rows_are_equal():
                self._healed.append(time.monotonic() - begun)
                return
            time.sleep(0.1)
        self._healed.append(time.monotonic() - begun)
        self._report.check(name, False, f"differ: {states}")

    def _rows_are_equal(self) -> bool:
        persons = [self._persons(box).keys() for box in self._boxes]
        return all(one == persons[0] for one in persons)

    def _persons(self, box: FleetBox) -> dict[str, int]:
        """Return whom a box has, under whichever id, and who that is there."""
        path = f"file:{box.folder / 'gallery.sqlite3'}?mode=ro"
        statement = "SELECT person_id, number FROM persons UNION ALL SELECT alias, person FROM aliases"
        with contextlib.closing(sqlite3.connect(path, uri=True, timeout=20)) as connection:
            return dict(connection.execute(statement).fetchall())

    def _hold(self, name: str) -> None:
        """Hold every box against what clients were told."""
        for box in self._boxes:
            there = self._persons(box)
            lost = self._told.enrolled - there.keys()
            back = self._told.erased & there.keys()
            two = [pair for pair in self._told.pairs if len({there.get(one) for one in pair} - {None}) > 1]
            self._report.add(name, [f"{box.name}: lost: {one}" for one in sorted(lost)])
            self._report.add(name, [f"{box.name}: back: {one}" for one in sorted(back)])
            self._report.add(name, [f"{box.name}: two of one face: {one} and {other}" for one, other in two])
        there = self._persons(self._boxes[0])
        with self._told.lock:  # who was asked to be erased and never answered for is there now, or is not
            self._told.enrolled |= self._told.unsure & there.keys()
            self._told.unsure.clear()
