"""The tables, as named migrations: each runs once, in the transaction that records it in `user_version`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from edge.gallery.acts import CREATE_AUDIT

# Counts that /health and decisions need are kept by triggers: counting 100,000 rows for every request would be a scan,
# and no code path can forget a trigger. `generation` changes with every change of a template, so that whatever was
# derived from the templates (a saved index) can tell whether it is still true.
_TABLES = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID",
    "INSERT INTO meta (key, value) VALUES"
    " ('generation', 0), ('lists', 0), ('persons', 0), ('templates', 0), ('sighting_bytes', 0), ('clock_ms', 0)",
    "CREATE TABLE lists ("
    " number INTEGER PRIMARY KEY AUTOINCREMENT,"
    " list_id TEXT NOT NULL UNIQUE,"
    " name TEXT NOT NULL UNIQUE,"
    " created_ms INTEGER NOT NULL,"
    " is_main INTEGER NOT NULL DEFAULT 0 CHECK (is_main IN (0, 1)),"
    " persons INTEGER NOT NULL DEFAULT 0"
    ") STRICT",
    "CREATE UNIQUE INDEX one_main_list ON lists (is_main) WHERE is_main = 1",
    "CREATE TABLE groups ("
    " number INTEGER PRIMARY KEY AUTOINCREMENT,"
    " group_id TEXT NOT NULL UNIQUE,"
    " name TEXT NOT NULL,"
    " created_ms INTEGER NOT NULL"
    ") STRICT",
    "CREATE TABLE alerts ("
    " group_number INTEGER NOT NULL REFERENCES groups (number) ON DELETE CASCADE,"
    " position INTEGER NOT NULL,"
    " list INTEGER NOT NULL REFERENCES lists (number) ON DELETE CASCADE,"
    " on_found TEXT NOT NULL,"
    " on_failed TEXT NOT NULL,"
    " PRIMARY KEY (group_number, position)"
    ") STRICT, WITHOUT ROWID",
    "CREATE INDEX alerts_by_list ON alerts (list)",
    # what is only ever read whole is JSON
    "CREATE TABLE sources ("
    " number INTEGER PRIMARY KEY AUTOINCREMENT,"
    " source_id TEXT NOT NULL UNIQUE,"
    " group_number INTEGER REFERENCES groups (number) ON DELETE SET NULL,"
    " name TEXT NOT NULL,"
    " created_ms INTEGER NOT NULL,"
    " defaults TEXT NOT NULL,"
    " person_list_add TEXT NOT NULL,"
    " person_list_search TEXT NOT NULL"
    ") STRICT",
    "CREATE INDEX sources_by_group ON sources (group_number)",
    # AUTOINCREMENT: a number, once given away, is never given again, so nothing that still holds one (an index,
    # a queue, a backup) can ever mean somebody else
    "CREATE TABLE persons ("
    " number INTEGER PRIMARY KEY AUTOINCREMENT,"
    " person_id TEXT NOT NULL UNIQUE,"
    " list INTEGER NOT NULL REFERENCES lists (number) ON DELETE CASCADE,"
    " group_id TEXT,"
    " source_id TEXT,"
    " created_ms INTEGER NOT NULL,"
    " updated_ms INTEGER NOT NULL,"
    " fields TEXT NOT NULL,"
    " features TEXT NOT NULL,"
    " yaw_degrees REAL,"
    " pitch_degrees REAL,"
    " roll_degrees REAL,"
    " score REAL"
    ") STRICT",
    "CREATE INDEX persons_by_list ON persons (list)",
    "CREATE TABLE templates ("
    " id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " person INTEGER NOT NULL REFERENCES persons (number) ON DELETE CASCADE,"
    " pack TEXT NOT NULL,"
    " vector BLOB NOT NULL,"
    " cohort_similarity REAL NOT NULL,"
    " quality REAL NOT NULL,"
    " created_ms INTEGER NOT NULL,"
    " picture TEXT,"
    " crc32 INTEGER NOT NULL"
    ") STRICT",
    "CREATE INDEX templates_by_person ON templates (person)",
    "CREATE UNIQUE INDEX templates_by_picture ON templates (picture) WHERE picture IS NOT NULL",
    "CREATE TABLE sightings ("
    " id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " sighting_id TEXT NOT NULL,"
    " time_ms INTEGER NOT NULL,"
    " list INTEGER NOT NULL REFERENCES lists (number) ON DELETE CASCADE,"
    " person INTEGER REFERENCES persons (number) ON DELETE CASCADE,"
    " source_id TEXT,"
    " group_id TEXT,"
    " verdict TEXT NOT NULL,"
    " score REAL,"
    " threshold REAL NOT NULL,"
    " box TEXT,"
    " reasons TEXT NOT NULL,"
    " picture TEXT,"
    " picture_bytes INTEGER NOT NULL DEFAULT 0"
    ") STRICT",
    "CREATE INDEX sightings_by_time ON sightings (time_ms)",
    "CREATE INDEX sightings_by_person ON sightings (person, time_ms) WHERE person IS NOT NULL",
    "CREATE INDEX sightings_by_list ON sightings (list, time_ms)",
    "CREATE INDEX sightings_by_source ON sightings (source_id, time_ms) WHERE source_id IS NOT NULL",
    "CREATE UNIQUE INDEX sightings_by_picture ON sightings (picture) WHERE picture IS NOT NULL",
)

_TRIGGERS = (
    "CREATE TRIGGER list_added AFTER INSERT ON lists BEGIN UPDATE meta SET value = value + 1 WHERE key = 'lists'; END",
    "CREATE TRIGGER list_removed AFTER DELETE ON lists BEGIN"
    " UPDATE meta SET value = value - 1 WHERE key = 'lists'; END",
    "CREATE TRIGGER person_added AFTER INSERT ON persons BEGIN"
    " UPDATE meta SET value = value + 1 WHERE key = 'persons';"
    " UPDATE lists SET persons = persons + 1 WHERE number = NEW.list; END",
    "CREATE TRIGGER person_removed AFTER DELETE ON persons BEGIN"
    " UPDATE meta SET value = value - 1 WHERE key = 'persons';"
    " UPDATE lists SET persons = persons - 1 WHERE number = OLD.list; END",
    "CREATE TRIGGER person_moved AFTER UPDATE OF list ON persons WHEN OLD.list <> NEW.list BEGIN"
    " UPDATE lists SET persons = persons - 1 WHERE number = OLD.list;"
    " UPDATE lists SET persons = persons + 1 WHERE number = NEW.list;"
    " UPDATE meta SET value = value + 1 WHERE key = 'generation'; END",
    "CREATE TRIGGER template_added AFTER INSERT ON templates BEGIN"
    " UPDATE meta SET value = value + 1 WHERE key IN ('templates', 'generation'); END",
    "CREATE TRIGGER template_removed AFTER DELETE ON templates BEGIN"
    " UPDATE meta SET value = value - 1 WHERE key = 'templates';"
    " UPDATE meta SET value = value + 1 WHERE key = 'generation'; END",
    "CREATE TRIGGER template_changed AFTER UPDATE OF person, pack, vector, cohort_similarity ON templates BEGIN"
    " UPDATE meta SET value = value + 1 WHERE key = 'generation'; END",
    "CREATE TRIGGER sighting_added AFTER INSERT ON sightings WHEN NEW.picture_bytes > 0 BEGIN"
    " UPDATE meta SET value = value + NEW.picture_bytes WHERE key = 'sighting_bytes'; END",
    "CREATE TRIGGER sighting_removed AFTER DELETE ON sightings WHEN OLD.picture_bytes > 0 BEGIN"
    " UPDATE meta SET value = value - OLD.picture_bytes WHERE key = 'sighting_bytes'; END",
    "CREATE TRIGGER sighting_changed AFTER UPDATE OF picture_bytes ON sightings BEGIN"
    " UPDATE meta SET value = value + NEW.picture_bytes - OLD.picture_bytes WHERE key = 'sighting_bytes'; END",
)


def first_tables(connection: sqlite3.Connection) -> None:
    """Make every table, index and trigger of the first release."""
    for statement in (*_TABLES, *_TRIGGERS):
        connection.execute(statement)


_LISTS_OF_SOURCES = (
    # rows instead of JSON, so that deleting a list takes it out of every source without reading them all
    "CREATE TABLE source_lists ("
    " source INTEGER NOT NULL REFERENCES sources (number) ON DELETE CASCADE,"
    " purpose TEXT NOT NULL CHECK (purpose IN ('add', 'search')),"
    " position INTEGER NOT NULL,"
    " list INTEGER NOT NULL REFERENCES lists (number) ON DELETE CASCADE,"
    " PRIMARY KEY (source, purpose, position)"
    ") STRICT, WITHOUT ROWID",
    "CREATE INDEX source_lists_by_list ON source_lists (list)",
)

_INSERT_LISTS_OF_SOURCES = (
    "INSERT INTO source_lists (source, purpose, position, list)"
    " SELECT sources.number, '{purpose}', named.key, lists.number"
    " FROM sources CROSS JOIN json_each(sources.person_list_{purpose}) AS named"
    " JOIN lists ON lists.list_id = named.value"
)


def lists_of_sources_and_ids_of_sightings(connection: sqlite3.Connection) -> None:
    """Keep the lists that a source adds to and searches as rows; find a sighting by its id."""
    for statement in _LISTS_OF_SOURCES:
        connection.execute(statement)
    for purpose in ("add", "search"):
        connection.execute(_INSERT_LISTS_OF_SOURCES.format(purpose=purpose))
        connection.execute(f"ALTER TABLE sources DROP COLUMN person_list_{purpose}")
    connection.execute("CREATE INDEX sightings_by_sighting_id ON sightings (sighting_id)")


_REJECTIONS = (
    # what a rejection is made of
    "ALTER TABLE sightings ADD COLUMN pack TEXT",
    "ALTER TABLE sightings ADD COLUMN vector BLOB",
    "ALTER TABLE sightings ADD COLUMN cohort_similarity REAL",
    # 1: rows with vectors of the person's are gone, and nobody knows their bytes any more
    "ALTER TABLE persons ADD COLUMN has_shed INTEGER NOT NULL DEFAULT 0",
    # `sighted`: whom the sighting was taken for; the vector is of their face as far as anybody knows, so it goes with
    # them as well
    "CREATE TABLE rejections ("
    " id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " person INTEGER NOT NULL REFERENCES persons (number) ON DELETE CASCADE,"
    " sighting_id TEXT NOT NULL,"
    " sighted INTEGER REFERENCES persons (number) ON DELETE CASCADE,"
    " pack TEXT NOT NULL,"
    " vector BLOB NOT NULL,"
    " cohort_similarity REAL NOT NULL,"
    " created_ms INTEGER NOT NULL,"
    " crc32 INTEGER NOT NULL"
    ") STRICT",
    "CREATE INDEX rejections_by_person ON rejections (person)",
    "CREATE INDEX rejections_by_sighted ON rejections (sighted) WHERE sighted IS NOT NULL",
    "CREATE UNIQUE INDEX rejections_by_sighting ON rejections (sighting_id, person)",
    "CREATE INDEX rejections_by_pack ON rejections (pack)",
)


def rejections(connection: sqlite3.Connection) -> None:
    """Keep what was said not to be a person, and with each sighting the vector that this takes."""
    for statement in _REJECTIONS:
        connection.execute(statement)


def sightings_of_nobody(connection: sqlite3.Connection) -> None:
    """Find the newest strangers without a walk over everybody's sightings, and those of a list or a source."""
    connection.execute(
        "CREATE INDEX sightings_of_nobody ON sightings (time_ms, list, source_id)"
        " WHERE person IS NULL AND vector IS NOT NULL"
    )


