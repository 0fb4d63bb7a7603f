"""Finding persons by what their fields say: a bounded walk over the fields, in whatever case and script they are.

No index: one that finds parts of words would be a second copy of every name, to be erased with the person, and a walk
over 100,000 persons takes 0.3 to 0.5 s of a desktop core that has other work too.
"""

from __future__ import annotations

import json
import unicodedata

from edge.gallery import lists, persons
from edge.gallery.core import Core
from edge.gallery.paging import row_number
from edge.gallery.protocol import PAGE, PAGE_LIMIT, PersonPage
from edge.types import Person

ROWS_AT_ONCE = 2000
"""Read at once: a reader that takes long would hold up the checkpoints."""

ROWS_A_PAGE = 200_000
"""Persons looked at for one page, at most; its cursor leads on."""


class Finding(Core):
    """The gallery's part that finds persons by words."""

    def find_person(self, person_id: str) -> Person | None:
        """Return the person, whichever list they are in, None if there is none of that id."""
        found = persons.find_anywhere(self.database.read(), person_id)
        return None if found is None else found[1]

    def find_persons(
        self, text: str | None, list_id: str | None = None, cursor: str | None = None, limit: int = PAGE
    ) -> PersonPage:
        """Return a page of the persons one of whose fields contains the text, in whatever case, in order of creation.

        None: of those without a name, none of whose fields says anything.
        Of a list, or of all where it is None. A page may have fewer than `limit` and still a cursor: it ends after
        200,000 persons looked at. Raises ListNotFound, InvalidSchema.
        """
        connection = self.database.read()
        list_number = None if list_id is None else lists.the_list(connection, list_id)[0]
        wanted, limit = None if text is None else folded(text), min(max(1, limit), PAGE_LIMIT)
        number = row_number(cursor)
        found: list[Person] = []
        last = number
        for _ in range(ROWS_A_PAGE // ROWS_AT_ONCE):
            rows = persons.fields_after(connection, list_number, number, ROWS_AT_ONCE)
            for number, fields in rows:
                is_one = _say_nothing(fields) if wanted is None else _contain(fields, wanted)
                if is_one and (person := persons.by_number(connection, number)) is not None:
                    if len(found) == limit:
                        return PersonPage(tuple(found), str(last))
                    found.append(person)
                    last = number
            if len(rows) < ROWS_AT_ONCE:
                return PersonPage(tuple(found), None)
        return PersonPage(tuple(found), str(number))


def folded(text: str) -> str:
    """Return the text as it is compared: without regard to case, and to how its accents are composed."""
    return text.casefold() if text.isascii() else unicodedata.normalize("NFC", text).casefold()


def _say_nothing(fields: str) -> bool:
    """Whether none of the fields, as they are stored, has anything but blanks in it."""
    return fields == "[]" or not any(field.strip() for field in json.loads(fields))


def _contain(fields: str, wanted: str) -> bool:
    """Whether one of the fields, as they are stored, contains the folded text."""
    if "\\" not in fields and wanted not in fields.lower():  # all of it is plain letters: four in five are told here
        return False
    return any(wanted in folded(field) for field in json.loads(fields))
