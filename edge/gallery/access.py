"""Who may call: permanent tokens, revoked temporary ones, users, and the latest time ever seen.

Kept apart from the gallery in a small SQLite file of its own, so that the command line can change tokens while the
daemon runs. Each thread has a connection of its own to ask by (opening one takes a third of a millisecond, an answer a
tenth of that), and what another process has revoked is refused from the next request on.

A rollback journal, not a write-ahead log: writes are rare, and there is one file to copy. synchronous is EXTRA, which
is FULL and one thing more: the folder that the journal is removed from is synced too. Without that a power cut can
bring the journal back, and with it a token that was answered as revoked.
"""

from __future__ import annotations

import hashlib
import logging
import re
import sqlite3
import threading
import time
import unicodedata
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from edge.errors import Conflict, GalleryUnusable, InvalidSchema, Mistake, Refusal, StorageFull, TooBusy, invalid
from edge.gallery import passwords
from edge.gallery.access_schema import MIGRATIONS
from edge.gallery.identifiers import Identifiers
from edge.gallery.space import LITTLE_BYTES, Space
from edge.gallery.trusted_time import LEAP_MS, TrustedTime
from edge.types import Scope, Token, User

BUSY_MS = 5000
"""Milliseconds to wait for another process's write. One takes a few; on a worn card half a second."""

TOUCH_MS = 60_000
"""Milliseconds between two writes of a token's last use: a camera that posts all day must not wear out the card."""

MARK_MS = 300_000
"""Milliseconds between two writes of the latest time: what a clock set back can gain, and only across a restart."""

SECRET = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)

EMAIL = re.compile(r"[^\s@]+@[^\s@]+")
EMAIL_LIMIT = 254
"""Characters of an address: no mail system delivers to a longer one (RFC 5321)."""

PASSWORD_LEAST = 6
PASSWORD_LIMIT = 1024
"""Characters: more protects nobody and would keep the hash busy."""

EVERY_SCOPE = frozenset(Scope)

log = logging.getLogger(__name__)


