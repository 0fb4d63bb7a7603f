"""What becomes of the templates when a person is given more of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge.gallery.diversity import most_different
from edge.gallery.index import TEMPLATES_PER_PERSON
from edge.gallery.persons import KnownTemplate
from edge.types import StoredTemplate


@dataclass(frozen=True)
class Fusion:
    """The choice: which of the person's own go, which of another person's and of the new ones come."""

    dropped: tuple[KnownTemplate, ...]
    moved: tuple[KnownTemplate, ...]
    added: tuple[StoredTemplate, ...]


def fused(own: Sequence[KnownTemplate], others: Sequence[KnownTemplate], new: Sequence[StoredTemplate]) -> Fusion:
    """Choose up to 20 of each pack, those that differ most (diversity.py); of equals the person's own stay."""
    pool = [*(known.template for known in (*own, *others)), *new]
    kept: set[int] = set()
    for pack_id in {template.pack_id for template in pool}:
        places = [place for place, template in enumerate(pool) if template.pack_id == pack_id]
        vectors = [pool[place].embedding.vector for place in places]
        chosen = most_different(vectors, [pool[place].quality for place in places], TEMPLATES_PER_PERSON)
        kept.update(places[one] for one in chosen)
    first_new = len(own) + len(others)
    return Fusion(
        dropped=tuple(known for place, known in enumerate(own) if place not in kept),
        moved=tuple(known for place, known in enumerate(others, start=len(own)) if place in kept),
        added=tuple(template for place, template in enumerate(new, start=first_new) if place in kept),
    )
