"""A data folder of people made without a model, and what a start in a process of its own finds in one."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge import restoring
from edge.errors import Refusal
from edge.gallery.protocol import Probe
from edge.gallery.space import Space
from edge.gallery.store import EmbeddedGallery
from edge.types import Decision, Embedding, NewPerson, Template, Verdict, unit

PEOPLE = 120
EXACT_LIMIT = 50
LENGTH = 32
PACK = "pack-1"
NOW_MS = 1_700_000_000_000

FOUND_SIMILARITY = 0.3
"""Of a vector and itself it is 0.65, of two of chance under 0.3: one in a million is not."""


@dataclass(frozen=True)
class Found:
    """What a start found. `known`: people found as themselves; `mistaken`: found as somebody else."""

    known: int = 0
    mistaken: int = 0
    set_aside: int = 0
    pictures_missing: int = 0
    pictures: int = 0
    index_doubts: int = 0
    index_builds: int = 0
    restored: bool = False
    refused: str | None = None
    unerasable: int = 0
    """People who could not be erased by asking twice; looked for where `mended` was asked for."""


def gallery_of(folder: Path, *, exact_limit: int = EXACT_LIMIT) -> EmbeddedGallery:
    """Open the gallery of that folder, its reserve left out: so that it is the disk that refuses."""
    return EmbeddedGallery.open(
        folder,
        pack_id=PACK,
        vector_length=LENGTH,
        cohort_weight=0.35,
        exact_limit=exact_limit,
        main_list_name="main",
        clock=lambda: NOW_MS,
        space=Space(folder, reserve_bytes=0),
    )


def embedding_of(number: int) -> Embedding:
    """Return the vector of that person."""
    return Embedding(unit(np.random.default_rng(number).normal(size=LENGTH)), 0.5)


def probe_of(number: int, picture: bytes | None = None) -> Probe:
    """Return what adds that person."""
    embedding = embedding_of(number)
    template = Template(embedding, PACK, 0.5, picture)
    return Probe(embedding, NewPerson((f"person {number}",), (), None, 0.9, None, None), template)


def enrol(gallery: EmbeddedGallery, probes: list[Probe], list_id: str | None = None) -> list[str]:
    """Add them, in one step; return their ids."""
    outcomes = gallery.search_or_enrol([], list_id or gallery.main_list_id, probes, lambda *_: Decision(Verdict.ADD))
    assert isinstance(outcomes, list)
    return [outcome.person.person_id for outcome in outcomes if outcome.person is not None]


def made(folder: Path) -> None:
    """Make a folder of PEOPLE, with a saved index; every third has a picture."""
    gallery = gallery_of(folder)
    for number in range(PEOPLE):
        enrol(gallery, [probe_of(number, f"picture {number} ".encode() * 50 if number % 3 == 0 else None)])
    gallery._indexes.of(1).wait_until_built(60)
    gallery.close()


def with_backup(folder: Path) -> None:
    """Put a verified backup into it."""
    from edge import backup

    backup.automatic(folder, 7, settings="", packs=[], now_ms=NOW_MS, draw=lambda done, total: None)


class _Told(logging.Handler):
    """Counts what the log says of the index."""

    def __init__(self) -> None:
        super().__init__()
        self.doubts = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.doubts += "is thrown away and built anew" in record.getMessage()


def opened(folder: Path, *, mended: bool = False) -> Found:
    """Open as a start does, look for everybody, close. `mended`: what a start does about a broken database too."""
    told, restored = _Told(), False
    logging.getLogger("edge").addHandler(told)
    logging.getLogger("edge").propagate = False
    before = {path.name: path.stat().st_ino for path in (folder / "indexes").glob("*.graph")}
    try:
        if mended:
            fault = restoring.fault(folder)
            if fault is not None:
                restoring.restore_newest(folder, fault, now_ms=NOW_MS)
                restored = True
        gallery = gallery_of(folder)
    except Refusal as refusal:
        return Found(refused=str(refusal))
    index = gallery._indexes.of(1)
    index.wait_until_built(60)
    names = [_best(gallery, number) for number in range(PEOPLE)]
    counts = gallery.counts()
    pictures = len(list((folder / "pictures").rglob("*.jpg")))
    unerasable = sum(not _erased(gallery, name) for name in _people(gallery)) if mended else 0
    gallery.close()
    after = {path.name: path.stat().st_ino for path in (folder / "indexes").glob("*.graph")}
    return Found(
        known=sum(name == f"person {number}" for number, name in enumerate(names)),
        mistaken=sum(name not in (None, f"person {number}") for number, name in enumerate(names)),
        set_aside=counts.set_aside,
        pictures_missing=counts.pictures_missing,
        pictures=pictures,
        index_doubts=told.doubts,
        index_builds=int(before != after),
        restored=restored,
        unerasable=unerasable,
    )


def _people(gallery: EmbeddedGallery) -> list[str]:
    return [one.person_id for one in gallery.persons(gallery.main_list_id, None, 1000).items]


def _erased(gallery: EmbeddedGallery, person_id: str) -> bool:
    """Erase somebody; a damaged index that comes to light is mended and costs the first try."""
    for _ in range(2):
        with contextlib.suppress(sqlite3.DatabaseError):
            return gallery.delete_persons(gallery.main_list_id, [person_id]) == 1
    return False


def _best(gallery: EmbeddedGallery, number: int) -> str | None:
    found = gallery.identify(gallery.main_list_id, embedding_of(number), 1)
    return found[0].person.fields[0] if found and found[0].similarity >= FOUND_SIMILARITY else None


def in_a_child(work: Callable[[], Found]) -> Found | None:
    """Do the work in a process of its own and return what it found, None where it crashed."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(work(), pipe)
            os._exit(0)
        except BaseException:
            logging.getLogger().exception("a start failed")
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    result: Any = pickle.loads(content) if status == 0 and content else None  # noqa: S301 (our own child's)
    return result if isinstance(result, Found) else None
