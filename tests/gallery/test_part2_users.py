"""Users: passwords kept as salted scrypt hashes, checked as slowly for who does not exist."""

from __future__ import annotations

import sqlite3
import statistics
import threading
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.errors import Conflict, InvalidSchema
from edge.gallery import passwords
from edge.gallery.access import Access
from edge.gallery.access_schema import MIGRATIONS
from edge.types import Scope

NOW = 1_700_000_000_000
PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cheap hash where its cost is not what is tried."""
    if "dear" not in request.node.name:
        monkeypatch.setattr(passwords, "COST", 1 << 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.sqlite3"


@pytest.fixture
def access(path: Path) -> Access:
    return Access(path)


def test_who_knows_the_password_is_the_user(access: Access, path: Path) -> None:
    made = access.add_user("Ann@example.org", PASSWORD, now_ms=NOW)
    assert (made.email, made.scopes, made.created_ms, made.password_ms) == (
        "Ann@example.org",
        frozenset(Scope),
        NOW,
        NOW,
    )
    for again in (access, Access(path)):
        assert again.check_password("Ann@example.org", PASSWORD) == made
        assert again.user(made.user_id) == made
        assert again.users() == (made,)


@pytest.mark.parametrize(
    "wrong", ["", "x", PASSWORD + " ", PASSWORD.upper(), PASSWORD[:-1], "\0", "\ud800", "x" * 10**6]
)
def test_any_other_password_is_not(access: Access, wrong: str) -> None:
    access.add_user("ann@example.org", PASSWORD, now_ms=NOW)
    assert access.check_password("ann@example.org", wrong) is None
    assert access.check_password("nobody@example.org", PASSWORD) is None
    assert access.check_password("", "") is None


def test_an_address_has_no_case(access: Access) -> None:
    made = access.add_user("Ann.Straße@Example.ORG", PASSWORD, now_ms=NOW)
    for written in ("ann.straße@example.org", "ANN.STRASSE@EXAMPLE.ORG"):
        assert access.check_password(written, PASSWORD) == made
        with pytest.raises(Conflict):
            access.add_user(written, PASSWORD, now_ms=NOW)
    assert access.remove_user("ANN.STRASSE@example.org")
    assert access.users() == ()


def test_a_password_is_the_same_however_its_letters_are_encoded(access: Access) -> None:
    access.add_user("ann@example.org", unicodedata.normalize("NFC", "größer als"), now_ms=NOW)
    assert access.check_password("ann@example.org", unicodedata.normalize("NFD", "größer als"))


def test_every_hash_has_a_salt_of_its_own_and_names_its_parameters(access: Access, path: Path) -> None:
    access.add_user("ann@example.org", PASSWORD, now_ms=NOW)
    access.add_user("bob@example.org", PASSWORD, now_ms=NOW)
    with sqlite3.connect(path) as db:
        kept = [row[0] for row in db.execute("SELECT password FROM users")]
    parts = [one.split("$") for one in kept]
    assert [one[:4] for one in parts] == [["scrypt", "16", "8", "3"]] * 2
    assert parts[0][4] != parts[1][4]
    assert parts[0][5] != parts[1][5]
    assert PASSWORD.encode() not in path.read_bytes()


def test_a_hash_of_an_older_release_still_counts(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    made = access.add_user("ann@example.org", PASSWORD, now_ms=NOW)
    monkeypatch.setattr(passwords, "COST", 1 << 6)
    monkeypatch.setattr(passwords, "PARALLEL", 1)
    assert access.check_password("ann@example.org", PASSWORD) == made
    assert access.check_password("ann@example.org", "wrong one") is None


def test_a_hash_is_dear_and_no_dearer_for_who_exists(access: Access) -> None:
    """Measured in turns; what is compared is work of a quarter of a second each."""
    access.add_user("ann@example.org", PASSWORD, now_ms=NOW)
    took: dict[str, list[float]] = {"ann@example.org": [], "nobody@example.org": []}
    for _ in range(3):
        for email, seconds in took.items():
            began = time.thread_time()
            assert access.check_password(email, "wrong password") is None
            seconds.append(time.thread_time() - began)
    known, unknown = (statistics.median(one) for one in took.values())
    assert min(known, unknown) > 0.02
    assert 0.5 < known / unknown < 2


def test_a_password_is_changed(access: Access) -> None:
    made = access.add_user("ann@example.org", PASSWORD, now_ms=NOW)
    assert access.set_password("ANN@example.org", "another one", now_ms=NOW + 5000)
    assert access.check_password("ann@example.org", PASSWORD) is None
    changed = access.check_password("ann@example.org", "another one")
    assert changed is not None
    assert (changed.user_id, changed.created_ms, changed.password_ms) == (made.user_id, NOW, NOW + 5000)
    assert not access.set_password("nobody@example.org", "another one", now_ms=NOW)


def test_a_removed_user_is_gone(access: Access, path: Path) -> None:
    made = access.add_user("ann@example.org", PASSWORD, now_ms=NOW)
    assert access.remove_user("ann@example.org")
    assert not access.remove_user("ann@example.org")
    assert access.check_password("ann@example.org", PASSWORD) is None
    assert access.user(made.user_id) is None
    assert b"ann@example.org" not in path.read_bytes()


def test_a_user_may_have_fewer_scopes(access: Access) -> None:
    scopes = frozenset({Scope.READ, Scope.RECOGNIZE})
    access.add_user("ann@example.org", PASSWORD, scopes, now_ms=NOW)
    found = access.check_password("ann@example.org", PASSWORD)
    assert found is not None
    assert found.scopes == scopes


@pytest.mark.parametrize(
    "email", ["", "ann", "@", "ann@", "@example.org", "a b@c", "a@b@c", "a@b\n", "a" * 250 + "@b.cd"]
)
def test_what_is_no_address_is_refused(access: Access, email: str) -> None:
    with pytest.raises(InvalidSchema) as refusal:
        access.add_user(email, PASSWORD, now_ms=NOW)
    assert refusal.value.mistakes[0].field == "email"


@pytest.mark.parametrize("password", ["", "12345", "x" * 1025])
def test_a_password_has_six_to_1024_characters(access: Access, password: str) -> None:
    access.add_user("bob@example.org", "123456", now_ms=NOW)
    changes: list[Callable[[], object]] = [
        lambda: access.add_user("ann@example.org", password, now_ms=NOW),
        lambda: access.set_password("bob@example.org", password, now_ms=NOW),
    ]
    for change in changes:
        with pytest.raises(InvalidSchema) as refusal:
            change()
        assert refusal.value.mistakes[0].field == "password"
    assert access.check_password("bob@example.org", "123456")


def test_a_user_without_scopes_is_refused(access: Access) -> None:
    with pytest.raises(InvalidSchema):
        access.add_user("ann@example.org", PASSWORD, frozenset(), now_ms=NOW)


def test_one_address_from_many_threads_is_one_user(access: Access) -> None:
    done: list[str] = []

    def add() -> None:
        try:
            done.append(access.add_user("ann@example.org", PASSWORD, now_ms=NOW).user_id)
        except Conflict:
            done.append("conflict")

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done).count("conflict") == 7
    assert len(access.users()) == 1


def test_a_file_of_tokens_alone_gets_its_users(path: Path) -> None:
    with sqlite3.connect(path) as db:
        MIGRATIONS[0](db)
        db.execute("PRAGMA user_version = 1")
    db.close()
    access = Access(path)
    token, secret = access.create_token("door", frozenset({Scope.READ}), now_ms=NOW)
    assert access.users() == ()
    assert access.add_user("ann@example.org", PASSWORD, now_ms=NOW)
    assert access.find(secret, NOW) == token
