"""A data folder with something of everything in it, made without a model, and what is in one, record by record."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edge import backup
from edge.gallery import reembedding
from edge.gallery.access import Access
from edge.gallery.store import EmbeddedGallery, Probe
from edge.types import Decision, Embedding, ListAlert, NewPerson, Scope, SourceDefaults, Template, Verdict, unit
from edge.web.auth import Keys

LENGTH, PACK = 8, "pack-1"
NOW_MS = 1_700_000_000_000
SETTINGS = "[server]\nport = 8080\n"


def no_bar(done: int, total: int) -> None:
    """Draws nothing."""


@contextmanager
def opened(folder: Path) -> Iterator[EmbeddedGallery]:
    gallery = EmbeddedGallery.open(
        folder,
        pack_id=PACK,
        vector_length=LENGTH,
        cohort_weight=0.0,
        exact_limit=1000,
        main_list_name="main",
        clock=lambda: NOW_MS,
    )
    try:
        reembedding.note(gallery.database, PACK)
        yield gallery
    finally:
        gallery.close()


def add(gallery: EmbeddedGallery, seed: int, picture: bytes | None = None, newcomer: NewPerson | None = None) -> str:
    """Add the person of that seed; return the id."""
    embedding = Embedding(unit(np.random.default_rng(seed).normal(size=LENGTH)), 0.25)
    template = Template(embedding, PACK, 0.5, picture)
    newcomer = newcomer or NewPerson((f"person {seed}",), (), None, None, None, None)
    probe = Probe(embedding, newcomer, template)
    (outcome,) = gallery.identify_or_enrol(gallery.main_list_id, [probe], lambda *_: Decision(Verdict.ADD))  # type: ignore[misc, union-attr]
    assert outcome.person is not None
    return outcome.person.person_id


def fill(folder: Path, persons: int = 6) -> str:
    """Make a data folder; return the secret of a token that is good there."""
    folder.mkdir(mode=0o700)
    with opened(folder) as gallery:
        staff = gallery.create_list("staff").list_id
        group = gallery.create_group("hall", (ListAlert(staff, {"relay": 1}),)).group_id
        gallery.create_source("door", group, SourceDefaults(new_person_threshold=0.8), (staff,), (staff,))
        for seed in range(persons):
            add(gallery, seed, f"picture {seed} ".encode() * 100)
        add(gallery, 1000)
    access = Access(folder / "access.sqlite3")
    _, secret = access.create_token("door", frozenset({Scope.ENROL}), now_ms=NOW_MS)
    Keys.load_or_create(folder / "keys.json")
    (folder / "active-pack").write_text("default\n")
    (folder / "calibration").mkdir()
    (folder / "calibration" / "default.json").write_text('{"format": 1}')
    (folder / "models" / "mine").mkdir(parents=True)
    (folder / "models" / "mine" / "pack.json").write_text("{}")
    return secret


def back_up(folder: Path, target: Path, **more: Any) -> backup.Made:
    known: dict[str, Any] = {"settings": SETTINGS, "packs": [("mine", PACK)], "now_ms": NOW_MS, "draw": no_bar}
    return backup.make(folder, target, **(known | more))


def automatic(folder: Path, keep: int = 7, **more: Any) -> Path:
    known: dict[str, Any] = {"settings": SETTINGS, "packs": [], "now_ms": NOW_MS, "draw": no_bar}
    return backup.automatic(folder, keep, **(known | more)).path


def rows(database: Path) -> dict[str, list[Any]]:
    """Every row of every table, as a copy of the file (with its log) says."""
    with tempfile.TemporaryDirectory() as copied:
        for suffix in ("", "-wal"):
            if Path(f"{database}{suffix}").exists():
                shutil.copy(f"{database}{suffix}", copied)
        with closing(sqlite3.connect(Path(copied) / database.name)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
            return {
                name: sorted(connection.execute(f'SELECT * FROM "{name}"').fetchall(), key=repr) for (name,) in tables
            }


def state(folder: Path) -> dict[str, Any]:
    """Everything that a backup is of: rows, pictures, keys, choices."""
    found: dict[str, Any] = {name: rows(folder / name) for name in ("gallery.sqlite3", "access.sqlite3")}
    for path in (*(folder / "pictures").rglob("*.jpg"), *(folder / "calibration").glob("*")):
        found[str(path.relative_to(folder))] = path.read_bytes()
    for name in ("keys.json", "active-pack"):
        found[name] = (folder / name).read_bytes()
    return found


def tree(folder: Path) -> dict[str, str]:
    """Every file of a folder and the hash of what is in it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
