"""Another pack takes over: the old one answers until then, and nobody is lost on the way."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_process import Service

from edge import reembedding
from edge.errors import Conflict, StorageFull
from edge.face import image
from edge.face.networks import Networks
from edge.gallery import persons, spool
from edge.gallery import reembedding as rows
from edge.gallery.spool import Entry, Spool
from edge.gallery.store import EmbeddedGallery, Probe
from edge.reembedding import PictureEmbedder
from edge.types import Box, Candidate, Decision, Embedding, NewPerson, Pack, Picture, Template, Verdict, unit

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "models"
OLD, NEW = "old-1", "new-1"
LENGTH = 8


# --- on a gallery, with embeddings that cost nothing ---


def embedding(data: bytes, pack_id: str) -> Embedding:
    """What a pack makes of a picture: something of its own for each."""
    seed = int.from_bytes(hashlib.sha256(pack_id.encode() + data).digest()[:8], "big")
    return Embedding(unit(np.random.default_rng(seed).normal(size=LENGTH)), 0.25)


def anew(data: bytes) -> Embedding | None:
    """The new pack; it finds no face in a picture that begins with `none`."""
    return None if data.startswith(b"none") else embedding(data, NEW)


@contextlib.contextmanager
def opened(folder: Path, pack_id: str = OLD) -> Iterator[EmbeddedGallery]:
    gallery = EmbeddedGallery.open(
        folder,
        pack_id=pack_id,
        vector_length=LENGTH,
        cohort_weight=0.0,
        exact_limit=1000,
        main_list_name="main",
        clock=lambda: 1_700_000_000_000,
    )
    try:
        rows.note(gallery.database, pack_id)
        yield gallery
    finally:
        gallery.close()


def added(gallery: EmbeddedGallery, data: bytes, *, keeps: bool = True, pack_id: str = OLD) -> str:
    """A new person who looks like `data`; return the id."""
    made = embedding(data, pack_id)
    template = Template(made, pack_id, 0.5, data if keeps else None)
    probe = Probe(made, NewPerson((), (), None, None, None, None), template)
    (outcome,) = gallery.identify_or_enrol(gallery.main_list_id, [probe], lambda *_: Decision(Verdict.ADD))  # type: ignore[misc, union-attr]
    assert outcome.person is not None
    return outcome.person.person_id


def known(gallery: EmbeddedGallery, data: bytes, pack_id: str) -> str | None:
    """Whom the gallery takes it for."""
    found: list[Candidate] = gallery.identify(gallery.main_list_id, embedding(data, pack_id))
    return found[0].person.person_id if found and found[0].similarity > 0.999 else None


PICTURES = [f"picture {number}".encode() for number in range(20)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def ids(folder: Path) -> list[str]:
    """Twenty persons of the old pack, in a gallery that nobody has open."""
    with opened(folder) as gallery:
        return [added(gallery, data) for data in PICTURES]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every vector is put on disk as soon as it is made."""
    monkeypatch.setattr(reembedding, "BATCH_SECONDS", 0.0)


def embed_all(folder: Path, embed: reembedding.Embed = anew) -> list[reembedding.Progress]:
    return list(reembedding.embed_all(folder, NEW, embed))


def switch(folder: Path) -> int | None:
    reembedding.mark_ready(folder, NEW)
    return reembedding.take_over(folder, NEW, anew)


def test_everybody_is_known_to_the_new_pack_after_the_switch_and_to_the_old_one_before(
    folder: Path, ids: list[str]
) -> None:
    assert embed_all(folder)[-1] == reembedding.Progress(20, 20, 0)
    assert rows.answering(folder) == OLD
    with opened(folder) as gallery:
        assert [known(gallery, data, OLD) for data in PICTURES] == ids
    assert switch(folder) == 20
    assert rows.answering(folder) == NEW
    assert not (folder / spool.SPOOL_NAME).exists()
    with opened(folder, NEW) as gallery:
        assert [known(gallery, data, NEW) for data in PICTURES] == ids
        (template,) = gallery.templates_of(ids[3])
        assert (template.pack_id, template.quality, template.embedding.cohort_similarity) == (NEW, 0.5, 0.25)
        assert gallery.pictures.read(template.picture or "") == PICTURES[3]
        assert gallery.counts().templates == 20


