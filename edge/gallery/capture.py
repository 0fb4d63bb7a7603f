"""Every change of persons, templates, rejections and lists becomes an operation, in the transaction of the change.

Triggers tell, so that no code path can forget to. They are the writer connection's own (TEMP): a box that is in no
fleet has none of them, and its database does not know of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edge.gallery import lists, records
from edge.gallery.operations import MOST_BYTES, Kind, Newness, SharedRejection, template_key
from edge.gallery.outbox import Outbox
from edge.gallery.persons import KnownTemplate

_TRIGGERS = (
    "person_made AFTER INSERT ON persons BEGIN SELECT edge_touched('person', NEW.number, NULL, NULL); END",
    "person_changed AFTER UPDATE OF list, group_id, source_id, updated_ms, fields, features, yaw_degrees,"
    " pitch_degrees, roll_degrees, score ON persons BEGIN SELECT edge_touched('person', NEW.number, NULL, NULL); END",
    "person_gone AFTER DELETE ON persons BEGIN SELECT edge_touched('gone', OLD.number, OLD.person_id, NULL); END",
    "template_made AFTER INSERT ON templates BEGIN"
    " SELECT edge_touched('template', NEW.person, NEW.pack, NEW.vector); END",
    "template_gone AFTER DELETE ON templates BEGIN"
    " SELECT edge_touched('removed', OLD.person, OLD.pack, OLD.vector); END",
    "rejection_made AFTER INSERT ON rejections BEGIN"
    " SELECT edge_touched('rejection', NEW.person, NEW.sighting_id, NULL); END",
    "rejection_gone AFTER DELETE ON rejections BEGIN"
    " SELECT edge_touched('undone', OLD.person, OLD.sighting_id, NULL); END",
    "alias_gone AFTER DELETE ON aliases BEGIN SELECT edge_touched('alias', OLD.person, OLD.alias, NULL); END",
    "list_made AFTER INSERT ON lists BEGIN SELECT edge_touched('list', NEW.number, NEW.list_id, NULL); END",
    "list_renamed AFTER UPDATE OF name ON lists BEGIN SELECT edge_touched('list', NEW.number, NEW.list_id, NULL); END",
    "list_gone AFTER DELETE ON lists BEGIN SELECT edge_touched('list_gone', OLD.number, OLD.list_id, NULL); END",
)


@dataclass
class Touched:
    """What happened to a person in a transaction."""

    has_record: bool = False
    added: set[str] = field(default_factory=set)
    """Keys of templates."""
    removed: set[str] = field(default_factory=set)
    rejected: set[str] = field(default_factory=set)
    """Sightings."""
    undone: set[str] = field(default_factory=set)


class Capture:
    """What the writer's present transaction has touched. Under the writer's lock."""

    def __init__(self, writer: sqlite3.Connection, outbox: Outbox) -> None:
        """Listen to that connection."""
        self.outbox = outbox
        self.picture: Callable[[str], bytes | None] | None = None
        """Reads a picture; None: pictures are not shared."""
        self._writer = writer
        self._newness: dict[str, Newness] = {}
        self._former: dict[int, list[int]] = {}
        self.forget()
        writer.create_function("edge_touched", 4, self._touch)
        self.install()

    def install(self) -> None:
        """Make the triggers, where they are not there (changing where SQLite keeps temporary things drops them)."""
        for trigger in _TRIGGERS:
            name, rest = trigger.split(" ", 1)
            self._writer.execute(
                f"CREATE TEMP TRIGGER IF NOT EXISTS fleet_{name} {rest.replace(' ON ', ' ON main.', 1)}"
            )

    def note_newness(self, person_id: str, newness: Newness) -> None:
        """Say of somebody who is being added that nobody was like them."""
        self._newness[person_id] = newness

    def note_fusion(self, number: int, former: int) -> None:
        """Say of a person who is being deleted that they are the one of that number."""
        self._former.setdefault(number, []).append(former)

    def forget(self) -> None:
        """Be as at the beginning of a transaction."""
        self._persons: dict[int, Touched] = {}
        self._gone: dict[int, str] = {}
        self._aliases: dict[int, list[str]] = {}
        self._lists: dict[str, None] = {}
        self._lists_gone: dict[str, None] = {}
        self._newness.clear()
        self._former.clear()

    def _touch(self, what: str, number: int, first: object, second: object) -> None:
        if what == "gone":
            self._gone[number] = str(first)
        elif what == "alias":
            self._aliases.setdefault(number, []).append(str(first))
        elif what == "list":
            self._lists[str(first)] = None
        elif what == "list_gone":
            self._lists_gone[str(first)] = None
        else:
            touched = self._persons.setdefault(number, Touched())
            if what == "person":
                touched.has_record = True
            elif what in ("template", "removed"):
                assert isinstance(second, bytes), "a vector"
                (touched.added if what == "template" else touched.removed).add(template_key(str(first), second))
            else:
                (touched.rejected if what == "rejection" else touched.undone).add(str(first))

    def collect(self, transaction: sqlite3.Connection) -> bool:
        """Write what has been touched as operations; return whether there was anything."""
        lists = [one for one in self._lists if one not in self._lists_gone]
        present = {number: one for number, one in self._persons.items() if number not in self._gone}
        for list_id in lists:
            self._write_list(transaction, list_id)
        for number, touched in present.items():
            self._write_person(transaction, number, touched)
        for number, person_id in self._gone.items():
            ids = (person_id, *self._aliases.get(number, ()))
            records.bury(transaction, ids)
            for id_ in ids:
                self.outbox.write(transaction, Kind.ERASE, id_, aliases=tuple(one for one in ids if one != id_))
        for list_id in self._lists_gone:
            records.bury(transaction, [list_id])
            self.outbox.write(transaction, Kind.ERASE_LIST, list_id)
        return bool(lists or present or self._gone or self._lists_gone)

    def _write_list(self, transaction: sqlite3.Connection, list_id: str) -> None:
        found = lists.find_list(transaction, list_id)
        if found is not None and not found[1].is_main:
            record = {"name": found[1].name, "created_ms": found[1].created_ms}
            self.outbox.write(transaction, Kind.LIST, list_id, record=record)

    def _write_person(self, transaction: sqlite3.Connection, number: int, touched: Touched) -> None:
        record = records.record(transaction, number)
        if record is None:  # a trigger told of somebody who was gone at that time already
            return
        known = {records.shared(one).key: one for one in records.known_templates(transaction, number)}
        rejections = {one.sighting_id: one for one in records.shared_rejections(transaction, number)}
        removed, undone = touched.removed - known.keys(), touched.undone - rejections.keys()
        if removed or undone:  # published in the place of all that was said of the person before: whole, therefore
            templates, rejected = list(known.values()), list(rejections.values())
        else:
            templates = [one for key, one in known.items() if key in touched.added]
            rejected = [one for id_, one in rejections.items() if id_ in touched.rejected]
        is_whole = touched.has_record or bool(removed or undone)
        self.write_whole(
            transaction,
            record if is_whole else record._replace(columns={}),
            templates,
            rejected,
            removed=tuple(sorted(removed)),
            undone=tuple(sorted(undone)),
            newness=self._newness.get(record.person_id),
            former=tuple(self._gone[one] for one in self._former.get(number, ()) if one in self._gone),
        )

    def write_whole(
        self,
        transaction: sqlite3.Connection,
        record: records.Record,
        known: list[KnownTemplate],
        rejections: list[SharedRejection],
        **content: Any,
    ) -> None:
        """Write that a person is so; in as many operations as it takes."""
        templates = [records.shared(one, self._picture(one)) for one in known]
        content = {"record": record.columns or None, "rejections": tuple(rejections), **content}
        lots = [tuple(templates)]
        if sum(len(one.vector) + len(one.picture or b"") for one in templates) > MOST_BYTES // 2:
            lots = [(one,) for one in templates]
        self.outbox.write(transaction, Kind.PUT, record.person_id, templates=lots[0], **content)
        for lot in lots[1:]:
            self.outbox.write(transaction, Kind.PUT, record.person_id, templates=lot)

    def _picture(self, known: KnownTemplate) -> bytes | None:
        name = known.template.picture
        return None if name is None or self.picture is None else self.picture(name)
