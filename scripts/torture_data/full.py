"""A full disk, a small tmpfs: full at every page in turn of every kind of write, and under the real process.

Where the disk is full a write is refused with StorageFull and nothing of it is there, the same people are known as
before, and once there is room the same write succeeds. Under the real process a frame of many faces is refused whole,
and a large list is erased with not one byte free. Needs root (mount).
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from box import rows
from real_process import ROOT_OF_PHOTOS, Service
from small_disk import PAGE, SmallDisk, mounted

from edge.errors import StorageFull
from edge.gallery.database import DATABASE_NAME
from edge.gallery.history import History
from edge.gallery.space import BALLAST_BYTES, BALLAST_NAME, MEGABYTE
from edge.gallery.store import EmbeddedGallery
from edge.gallery.upkeep import ROOM_SECONDS
from edge.types import Decision, Sighting, Verdict
from torture_data import report
from torture_data.callers import SETTINGS, VECTOR_LENGTH, looked_after
from torture_data.ledger import orphans
from torture_data.people import NOW_MS, embedding_of, enrol, gallery_of, probe_of
from torture_data.report import Report

DISK_MEGABYTES = 16
MOST_PAGES = 600
ENOUGH = 3
"""Successes in a row after which more room changes nothing."""

CROWD = 60
FACES = 8
PICTURE = bytes(3 * PAGE)
LARGE_LIST = 2000
"""People of the list that is erased with nothing free."""

Work = Callable[[EmbeddedGallery, list[str]], object]


def _replaced(gallery: EmbeddedGallery, ids: list[str]) -> object:
    decided = Decision(Verdict.REPLACE, ids[1])
    return gallery.identify_or_enrol(gallery.main_list_id, [probe_of(2001, PICTURE)], lambda *_: decided)


def _sighted(gallery: EmbeddedGallery, ids: list[str]) -> object:
    """Write sightings behind the answer; a disk that is full drops them, so what was dropped is raised here."""
    history = History(gallery.database, gallery.pictures, clock=lambda: NOW_MS)
    for number in range(FACES):
        name = f"{number:08x}-0000-1000-8000-000000000000"
        history.record(
            Sighting(name, NOW_MS, gallery.main_list_id, None, None, Verdict.MATCH, ids[0], 0.9, 0.7, None, (), PICTURE)
        )
    history.close()
    if history.dropped:
        raise StorageFull
    return None


WORKS: dict[str, Work] = {
    "enrol one": lambda gallery, ids: enrol(gallery, [probe_of(1000, PICTURE)]),
    f"enrol {FACES} of one frame": lambda gallery, ids: enrol(
        gallery, [probe_of(1000 + number, PICTURE) for number in range(FACES)]
    ),
    "replace": _replaced,
    "change fields": lambda gallery, ids: gallery.update_person(gallery.main_list_id, ids[2], fields=["x" * 60_000]),
    "move": lambda gallery, ids: gallery.update_person(
        gallery.main_list_id, ids[3], new_list_id=gallery.lists().items[1].list_id
    ),
    "drop the picture": lambda gallery, ids: gallery.update_person(gallery.main_list_id, ids[4], drop_picture=True),
    "fuse with vectors": lambda gallery, ids: gallery.add_templates(
        gallery.main_list_id,
        ids[5],
        [probe_of(3000 + number, PICTURE).template for number in range(4)],  # type: ignore[misc]
    ),
    "fuse two": lambda gallery, ids: gallery.add_templates(
        gallery.main_list_id, ids[6], [], replace_person_id=ids[7], fields=["both"]
    ),
    "make a list": lambda gallery, ids: gallery.create_list("another"),
    "make a group and a source": lambda gallery, ids: gallery.create_source("door", gallery.groups().items[0].group_id),
    "delete one": lambda gallery, ids: gallery.delete_persons(gallery.main_list_id, [ids[8]]),
    "delete the list": lambda gallery, ids: gallery.delete_list(gallery.lists().items[1].list_id),
    "write sightings": _sighted,
}


def main(arguments: list[str]) -> int:
    """Run the verb."""
    parser = report.options(__doc__, "full")
    parser.add_argument("--step", type=int, default=1, help="pages from one try to the next; 1 is every page")
    parser.add_argument("--people", type=int, default=LARGE_LIST, help="of the list erased with nothing free")
    options = parser.parse_args(arguments)
    told = Report("full")
    logging.getLogger("edge").setLevel(logging.ERROR)  # that sightings are not kept is what is tried here
    with report.working_folder(options.folder) as folder:
        try:
            with mounted(folder / "probe", 1):
                pass
        except (OSError, subprocess.CalledProcessError) as error:
            return told.not_possible(f"no tmpfs may be mounted here ({error})")
        refused, done = _in_turn(folder, told, options.step)
        erased = _real(folder, told, options.people)
    return told.end(
        {"kinds of writes": len(WORKS), "tries refused whole": refused, "done whole": done}
        | {"people erased with not one byte free": erased}
    )


# --- every page in turn ---


def _in_turn(folder: Path, told: Report, step: int) -> tuple[int, int]:
    """Return how many tries were refused, and how many were done."""
    sound = folder / "sound"
    ids = _crowd(sound)
    refused = done = 0
    with mounted(folder / "disk", DISK_MEGABYTES) as disk:
        for name, work in WORKS.items():
            in_a_row = 0
            for pages in range(0, MOST_PAGES, step):
                was_done = _tried(disk, sound, ids, work, pages, told, f"{name}, {pages} pages free")
                refused, done = refused + (not was_done), done + was_done
                in_a_row = in_a_row + 1 if was_done else 0
                told.progress(f"{name}: {pages} pages free, {refused} refused, {done} done")
                if in_a_row == ENOUGH:
                    break
            told.check(name, in_a_row == ENOUGH, f"is never done, with {MOST_PAGES} pages either")
    return refused, done


def _crowd(folder: Path) -> list[str]:
    """Make the folder that every try begins with; return the people of its main list."""
    gallery = gallery_of(folder, exact_limit=1000)
    ids = [enrol(gallery, [probe_of(number, PICTURE if number < 10 else None)])[0] for number in range(CROWD)]
    other = gallery.create_list("other").list_id
    enrol(gallery, [probe_of(500 + number, PICTURE if number < 10 else None) for number in range(CROWD)], other)
    gallery.create_group("hall")
    gallery.close()
    return ids


def _tried(disk: SmallDisk, sound: Path, ids: list[str], work: Work, pages: int, told: Report, where: str) -> bool:
    """Do it with so many pages free; return whether it was done."""
    folder = disk.folder / "data"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sound, folder)
    gallery = gallery_of(folder, exact_limit=1000)
    before = _records(gallery)
    disk.fill(leaving=pages * PAGE)
    is_done = True
    try:
        work(gallery, ids)
    except StorageFull:
        is_done = False
    except Exception as error:  # anything else is no clear answer
        told.add(where, [f"{error!r}"])
        is_done = False
    if not is_done:
        told.check(where, _records(gallery) == before, "something of what was refused is there")
    best = gallery.identify(gallery.main_list_id, embedding_of(20), 1)
    told.check(where, bool(best) and best[0].person.person_id == ids[20], "somebody is not known any more")
    disk.empty()
    if not is_done:
        try:
            work(gallery, ids)
        except Exception as error:
            told.add(where, [f"refused though there is room again: {error!r}"])
    gallery.close()
    told.add(where, list(_whole(folder)))
    gallery_of(folder, exact_limit=1000).close()  # what a start sweeps
    told.add(f"{where}, started again", list(_whole(folder)))
    return is_done


def _records(gallery: EmbeddedGallery) -> dict[str, list[Any]]:
    """Return what there is, as a reader sees it."""
    connection = gallery.database.read()
    tables = ("lists", "persons", "templates", "sightings", "sources", "groups", "rejections")
    return {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables}  # noqa: S608


def _whole(folder: Path) -> Iterator[str]:
    with closing(sqlite3.connect(folder / DATABASE_NAME)) as database:
        if database.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            yield "integrity_check"
        bare = "SELECT count(*) FROM persons WHERE number NOT IN (SELECT person FROM templates)"
        if database.execute(bare).fetchone() != (0,):
            yield "half done: persons without templates"
        yield from orphans(database, folder)


# --- the real process ---


def _real(folder: Path, told: Report, people: int) -> int:
    """Let the disk fill up under the real process; return how many people were erased with nothing free."""
    with mounted(folder / "real", 300) as disk, looked_after(Service(disk.folder, *SETTINGS).start(), told) as service:
        admin = service.token("admin")
        list_id = _asked(service, admin, "person/list/create", {"name": "large"})["list_id"]
        known = service.create((ROOT_OF_PHOTOS / "obama-1.jpg").read_bytes()).json()["persons"][0]["person_id"]
        crowd = _many(service, list_id, people)
        _until(lambda: (disk.folder / "ballast").exists())
        for leaving in (50 * MEGABYTE, 0):
            disk.fill(leaving=leaving)
            _until(lambda: _state(service) == "full")
            _refused_and_known(service, told, known, f"{leaving >> 20} MB free")
        _fill_beside_the_ballast(disk)
        answer = _asked(service, admin, "person/list/delete", {"list_id": list_id})
        erased = int(answer.get("persons_deleted", 0))
        told.check("erasing a list at 0 bytes", erased == crowd, f"{answer}")
        disk.fill(leaving=0)
        _refused_and_known(service, told, known, "after erasing")
        told.check("the end", service.end() == 0, "exit code")
        disk.empty()
        service.start()
        _until(lambda: _state(service) == "ok")
        added = service.create(_crowded_frame(), multi="true")
        told.check("room again", (added.status_code, added.json().get("persons_new")) == (200, 2), added.text[:300])
        told.check("the end", service.end() == 0, "exit code")
        told.add("the end", list(_whole(disk.folder)))
        counted = len(rows(disk.folder / DATABASE_NAME)["persons"])
        told.check("the end", counted == 3, f"{counted} persons are left")
    return erased


def _fill_beside_the_ballast(disk: SmallDisk) -> None:
    """Leave nothing free but the ballast, whole: the service itself spends it for a moment when the history makes room.

    Whoever takes the room in that moment has it; then there is no erasing any more, which is not what is tried here.
    """

    def is_whole() -> bool:
        ballast = disk.folder / BALLAST_NAME
        return ballast.exists() and ballast.stat().st_blocks * 512 == BALLAST_BYTES

    while True:
        disk.fill(leaving=BALLAST_BYTES + 8 * MEGABYTE)
        _until(is_whole)
        disk.fill(leaving=0)
        time.sleep(2 * ROOM_SECONDS)
        if is_whole():
            return


def _asked(service: Service, token: str, route: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = service.session.post(f"{service.url}/v1/{route}", json=body, headers={"token": token}, timeout=120)
    found: dict[str, Any] = answer.json()
    return found


def _many(service: Service, list_id: str, people: int) -> int:
    """Add people to the list; return how many there are: vectors of chance are not all strangers to each other."""
    added, dice = 0, np.random.default_rng(1)
    for _ in range(people):
        vector = ",".join(f"{one:.5f}" for one in dice.normal(size=VECTOR_LENGTH))
        added += service.create(embedding=vector, list_id=list_id).json()["persons_new"]
    return added


def _state(service: Service) -> str:
    return str(service.session.get(f"{service.url}/health", timeout=60).json()["disk"]["state"])


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.1)


def _crowded_frame() -> bytes:
    """Return a frame of three people: one who is known and two who are not."""
    pictures = [cv2.imread(str(ROOT_OF_PHOTOS / f"{name}.jpg")) for name in ("obama-1", "biden-1", "collins-1")]
    resized = [cv2.resize(one, (500, 600)) for one in pictures]
    return bytes(cv2.imencode(".jpg", np.hstack(resized))[1])


def _refused_and_known(service: Service, told: Report, known: str, where: str) -> None:
    """See that whoever is known is recognised, in a frame with strangers too, and that no stranger is added."""
    crowd = service.create(_crowded_frame(), multi="true")
    found = crowd.json()
    ids = [one["person_id"] for one in found.get("matches", ())]
    without_room = [any(why["check"] == "no_room" for why in one["reasons"]) for one in found.get("rejected", ())]
    is_so = (crowd.status_code, ids, found.get("persons"), without_room) == (201, [known], [], [True, True])
    told.check(where, is_so, f"a frame of three: {crowd.status_code} {crowd.text[:600]}")
    stranger = service.create((ROOT_OF_PHOTOS / "biden-1.jpg").read_bytes())
    told.check(where, stranger.status_code == 507, f"a stranger alone: {stranger.status_code} {stranger.text[:300]}")
    match = service.create((ROOT_OF_PHOTOS / "obama-1.jpg").read_bytes())
    ids = [one["person_id"] for one in match.json().get("matches", ())]
    told.check(where, (match.status_code, ids) == (201, [known]), f"the known one: {match.text[:300]}")