def test_who_cannot_be_embedded_is_listed_and_known_again_when_the_old_pack_is_back(
    folder: Path, ids: list[str]
) -> None:
    with opened(folder) as gallery:
        without = added(gallery, b"somebody", keeps=False)
        faceless = added(gallery, b"none of it is a face")
        gone = added(gallery, b"a lost file")
        (template,) = gallery.templates_of(gone)
        gallery.pictures._path(template.picture or "").unlink()
    assert embed_all(folder)[-1] == reembedding.Progress(22, 22, 2)
    assert switch(folder) == 20
    with rows.reading(folder) as connection:
        listed = {one.person_id: one.has_picture for one in rows.unreached(connection, NEW)}
    assert listed == {without: False, faceless: True, gone: True}
    with opened(folder, NEW) as gallery:
        assert gallery.counts().persons == 23
        assert known(gallery, b"somebody", NEW) is None
    with opened(folder) as gallery:
        assert known(gallery, b"somebody", OLD) == without
        assert known(gallery, b"none of it is a face", OLD) == faceless


def test_work_goes_on_where_it_was_ended(folder: Path, ids: list[str], at_once: None) -> None:
    embedded: list[bytes] = []

    def counted(data: bytes) -> Embedding | None:
        embedded.append(data)
        return anew(data)

    first = reembedding.embed_all(folder, NEW, counted)
    for progress in first:
        if progress.done == 7:
            break
    first.close()  # type: ignore[attr-defined]
    assert reembedding.take_over(folder, NEW, anew) is None, "nothing is switched half way"
    assert embed_all(folder, counted)[0].done == 7
    assert sorted(embedded) == sorted(PICTURES), "nobody is embedded twice"
    assert switch(folder) == 20


def test_what_another_pack_left_is_not_taken_for_this_one(folder: Path, ids: list[str], at_once: None) -> None:
    list(reembedding.embed_all(folder, "third-1", lambda data: embedding(data, "third-1")))
    assert embed_all(folder)[0].done == 0
    switch(folder)
    with opened(folder, NEW) as gallery:
        assert [known(gallery, data, NEW) for data in PICTURES] == ids


def test_who_is_of_the_pack_already_is_left_alone(folder: Path, ids: list[str]) -> None:
    with opened(folder, NEW) as gallery:
        already = added(gallery, b"new from the start", pack_id=NEW)
    assert embed_all(folder)[-1].total == 20
    assert switch(folder) == 20
    with opened(folder, NEW) as gallery:
        assert known(gallery, b"new from the start", NEW) == already


def test_a_broken_spool_is_begun_anew(folder: Path, ids: list[str]) -> None:
    (folder / spool.SPOOL_NAME).write_bytes(b"not a database" * 100)
    assert spool.ready_for(folder) is None
    embed_all(folder)
    assert switch(folder) == 20


def test_who_is_added_meanwhile_is_embedded_too(folder: Path, ids: list[str], at_once: None) -> None:
    late: list[str] = []
    with opened(folder) as gallery:
        for progress in reembedding.embed_all(folder, NEW, anew):
            if progress.done == 10 and not late:
                late.append(added(gallery, b"at the tenth"))
        assert progress == reembedding.Progress(21, 21, 0)
        reembedding.mark_ready(folder, NEW)
        late.append(added(gallery, b"after the last"))
    assert reembedding.take_over(folder, NEW, anew) == 22
    with opened(folder, NEW) as gallery:
        assert [known(gallery, data, NEW) for data in (b"at the tenth", b"after the last")] == late


def traces(folder: Path, vector: bytes) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and vector in path.read_bytes()]


def test_who_is_erased_is_erased_from_the_spool(folder: Path, ids: list[str]) -> None:
    embed_all(folder)
    vector = embedding(PICTURES[4], NEW).vector.astype("<f4").tobytes()
    assert traces(folder, vector) == [spool.SPOOL_NAME]
    with opened(folder) as gallery:
        gallery.delete_persons(gallery.main_list_id, [ids[4]])
        assert traces(folder, vector) == []
    assert switch(folder) == 19


def test_who_is_erased_while_being_embedded_leaves_nothing(folder: Path, ids: list[str], at_once: None) -> None:
    vector = embedding(PICTURES[4], NEW).vector.astype("<f4").tobytes()
    with opened(folder) as gallery:

        def embed(data: bytes) -> Embedding | None:
            if data == PICTURES[4]:
                gallery.delete_persons(gallery.main_list_id, [ids[4]])
            return anew(data)

        embed_all(folder, embed)
        assert traces(folder, vector) == []


