"""From a token to a Caller: who asks, and what they may do.

Two kinds of token: permanent ones, kept as hashes by gallery.access, and temporary ones (JWT, HS256), signed here. All
that can be wrong with one is told alike, since each difference would help a guesser; the log has the reason.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
import os
import secrets
import stat
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from edge import durable
from edge.errors import AccessDenied, Mistake, ScopeMissing, Unusable
from edge.gallery.access import SECRET, Access
from edge.types import Scope
from edge.web import sessions
from edge.web.body import Body

ALGORITHM = "HS256"
KEY_BYTES = 32  # as long as the hash: RFC 7518, 3.2
LONGEST_TOKEN = 4096  # characters; ours have about 400
REQUIRED_CLAIMS = ("exp", "iat", "sub", "jti", "scope")
DAY_SECONDS = 86_400

log = logging.getLogger(__name__)


# --- who asks ---


@dataclass(frozen=True)
class Caller:
    """Who asks, by a token that was found good: what it is for, and the list and source that it is bound to."""

    subject: str
    """A permanent token's name, or whom a temporary one was issued to."""
    scopes: frozenset[Scope]
    list_id: str | None = None
    source_id: str | None = None
    token_id: str | None = None
    """Of a permanent token."""
    jti: str | None = None
    """Of a temporary token."""
    expires_ms: int | None = None

    @property
    def identity(self) -> tuple[str | None, str]:
        """The id and name that the audit log has for them: of the token, or of the user whom it was issued to."""
        if self.token_id is not None:
            return self.token_id, self.subject
        token_id = self.subject.removeprefix(sessions.OF_TOKEN)
        if token_id != self.subject:
            return token_id, "session"
        user_id = self.subject.partition("@")[0]
        return (user_id, "user") if SECRET.fullmatch(user_id) else (None, "user")

    def has(self, scope: Scope) -> bool:
        """Whether the token is good for that; one for `admin` is good for everything."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def require(self, *scopes: Scope) -> None:
        """Raise ScopeMissing where the token is good for none of them."""
        if not any(self.has(scope) for scope in scopes):
            wanted = " or ".join(sorted(scope.value for scope in scopes))
            raise ScopeMissing(Mistake("token", f"has no scope {wanted}"))

    def may_use(self, list_id: str | None, source_id: str | None) -> tuple[str | None, str | None]:
        """Return the list and source to work with: the request's, or where it names none, those the token is bound to.

        ScopeMissing: the request names another than the token is bound to, whatever its scopes.
        """
        for name, asked, bound in (("list_id", list_id, self.list_id), ("source_id", source_id, self.source_id)):
            if bound is not None and asked not in (None, bound):
                raise ScopeMissing(Mistake(name, f"the token is bound to {bound}"))
        return list_id or self.list_id, source_id or self.source_id


# --- signing keys ---


@dataclass(frozen=True)
class Key:
    """A signing key: 32 random bytes and the name that tokens know it by."""

    kid: str
    secret: bytes
    retired_ms: int | None = None
    """When another began to sign in its place; None: it signs."""


class Keys:
    """The signing keys of temporary tokens: the first one signs, all verify, so that one can follow another."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = tuple(keys)
        if not self._keys or any(len(key.secret) < KEY_BYTES for key in self._keys):
            raise Unusable(Mistake("keys", f"there must be one at least, each of {KEY_BYTES} bytes or more"))

    @property
    def signing(self) -> Key:
        """The key that new tokens are signed with."""
        return self._keys[0]

    def find(self, kid: str) -> Key | None:
        """Return the key of that name."""
        return next((key for key in self._keys if key.kid == kid), None)

    def secrets(self) -> Sequence[bytes]:
        """Return every key's bytes, the signing one's first."""
        return [key.secret for key in self._keys]

    def rotated(self, now_ms: int, keep_ms: int) -> Keys:
        """Return a new key before those that stopped signing less than `keep_ms` ago; 0 keeps none.

        What an older key has signed stays good until it expires, where `keep_ms` is as long as anything may last.
        """
        retired = [
            key if key.retired_ms is not None else dataclasses.replace(key, retired_ms=now_ms) for key in self._keys
        ]
        return Keys([_new_key(), *(key for key in retired if max(0, now_ms - (key.retired_ms or 0)) < keep_ms)])

    @classmethod
    def load_or_create(cls, path: Path) -> Keys:
        """Return the keys of the file, which is made with one new key where there is none.

        Unusable: the file is no file of keys, or others may read or change it.
        """
        if not path.exists():
            try:
                cls([_new_key()]).save(path, replace=False)
            except FileExistsError:
                log.info("another process has just made %s", path)
            except OSError as error:
                raise Unusable(message=f"{path} cannot be made: {error.strerror}") from error
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> Keys:
        """Return the keys of the file; Unusable where it is none, or others may read or change it."""
        try:
            mode = path.stat().st_mode
            content = path.read_bytes()
        except OSError as error:
            raise Unusable(message=f"{path} cannot be read: {error.strerror}") from error
        # not the group's reading: a credential that systemd hands over carries an access list, and shows so
        if mode & (stat.S_IRWXO | stat.S_IWGRP):
            raise Unusable(message=f"{path} holds signing keys and is open to others: chmod 600 {path}")
        try:
            stored = json.loads(content)["keys"]
            return cls(
                Key(
                    str(one["kid"]),
                    base64.b64decode(one["key"], validate=True),
                    None if one.get("retired_ms") is None else int(one["retired_ms"]),
                )
                for one in stored
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unusable(message=f"{path} holds no signing keys; without it all temporary tokens end") from error

    def save(self, path: Path, *, replace: bool = True) -> None:
        """Write the file, for its owner alone, whole or not at all. FileExistsError: it is not to be replaced."""
        keys = [
            {"kid": key.kid, "key": base64.b64encode(key.secret).decode("ascii"), "retired_ms": key.retired_ms}
            for key in self._keys
        ]
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                json.dump({"keys": keys}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
                if os.geteuid() == 0 and path.exists():  # the administrator rotates, the service must read
                    os.fchown(file.fileno(), path.stat().st_uid, path.stat().st_gid)
            if replace:
                temporary.replace(path)
            else:
                os.link(temporary, path)  # unlike a rename, fails if two first starts meet: the first key stays
        finally:
            temporary.unlink(missing_ok=True)
        durable.sync(path.parent)


class KeyFile:
    """The keys of a file as it is now: another process may rotate them. Safe to use from several threads at once."""

    def __init__(self, path: Path) -> None:
        """Read it, made where it is missing. Unusable as Keys.load_or_create."""
        self._path = path
        self._read = (Keys.load_or_create(path), _stamp(path))

    @property
    def signing(self) -> Key:
        """As Keys."""
        return self._now().signing

    def find(self, kid: str) -> Key | None:
        """As Keys."""
        return self._now().find(kid)

    def secrets(self) -> Sequence[bytes]:
        """As Keys."""
        return self._now().secrets()

    def _now(self) -> Keys:
        keys, stamp = self._read
        found = _stamp(self._path)
        if found == stamp:
            return keys
        try:
            keys = Keys.load(self._path)
        except Unusable as error:  # whoever broke it has not ended what is in hand; a start tells them
            log.error("the keys stay what they were: %s", error)
        self._read = (keys, found)
        return keys


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes with the file: it is only ever replaced whole."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode)


def _new_key() -> Key:
    return Key(secrets.token_hex(8), secrets.token_bytes(KEY_BYTES))


# --- tokens ---


class Authenticator:
    """Turns tokens into callers, and issues temporary tokens. Safe to use from several threads at once."""

    def __init__(
        self,
        keys: Keys | KeyFile,
        access: Access,
        clock: Callable[[], int],
        *,
        max_valid_seconds: int = 365 * DAY_SECONDS,
        leeway_seconds: int = 60,
        on_denied: Callable[[str], None] = lambda address: None,
    ) -> None:
        """Keep what is needed to judge.

        clock: milliseconds since 1970. max_valid_seconds: the longest life of a temporary token; one that claims more
        is refused. leeway_seconds: how far ahead the clock may have been that stamped a token. on_denied: told the
        address of every caller whose token was refused, before the refusal is raised; may raise another.
        """
        self._keys = keys
        self._access = access
        self._clock = clock
        self._max_valid_seconds = max_valid_seconds
        self._leeway_seconds = leeway_seconds
        self._on_denied = on_denied

    def from_headers(self, environ: Mapping[str, Any]) -> Caller | None:
        """Return the caller by `Authorization: Bearer`, else the header `token`, else the session; None without any.

        AccessDenied: the first of them that was sent is not good, whatever else was sent. ScopeMissing: it is the
        session's cookie, and not the page that sent it.
        """
        if "HTTP_AUTHORIZATION" in environ:
            scheme, _, token = str(environ["HTTP_AUTHORIZATION"]).partition(" ")
            return self._caller(token.strip(" ") if scheme.lower() == "bearer" else "", environ)
        if "HTTP_TOKEN" in environ:
            return self._caller(str(environ["HTTP_TOKEN"]), environ)
        cookie = sessions.token_of(environ)
        if cookie is None:
            return None
        caller = self._caller(cookie, environ)
        sessions.check_intent(environ, caller.jti)
        return caller

    def from_camera(self, environ: Mapping[str, Any], query: Mapping[str, Sequence[str]]) -> Caller | None:
        """As `from_headers`, and by what cameras can send besides.

        That is `Authorization: Basic`, whose password is the token and whose name is anything, or `token` in the query.
        """
        scheme, _, encoded = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
        if scheme.lower() == "basic":
            try:
                password = base64.b64decode(encoded.strip(" "), validate=True).decode("ascii").partition(":")[2]
            except ValueError:
                password = ""
            return self._caller(password, environ)
        caller = self.from_headers(environ)
        tokens = query.get("token", ())
        return self._caller(tokens[0] if len(tokens) == 1 else "", environ) if caller is None and tokens else caller

    def from_body(self, body: Body, environ: Mapping[str, Any]) -> Caller:
        """Return the caller by the body's field `token`. AccessDenied: none, several, or not good."""
        values = body.values("token")
        token = values[0] if len(values) == 1 and isinstance(values[0], str) else ""
        return self._caller(token, environ)

    def from_token(self, token: str, environ: Mapping[str, Any]) -> Caller:
        """Return the caller by this token. AccessDenied: it is not good."""
        return self._caller(token, environ)

    def issue(
        self,
        subject: str,
        scopes: frozenset[Scope],
        valid_seconds: int | None = None,
        *,
        list_id: str | None = None,
        source_id: str | None = None,
    ) -> str:
        """Return a temporary token, good for `valid_seconds` (None: for as long as any may be), and never longer.

        It is stamped with the time that it will be judged by, so that it is good even while the clock is set back.
        """
        now = self._access.judged_now(self._clock()) // 1000
        longest = self._max_valid_seconds
        claims = {
            "sub": subject,
            "iat": now,
            "exp": now + (longest if valid_seconds is None else min(valid_seconds, longest)),
            "jti": str(uuid.uuid4()),
            "scope": " ".join(sorted(scope.value for scope in scopes)),  # as RFC 8693 has it
            **({"list_id": list_id} if list_id else {}),
            **({"source_id": source_id} if source_id else {}),
        }
        key = self._keys.signing
        return jwt.encode(claims, key.secret, ALGORITHM, headers={"kid": key.kid})

    def revoke(self, caller: Caller) -> None:
        """End the temporary token that the caller came with; a permanent one stays, since others may share it."""
        if caller.jti is not None and caller.expires_ms is not None:
            self._access.revoke_temporary(caller.jti, caller.expires_ms, self._clock())

    # --- judging ---

    def _caller(self, token: str, environ: Mapping[str, Any]) -> Caller:
        try:
            if SECRET.fullmatch(token.lower()):
                return self._permanent(token)
            return self._temporary(token)
        except AccessDenied as denied:
            # who is behind a temporary token is looked for once it is found good (users.check_user), and may be gone:
            # without a second look here too, time would tell that refusal from all others
            self._access.user("")
            address = str(environ.get("REMOTE_ADDR", ""))
            log.debug("a token from %s was refused: %s", address, denied)
            self._on_denied(address)
            raise

    def _permanent(self, secret: str) -> Caller:
        now_ms = self._clock()
        token = self._access.find(secret, now_ms)
        if token is None:
            raise _denied("unknown, revoked or expired")
        self._access.touch(token.token_id, now_ms)
        return Caller(
            subject=token.name,
            scopes=token.scopes,
            list_id=token.list_id,
            source_id=token.source_id,
            token_id=token.token_id,
            expires_ms=token.expires_ms,
        )

    def _temporary(self, token: str) -> Caller:
        try:
            claims = self._verified(token)
            self._check_times(claims)
        except AccessDenied:
            # three times the rest of the judging: without it, time would tell a right signature from a wrong one
            self._access.is_revoked("")
            raise
        if self._access.is_revoked(claims["jti"]):
            raise _denied("revoked")
        return Caller(
            subject=claims["sub"],
            scopes=_scopes(claims["scope"]),
            list_id=_text_or_none(claims, "list_id"),
            source_id=_text_or_none(claims, "source_id"),
            jti=claims["jti"],
            expires_ms=claims["exp"] * 1000,
        )

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        expires, issued = _seconds(claims, "exp"), _seconds(claims, "iat")
        now = self._access.judged_now(self._clock()) / 1000
        if expires <= now:
            raise _denied("expired")
        if max(issued, _seconds(claims, "nbf", issued)) > now + self._leeway_seconds:
            raise _denied("not valid yet")
        if expires - min(issued, now) > self._max_valid_seconds + self._leeway_seconds:
            raise _denied("valid for longer than any may be")

    def _verified(self, token: str) -> dict[str, Any]:
        """Return the claims of a token that one of our keys signed, with every claim that is required."""
        if len(token) > LONGEST_TOKEN or not token.isascii():
            raise _denied("malformed")
        try:
            key = self._keys.find(str(jwt.get_unverified_header(token).get("kid")))
            if key is None:
                raise _denied("of an unknown key")
            return jwt.decode(
                token,
                key.secret,
                algorithms=[ALGORITHM],
                options={
                    "require": list(REQUIRED_CLAIMS),
                    "enforce_minimum_key_length": True,
                    # the times are judged by our own clock, which cannot be set back: see _temporary
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise _denied(f"{type(error).__name__}: {error}") from None


def _denied(reason: str) -> AccessDenied:
    return AccessDenied(Mistake("token", reason))


def _seconds(claims: Mapping[str, Any], name: str, otherwise: int | None = None) -> int:
    value = claims.get(name, otherwise)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 40:  # 36,000 years
        raise _denied(f"{name} is no time")
    return value


def _scopes(text: Any) -> frozenset[Scope]:
    try:
        scopes = frozenset(Scope(scope) for scope in text.split(" "))
    except (AttributeError, ValueError):
        raise _denied("scope names what is none") from None
    return scopes


def _text_or_none(claims: Mapping[str, Any], name: str) -> str | None:
    value = claims.get(name)
    if value is not None and not isinstance(value, str):
        raise _denied(f"{name} is no text")
    return value
