"""The file of tokens: real SQLite files, two processes' views of them, and a clock that lies."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge.errors import GalleryUnusable, InvalidSchema, StorageFull, TooBusy
from edge.gallery import access as module
from edge.gallery.access import MARK_MS, MIGRATIONS, TOUCH_MS, Access
from edge.types import Scope

NOW = 1_780_000_000_000
HOUR = 3_600_000
ENROL = frozenset({Scope.ENROL, Scope.READ})


class Monotonic:
    """The other clock: it only goes forward, by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.sqlite3"


@pytest.fixture
def monotonic() -> Monotonic:
    return Monotonic()


@pytest.fixture
def access(path: Path, monotonic: Monotonic) -> Access:
    return Access(path, monotonic=monotonic)


def last_used(access: Access, token_id: str) -> int | None:
    return next(token.last_used_ms for token in access.tokens() if token.token_id == token_id)


# --- permanent tokens ---


def test_a_token_is_found_by_its_secret(access: Access) -> None:
    token, secret = access.create_token("door", ENROL, "a-list", "a-source", NOW + HOUR, now_ms=NOW)
    assert access.find(secret, NOW) == token
    assert access.find(secret.upper(), NOW) == token
    assert (token.name, token.scopes, token.list_id, token.source_id) == ("door", ENROL, "a-list", "a-source")
    assert (token.created_ms, token.expires_ms, token.last_used_ms) == (NOW, NOW + HOUR, None)


def test_a_secret_has_122_random_bits_and_an_id_no_address(access: Access) -> None:
    made = [access.create_token("x", ENROL, now_ms=NOW) for _ in range(20)]
    assert {uuid.UUID(secret).version for _, secret in made} == {4}
    assert len({secret for _, secret in made}) == len({token.token_id for token, _ in made}) == 20
    assert {uuid.UUID(token.token_id).version for token, _ in made} == {1}
    assert all(uuid.UUID(token.token_id).node >> 40 & 1 for token, _ in made), "the multicast bit: a random node"


def test_the_secret_is_nowhere_in_the_file(access: Access, path: Path) -> None:
    token, secret = access.create_token("door", ENROL, now_ms=NOW)
    content = path.read_bytes()
    assert token.token_id.encode() in content
    assert secret.encode() not in content
    assert uuid.UUID(secret).bytes not in content


def test_nothing_of_a_revoked_token_stays_in_the_file(access: Access, path: Path) -> None:
    token, secret = access.create_token("door-seventeen", ENROL, now_ms=NOW)
    assert module._sha256(secret) in path.read_bytes()
    assert access.revoke(token.token_id)
    assert module._sha256(secret) not in path.read_bytes()
    assert b"door-seventeen" not in path.read_bytes()


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "x",
        "é" * 36,
        "0b4e7a52-6a1f-4c8e-9d3b-5f2a8c7e1d60",
        "0b4e7a52-6a1f-4c8e-9d3b-5f2a8c7e1d60\n",
        "' OR 1=1 --",
        "\x00" * 36,
    ],
)
def test_unknown_and_malformed_secrets_find_nothing(access: Access, secret: str) -> None:
    access.create_token("door", ENROL, now_ms=NOW)
    assert access.find(secret, NOW) is None


def test_a_token_ends_when_it_expires(access: Access) -> None:
    _, secret = access.create_token("door", ENROL, expires_ms=NOW + HOUR, now_ms=NOW)
    assert access.find(secret, NOW + HOUR - 1)
    assert access.find(secret, NOW + HOUR) is None
    assert len(access.tokens()) == 1, "it is still listed"


def test_the_expiry_can_be_moved(access: Access) -> None:
    token, secret = access.create_token("door", ENROL, now_ms=NOW)
    moved = access.update_expiry(token.token_id, NOW - 1)
    assert moved is not None
    assert moved.expires_ms == NOW - 1
    assert access.find(secret, NOW) is None
    access.update_expiry(token.token_id, None)
    assert access.find(secret, NOW) is not None
    assert access.update_expiry("nobody", None) is None


def test_a_revoked_token_finds_nothing(access: Access) -> None:
    token, secret = access.create_token("door", ENROL, now_ms=NOW)
    _, other = access.create_token("gate", ENROL, now_ms=NOW)
    assert access.revoke(token.token_id)
    assert access.find(secret, NOW) is None
    assert access.find(other, NOW) is not None
    assert not access.revoke(token.token_id)


def test_tokens_are_listed_oldest_first(access: Access) -> None:
    for number, name in enumerate(["b", "a", "c"]):
        access.create_token(name, ENROL, now_ms=NOW + number)
    assert [token.name for token in access.tokens()] == ["b", "a", "c"]


def test_a_token_needs_a_scope(access: Access) -> None:
    with pytest.raises(InvalidSchema, match="recognize, enrol, read, admin"):
        access.create_token("door", frozenset(), now_ms=NOW)


