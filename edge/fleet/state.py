"""How a box is reached by its fleet, and how the fleet is, as one box sees it."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path

from edge.fleet.peers import BEATS_MISSED, Peer


@dataclass(frozen=True)
class Terms:
    """How a box is reached by the others, and what it tells of itself."""

    servers: tuple[str, ...]
    user: str
    password: str
    tls: ssl.SSLContext | None
    prefix: str
    box: str
    pack: str
    digest_seconds: float
    stream_days: float
    stream_bytes: int
    spool: Path
    """A folder for what is too large for memory."""

    @property
    def silent_seconds(self) -> float:
        """After which a box that was not heard counts as silent."""
        return BEATS_MISSED * self.digest_seconds


@dataclass(frozen=True)
class State:
    """How the fleet is, as this box sees it."""

    box: str
    connected: bool
    position: int | None
    outbox: int
    peers: tuple[dict[str, object], ...]
    """Of each: its name, seconds since it was heard, how many operations it is behind, its outbox, its pack."""
    digest: str | None
    """The last that was computed."""
    agrees: bool | None
    """Whether everybody who told of that position holds the same; None: nobody has."""
    seeded: int
    """Snapshots of others taken in since the start."""


@dataclass
class Told:
    """What the link knows, for `state`."""

    connected: bool = False
    last: int = 0
    """Of the stream, as it was last seen."""
    digest: str | None = None
    agrees: bool | None = None
    seeded: int = 0
    others: list[Peer] = field(default_factory=list)


def peers_of(told: Told, terms: Terms) -> tuple[dict[str, object], ...]:
    """Return what is known of the other boxes, as /health tells it."""
    return tuple(
        {
            "box": beat.box,
            "heard_seconds_ago": round(ago, 1),
            "behind": max(0, told.last - beat.position) if beat.position >= 0 else None,
            "outbox": beat.outbox,
            "pack": beat.pack,
            "same_pack": beat.pack == terms.pack,
            "silent": ago > terms.silent_seconds,
        }
        for beat, ago in ((peer.beat, time.monotonic() - peer.heard) for peer in told.others)
    )