def test_a_picture_that_was_dropped_is_not_embedded_any_more(folder: Path, ids: list[str]) -> None:
    embed_all(folder)
    with opened(folder) as gallery:
        gallery.update_person(gallery.main_list_id, ids[4], drop_picture=True)
    assert switch(folder) == 19
    with rows.reading(folder) as connection:
        assert [(one.person_id, one.has_picture) for one in rows.unreached(connection, NEW)] == [(ids[4], False)]


def test_the_switch_is_all_or_nothing(folder: Path, ids: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    embed_all(folder)
    reembedding.mark_ready(folder, NEW)
    written = 0
    insert = persons.insert_template

    def failing(*arguments: Any) -> int:
        nonlocal written
        written += 1
        if written > 10:
            raise sqlite3.OperationalError("database or disk is full")
        return insert(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(persons, "insert_template", failing)
        with pytest.raises(StorageFull):
            reembedding.take_over(folder, NEW, anew)
    assert rows.answering(folder) == OLD
    with opened(folder) as gallery:
        assert [known(gallery, data, OLD) for data in PICTURES] == ids
    assert reembedding.take_over(folder, NEW, anew) == 20


def test_a_switch_that_was_killed_right_after_it_can_be_made_again(
    folder: Path, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    embed_all(folder)
    with monkeypatch.context() as patch:
        patch.setattr(spool, "discard", lambda folder: None)
        assert switch(folder) == 20
    assert reembedding.take_over(folder, NEW, anew) == 20
    with opened(folder, NEW) as gallery:
        assert [known(gallery, data, NEW) for data in PICTURES] == ids
        assert gallery.counts().templates == 20


def test_two_at_once_are_refused(folder: Path, ids: list[str]) -> None:
    with reembedding.alone(folder), pytest.raises(Conflict, match="another `edge reembed`"), reembedding.alone(folder):
        pass
    with reembedding.alone(folder):
        pass


def test_a_disk_without_room_for_the_switch_is_said_before_it(
    folder: Path, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    embed_all(folder)
    free = shutil.disk_usage(folder)._replace(free=10 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(StorageFull, match="10 MB are free"):
        reembedding.mark_ready(folder, NEW)
    assert not rows.is_ready(folder, NEW)


def test_a_spool_finds_its_entries_by_their_key(folder: Path) -> None:
    folder.mkdir()
    opened_spool = Spool(folder, NEW)
    opened_spool.keep([Entry(f"{number:032x}", None) for number in range(1200)])
    assert [entry.picture for entry in opened_spool.entries()] == [f"{number:032x}" for number in range(1200)]
    opened_spool.close()
    connection = sqlite3.connect(folder / spool.SPOOL_NAME)
    for statement in (spool.SELECT_ENTRY, spool.SELECT_ENTRIES, spool.DELETE_ENTRY):
        values = {"picture": "x", "after": "x", "limit": 1}
        (step,) = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
        assert step[3].startswith("SEARCH"), step
    connection.close()


def test_a_gallery_that_is_empty_or_not_there_is_answered_by_any_pack(folder: Path) -> None:
    assert rows.answering(folder) is None
    with opened(folder):
        assert rows.answering(folder) is None
    (folder / "gallery.sqlite3").write_bytes(b"not a database" * 100)
    assert rows.answering(folder) is None


# --- kept pictures ---


@pytest.fixture(scope="module")
def embedder(pack: Pack, interpreter: str) -> PictureEmbedder:
    return PictureEmbedder(Networks(interpreter).analyser(pack), presence_floor=0.5)


def jpeg(picture: Picture) -> bytes:
    return image.encode_jpeg(np.ascontiguousarray(picture), quality=92)


@pytest.mark.parametrize("name", ["obama-1", "obama-3", "obama-4", "biden-1", "collins-1"])
def test_a_face_is_found_again_in_the_picture_that_was_kept_of_it(
    embedder: PictureEmbedder, pictures: dict[str, Picture], name: str
) -> None:
    analyser, picture = embedder.analyser, pictures[name]
    face = analyser.faces(picture, analyser.passes(picture.shape, 50), presence_floor=0.5)[0]
    kept = jpeg(image.cut(picture, face.landmarks.box.grown(2.0), longest=512))
    again = embedder(kept)
    assert again is not None
    first = analyser.embedder.template(picture, face.landmarks.points)
    assert float(again.vector @ first.vector) > 0.98


def test_of_two_faces_the_one_in_the_middle_is_meant(
    embedder: PictureEmbedder,
    pictures: dict[str, Picture],
    paste: Callable[..., Box],
    wall: Callable[[int, int], Picture],
) -> None:
    scene = wall(400, 420)
    paste(scene, "biden-1", x=320, y=200, face_pixels=110)
    paste(scene, "obama-1", x=190, y=200, face_pixels=100)
    found, alone = embedder(jpeg(scene)), embedder(jpeg(pictures["obama-1"]))
    assert found is not None
    assert alone is not None
    assert float(found.vector @ alone.vector) > 0.9


def test_what_shows_no_face_or_is_no_picture_is_nobody(
    embedder: PictureEmbedder, wall: Callable[[int, int], Picture]
) -> None:
    assert embedder(jpeg(wall(300, 300))) is None
    assert embedder(b"no picture") is None


# --- the real thing ---


def people(test_data: Path, count: int) -> list[tuple[bytes, bytes]]:
    """Two pictures each of so many people."""
    folders = sorted(path for path in (test_data / "lfw-dev").iterdir() if path.is_dir())
    several = [sorted(path.glob("*.jpg")) for path in folders]
    return [(first.read_bytes(), second.read_bytes()) for first, second, *_ in (s for s in several if len(s) > 1)][
        :count
    ]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "data")
    yield service
    if service.process is not None:
        service.end(signal.SIGKILL)


def enrolled(service: Service, image: bytes, **texts: Any) -> str | None:
    """Whom the picture became; None if it was not good enough."""
    answer = service.create(image, **texts).json()
    return answer["persons"][0]["person_id"] if answer["persons_new"] else None


def enrol(service: Service, pairs: Sequence[tuple[bytes, bytes]], count: int) -> tuple[list[str], list[bytes]]:
    """Enrol the first pictures until so many are persons, the last without its picture; return ids, second pictures."""
    ids: list[str] = []
    seconds: list[bytes] = []
    for first, second in pairs:
        is_last = len(ids) == count - 1
        person_id = enrolled(service, first, **({"drop_image": "true"} if is_last else {}))
        if person_id is not None and recognised(service, [second]) == [person_id]:
            ids.append(person_id)
            seconds.append(second)
        elif person_id is not None:
            forget(service, person_id)
        if len(ids) == count:
            return ids, seconds
    raise AssertionError(f"only {len(ids)} of {len(pairs)} are recognised by their second picture")


def forget(service: Service, person_id: str) -> None:
    answer = service.session.post(
        f"{service.url}/v1/person/delete",
        json={"person_id": person_id},
        headers={"Authorization": f"Bearer {service.token('admin')}"},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text


def recognised(service: Service, images: Sequence[bytes]) -> list[str | None]:
    """Whom they are taken for; nobody is added, whoever they are."""
    found = []
    for one in images:
        answer = service.create(one, new_person_square_min=9999).json()
        found.append(answer["matches"][0]["person_id"] if answer["matches"] else None)
    return found


def health(service: Service) -> dict[str, Any]:
    body: dict[str, Any] = service.session.get(f"{service.url}/health", timeout=30).json()
    return body


SLOW = """
import sys, time
from edge import cli, reembedding
reembedding.BATCH_SECONDS = 0.0
embed = reembedding.PictureEmbedder.__call__
reembedding.PictureEmbedder.__call__ = lambda self, data: (time.sleep(0.3), embed(self, data))[1]
sys.exit(cli.main(["reembed"]))
"""


def killed_half_way(service: Service) -> None:
    """Start `edge reembed`, slowed down, and kill it when it has done some."""
    command = [sys.executable, "-c", SLOW]
    with subprocess.Popen(command, env=service.environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            done = re.search(r": (\d+)/\d+", line)
            if done and int(done[1]) >= 3:
                break
        process.kill()
    assert process.returncode == -signal.SIGKILL


def reembed(service: Service) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge", "reembed"]
    return subprocess.run(command, env=service.environment(), capture_output=True, text=True, timeout=300, check=False)


def in_service_again(service: Service) -> str:
    """Wait out the second in which it starts again; return the pack that answers."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            return str(health(service)["pack"])
        time.sleep(0.1)
    raise AssertionError(service.logged())


@pytest.fixture
def reid(test_data: Path, tmp_path: Path) -> Path:
    source = test_data / "pack-reid-0095"
    if not source.is_dir():
        pytest.skip(f"no network in {source}")
    folder = tmp_path / "reid-0095"
    command = [sys.executable, ROOT / "scripts" / "build_reid_pack.py", source, "--out", folder]
    subprocess.run(command, check=True)
    return folder


def test_a_better_pack_takes_over_while_the_service_serves_and_gives_way_again(
    service: Service, test_data: Path, reid: Path
) -> None:
    service.start()
    assert service.process is not None
    process_id = service.process.pid
    ids, seconds = enrol(service, people(test_data, 40), 12)
    unkept = ids[-1]

    service.edge("models", "add", str(reid))
    told = service.edge("models", "use", "reid-0095")
    assert "`edge reembed` has made them anew: 11 from kept pictures. Of 1 persons no picture was kept" in told
    assert "* default" in service.edge("models", "list")
    killed_half_way(service)
    time.sleep(3)  # longer than the service takes to notice anything
    assert health(service)["pack"] == "default-1"
    assert recognised(service, seconds) == ids, "the old pack answers as before"

    run = reembed(service)
    assert run.returncode == 0, run.stderr
    first = re.search(r"embedding for reid-0095: (\d+)/11", run.stderr)
    assert first is not None
    assert int(first[1]) >= 3, "it goes on where it was killed"
    assert f"known to their old pack (1):\n  {unkept}  main: no picture was kept" in run.stdout
    assert in_service_again(service) == "reid-0095-1"
    assert service.process.poll() is None
    assert service.process.pid == process_id
    assert recognised(service, seconds) == [*ids[:-1], None], "the same persons, by their second pictures"
    assert health(service)["persons"] == 12
    assert "no picture was kept" in service.edge("reembed", "--dry-run")

    service.edge("models", "use", "default")
    assert reembed(service).returncode == 0
    assert in_service_again(service) == "default-1"
    assert recognised(service, seconds) == ids, "the last one by what was never embedded anew"
    assert service.end() == 0
    assert "Traceback" not in service.logged()


def test_without_a_service_the_command_switches_by_itself(
    service: Service, photos: dict[str, bytes], reid: Path
) -> None:
    service.start()
    obama = enrolled(service, photos["obama-1"])
    (seen,) = service.create(photos["obama-2"]).json()["matches"]
    negative = {"person_id": obama, "sighting_id": seen["sighting_id"]}
    headers = {"token": service.camera}
    service.session.post(f"{service.url}/person/reject", json=negative, headers=headers, timeout=30).raise_for_status()
    assert recognised(service, [photos["obama-2"]]) == [None]
    service.end()
    service.edge("models", "add", str(reid))
    service.edge("models", "use", "reid-0095")
    run = reembed(service)
    assert run.returncode == 0, run.stderr
    assert "reid-0095 answers now" in run.stdout
    assert "Rejected faces of another pack, which count again when that answers: 1" in run.stdout
    assert reembed(service).stdout.startswith("0 templates are to be made for reid-0095")
    service.start()
    assert health(service)["pack"] == "reid-0095-1"
    assert recognised(service, [photos["obama-2"]]) == [obama]


def test_a_choice_that_needs_no_embedding_is_taken_at_once(
    service: Service, photos: dict[str, bytes], reid: Path
) -> None:
    service.start()
    url = service.url
    service.edge("models", "add", str(reid))
    assert "a running service takes it within seconds" in service.edge("models", "use", "reid-0095")
    deadline = time.monotonic() + 60
    while in_service_again(service) != "reid-0095-1" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert health(service)["pack"] == "reid-0095-1"
    assert service.url == url
    obama = enrolled(service, photos["obama-1"])
    assert recognised(service, [photos["obama-2"]]) == [obama]
    assert service.end() == 0


def test_a_pack_named_by_the_settings_forgets_nobody_either(
    service: Service, photos: dict[str, bytes], reid: Path
) -> None:
    service.start()
    obama = enrolled(service, photos["obama-1"])
    service.end()
    service.edge("models", "add", str(reid))
    service.settings = ("models.pack=reid-0095",)
    service.start()
    assert health(service)["pack"] == "default-1"
    assert recognised(service, [photos["obama-2"]]) == [obama]
    service.end()
    assert "the pack default answers for reid-0095 until `edge reembed` has" in service.logged()