def test_a_revocation_by_another_process_holds_at_once(access: Access, path: Path) -> None:
    token, secret = access.create_token("door", ENROL, now_ms=NOW)
    assert access.find(secret, NOW)
    program = (
        "import sys; from pathlib import Path; from edge.gallery.access import Access;"
        "assert Access(Path(sys.argv[1])).revoke(sys.argv[2])"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program, str(path), token.token_id], check=True, cwd=root)
    assert access.find(secret, NOW) is None


def test_threads_share_it(access: Access) -> None:
    def work(number: int) -> bool:
        token, secret = access.create_token(f"camera {number}", ENROL, now_ms=NOW)
        access.touch(token.token_id, NOW + number)
        found = access.find(secret, NOW) is not None
        return found and access.revoke(token.token_id) and access.find(secret, NOW) is None

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(80)))
    assert access.tokens() == ()


# --- last use ---


def test_the_last_use_is_written_at_most_once_a_minute(access: Access) -> None:
    token, _ = access.create_token("door", ENROL, now_ms=NOW)
    for after in (0, 1000, TOUCH_MS - 1):
        access.touch(token.token_id, NOW + after)
        assert last_used(access, token.token_id) == NOW
    access.touch(token.token_id, NOW + TOUCH_MS)
    assert last_used(access, token.token_id) == NOW + TOUCH_MS


def test_one_write_takes_all_tokens_along(access: Access, path: Path) -> None:
    tokens = [access.create_token(str(number), ENROL, now_ms=NOW)[0].token_id for number in range(20)]
    for token_id in tokens:
        access.touch(token_id, NOW)
    before = data_version(path)
    for after in range(0, 10 * TOUCH_MS, 1000):  # ten minutes of twenty cameras, a picture a second
        for token_id in tokens:
            access.touch(token_id, NOW + after)
    assert data_version(path) - before <= 11
    assert min(token.last_used_ms or 0 for token in access.tokens()) > NOW + 9 * TOUCH_MS - 1000


def data_version(path: Path) -> int:
    """The change counter in the file's header: one more with every commit (sqlite.org/fileformat2, 1.3.7)."""
    return int.from_bytes(path.read_bytes()[24:28], "big")


def test_a_clock_set_back_does_not_stop_the_last_use(access: Access) -> None:
    token, _ = access.create_token("door", ENROL, now_ms=NOW)
    access.touch(token.token_id, NOW)
    access.touch(token.token_id, NOW - HOUR)
    assert last_used(access, token.token_id) == NOW - HOUR


