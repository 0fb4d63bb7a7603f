"""Whether a database file is one, whole, and of a version that this program knows."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

SEARCHED = ("persons", "templates")
"""Tables whose indexes are held against their rows at a start; sightings may be millions, and wait for their fault."""

SHOWN = 3
"""Complaints that are repeated; a torn file has hundreds, and the first says it."""


SELECT_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table'"


def fault(connection: sqlite3.Connection) -> str | None:
    """Return what is wrong with the open database, None if nothing is: pages, rows against types, references.

    100,000 persons with a template each take 0.15 s. Raises sqlite3.DatabaseError for a file that cannot even be asked.
    """
    complaints = [str(row[0]) for row in connection.execute(f"PRAGMA quick_check({SHOWN})")]
    if complaints != ["ok"]:
        return "; ".join(complaint.replace("\n", " ") for complaint in complaints)
    orphans = connection.execute("PRAGMA foreign_key_check").fetchmany(SHOWN)
    if orphans:
        return "; ".join(
            f"row {row} of {table} belongs to a row of {parent} that is gone" for table, row, parent, _ in orphans
        )
    return None


def stale_index(connection: sqlite3.Connection) -> str | None:
    """Return where an index of persons or templates is not as its rows, None if nowhere: `fault` does not look there.

    A flipped bit in either lets a person be not found, and refuses to be erased. 0.35 s for 100,000 persons.
    """
    there = {name for (name,) in connection.execute(SELECT_TABLES)}
    for table in there.intersection(SEARCHED):
        complaints = [str(row[0]) for row in connection.execute(f"PRAGMA integrity_check({table})")]
        if complaints != ["ok"]:
            return "; ".join(complaints[:SHOWN])
    return None


def file_fault(path: Path, versions: int, *, mode: str = "ro&immutable=1") -> str | None:
    """Return why that file is no sound database of version 1 to `versions`, None if it is.

    `mode`: as it stands, for a file that nobody writes to and that has no log; `rw` for one that is in use.
    """
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            found = fault(connection)
    except sqlite3.Error as error:
        return str(error)
    if found is None and version > versions:
        return f"is of a newer release (its version is {version}, this program knows {versions})"
    if found is None and version < 1:
        return "holds no tables of this program"
    return found
