"""Damage on the disk: the saved index, the database, the pictures. Each try is a start in a process of its own.

index      missing, truncated, of another pack, of another generation, and single flipped bits: found and built anew,
           everybody is known, and the next start has nothing to complain of
templates  single flipped bits in a template's vector, cohort similarity, pack or checksum: that one is set aside and
           counted, the rest serve
pages      single flipped bits anywhere in the pages that templates are on: set aside, or found and restored from the
           newest verified backup, or of no consequence; nobody is ever taken for somebody else
header     garbage in the database's first hundred bytes: the real process starts from the newest verified backup
pictures   missing, or garbage: the real process serves, and counts what is missing
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from real_process import ROOT_OF_PHOTOS, Service

from edge.gallery import saved
from edge.gallery.database import DATABASE_NAME
from torture_data import report
from torture_data.callers import SETTINGS, looked_after
from torture_data.people import LENGTH, PEOPLE, Found, in_a_child, made, opened, with_backup
from torture_data.report import Report

VECTOR_BYTES = 4 * LENGTH
GARBAGE_HEADERS = 5


def main(arguments: list[str]) -> int:
    """Run the verb."""
    parser = report.options(__doc__, "flips")
    parser.add_argument("--rounds", type=int, default=200, help="bits of each kind")
    parser.add_argument("--headers", type=int, default=GARBAGE_HEADERS, help="garbage headers")
    options = parser.parse_args(arguments)
    told, dice = Report("flips"), random.Random(options.seed)
    with report.working_folder(options.folder) as folder:
        sound = folder / "sound"
        made(sound)
        index = _index(folder, sound, told, dice, options.rounds)
        templates = _templates(folder, sound, told, dice, options.rounds)
        with_backup(sound)
        pages = _pages(folder, sound, told, dice, options.rounds)
        headers = _real(folder, told, dice, options.headers)
    return told.end(
        {"index damages found": f"{index[0]} of {index[1]}", "templates set aside": f"{templates} of {options.rounds}"}
        | {f"bits of pages {name}": number for name, number in sorted(pages.items())}
        | {"garbage headers restored": f"{headers} of {options.headers}"}
    )


def _again(folder: Path, sound: Path) -> Path:
    """Return a copy of the sound folder, to be damaged."""
    tried = folder / "tried"
    shutil.rmtree(tried, ignore_errors=True)
    shutil.copytree(sound, tried)
    return tried


def _flip(path: Path, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


# --- the index ---


def _index(folder: Path, sound: Path, told: Report, dice: random.Random, rounds: int) -> tuple[int, int]:
    """Return how many of the damages were found and mended, and of how many."""
    graph, sidecar = f"{saved.FOLDER_NAME}/1.graph", f"{saved.FOLDER_NAME}/1.json"
    size = {name: (sound / name).stat().st_size for name in (graph, sidecar)}
    damages: list[tuple[str, Callable[[Path], object]]] = [
        ("no graph", lambda tried: (tried / graph).unlink()),
        ("no sidecar", lambda tried: (tried / sidecar).unlink()),
        ("truncated graph", lambda tried: os.truncate(tried / graph, dice.randrange(size[graph]))),
        ("truncated sidecar", lambda tried: os.truncate(tried / sidecar, dice.randrange(size[sidecar]))),
        ("another pack", lambda tried: _described(tried / sidecar, "origin", "pack_id", "other-1")),
        ("another generation", lambda tried: _described(tried / sidecar, None, "generation", 10**6)),
    ]
    for _ in range(rounds):
        name = dice.choices((graph, sidecar), (4, 1))[0]
        bit = dice.randrange(8 * size[name])
        damages.append((f"bit {bit} of {name}", lambda tried, n=name, b=bit: _flip(tried / n, b)))  # type: ignore[misc]
    found = 0
    for what, damage in damages:
        tried = _again(folder, sound)
        damage(tried)
        first, second = in_a_child(lambda: opened(tried)), in_a_child(lambda: opened(tried))  # noqa: B023 (used at once)
        mended = (
            _serves_all(told, what, first)
            & told.check(what, first is not None and first.index_doubts + first.index_builds > 0, "not found")
            & _serves_all(told, f"{what}, the next start", second)
            & told.check(what, second is not None and second.index_doubts == 0, "found again at the next start")
        )
        found += mended
        told.progress(f"{found} damages of the index found")
    return found, len(damages)


def _described(path: Path, part: str | None, key: str, value: object) -> None:
    """Change one thing in an index's description, whose checksum then fits."""
    content = json.loads(path.read_bytes())["graph"]
    (content if part is None else content[part])[key] = value
    text = json.dumps(content, sort_keys=True).encode()
    path.write_bytes(json.dumps({"graph": content, "sha256": saved.hashlib.sha256(text).hexdigest()}).encode())


def _serves_all(told: Report, what: str, found: Found | None) -> bool:
    return told.check(what, found is not None, "the process crashed") and told.check(
        what, found.known == PEOPLE and not found.mistaken, f"{found}"
    )


# --- the database ---