def test_a_touch_never_fails_a_request(access: Access, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(b"no database at all" * 100)
    access.touch("whoever", NOW)
    assert "was not written" in caplog.text


# --- temporary tokens ---


def test_a_revoked_temporary_token_is_known_until_it_expires(access: Access) -> None:
    access.revoke_temporary("one", NOW + HOUR, NOW)
    assert access.is_revoked("one")
    assert not access.is_revoked("two")
    access.revoke_temporary("two", NOW + 3 * HOUR, NOW + 2 * HOUR)
    assert not access.is_revoked("one"), "its expiry refuses it now"
    assert access.is_revoked("two")
    access.revoke_temporary("two", NOW + 3 * HOUR, NOW + 2 * HOUR)


def test_revoking_while_the_mark_is_due_does_not_wait_for_itself(access: Access) -> None:
    started = time.monotonic()
    access.revoke_temporary("one", NOW + 20 * MARK_MS, NOW)
    access.revoke_temporary("two", NOW + 20 * MARK_MS, NOW + 2 * MARK_MS)
    assert time.monotonic() - started < 2


# --- time ---


def test_a_clock_set_to_1970_revives_nobody(access: Access, path: Path, monotonic: Monotonic) -> None:
    _, secret = access.create_token("door", ENROL, expires_ms=NOW + HOUR, now_ms=NOW)
    assert access.find(secret, NOW + 2 * HOUR) is None
    assert access.find(secret, 0) is None
    assert Access(path, monotonic=monotonic).find(secret, 0) is None, "not after a restart either"


def test_a_clock_set_back_makes_no_token_last_longer(access: Access, monotonic: Monotonic) -> None:
    _, secret = access.create_token("door", ENROL, expires_ms=NOW + HOUR, now_ms=NOW)
    assert access.find(secret, 0), "it is not NOW + HOUR yet"
    monotonic.seconds += 3599
    assert access.find(secret, 0)
    monotonic.seconds += 1
    assert access.find(secret, 0) is None


def test_judged_now_follows_a_right_clock(access: Access, monotonic: Monotonic) -> None:
    for seconds in (0, 1, 60, 3600):
        monotonic.seconds += seconds
        assert access.judged_now(NOW + 2 * seconds * 1000) == NOW + 2 * seconds * 1000


def test_the_mark_is_written_seldom(access: Access, path: Path, monotonic: Monotonic) -> None:
    access.judged_now(NOW)
    before = data_version(path)
    for second in range(3600):
        monotonic.seconds += 1
        access.judged_now(NOW + second * 1000)
    assert data_version(path) - before == 3600 * 1000 // MARK_MS
    assert Access(path).judged_now(0) >= NOW + HOUR - MARK_MS - 1000


def test_two_processes_keep_the_later_mark(access: Access, path: Path) -> None:
    behind = Access(path)
    access.judged_now(NOW)
    behind.judged_now(MARK_MS)
    assert Access(path).judged_now(0) == pytest.approx(NOW, abs=1000)


def test_a_clock_that_was_far_ahead_for_minutes_ends_no_token(access: Access, path: Path, monotonic: Monotonic) -> None:
    _, secret = access.create_token("door", ENROL, expires_ms=NOW + HOUR, now_ms=NOW)
    assert access.find(secret, NOW * 2) is None, "while it is ahead there is no telling"
    monotonic.seconds += 600
    assert access.find(secret, NOW * 2 + 600_000) is None
    assert access.find(secret, NOW + 600_000)
    assert Access(path, monotonic=monotonic).find(secret, NOW + 600_000)


def test_the_way_back_after_a_clock_was_far_ahead(access: Access, path: Path, monotonic: Monotonic) -> None:
    _, secret = access.create_token("door", ENROL, expires_ms=NOW + HOUR, now_ms=NOW)
    access.judged_now(NOW * 2)
    monotonic.seconds += 3600
    access.judged_now(NOW * 2 + HOUR)
    assert access.find(secret, NOW) is None
    assert Access(path, monotonic=monotonic).find(secret, NOW) is None
    access.set_clock(NOW)
    assert access.find(secret, NOW)
    assert Access(path).find(secret, NOW)


def test_a_mark_that_cannot_be_written_fails_nothing(
    access: Access, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(b"no database at all" * 100)
    assert access.judged_now(NOW) == NOW
    assert "was not written" in caplog.text


# --- the file ---


def test_the_file_is_its_owners_alone(path: Path) -> None:
    umask = os.umask(0)
    try:
        Access(path)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    Access(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(entry.name for entry in path.parent.iterdir()) == [path.name], "no journal is left, no log beside it"


def test_tables_are_strict_and_the_version_is_written(access: Access, path: Path) -> None:
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert {row[5] for row in db.execute("PRAGMA table_list") if not row[1].startswith("sqlite_")} == {1}
    db.close()


def test_writes_wait_for_the_disk_and_its_folder(access: Access) -> None:
    with access._writing() as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (3,), "EXTRA: FULL, and the journal's folder"


def test_every_question_has_an_index(access: Access) -> None:
    with access._reading() as db:
        for question in (
            "tokens WHERE secret_sha256 = x''",
            "tokens WHERE token_id = ''",
            "revoked WHERE jti = ''",
            "revoked WHERE expires_ms < 1",
        ):
            plan = db.execute(f"EXPLAIN QUERY PLAN SELECT * FROM {question}").fetchone()[3]
            assert plan.startswith("SEARCH"), plan


def test_opened_again_it_is_as_it_was(access: Access, path: Path) -> None:
    token, secret = access.create_token("door", ENROL, now_ms=NOW)
    before = data_version(path)
    assert Access(path).find(secret, NOW) == token
    assert data_version(path) == before, "opening writes nothing"


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_what_is_no_database_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(GalleryUnusable, match=r"access\.sqlite3"):
        Access(path)
    assert path.read_bytes() == content


def test_a_newer_file_is_refused(access: Access, path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(GalleryUnusable, match="newer release"):
        Access(path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GalleryUnusable, match="No such file"):
        Access(tmp_path / "nowhere" / "access.sqlite3")


def test_a_file_removed_meanwhile_is_a_fault_and_not_made_anew(access: Access, path: Path) -> None:
    path.unlink()
    with pytest.raises(GalleryUnusable):
        access.find(str(uuid.uuid4()), NOW)
    assert not path.exists()


def test_a_failed_write_leaves_nothing(access: Access) -> None:
    with pytest.raises(RuntimeError), access._writing() as db:
        db.execute("INSERT INTO revoked VALUES ('one', 1)")
        raise RuntimeError
    assert not access.is_revoked("one")


def test_a_file_held_by_another_is_waited_for_then_refused(
    access: Access, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, secret = access.create_token("door", ENROL, now_ms=NOW)
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    assert access.find(secret, NOW), "reading goes on beside a write"
    timer = threading.Timer(0.2, holder.rollback)
    timer.start()
    assert access.revoke(token.token_id)
    timer.join()
    holder.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(module, "BUSY_MS", 100)
    with pytest.raises(TooBusy):
        access.find(secret, NOW)
    holder.close()


def test_a_full_disk_is_told_as_such(access: Access) -> None:
    assert isinstance(access._translated(sqlite3.OperationalError("database or disk is full")), StorageFull)


def test_looking_a_token_up_takes_less_than_a_millisecond(access: Access) -> None:
    secrets = [access.create_token(str(number), ENROL, now_ms=NOW)[1] for number in range(50)]
    started = time.process_time()
    for secret in secrets * 4:
        assert access.find(secret, NOW)
    assert (time.process_time() - started) / 200 < 0.001, "about 0.1 ms"
