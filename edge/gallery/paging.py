"""Pages by a row's number: numbers rise and never come twice, so a page can begin where the last one ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from edge.errors import invalid
from edge.gallery.protocol import PAGE_LIMIT, Page

Item = TypeVar("Item")


def page(rows_after: Callable[[int, int], Sequence[tuple[int, Item]]], cursor: str | None, limit: int) -> Page[Item]:
    """Return the page behind the cursor.

    `rows_after(number, limit)` gives up to so many records of greater numbers, each with its own, in their order.
    Raises InvalidSchema for a cursor that no page had.
    """
    limit = min(max(1, limit), PAGE_LIMIT)
    rows = rows_after(row_number(cursor), limit + 1)
    shown = rows[:limit]
    return Page(tuple(item for _, item in shown), str(shown[-1][0]) if len(rows) > limit else None)


def row_number(cursor: str | None) -> int:
    """Return the number of the row behind which the page begins; 0 for the first. Raises InvalidSchema."""
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise invalid("cursor", "not one that a page gave")
    return int(cursor)