class Access:
    """The file of tokens and users. Safe to use from several threads and processes at once.

    Every method may raise GalleryUnusable (the file is broken or not ours), TooBusy (somebody else has held it
    for BUSY_MS) or StorageFull.
    """

    def __init__(self, path: Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._uri = f"{path.resolve().as_uri()}?mode=rw"  # a file that was removed is a fault, not an empty one
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._kept = threading.local()
        """Each thread's connection for reading, and which file it is of: one put in its place is opened anew."""
        self._used: dict[str, int] = {}
        self._used_written: dict[str, int] = {}
        self._prepare()
        self._space = Space(path.parent)
        self._trusted: TrustedTime
        self._written_ms: int
        self._begin_at(self._read_mark())

    # --- permanent tokens ---

    def create_token(
        self,
        name: str,
        scopes: frozenset[Scope],
        list_id: str | None = None,
        source_id: str | None = None,
        expires_ms: int | None = None,
        *,
        now_ms: int,
    ) -> tuple[Token, str]:
        """Return a new token's record and its secret, which is nowhere kept and cannot be shown again.

        InvalidSchema: no scopes.
        """
        if not scopes:
            raise _no_scopes()
        secret = str(uuid.uuid4())  # 122 random bits of the operating system
        created_ms = self.judged_now(now_ms)
        token_id = Identifiers(lambda: created_ms).new()
        token = Token(token_id, name, scopes, list_id, source_id, created_ms, expires_ms, None)
        with self._writing() as db:
            db.execute(
                "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)",
                (
                    token.token_id,
                    _sha256(secret),
                    name,
                    _scopes_text(scopes),
                    list_id,
                    source_id,
                    token.created_ms,
                    expires_ms,
                ),
            )
        return token, secret

    def tokens(self) -> tuple[Token, ...]:
        """Return every permanent token, expired ones included, the oldest first."""
        with self._reading() as db:
            rows = db.execute(f"{_SELECT} ORDER BY created_ms, token_id").fetchall()
        return tuple(map(_token, rows))

    def find(self, secret: str, now_ms: int) -> Token | None:
        """Return the token of that secret, None for one that is malformed, unknown, revoked or expired.

        Found by the hash of the secret, so the time that it takes says nothing of how near a guess was: who does not
        know a secret cannot steer its hash toward a stored one.
        """
        secret = secret.lower()
        if not SECRET.fullmatch(secret):
            return None
        with self._reading() as db:
            row = db.execute(f"{_SELECT} WHERE secret_sha256 = ?", (_sha256(secret),)).fetchone()
        if row is None:
            return None
        token = _token(row)
        expired = token.expires_ms is not None and token.expires_ms <= self.judged_now(now_ms)
        return None if expired else token

    def token(self, token_id: str) -> Token | None:
        """Return the record of the token of that id (not the secret), None if there is none any more."""
        with self._reading() as db:
            row = db.execute(f"{_SELECT} WHERE token_id = ?", (token_id,)).fetchone()
        return _token(row) if row else None

    def revoke(self, token_id: str) -> bool:
        """Delete the token; whether there was one. On a full disk too."""
        self._space.make_way(LITTLE_BYTES)
        with self._writing() as db:
            return db.execute("DELETE FROM tokens WHERE token_id = ?", (token_id,)).rowcount > 0

    def update_expiry(self, token_id: str, expires_ms: int | None) -> Token | None:
        """Let the token end then (None: never); return its record, None where there is no such token."""
        with self._writing() as db:
            db.execute("UPDATE tokens SET expires_ms = ? WHERE token_id = ?", (expires_ms, token_id))
            row = db.execute(f"{_SELECT} WHERE token_id = ?", (token_id,)).fetchone()
        return _token(row) if row else None

    def follow_list(self, former_list_id: str, list_id: str) -> None:
        """Let the tokens that are bound to a list be bound to it under its new id."""
        with self._writing() as db:
            db.execute("UPDATE tokens SET list_id = ? WHERE list_id = ?", (list_id, former_list_id))

    def touch(self, token_id: str, now_ms: int) -> None:
        """Note that the token was used. Written at most once a minute, and never an error of the request's."""
        with self._lock:
            self._used[token_id] = now_ms
            # whichever is due takes the others along: twenty cameras cost one write a minute, not twenty
            if abs(now_ms - self._used_written.get(token_id, -TOUCH_MS)) < TOUCH_MS:
                return
            used, self._used = self._used, {}
            self._used_written.update(used)
        try:
            with self._writing() as db:
                db.executemany(
                    "UPDATE tokens SET last_used_ms = ? WHERE token_id = ?", [(ms, one) for one, ms in used.items()]
                )
        except (GalleryUnusable, TooBusy, StorageFull) as error:
            log.warning("the last use of %d token(s) was not written: %s", len(used), error)

    # --- temporary tokens ---

    def revoke_temporary(self, jti: str, expires_ms: int, now_ms: int) -> None:
        """Refuse the temporary token of that id from now on; those that have expired since are forgotten."""
        self._space.make_way(LITTLE_BYTES)
        judged = self.judged_now(now_ms)  # outside the transaction: it may need one of its own
        with self._writing() as db:
            db.execute("DELETE FROM revoked WHERE expires_ms <= ?", (judged,))
            db.execute("INSERT OR REPLACE INTO revoked VALUES (?, ?)", (jti, expires_ms))

    def is_revoked(self, jti: str) -> bool:
        """Whether the temporary token of that id was revoked (and might still be unexpired)."""
        with self._reading() as db:
            return db.execute("SELECT 1 FROM revoked WHERE jti = ?", (jti,)).fetchone() is not None

    # --- users ---

    def add_user(self, email: str, password: str, scopes: frozenset[Scope] = EVERY_SCOPE, *, now_ms: int) -> User:
        """Make a user; the password is kept only as an scrypt hash.

        Raises Conflict (the address, in whatever case, is a user's already), InvalidSchema (not an address, a password
        of fewer than 6 or more than 1024 characters, no scopes).
        """
        if len(email) > EMAIL_LIMIT or not EMAIL.fullmatch(email):
            raise invalid("email", f"an address with one @, at most {EMAIL_LIMIT} characters")
        if not scopes:
            raise _no_scopes()
        _check_new_password(password)
        kept = passwords.hashed(password)  # a quarter of a second: not while others wait for the file
        created_ms = self.judged_now(now_ms)
        user = User(Identifiers(lambda: created_ms).new(), email, scopes, created_ms, password_ms=created_ms)
        columns = (user.user_id, email, _email_key(email), kept, _scopes_text(scopes), created_ms, created_ms)
        with self._writing() as db:
            if db.execute(f"{_SELECT_USER} WHERE email_key = ?", (_email_key(email),)).fetchone():
                raise Conflict(Mistake("email", f"there is a user {email} already"))
            db.execute("INSERT INTO users VALUES (?, ?, ?, ?, ?, ?, ?)", columns)
        return user

    def users(self) -> tuple[User, ...]:
        """Return every user, the oldest first."""
        with self._reading() as db:
            rows = db.execute(f"{_SELECT_USER} ORDER BY created_ms, user_id").fetchall()
        return tuple(map(_user, rows))

    def user(self, user_id: str) -> User | None:
        """Return the user of that id (not the address), None if there is none any more."""
        with self._reading() as db:
            row = db.execute(f"{_SELECT_USER} WHERE user_id = ?", (user_id,)).fetchone()
        return _user(row) if row else None

    def check_password(self, email: str, password: str) -> User | None:
        """Return the user if the password is theirs, else None; as slowly where there is no such user.

        Takes 0.2 s or more on purpose, one at a time: bound the attempts before calling.
        """
        with self._reading() as db:
            row = db.execute(f"{_SELECT_USER} WHERE email_key = ?", (_email_key(email),)).fetchone()
        password = password[: PASSWORD_LIMIT + 1]  # no password is so long: still refused, and in bounded time
        return _user(row) if passwords.matches(password, row[-1] if row else None) else None

    def set_password(self, email: str, password: str, *, now_ms: int) -> bool:
        """Replace the password; whether there is such a user. Raises InvalidSchema like `add_user`."""
        _check_new_password(password)
        changed = (passwords.hashed(password), self.judged_now(now_ms), _email_key(email))
        with self._writing() as db:
            done = db.execute("UPDATE users SET password = ?, password_ms = ? WHERE email_key = ?", changed)
            return done.rowcount > 0

    def remove_user(self, email: str) -> bool:
        """Delete the user; whether there was one. On a full disk too."""
        self._space.make_way(LITTLE_BYTES)
        with self._writing() as db:
            return db.execute("DELETE FROM users WHERE email_key = ?", (_email_key(email),)).rowcount > 0

    # --- time ---

    def judged_now(self, now_ms: int) -> int:
        """Return the time to judge expiry by: now, or the latest time ever seen if that is later.

        Without it a clock set to 1970 (a board without a battery does so at every start) would revive every expired
        token. While the process runs the latest time goes on by the monotonic clock, so a clock set back cannot make a
        token last longer either. The other side: a clock far ahead ends tokens early. While it is, they are refused; it
        becomes the latest time only after an hour (see trusted_time), and then `set_clock` is the way back.
        """
        latest_ms = self._trusted.now(now_ms)
        with self._lock:
            due = latest_ms - self._written_ms >= MARK_MS
            if due:
                self._written_ms = latest_ms
        if due:
            self._write_mark(latest_ms)
        return max(now_ms, latest_ms)

    def trusted_now(self, now_ms: int) -> int:
        """Return the time that is believed: it is not led ahead by a clock that has leapt, as `judged_now` is."""
        return self._trusted.now(now_ms)

    def leap_ms(self, now_ms: int) -> int:
        """Return by how much the clock is ahead of the time that is believed (behind: less than 0); 0: it is right."""
        ahead_ms = now_ms - self._trusted.now(now_ms)
        return ahead_ms if abs(ahead_ms) > LEAP_MS else 0

    def keep_mark(self) -> None:
        """Write the latest time as it is now: at an orderly stop no clock gains the minutes since the last writing."""
        latest_ms = self._trusted.latest_ms
        if latest_ms:
            self._write_mark(latest_ms)

    def set_clock(self, now_ms: int) -> None:
        """Forget any later time: the way back after a clock was far ahead for long. Only while no daemon runs."""
        with self._writing() as db:
            db.execute("UPDATE clock SET latest_ms = ?", (now_ms,))
        self._begin_at(now_ms)

    def _begin_at(self, latest_ms: int) -> None:
        with self._lock:
            self._trusted = TrustedTime(latest_ms, follows_back=False, monotonic=self._monotonic)
            self._written_ms = latest_ms

    def _read_mark(self) -> int:
        with self._reading() as db:
            return int(db.execute("SELECT latest_ms FROM clock").fetchone()[0])

    def _write_mark(self, latest_ms: int) -> None:
        try:
            with self._writing() as db:
                db.execute("UPDATE clock SET latest_ms = max(latest_ms, ?)", (latest_ms,))
        except (GalleryUnusable, TooBusy, StorageFull) as error:
            log.warning("the latest time was not written: %s", error)

    # --- the file ---

    def _prepare(self) -> None:
        """Make the file, for its owner alone, and bring it to this version."""
        try:
            self._path.touch(mode=0o600)  # SQLite itself would let others read it; the journal inherits the mode
            self._path.chmod(0o600)
        except OSError as error:
            raise GalleryUnusable(message=f"{self._path} cannot be opened: {error.strerror}") from error
        with self._writing() as db:
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if version > len(MIGRATIONS):
                raise GalleryUnusable(
                    message=f"{self._path} was written by a newer release (its version is {version}, this program"
                    f" knows {len(MIGRATIONS)}): install that release, or restore a backup made before it"
                )
            for number, migrate in enumerate(MIGRATIONS[version:], start=version + 1):
                migrate(db)
                db.execute(f"PRAGMA user_version = {number:d}")

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        # In turn: SQLite's own wait is a poll, and threads that write one after another can starve one that reads.
        if not self._turn.acquire(timeout=BUSY_MS / 1000):
            raise TooBusy(Mistake(self._path.name, "other requests have kept it busy"))
        try:
            yield
        except sqlite3.Error as error:
            self._kept.__dict__.clear()
            raise self._translated(error) from error
        finally:
            self._turn.release()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._in_turn():
            try:
                found = self._path.stat()
            except OSError as error:
                raise GalleryUnusable(message=f"{self._path} cannot be used: {error.strerror}") from error
            file = (found.st_dev, found.st_ino)
            if getattr(self._kept, "file", None) != file:
                self._kept.connection, self._kept.file = self._connected(), file
            yield self._kept.connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Give a transaction: on disk when the `with` ends, undone if it ends by an exception."""
        with self._in_turn(), closing(self._connected()) as db:
            db.execute("PRAGMA synchronous = EXTRA")
            db.execute("PRAGMA secure_delete = ON")  # a revoked token's hash is gone from the file too
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")  # an exception before it closes the connection, which rolls back

    def _connected(self) -> sqlite3.Connection:
        return sqlite3.connect(self._uri, uri=True, timeout=BUSY_MS / 1000, isolation_level=None)

    def _translated(self, error: sqlite3.Error) -> Refusal:
        text = str(error)  # 3.10 has no sqlite_errorcode
        if "locked" in text:
            return TooBusy(Mistake(self._path.name, text))
        if text in ("database or disk is full", "disk I/O error"):
            return StorageFull(Mistake(self._path.name, text))
        return GalleryUnusable(message=f"{self._path} cannot be used: {text}")


_SELECT = "SELECT token_id, name, scopes, list_id, source_id, created_ms, expires_ms, last_used_ms FROM tokens"

_Row = tuple[str, str, str, "str | None", "str | None", int, "int | None", "int | None"]


_SELECT_USER = "SELECT user_id, email, scopes, created_ms, password_ms, password FROM users"

_UserRow = tuple[str, str, str, int, int, str]


def _token(row: _Row) -> Token:
    token_id, name, scopes, list_id, source_id, created_ms, expires_ms, last_used_ms = row
    return Token(token_id, name, _scopes(scopes), list_id, source_id, created_ms, expires_ms, last_used_ms)


def _user(row: _UserRow) -> User:
    user_id, email, scopes, created_ms, password_ms, _ = row
    return User(user_id, email, _scopes(scopes), created_ms, password_ms)


def _scopes(text: str) -> frozenset[Scope]:
    return frozenset(Scope(scope) for scope in text.split(","))


def _scopes_text(scopes: frozenset[Scope]) -> str:
    return ",".join(sorted(scope.value for scope in scopes))


def _no_scopes() -> InvalidSchema:
    return invalid("scope", f"at least one of {', '.join(scope.value for scope in Scope)}")


def _email_key(email: str) -> str:
    """Return what is the same for every way to write the address."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", email).casefold())


def _check_new_password(password: str) -> None:
    if not PASSWORD_LEAST <= len(password) <= PASSWORD_LIMIT:
        raise invalid("password", f"{PASSWORD_LEAST} to {PASSWORD_LIMIT} characters")


def _sha256(secret: str) -> bytes:
    # no salt and no slow hash: those are for what people choose; 122 random bits cannot be guessed through
    return hashlib.sha256(secret.encode("ascii")).digest()
