"""The page's session: a temporary token in a cookie that scripts cannot read, and what shows that the page itself asks.

A browser sends a cookie with whatever request it is talked into, so a request that may change something brings the
session's CSRF token too, in a header that no other site can set and with a value that none can read.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

from edge.errors import Mistake, ScopeMissing
from edge.web import addresses

COOKIE = "edge_session"
SESSION_SECONDS = 12 * 3600
"""A working day: whoever leaves the page open in the evening signs in again in the morning."""

CSRF_HEADER = "X-CSRF-Token"
_CSRF_VARIABLE = "HTTP_X_CSRF_TOKEN"
OF_TOKEN = "token:"  # noqa: S105 (no secret)
"""Begins the subject of a session that a permanent token began; its id follows."""

SAFE_METHODS = ("GET", "HEAD")


def token_of(environ: Mapping[str, Any]) -> str | None:
    """Return the token of the session's cookie, None where there is none."""
    try:
        found = SimpleCookie(str(environ.get("HTTP_COOKIE", ""))).get(COOKIE)
    except CookieError:  # some other program's, on the same host
        return None
    return found.value if found is not None and found.value else None


def cookie(token: str, environ: Mapping[str, Any]) -> dict[str, str]:
    """Return the header that sets the cookie, for the connection's own scheme; an empty token removes it."""
    seconds = SESSION_SECONDS if token else 0
    secure = "; Secure" if environ.get("wsgi.url_scheme") == "https" else ""
    return {"Set-Cookie": f"{COOKIE}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"}


def csrf_token(jti: str) -> str:
    """Return what the page sends along: derived, so that nothing is kept; who knows it knows no token."""
    return hashlib.sha256(f"csrf token of {jti}".encode()).hexdigest()


def check_intent(environ: Mapping[str, Any], jti: str | None) -> None:
    """Raise ScopeMissing unless the page itself asks, or nothing can be changed: `jti` is the session's token's."""
    if environ["REQUEST_METHOD"] in SAFE_METHODS:
        return
    sent = str(environ.get(_CSRF_VARIABLE, ""))
    if jti is None or not hmac.compare_digest(sent.encode(), csrf_token(jti).encode()):
        raise ScopeMissing(Mistake(CSRF_HEADER, "must be what GET /session says, where the session's cookie is sent"))


def check_origin(environ: Mapping[str, Any]) -> None:
    """Raise ScopeMissing where another site's page asks: it must not sign anybody in."""
    sent = environ.get("HTTP_ORIGIN")
    # the scheme is left out: a proxy that speaks TLS is not always known to us
    if sent is not None and str(sent).partition("//")[2] != addresses.origin(environ).partition("//")[2]:
        raise ScopeMissing(Mistake("Origin", "is another site's"))
