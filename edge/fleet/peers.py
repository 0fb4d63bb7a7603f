"""What boxes tell each other of themselves, and who is right where they differ."""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass

from edge.gallery.replica import Digest

DIGESTS_KEPT = 64
"""Of the latest positions: boxes tell of theirs at different moments."""

BEATS_MISSED = 3
"""After so many a box counts as silent."""


@dataclass(frozen=True)
class Beat:
    """What a box tells of itself."""

    box: str
    origin: str
    position: int
    """-1: not seeded yet."""
    digest: str | None
    """None: own operations were on their way."""
    persons: int
    outbox: int
    pack: str

    def encoded(self) -> bytes:
        """Return it as JSON."""
        return json.dumps(asdict(self)).encode()


def decoded(body: bytes) -> Beat:
    """Return what a box tells. Raises ValueError."""
    try:
        told = json.loads(body)
        digest = told["digest"]
        return Beat(
            box=str(told["box"])[:100],
            origin=str(told["origin"])[:100],
            position=int(told["position"]),
            digest=None if digest is None else str(digest)[:64],
            persons=int(told["persons"]),
            outbox=int(told["outbox"]),
            pack=str(told["pack"])[:200],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not what a box tells of itself: {error!r}") from error


@dataclass(frozen=True)
class Peer:
    """Another box, as it was last heard."""

    beat: Beat
    heard: float
    """By the monotonic clock."""


class Peers:
    """The other boxes. In one thread."""

    def __init__(self, box: str, clock: Callable[[], float]) -> None:
        """`box`: this one's name; `clock` gives monotonic seconds."""
        self._box = box
        self._clock = clock
        self._peers: dict[str, Peer] = {}
        self._digests: OrderedDict[int, dict[str, str]] = OrderedDict()

    def hear(self, beat: Beat) -> None:
        """Take in what another box tells."""
        self._peers[beat.box] = Peer(beat, self._clock())
        if beat.digest is not None:
            self.note(beat.box, beat.position, beat.digest)

    def note_own(self, digest: Digest) -> None:
        """Take in what this box holds."""
        self.note(self._box, digest.position, digest.digest)

    def note(self, box: str, position: int, digest: str) -> None:
        """Remember what a box holds at a position."""
        self._digests.setdefault(position, {})[box] = digest
        self._digests.move_to_end(position)
        while len(self._digests) > DIGESTS_KEPT:
            self._digests.popitem(last=False)

    def forget_own(self) -> None:
        """Forget what this box held: it has been made like another."""
        for told in self._digests.values():
            told.pop(self._box, None)

    def heard_within(self, seconds: float) -> list[Beat]:
        """Return what the boxes told that were heard in the last seconds."""
        now = self._clock()
        return [peer.beat for peer in self.known() if now - peer.heard <= seconds]

    def known(self) -> list[Peer]:
        """Return every box that was ever heard."""
        return sorted(self._peers.values(), key=lambda peer: peer.beat.box)

    def agrees(self, position: int) -> bool | None:
        """Whether everybody who told of that position holds the same as this box; None: nobody else did."""
        told = self._digests.get(position, {})
        if self._box not in told or len(told) < 2:
            return None
        return len(set(told.values())) == 1

    def right_one(self, position: int) -> str | None:
        """Return a box to become like, where most hold at that position what this one does not; None: none.

        Where as many hold one thing as another, those are right whose first name is first: it has to be the same for
        all, and whoever is made like others loses nobody by it.
        """
        told = self._digests.get(position, {})
        if self._box not in told or len(set(told.values())) < 2:
            return None
        counted = Counter(told.values())
        most = max(counted.values())
        box, digest = min((box, digest) for box, digest in told.items() if counted[digest] == most)
        return None if digest == told[self._box] else box