def _templates(folder: Path, sound: Path, told: Report, dice: random.Random, rounds: int) -> int:
    """Flip bits of what a template's checksum is over; return how many were set aside."""
    database = (sound / DATABASE_NAME).read_bytes()
    with closing(sqlite3.connect(sound / DATABASE_NAME)) as connection:
        vectors = [vector for (vector,) in connection.execute("SELECT vector FROM templates")]
    set_aside = 0
    for _ in range(rounds):
        start = database.index(dice.choice(vectors))
        tried = _again(folder, sound)
        shutil.rmtree(tried / saved.FOLDER_NAME)  # so that rows alone are asked
        bit = dice.randrange(8 * VECTOR_BYTES)
        _flip(tried / DATABASE_NAME, 8 * start + bit)
        found = in_a_child(lambda: opened(tried))  # noqa: B023 (used at once)
        is_so = found is not None and (found.set_aside, found.known, found.mistaken) == (1, PEOPLE - 1, 0)
        set_aside += told.check(f"bit {bit} of a template", is_so, f"{found}")
        told.progress(f"{set_aside} templates set aside")
    return set_aside


def _pages(folder: Path, sound: Path, told: Report, dice: random.Random, rounds: int) -> Counter[str]:
    """Flip bits anywhere in pages with templates; return what became of them."""
    database = (sound / DATABASE_NAME).read_bytes()
    page_bytes = int.from_bytes(database[16:18], "big")
    with closing(sqlite3.connect(sound / DATABASE_NAME)) as connection:
        vectors = [vector for (vector,) in connection.execute("SELECT vector FROM templates")]
        pictures = connection.execute("SELECT count(picture) FROM templates").fetchone()[0]
    pages = sorted({database.index(vector) // page_bytes for vector in vectors})
    became: Counter[str] = Counter()
    for _ in range(rounds):
        bit = 8 * page_bytes * dice.choice(pages) + dice.randrange(8 * page_bytes)
        tried, what = _again(folder, sound), f"bit {bit} of the database"
        _flip(tried / DATABASE_NAME, bit)
        found = in_a_child(lambda: opened(tried, mended=True))  # noqa: B023 (used at once)
        if not told.check(what, found is not None, "the process crashed"):
            continue
        told.check(what, found.refused is None, f"it did not start: {found.refused}")
        told.check(what, not found.mistaken, f"somebody was taken for somebody else: {found}")
        told.check(what, found.known + found.set_aside >= PEOPLE, f"somebody is neither known nor counted: {found}")
        told.check(what, not found.unerasable, f"{found.unerasable} people cannot be erased")
        lost = pictures - found.pictures - found.pictures_missing
        told.check(what, lost <= 0, f"{lost} pictures are gone and not counted as missing")
        became[_fate(found)] += 1
        told.progress(f"{sum(became.values())} bits of pages: {dict(became)}")
    return became


def _fate(found: Found) -> str:
    if found.restored:
        return "restored"
    if found.set_aside:
        return "set aside"
    return "counted as missing pictures" if found.pictures_missing else "of no consequence"


# --- the real process ---


def _real(folder: Path, told: Report, dice: random.Random, headers: int) -> int:
    """Damage what the real process has; return how many garbage headers it started from a backup with."""
    service = Service(folder / "real", *SETTINGS)
    photo = (ROOT_OF_PHOTOS / "obama-1.jpg").read_bytes()
    with looked_after(service, told):
        service.start()
        admin = service.token("admin")
        person = service.create(photo).json()["persons"][0]
        service.edge("backup", "--auto")
        service.end()
        restored = sum(_garbage_header(service, told, dice, photo, person["person_id"]) for _ in range(headers))
        (picture,) = (service.folder / "pictures").rglob(f"{person['image_url'].split('/')[-2]}.jpg")
        damages: dict[str, Callable[[], object]] = {
            "garbage in a picture": lambda: picture.write_bytes(dice.randbytes(5000)),
            "an empty picture": lambda: picture.write_bytes(b""),
            "a missing picture": picture.unlink,
            "the start after that": lambda: None,
        }
        for what, damage in damages.items():
            damage()
            service.start()
            _goes_on(service, told, what, photo, person["person_id"], admin)
            service.end()
        service.edge("backup", str(folder / "with-damaged-pictures.tar"))
    return restored


def _garbage_header(service: Service, told: Report, dice: random.Random, photo: bytes, person_id: str) -> int:
    with (service.folder / DATABASE_NAME).open("r+b") as file:
        file.write(dice.randbytes(100))
    service.start()
    health = service.session.get(f"{service.url}/health", timeout=60).json()
    matches = [one["person_id"] for one in service.create(photo).json()["matches"]]
    service.end()
    service.edge("restore", "--acknowledge")
    is_so = bool(health["restored_from"]) and matches == [person_id]
    return told.check("a garbage header", is_so, f"restored_from {health['restored_from']}, matches {matches}")


def _goes_on(service: Service, told: Report, what: str, photo: bytes, person_id: str, admin: str) -> None:
    """See that everything goes on with a picture in that state."""
    matches = service.create(photo).json()["matches"]
    told.check(what, [one["person_id"] for one in matches] == [person_id], f"matched {matches}")
    for route, body in (
        ("persons", {"thumbs": True, "embeddings": True}),
        ("person", {"person_id": person_id}),
        ("person/update", {"person_id": person_id, "fields": [what]}),
    ):
        answer = service.session.post(f"{service.url}/v1/{route}", json=body, headers={"token": admin}, timeout=60)
        told.check(what, answer.status_code == 200, f"{route}: {answer.status_code} {answer.text}")
    for one in matches:
        if "image_url" in one:
            status = service.session.get(one["image_url"], timeout=60).status_code
            told.check(what, status in (200, 404), f"the picture's address: {status}")
