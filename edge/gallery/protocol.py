"""What the rest of the appliance may rely on from a gallery, whichever one it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from edge.gallery.sightings import StoredSighting
from edge.types import (
    Candidate,
    Decision,
    Embedding,
    ListAlert,
    NewPerson,
    Person,
    PersonList,
    Photo,
    Rejection,
    Source,
    SourceDefaults,
    SourceGroup,
    StoredTemplate,
    Template,
)

Item = TypeVar("Item")

CANDIDATES = 3
"""Persons that a decision sees: the best, and those it was chosen over."""

NO_DEFAULTS = SourceDefaults()
"""A source that brings nothing of its own."""

PAGE = 100
"""Records of a page where the caller does not say."""

PAGE_LIMIT = 1000
"""Records of a page at most; a `limit` outside 1 to this is brought to the nearer end."""


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Records in the order in which they were made; `cursor` leads to the next page, None where there is none.

    A walk from page to page meets every record that is there all the while exactly once, whatever is added, changed or
    deleted meanwhile; what is added during the walk comes at its end.
    """

    items: tuple[Item, ...]
    cursor: str | None


PersonPage = Page[Person]


class Decide(Protocol):
    """Judges one face: called under the gallery's lock, so it only computes."""

    def __call__(self, number: int, list_size: int, candidates: Sequence[Candidate]) -> Decision:
        """Return what becomes of probe `number`, given the list's persons and those most like it, best first."""


@dataclass(frozen=True)
class Probe:
    """A face to be compared, what to write of it if it is somebody new, and its template if that is made already."""

    embedding: Embedding
    newcomer: NewPerson
    template: Template | None


@dataclass(frozen=True)
class Outcome:
    """What became of a probe."""

    decision: Decision
    person: Person | None
    """Who was matched, added or replaced, as they are now; None for a rejected face."""
    candidates: tuple[Candidate, ...]
    """The persons most like it when it was decided, best first."""
    list_size: int
    """Persons in the list when it was decided."""


@dataclass(frozen=True)
class TemplatesWanted:
    """Nothing was written: these probes would be, and come without a template."""

    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Counts:
    """What the gallery holds."""

    lists: int
    persons: int
    templates: int
    set_aside: int
    """Templates whose checksum is wrong: not served, their persons stay."""
    other_packs: int
    """Templates of another pack: not comparable, their persons stay."""
    pictures_missing: int
    """Pictures whose file was not there at this start: their persons stay, without them."""
    recall_checked: int
    """Searches by a graph that were repeated exactly."""
    recall_agreed: int
    """Those of them that had found the same person first."""


