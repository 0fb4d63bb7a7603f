"""Templates made anew for another pack, on their way into the gallery: <data>/reembedding.sqlite3.

Its own file, because the gallery has one writer, the service, which goes on serving while another process computes.
What is in here is durable, so that work goes on where it was killed. It is of persons, so it is erased with them: an
entry goes by the name of the picture that it was made from, and whoever erases a picture erases its entry (`forget`).
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.types import Embedding

log = logging.getLogger(__name__)

SPOOL_NAME = "reembedding.sqlite3"

BUSY_SECONDS = 10.0
"""The two who write here, the process that embeds and the service that erases, take milliseconds each."""

ENTRIES_A_PAGE = 500
"""Read at once, so that no reader holds up a writer."""

CREATE = (
    "CREATE TABLE target (pack TEXT NOT NULL, is_ready INTEGER NOT NULL DEFAULT 0) STRICT",
    "CREATE TABLE entries (picture TEXT PRIMARY KEY, vector BLOB, cohort_similarity REAL) STRICT, WITHOUT ROWID",
)
SELECT_TARGET = "SELECT pack, is_ready FROM target"
INSERT_TARGET = "INSERT INTO target (pack) VALUES (:pack)"
UPDATE_READY = "UPDATE target SET is_ready = 1"
SELECT_ENTRY = "SELECT 1 FROM entries WHERE picture = :picture"
SELECT_ENTRIES = (
    "SELECT picture, vector, cohort_similarity FROM entries WHERE picture > :after ORDER BY picture LIMIT :limit"
)
INSERT_ENTRY = (
    "INSERT OR REPLACE INTO entries (picture, vector, cohort_similarity) VALUES (:picture, :vector, :cohort_similarity)"
)
DELETE_ENTRY = "DELETE FROM entries WHERE picture = :picture"


@dataclass(frozen=True)
class Entry:
    """What became of a picture; None: no face was found in it."""

    picture: str
    embedding: Embedding | None


class Spool:
    """The file, open. Not for two threads at once; one process embeds at a time."""

    def __init__(self, data_folder: Path, pack_id: str) -> None:
        """Open for that pack, making what is missing. What another pack left is thrown away."""
        target = _target(data_folder)
        is_new = target is None or target[0] != pack_id
        if is_new:
            discard(data_folder)
        path = data_folder / SPOOL_NAME
        path.touch(mode=0o600)
        self._connection = _connected(path)
        if is_new:
            with self._transaction():
                for statement in CREATE:
                    self._connection.execute(statement)
                self._connection.execute(INSERT_TARGET, {"pack": pack_id})

    def has(self, picture: str) -> bool:
        """Whether the picture has been dealt with."""
        return self._connection.execute(SELECT_ENTRY, {"picture": picture}).fetchone() is not None

    def keep(self, entries: Sequence[Entry]) -> None:
        """Write entries, durably."""
        with self._transaction():
            self._connection.executemany(INSERT_ENTRY, [_columns(entry) for entry in entries])

    def erase(self, pictures: Iterable[str]) -> None:
        """Erase the pictures' entries; those that there are none of are passed over."""
        with self._transaction():
            self._connection.executemany(DELETE_ENTRY, [{"picture": picture} for picture in pictures])

    def entries(self) -> Iterator[Entry]:
        """Yield all entries, in the order of their pictures' names."""
        after = ""
        while True:
            page = self._connection.execute(SELECT_ENTRIES, {"after": after, "limit": ENTRIES_A_PAGE}).fetchall()
            for picture, vector, cohort_similarity in page:
                embedding = None if vector is None else Embedding(np.frombuffer(vector, "<f4"), cohort_similarity)
                yield Entry(picture, embedding)
            if len(page) < ENTRIES_A_PAGE:
                return
            after = page[-1][0]

    def mark_ready(self) -> None:
        """Say that everything is in here that can be: the switch may take place."""
        with self._transaction():
            self._connection.execute(UPDATE_READY)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def ready_for(data_folder: Path) -> str | None:
    """Return the id of the pack that everything has been embedded for, None if that is not so."""
    target = _target(data_folder)
    return target[0] if target is not None and target[1] else None


def forget(data_folder: Path, pictures: Sequence[str]) -> None:
    """Erase what was made from these pictures, if there is anything; never raises: what must be erased is the picture.

    What could not be erased now never becomes a template, as no row names its picture, and goes with the file.
    """
    path = data_folder / SPOOL_NAME
    if not pictures or not path.exists():
        return
    try:
        with contextlib.closing(_connected(path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(DELETE_ENTRY, [{"picture": picture} for picture in pictures])
            connection.execute("COMMIT")
    except sqlite3.Error:
        log.warning("%s could not be cleared of what was erased", path, exc_info=True)


def discard(data_folder: Path) -> None:
    """Remove the file."""
    for suffix in ("", "-journal"):
        (data_folder / (SPOOL_NAME + suffix)).unlink(missing_ok=True)


def _target(data_folder: Path) -> tuple[str, bool] | None:
    """Return the pack's id and whether it is ready; None if there is no spool, or a broken one."""
    path = data_folder / SPOOL_NAME
    if not path.exists():
        return None
    try:
        with contextlib.closing(_connected(path)) as connection:
            row = connection.execute(SELECT_TARGET).fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else (row[0], bool(row[1]))


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS)
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON")  # erased means overwritten
    return connection


def _columns(entry: Entry) -> dict[str, object]:
    embedding = entry.embedding
    return {
        "picture": entry.picture,
        "vector": None if embedding is None else embedding.vector.astype("<f4").tobytes(),
        "cohort_similarity": None if embedding is None else float(embedding.cohort_similarity),
    }