def audit(connection: sqlite3.Connection) -> None:
    """Keep who added and replaced persons."""
    connection.execute(CREATE_AUDIT)


_FLEET = (
    # What was changed here, until the fleet's stream has it and it came back in its place there. `has_record`: it says
    # what the person's record is, and not only what is added to it.
    "CREATE TABLE outbox ("
    " number INTEGER PRIMARY KEY AUTOINCREMENT,"
    " origin TEXT NOT NULL,"
    " serial INTEGER NOT NULL,"
    " subject TEXT NOT NULL,"
    " is_last INTEGER NOT NULL,"
    " has_record INTEGER NOT NULL,"
    " sequence INTEGER,"
    " body BLOB NOT NULL"
    ") STRICT",
    "CREATE UNIQUE INDEX outbox_by_serial ON outbox (origin, serial)",
    "CREATE INDEX outbox_by_subject ON outbox (subject)",
    "CREATE INDEX outbox_by_sequence ON outbox (sequence) WHERE sequence IS NOT NULL",
    "CREATE INDEX outbox_unacknowledged ON outbox (number) WHERE sequence IS NULL",
    "CREATE TABLE origins (origin TEXT PRIMARY KEY, serial INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    # for ever, and of an id no more than what knows it again
    "CREATE TABLE tombstones (digest BLOB PRIMARY KEY) STRICT, WITHOUT ROWID",
    # ids under which other boxes added somebody in the same moment
    "CREATE TABLE aliases ("
    " alias TEXT PRIMARY KEY,"
    " person INTEGER NOT NULL REFERENCES persons (number) ON DELETE CASCADE"
    ") STRICT, WITHOUT ROWID",
    "CREATE INDEX aliases_by_person ON aliases (person)",
    # who was added lately, by which face: whom a box that did not know of it yet may have added as well
    "CREATE TABLE newcomers ("
    " sequence INTEGER PRIMARY KEY,"
    " person INTEGER NOT NULL REFERENCES persons (number) ON DELETE CASCADE,"
    " origin TEXT NOT NULL,"
    " pack TEXT NOT NULL,"
    " vector BLOB NOT NULL,"
    " cohort_similarity REAL NOT NULL"
    ") STRICT",
    "CREATE INDEX newcomers_by_person ON newcomers (person)",
    # places of erasures whose subjects the stream still holds more of
    "CREATE TABLE leftovers (sequence INTEGER PRIMARY KEY, subject TEXT NOT NULL) STRICT",
)


def fleet(connection: sqlite3.Connection) -> None:
    """Keep what a fleet needs; empty for ever on a box that is in none."""
    for statement in _FLEET:
        connection.execute(statement)


def leftovers_without_subjects(connection: sqlite3.Connection) -> None:
    """Keep of what the fleet's stream still holds of the erased no more than the places: it is emptied as a whole."""
    connection.execute("ALTER TABLE leftovers DROP COLUMN subject")


Migration = Callable[[sqlite3.Connection], None]

MIGRATIONS: tuple[Migration, ...] = (
    first_tables,
    lists_of_sources_and_ids_of_sightings,
    rejections,
    sightings_of_nobody,
    audit,
    fleet,
    leftovers_without_subjects,
)
"""In order, for ever: `user_version` is how many of them a database has had."""
