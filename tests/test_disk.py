"""A disk that fills up under the real process, and one that is full at every page in turn."""

from __future__ import annotations

import contextlib
import io
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from real_process import Service
from small_disk import PAGE, SmallDisk, small_disk

from edge.errors import StorageFull
from edge.gallery.protocol import Probe
from edge.gallery.space import BALLAST_BYTES, BALLAST_NAME, MEGABYTE, Space
from edge.gallery.store import EmbeddedGallery
from edge.types import Decision, Embedding, NewPerson, Template, Verdict, unit

SETTLE_SECONDS = 30
"""A bound for the two seconds between two looks at the disk."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 200) as made:
        yield made


@pytest.fixture
def service(disk: SmallDisk) -> Iterator[Service]:
    made = Service(disk.folder)
    yield made
    if made.process is not None:
        made.end(signal.SIGKILL)


def until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SETTLE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def state(service: Service) -> str:
    answer = service.session.get(f"{service.url}/health", timeout=30).json()
    return str(answer["disk"]["state"])


def whole(folder: Path) -> set[str]:
    """Check that rows and files agree, while nobody has them open; return the persons."""
    with contextlib.closing(sqlite3.connect(folder / "gallery.sqlite3")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        named = {name for (name,) in database.execute("SELECT picture FROM templates WHERE picture IS NOT NULL")}
        named |= {name for (name,) in database.execute("SELECT picture FROM sightings WHERE picture IS NOT NULL")}
        bare = "SELECT count(*) FROM persons WHERE number NOT IN (SELECT person FROM templates)"
        assert database.execute(bare).fetchone() == (0,)
        persons = {one for (one,) in database.execute("SELECT person_id FROM persons")}
    assert {path.name for path in (folder / "pictures").rglob("*") if path.is_file()} == {f"{n}.jpg" for n in named}
    return persons


def side_by_side(*photos: bytes) -> bytes:
    pictures = [Image.open(io.BytesIO(photo)).convert("RGB") for photo in photos]
    height = min(picture.height for picture in pictures)
    pictures = [picture.resize((picture.width * height // picture.height, height)) for picture in pictures]
    frame = Image.new("RGB", (sum(picture.width for picture in pictures), height))
    for number, picture in enumerate(pictures):
        frame.paste(picture, (sum(one.width for one in pictures[:number]), 0))
    content = io.BytesIO()
    frame.save(content, "JPEG", quality=95)
    return content.getvalue()


def answers_the_known_of_a_frame(service: Service, photos: dict[str, bytes], known: str) -> None:
    frame = service.create(side_by_side(photos["obama-2"], photos["collins-1"]), multi="true")
    assert (frame.status_code, frame.json()["persons_new"]) == (201, 0), frame.text
    assert [one["person_id"] for one in frame.json()["matches"]] == [known]
    ((reason,),) = (one["reasons"] for one in frame.json()["rejected"])
    assert (reason["check"], reason["limit"]) == ("no_room", 64) and reason["value"] < 64
    nobody_known = side_by_side(photos["collins-1"], photos["collins-1"])
    assert service.create(nobody_known, multi="true").status_code == 507


def test_a_disk_that_fills_up_under_the_service(disk: SmallDisk, service: Service, photos: dict[str, bytes]) -> None:
    service.start()
    admin = service.token("admin")
    ids = {name: service.create(photos[name]).json()["persons"][0]["person_id"] for name in ("obama-1", "biden-1")}

    service.token("read")  # the last of the list, to be revoked

    def delete(name: str) -> None:
        body = {"person_id": ids.pop(name)}
        answer = service.session.post(
            f"{service.url}/v1/person/delete", json=body, headers={"token": admin}, timeout=60
        )
        assert (answer.status_code, answer.json()["message"]) == (200, "1 person(s) deleted"), answer.text

    def refuses_who_is_new_and_knows_who_is_known() -> None:
        refused = service.create(photos["collins-1"])
        assert (refused.status_code, refused.json()["message"]) == (507, "storage is full")
        assert "are kept for recognising and erasing" in refused.json()["errors"][0]["reason"]
        known = service.create(photos["obama-2"])
        assert known.status_code == 201
        assert [one["person_id"] for one in known.json()["matches"]] == [ids["obama-1"]]

    def started_again(number: int) -> None:
        service.end(number)
        service.start()

    until(lambda: (disk.folder / BALLAST_NAME).exists(), "no ballast")
    disk.fill(leaving=50 * MEGABYTE)
    until(lambda: state(service) == "full", "it has not noticed")
    refuses_who_is_new_and_knows_who_is_known()
    answers_the_known_of_a_frame(service, photos, ids["obama-1"])
    started_again(signal.SIGTERM)
    refuses_who_is_new_and_knows_who_is_known()

    disk.fill(leaving=0)
    refuses_who_is_new_and_knows_who_is_known()
    delete("biden-1")
    until(lambda: (disk.folder / BALLAST_NAME).exists(), "no new ballast")
    disk.fill(leaving=0)
    revoked = service.edge("token", "list").splitlines()[-1].split()[0]
    assert service.edge("token", "revoke", revoked) == "revoked\n"
    disk.fill(leaving=0)
    refuses_who_is_new_and_knows_who_is_known()
    started_again(signal.SIGKILL)
    refuses_who_is_new_and_knows_who_is_known()
    service.end()
    assert whole(disk.folder) == set(ids.values())
    assert service.logged().count("sightings are not kept") <= 3, "once a minute, of three runs"

    disk.empty()
    service.start()
    until(lambda: state(service) == "ok", "it has not noticed")
    ballast = disk.folder / BALLAST_NAME
    until(lambda: ballast.exists() and ballast.stat().st_blocks * 512 == BALLAST_BYTES, "no new ballast")
    added = service.create(photos["collins-1"])
    assert added.status_code == 200
    ids["collins-1"] = added.json()["persons"][0]["person_id"]
    service.end()
    assert whole(disk.folder) == set(ids.values())
    assert "Traceback" not in service.logged()


def test_the_history_makes_room_before_anybody_is_refused(
    disk: SmallDisk, service: Service, photos: dict[str, bytes]
) -> None:
    service.start()
    service.create(photos["obama-1"])
    service.create(photos["obama-2"])
    pictures = disk.folder / "pictures"
    until(lambda: len(list(pictures.rglob("*.jpg"))) == 3, "the sightings are not written")
    disk.fill(leaving=80 * MEGABYTE)
    until(lambda: len(list(pictures.rglob("*.jpg"))) == 1, "the sightings' pictures are still there")
    assert state(service) == "low"
    assert service.create(photos["biden-1"]).status_code == 200
    service.end()
    assert len(whole(disk.folder)) == 2


# --- full at every page in turn ---

LENGTH = 32


def opened(folder: Path) -> EmbeddedGallery:
    return EmbeddedGallery.open(
        folder,
        pack_id="pack-1",
        vector_length=LENGTH,
        cohort_weight=0.35,
        exact_limit=1000,
        main_list_name="main",
        clock=lambda: 1_700_000_000_000,
        space=Space(folder, reserve_bytes=0),  # so that it is the disk that refuses
    )


def enrolled(gallery: EmbeddedGallery, seed: int) -> str:
    def add(number: int, list_size: int, candidates: Any) -> Decision:
        return Decision(Verdict.ADD)

    embedding = Embedding(unit(np.random.default_rng(seed).normal(size=LENGTH)), 0.5)
    template = Template(embedding, "pack-1", 0.5, bytes(5 * PAGE))
    probe = Probe(embedding, NewPerson((), (), None, 0.9, None, None), template)
    outcomes = gallery.identify_or_enrol(gallery.main_list_id, [probe], add)
    assert isinstance(outcomes, list)
    assert outcomes[0].person is not None
    return outcomes[0].person.person_id


def test_at_every_page_an_enrolment_is_whole_or_not_there_at_all(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        acknowledged: set[str] = set()
        refused = 0
        for pages in range(40):
            gallery = opened(disk.folder)
            disk.fill(leaving=pages * PAGE)
            try:
                acknowledged.add(enrolled(gallery, pages))
            except StorageFull:
                refused += 1
            assert gallery.counts().persons == len(acknowledged), "what was refused is not served either"
            disk.empty()
            gallery.close()
            assert whole(disk.folder) == acknowledged, f"{pages} pages free"
        assert refused >= 10
        assert len(acknowledged) >= 10
