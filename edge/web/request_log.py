"""A line in the log for one request: what it was, how it ended and how long it took, by ids alone."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from edge.web.auth import Caller
from edge.web.forms import SOURCE_ID
from edge.web.parameters import Values
from edge.web.values import UUID
from edge.web.views import Answer

log = logging.getLogger(__name__)

ID_BYTES = 8
"""Of a request's id: enough to find its line among a year's, and too few to be taken for a token."""


def new_id() -> str:
    """Return the id of a request: always our own, as one that a client sends might say anything, in our log."""
    return secrets.token_hex(ID_BYTES)


@dataclass
class Trail:
    """What is known of one request by its end: less, where it was refused on its way."""

    route: str
    """The template, never the path."""
    parameters: Mapping[str, str]
    """From the path, unchecked."""
    request_id: str = field(default_factory=new_id)
    caller: Caller | None = None
    values: Values | None = None

    def write(self, answer: Answer, seconds: float) -> None:
        """Write the line, `key=value` with blanks between."""
        log.info("%s", " ".join(f"{key}={value}" for key, value in self._pairs(answer, seconds)))

    def _pairs(self, answer: Answer, seconds: float) -> Iterator[tuple[str, object]]:
        yield "request", self.request_id
        yield "route", self.route
        yield "status", answer.status
        yield "ms", f"{seconds * 1000:.1f}"
        token_id = self.caller.identity[0] if self.caller else None
        if token_id is not None:
            yield "token", token_id
        source_id = self._source_id()
        if source_id is not None:
            yield "source", source_id
        faces = answer.json.get("faces_total") if answer.json else None
        if isinstance(faces, int):
            yield "faces", faces

    def _source_id(self) -> str | None:
        """Return the source that was named, in the path or the body, else that of the token."""
        named = self.parameters.get("source_id", "").lower()
        if UUID.fullmatch(named):
            return named
        sent = self.values[SOURCE_ID] if self.values and SOURCE_ID in self.values.form.parameters else None
        return sent or (self.caller.source_id if self.caller else None)
