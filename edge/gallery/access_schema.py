"""The tables of the file of tokens and users, as migrations."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

_NO_TIME_YET = "INSERT INTO clock VALUES (1, 0)"


def _tokens_revocations_clock(db: sqlite3.Connection) -> None:
    db.execute("""
        CREATE TABLE tokens (
            token_id TEXT PRIMARY KEY,
            secret_sha256 BLOB NOT NULL UNIQUE,
            name TEXT NOT NULL,
            scopes TEXT NOT NULL,
            list_id TEXT,
            source_id TEXT,
            created_ms INTEGER NOT NULL,
            expires_ms INTEGER,
            last_used_ms INTEGER
        ) STRICT""")
    db.execute("CREATE TABLE revoked (jti TEXT PRIMARY KEY, expires_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID")
    db.execute("CREATE INDEX revoked_by_expiry ON revoked (expires_ms)")
    db.execute("CREATE TABLE clock (only INTEGER PRIMARY KEY CHECK (only = 1), latest_ms INTEGER NOT NULL) STRICT")
    db.execute(_NO_TIME_YET)


def _users(db: sqlite3.Connection) -> None:
    db.execute("""
        CREATE TABLE users (
            user_id TEXT PRIMARY KEY,
            email TEXT NOT NULL,
            email_key TEXT NOT NULL UNIQUE,
            password TEXT NOT NULL,
            scopes TEXT NOT NULL,
            created_ms INTEGER NOT NULL,
            password_ms INTEGER NOT NULL
        ) STRICT""")


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_tokens_revocations_clock, _users)
"""The n-th brings the file to version n, all in one transaction. Never edit one that was released: add."""
