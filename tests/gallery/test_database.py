"""The SQLite file: migrations, the folder's lock, transactions, checkpoints."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from edge.errors import GalleryUnusable, StorageFull
from edge.gallery.database import DATABASE_NAME, Database
from edge.gallery.schema import MIGRATIONS

INSERT = "INSERT INTO lists (list_id, name, created_ms) VALUES (?, ?, 0)"


def names(connection: sqlite3.Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM lists ORDER BY number")]


def test_an_empty_folder_becomes_a_database_of_the_newest_version(folder: Path) -> None:
    database = Database(folder)
    assert database.read().execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    tables = {name for (name,) in database.read().execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert tables >= {"meta", "lists", "groups", "alerts", "sources", "persons", "templates", "sightings"}
    database.close()


def test_every_table_is_strict(folder: Path) -> None:
    database = Database(folder)
    loose = database.read().execute(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND NOT strict AND name NOT LIKE 'sqlite%'"
    )
    assert loose.fetchall() == []
    database.close()


def test_the_writer_is_durable_and_erases_for_good(folder: Path) -> None:
    database = Database(folder)
    with database.write() as transaction:
        values = {
            name: transaction.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete", "wal_autocheckpoint")
        }
    full = 2
    assert values == {
        "journal_mode": "wal",
        "synchronous": full,
        "foreign_keys": 1,
        "secure_delete": 1,
        "wal_autocheckpoint": 0,
    }
    database.close()


def test_nobody_else_may_read_the_file(folder: Path) -> None:
    database = Database(folder)
    assert stat.S_IMODE((folder / DATABASE_NAME).stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / (DATABASE_NAME + "-wal")).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    database.close()


def test_a_migration_runs_once(folder: Path) -> None:
    runs = []

    def second(connection: sqlite3.Connection) -> None:
        runs.append(connection.execute("SELECT count(*) FROM lists").fetchone()[0])
        connection.execute("ALTER TABLE lists ADD COLUMN colour TEXT")

    Database(folder).close()
    Database(folder, migrations=(*MIGRATIONS, second)).close()
    Database(folder, migrations=(*MIGRATIONS, second)).close()
    assert runs == [0]


def test_a_migration_that_fails_leaves_the_version_before_it(folder: Path) -> None:
    def failing(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE half (number INTEGER) STRICT")
        raise RuntimeError("in the middle")

    Database(folder).close()
    with pytest.raises(RuntimeError):
        Database(folder, migrations=(*MIGRATIONS, failing))
    database = Database(folder)
    assert database.read().execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert database.read().execute("SELECT name FROM sqlite_schema WHERE name = 'half'").fetchone() is None
    database.close()


def test_a_newer_version_is_refused_with_a_sentence(folder: Path) -> None:
    Database(folder).close()
    with sqlite3.connect(folder / DATABASE_NAME) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(GalleryUnusable, match=r"newer release .*99"):
        Database(folder)


def test_what_is_not_a_database_is_refused_and_left_as_it_is(folder: Path) -> None:
    folder.mkdir()
    (folder / DATABASE_NAME).write_bytes(b"garbage " * 1000)
    with pytest.raises(GalleryUnusable, match="cannot be opened as a database"):
        Database(folder)
    assert (folder / DATABASE_NAME).read_bytes() == b"garbage " * 1000


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(GalleryUnusable, match="cannot be used"):
        Database(tmp_path / "file" / "data")


def test_a_folder_serves_one_process_at_a_time(folder: Path) -> None:
    database = Database(folder)
    with pytest.raises(GalleryUnusable, match="in use by another process"):
        Database(folder)
    database.close()
    Database(folder).close()


def test_a_refused_opening_gives_the_folder_back(folder: Path) -> None:
    Database(folder).close()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            Database(folder, migrations=(*MIGRATIONS, lambda _: 1 / 0))
    Database(folder).close()


def test_closing_twice_does_no_harm(folder: Path) -> None:
    database = Database(folder)
    database.close()
    database.close()


def test_what_was_committed_is_there_after_reopening(folder: Path) -> None:
    database = Database(folder)
    with database.write() as transaction:
        transaction.execute(INSERT, ("1", "one"))
    database.close()
    database = Database(folder)
    assert names(database.read()) == ["one"]
    database.close()


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt, sqlite3.IntegrityError])
def test_an_exception_undoes_the_whole_transaction(folder: Path, fault: type[BaseException]) -> None:
    database = Database(folder)
    with pytest.raises(fault), database.write() as transaction:
        transaction.execute(INSERT, ("1", "one"))
        raise fault
    assert names(database.read()) == []
    with database.write() as transaction:  # and the writer is free again
        transaction.execute(INSERT, ("2", "two"))
    assert names(database.read()) == ["two"]
    database.close()


def test_a_full_disk_is_a_refusal_and_writes_nothing(folder: Path) -> None:
    database = Database(folder)
    with database.write() as transaction:
        pages = transaction.execute("PRAGMA page_count").fetchone()[0]
        transaction.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageFull), database.write() as transaction:
        for number in range(1000):
            transaction.execute(INSERT, (str(number), f"{number:100d}"))
    assert names(database.read()) == []
    with database.write() as transaction:
        transaction.execute("PRAGMA max_page_count = 100000")
        transaction.execute(INSERT, ("1", "one"))
    assert names(database.read()) == ["one"]
    database.close()


def test_readers_see_what_is_committed_and_do_not_wait_for_the_writer(folder: Path) -> None:
    database = Database(folder)
    seen: list[list[str]] = []
    with database.write() as transaction:
        transaction.execute(INSERT, ("1", "one"))
        reader = threading.Thread(target=lambda: seen.append(names(database.read())))
        reader.start()
        reader.join(5)
    assert seen == [[]]
    assert names(database.read()) == ["one"]
    database.close()


def test_readers_cannot_write(folder: Path) -> None:
    database = Database(folder)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        database.read().execute(INSERT, ("1", "one"))
    database.close()


def test_each_thread_has_its_own_reader_and_those_of_dead_threads_are_closed(folder: Path) -> None:
    database = Database(folder)
    readers = []
    for _ in range(3):
        thread = threading.Thread(target=lambda: readers.append(database.read()))
        thread.start()
        thread.join()
    assert len({id(reader) for reader in readers}) == 3
    assert database.read() is database.read()
    for dead in readers:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            dead.execute("SELECT 1")
    database.close()


def test_the_log_stays_bounded_and_is_gone_after_closing(folder: Path) -> None:
    log = folder / (DATABASE_NAME + "-wal")
    database = Database(folder, commits_per_checkpoint=10)
    sizes = []
    for number in range(100):
        with database.write() as transaction:
            transaction.execute(INSERT, (str(number), f"{number:1000d}"))
        sizes.append(log.stat().st_size)
    assert max(sizes[20:]) <= 1.2 * max(sizes[:20])
    assert database.truncate_log()
    assert log.stat().st_size == 0
    database.close()
    assert not log.exists()


def test_the_log_stays_bounded_while_somebody_is_always_reading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two readers in turn, so that one is always in the middle: a PASSIVE checkpoint alone never ends such a log."""
    limit = 200_000
    monkeypatch.setattr("edge.gallery.database.LOG_BYTES", limit)
    log = folder / (DATABASE_NAME + "-wal")
    database = Database(folder, commits_per_checkpoint=10)
    with database.write() as transaction:
        transaction.executemany(INSERT, [(f"row {number}", f"name {number}") for number in range(10)])
    over, in_the_middle = threading.Event(), threading.Semaphore(0)
    turns = threading.Barrier(2)

    def read() -> None:
        connection = database.read()
        while not over.is_set():
            rows = connection.execute("SELECT name FROM lists")
            rows.fetchone()
            in_the_middle.release()
            with contextlib.suppress(threading.BrokenBarrierError):
                turns.wait(1)  # the other one has begun as well
            rows.fetchall()

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    in_the_middle.acquire()
    sizes = []
    for number in range(300):
        with database.write() as transaction:
            transaction.execute(INSERT, (str(number), f"{number:1000d}"))
        sizes.append(log.stat().st_size)
    over.set()
    turns.abort()
    for reader in readers:
        reader.join()
    # Without an end it is 9.7 MB by now. How far it gets beyond the limit is for the machine to say: a reader that gets
    # no turn on a busy one holds the log for that long.
    assert max(sizes) <= 3_000_000
    assert min(sizes[150:]) <= limit
    database.close()


def test_a_reader_in_the_middle_delays_the_truncation_not_the_commits(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.gallery.database.BUSY_SECONDS", 0.05)
    log = folder / (DATABASE_NAME + "-wal")
    database = Database(folder)
    for number in range(3):
        with database.write() as transaction:
            transaction.execute(INSERT, (str(number), str(number)))
    reading = database.read().execute("SELECT name FROM lists")
    reading.fetchone()
    assert not database.truncate_log()
    with database.write() as transaction:
        transaction.execute(INSERT, ("3", "3"))
    assert log.stat().st_size > 0
    reading.fetchall()
    with database.write() as transaction:  # tried again with the next commit
        transaction.execute(INSERT, ("4", "4"))
    assert log.stat().st_size == 0
    database.close()