class Gallery(Protocol):
    """What is known of persons. Every method may be called from any thread.

    Whatever changes something is durable when it returns, all of it or, if it raises, none of it; each may raise
    StorageFull. A `cursor` that no page had is InvalidSchema.
    """

    # --- recognising ---

    def identify(self, list_id: str, embedding: Embedding, persons: int = CANDIDATES) -> list[Candidate]:
        """Return up to `persons` candidates, best first, and between them those who are disputed.

        Raises ListNotFound, PackMismatch.
        """

    def identify_in_lists(
        self, list_ids: Sequence[str], embedding: Embedding, persons: int = CANDIDATES
    ) -> list[Candidate]:
        """Return up to `persons` candidates of all these lists together, best first, and between them the disputed.

        Raises ListNotFound, PackMismatch.
        """

    def identify_or_enrol(
        self, list_id: str, probes: Sequence[Probe], decide: Decide
    ) -> list[Outcome] | TemplatesWanted:
        """Search, decide and write for each probe in turn, in one step: `search_or_enrol` with one list."""

    def search_or_enrol(
        self,
        search_lists: Sequence[str],
        add_list: str | None,
        probes: Sequence[Probe],
        decide: Decide,
        persons: int = CANDIDATES,
    ) -> list[Outcome] | TemplatesWanted:
        """Search several lists at once, decide and write for each probe in turn: one step, one commit.

        `decide` sees up to `persons` candidates of all the lists together, and as `list_size` the persons of all of
        them (each is a comparison). ADD adds to `add_list`, REPLACE and MATCH mean a person of a searched list. Whom
        an earlier probe added is seen by later ones if `add_list` is among the searched. No lists to search: everybody
        is nobody.

        Raises ListNotFound, PackMismatch, ItemNotFound (a decision names nobody of these lists), ValueError (ADD
        without a list to add to).
        """

    # --- persons ---

    def person(self, list_id: str, person_id: str) -> Person:
        """Return the record. Raises ListNotFound, ItemNotFound."""

    def persons(self, list_id: str, cursor: str | None = None, limit: int = PAGE) -> PersonPage:
        """Return a page of the list's persons. Raises ListNotFound, InvalidSchema."""

    def templates_of(self, person_id: str) -> tuple[StoredTemplate, ...]:
        """Return the person's templates, the best first; none for an unknown person.

        Of whatever pack; damaged ones are left out.
        """

    def update_person(
        self,
        list_id: str,
        person_id: str,
        *,
        fields: Sequence[str] | None = None,
        drop_picture: bool = False,
        new_list_id: str | None = None,
    ) -> Person:
        """Change what is given, in one step, and return the record as it is then.

        `fields` take the place of all there were. `drop_picture` erases the person's pictures (those of their
        sightings belong to the history and stay). `new_list_id` moves the person; their sightings stay with the list
        in which they were made. Raises ListNotFound (of `list_id` or `new_list_id`, as the mistake says),
        ItemNotFound.
        """

    def add_templates(
        self,
        list_id: str,
        person_id: str,
        templates: Sequence[Template],
        *,
        replace_person_id: str | None = None,
        fields: Sequence[str] | None = None,
    ) -> Person:
        """Add to what a person is recognised by, and return their record as it is then.

        At most 20 templates are kept, those that differ most: first the one of the best quality, then again and again
        the one whose greatest cosine to those kept is the least; one that is there already (cosine 1) never twice.

        `replace_person_id` is a person of the same list who turned out to be this one: their templates come into the
        same choice, their sightings and rejections become this person's, and they are deleted. A rejected face of
        either that is more like the other of the two is theirs, so it is rejected no longer. Their fields go
        with them; `fields`, where given, take the place of this person's.

        Raises ListNotFound, ItemNotFound (either person), PackMismatch, Conflict (a person fused with themselves).
        """

    def delete_persons(self, list_id: str, person_ids: Sequence[str]) -> int:
        """Erase persons and everything about them; return how many there were. Raises ListNotFound."""

    def reject(self, list_id: str, person_id: str, sighting_id: str) -> Rejection:
        """Remember that the face of the sighting is not this person; a second time is the same as once.

        It stays through replacing and moving the person, and is compared only with the vectors of its pack. Raises
        ListNotFound, ItemNotFound (the person, the sighting), Conflict (the sighting was kept without its vector, or
        64 are rejected already), PackMismatch.
        """

    def undo_rejection(self, list_id: str, person_id: str, sighting_id: str) -> None:
        """Forget it again, for good. Raises ListNotFound, ItemNotFound."""

    def rejections(self, list_id: str, person_id: str, cursor: str | None = None, limit: int = PAGE) -> Page[Rejection]:
        """Return a page of what was said not to be this person. Raises ListNotFound, ItemNotFound, InvalidSchema."""

    def find_person(self, person_id: str) -> Person | None:
        """Return the person, whichever list they are in, None if there is none of that id."""

    def find_persons(
        self, text: str | None, list_id: str | None = None, cursor: str | None = None, limit: int = PAGE
    ) -> PersonPage:
        """Return a page of the persons one of whose fields contains the text, in whatever case, in order of creation.

        None: of those without a name, none of whose fields says anything.
        Of a list, or of all where it is None. A page may have fewer than `limit` and still a cursor: it ends after
        200,000 persons looked at. Raises ListNotFound, InvalidSchema.
        """

    # --- photos ---

    def photos(self, list_id: str, person_id: str) -> tuple[Photo, ...]:
        """Return the person's intact templates, of whatever pack, oldest first. Raises ListNotFound, ItemNotFound."""

    def delete_photo(self, list_id: str, person_id: str, photo_id: str) -> Person:
        """Take a template and its picture away, for good; return the person as they are then.

        Raises ListNotFound, ItemNotFound (the person, the photo), Conflict (nothing would be left that recognises the
        person).
        """

    def split_person(self, list_id: str, person_id: str, photo_ids: Sequence[str], fields: Sequence[str]) -> Person:
        """Make a new person of the same list of these templates, and return their record.

        Sightings that are more like what goes than like what stays go along. Raises ListNotFound, ItemNotFound (the
        person, a photo), Conflict (nothing would be left, or nothing of the active pack goes).
        """

    # --- strangers ---

    def strangers(
        self,
        *,
        list_id: str | None = None,
        source_id: str | None = None,
        first_ms: int | None = None,
        last_ms: int | None = None,
        limit: int,
    ) -> list[StoredSighting]:
        """Return the newest sightings of the active pack that are nobody's, with their vectors. Raises ListNotFound."""

    def faces(self, sighting_ids: Sequence[str]) -> list[StoredSighting]:
        """Return these sightings with their vectors (where they have one). Raises ItemNotFound."""

    def name_strangers(
        self,
        list_id: str,
        sighting_ids: Sequence[str],
        templates: Sequence[Template],
        *,
        fields: Sequence[str] | None = None,
        person_id: str | None = None,
    ) -> Person:
        """Let these sightings be of a new person of the list, or of the one of that id, who gets these templates.

        At most 20 are kept, as `add_templates` chooses. What was said not to be the person among them is the person
        after all. Raises ListNotFound, ItemNotFound (the person), PackMismatch, Conflict (a sighting is somebody
        else's).
        """

    # --- pictures ---

    def picture(self, name: str) -> bytes | None:
        """Return a stored picture of a person or a sighting, None if there is none of that name."""

    # --- lists ---

    @property
    def main_list_id(self) -> str:
        """The list that is meant where none is named."""

    def lists(self, cursor: str | None = None, limit: int = PAGE) -> Page[PersonList]:
        """Return a page of the lists, the main list first. Raises InvalidSchema."""

    def find_list(self, list_id: str) -> PersonList | None:
        """Return the list, None if there is none of that id."""

    def list_size(self, list_id: str) -> int:
        """Return the number of persons. Raises ListNotFound."""

    def create_list(self, name: str) -> PersonList:
        """Make an empty list. Raises Conflict for a taken name."""

    def rename_list(self, list_id: str, name: str) -> PersonList:
        """Give the list another name. Raises ListNotFound, Conflict (a taken name, the main list)."""

    def delete_list(self, list_id: str) -> int:
        """Erase the list with everybody in it and everything about them; return how many persons that were.

        Nothing is left of it in groups' alerts and sources' lists either. Raises ListNotFound, Conflict (the main
        list).
        """

    # --- source groups and sources ---

    def groups(self, cursor: str | None = None, limit: int = PAGE) -> Page[SourceGroup]:
        """Return a page of the source groups. Raises InvalidSchema."""

    def group(self, group_id: str) -> SourceGroup | None:
        """Return the source group, None if there is none of that id."""

    def create_group(self, name: str, alerts: tuple[ListAlert, ...] = ()) -> SourceGroup:
        """Make a source group. Raises ListNotFound for an alert on an unknown list."""

    def update_group(
        self, group_id: str, name: str | None = None, alerts: tuple[ListAlert, ...] | None = None
    ) -> SourceGroup:
        """Change what is given (`alerts`: all of them) and return the group. Raises ItemNotFound, ListNotFound."""

    def delete_group(self, group_id: str) -> None:
        """Delete the group. Its sources stay, without a group. Raises ItemNotFound."""

    def sources(self, cursor: str | None = None, limit: int = PAGE, group_id: str | None = None) -> Page[Source]:
        """Return a page of the sources, or of those of a group. Raises ItemNotFound, InvalidSchema."""

    def source(self, source_id: str | None) -> Source | None:
        """Return the source, None if there is none of that id."""

    def create_source(
        self,
        name: str,
        group_id: str | None = None,
        defaults: SourceDefaults = NO_DEFAULTS,
        person_list_add: tuple[str, ...] = (),
        person_list_search: tuple[str, ...] = (),
    ) -> Source:
        """Make a source. Raises ItemNotFound for an unknown group, ListNotFound for an unknown list."""

    def update_source(self, source_id: str, changes: Callable[[Source], Source]) -> Source:
        """Write what `changes` makes of the source as it is, in one step, and return that.

        `changes` is called in the transaction, so it only computes: `lambda source: replace(source, name="door")`.
        Its id and time of creation stay. Raises ItemNotFound (the source or its new group), ListNotFound.
        """

    def delete_source(self, source_id: str) -> None:
        """Delete the source; its id stays in the records of persons and sightings. Raises ItemNotFound."""

    # --- the gallery itself ---

    def counts(self) -> Counts:
        """Return what the gallery holds, without counting it anew."""

    def flush(self) -> None:
        """Bring the database file itself up to date."""

    def close(self) -> None:
        """Stop and let go of the data folder."""
