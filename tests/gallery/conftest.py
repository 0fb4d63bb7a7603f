"""A gallery on a real SQLite file, people to put in it, and the simplest way to decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.gallery.store import EmbeddedGallery, Outcome, Probe
from edge.types import Candidate, Decision, Embedding, NewPerson, Pose, Template, Verdict, unit

LENGTH = 32
PACK = "pack-1"
WEIGHT = 0.35


class Clock:
    """Milliseconds that only a test moves."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


def embedding_of(seed: int, noise: float = 0.0, cohort_similarity: float = 0.5) -> Embedding:
    """The face of person `seed`, or (with noise) another picture of it."""
    vector = np.random.default_rng(seed).normal(size=LENGTH)
    if noise:
        vector = vector / np.linalg.norm(vector) + np.random.default_rng(seed + 10**6).normal(size=LENGTH) * noise
    return Embedding(unit(vector), cohort_similarity)


def newcomer(*fields: str, source_id: str | None = None, group_id: str | None = None, score: float = 0.9) -> NewPerson:
    features = ({"name": "sharpness", "version": 1, "result": 0.5, "confidence": "1.0", "spent": 0},)
    return NewPerson(fields, features, Pose(1.5, -2.5, 3.5), score, group_id, source_id)


def template_of(embedding: Embedding, picture: bytes | None = None, pack: str = PACK) -> Template:
    return Template(embedding, pack, 0.5, picture)


def known_or_new(number: int, list_size: int, candidates: Sequence[Candidate]) -> Decision:
    """The usual decision: whoever is near enough is that person."""
    if candidates and candidates[0].similarity >= 0.3:
        return Decision(Verdict.MATCH, candidates[0].person.person_id)
    return Decision(Verdict.ADD)


def replacing(person_id: str) -> Callable[[int, int, Sequence[Candidate]], Decision]:
    return lambda number, list_size, candidates: Decision(Verdict.REPLACE, person_id)


@dataclass
class Faces:
    """The helpers above, for tests that ask for the fixture `faces`."""

    length: int = LENGTH
    pack: str = PACK
    weight: float = WEIGHT
    embedding: Callable[..., Embedding] = field(default=embedding_of)
    newcomer: Callable[..., NewPerson] = field(default=newcomer)
    template: Callable[..., Template] = field(default=template_of)
    known_or_new: Callable[..., Decision] = field(default=known_or_new)
    replacing: Callable[..., Callable[..., Decision]] = field(default=replacing)

    def probe(self, seed: int, picture: bytes | None = None, noise: float = 0.0, fields: Sequence[str] = ()) -> Probe:
        embedding = embedding_of(seed, noise)
        return Probe(embedding, newcomer(*fields), template_of(embedding, picture))

    def enrol(self, gallery: EmbeddedGallery, seed: int, picture: bytes | None = None, **more: Any) -> Outcome:
        outcomes = gallery.identify_or_enrol(gallery.main_list_id, [self.probe(seed, picture, **more)], known_or_new)
        assert isinstance(outcomes, list)
        return outcomes[0]

    def best(self, gallery: EmbeddedGallery, seed: int) -> str | None:
        """The id of the person that this face is, None if it is nobody's."""
        found = gallery.identify(gallery.main_list_id, embedding_of(seed), 1)
        return found[0].person.person_id if found and found[0].similarity >= 0.3 else None


@pytest.fixture
def faces() -> Faces:
    return Faces()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def open_gallery(folder: Path, clock: Clock) -> Iterator[Callable[..., EmbeddedGallery]]:
    """Opens the gallery of the test's folder; what is left open is closed at the end."""
    opened: list[EmbeddedGallery] = []

    def opening(**settings: Any) -> EmbeddedGallery:
        defaults = {
            "pack_id": PACK,
            "vector_length": LENGTH,
            "cohort_weight": WEIGHT,
            "exact_limit": 1000,
            "main_list_name": "main",
            "clock": clock,
        }
        opened.append(EmbeddedGallery.open(folder, **(defaults | settings)))
        return opened[-1]

    yield opening
    for gallery in opened:
        gallery.close()


@pytest.fixture
def gallery(open_gallery: Callable[..., EmbeddedGallery]) -> EmbeddedGallery:
    return open_gallery()


@pytest.fixture
def picture_files(folder: Path) -> Callable[[], list[str]]:
    """The names of all files in the folder of pictures."""
    return lambda: sorted(path.name for path in (folder / "pictures").rglob("*") if path.is_file())
