"""Every statement finds its rows by an index: nothing slows down with the size of the gallery."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import edge.gallery
from edge.gallery.database import Database

OTHER_FILES = ("access", "audit", "outgoing", "spool")
"""These have databases of their own."""
MODULES = [module.name for module in pkgutil.iter_modules(edge.gallery.__path__) if module.name not in OTHER_FILES]
READ_WHOLE = {"persons.SELECT_EVERY_TEMPLATE", "rejections.SELECT_EVERY_REJECTION", "backup.SELECT_NUMBERS"}
"""At a start, and by a backup, which is a process of its own."""
READ_WHOLE |= {"soundness.SELECT_TABLES"}
"""At a start: the schema, of some twenty rows."""
READ_WHOLE |= {"acts.SELECT_FIRST_YOUNG", "acts.SELECT_LAST_TOO_MANY"}
"""Once an hour, of a log of bounded size, by a reader that nobody waits for."""
READ_WHOLE |= {"outbox.SELECT_UNACKNOWLEDGED_COUNT", "outbox.SELECT_ANY"}
"""What waits for the fleet: a few rows, or as many as were changed while the network was away."""
READ_WHOLE |= {"outbox.DELETE_ALL", "records.DELETE_ORIGINS", "records.DELETE_ALL_NEWCOMERS"}
READ_WHOLE |= {"records.DELETE_ALL_LEFTOVERS"}
"""While joining or leaving a fleet, with the service stopped."""
READ_WHOLE |= {"acts.SELECT_ERASURES", "backup.SELECT_IDS", "backup.SELECT_NUMBERS_AND_IDS"}
"""By a restore, which is once, and has just read the whole backup."""


def statements() -> Iterator[tuple[str, str]]:
    for name in MODULES:
        module = importlib.import_module(f"edge.gallery.{name}")
        for constant, value in vars(module).items():
            if re.match(r"(SELECT|INSERT|UPDATE|DELETE)_", constant) and isinstance(value, str):
                yield f"{name}.{constant}", value


STATEMENTS = dict(statements())


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    database = Database(tmp_path_factory.mktemp("plans"))
    yield database.read()
    database.close()


def plan(connection: sqlite3.Connection, statement: str) -> list[str]:
    nothing: defaultdict[str, None] = defaultdict(lambda: None)
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", nothing)]


def test_the_statements_are_found() -> None:
    assert len(STATEMENTS) > 30


@pytest.mark.parametrize("name", sorted(STATEMENTS.keys() - READ_WHOLE))
def test_reads_no_more_rows_than_it_needs(connection: sqlite3.Connection, name: str) -> None:
    statement = STATEMENTS[name]
    for step in plan(connection, statement):
        walks_an_index_to_its_limit = "USING" in step and "INDEX" in step and "LIMIT" in statement
        is_scan = step.startswith("SCAN") and step != "SCAN CONSTANT ROW" and not walks_an_index_to_its_limit
        assert not is_scan, step
        # the one sort there is: a person's own templates, twenty at most
        assert "TEMP B-TREE" not in step or "templates WHERE person = persons.number" in statement, step


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("sightings.SELECT_BY_PERSON", "sightings_by_person (person=? AND time_ms>? AND time_ms<?)"),
        ("sightings.SELECT_BY_SOURCE", "sightings_by_source (source_id=? AND time_ms>? AND time_ms<?)"),
        ("sightings.SELECT_BY_LIST", "sightings_by_list (list=? AND time_ms>? AND time_ms<?)"),
        ("sightings.SELECT_BY_TIME", "sightings_by_time (time_ms>? AND time_ms<?)"),
    ],
)
def test_a_page_of_the_history_is_found_by_what_narrows_most(
    connection: sqlite3.Connection, name: str, index: str
) -> None:
    assert plan(connection, STATEMENTS[name])[0] == f"SEARCH sightings USING INDEX {index}"


def test_no_statement_is_written_elsewhere() -> None:
    """SQL outside a constant would escape the test above."""
    for name in MODULES:
        source = (Path(edge.gallery.__path__[0]) / f"{name}.py").read_text()
        assert not re.search(r"execute(many)?\(\s*f?\"(SELECT|INSERT|UPDATE|DELETE)", source), name
