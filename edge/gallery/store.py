"""The gallery of this box: SQLite is the truth, picture files lie beside it, an index per list is a cache of the rows.

Here is what a recognition does; the rest is in its parts: core (the open folder), roster (persons), photos (what they
are recognised by), naming (strangers), finding (by words), rejecting (who somebody is not), directory (lists, source
groups, sources), replica (a fleet).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from edge.errors import ItemNotFound, Mistake
from edge.gallery import lists
from edge.gallery.calls import Call
from edge.gallery.core import UPDATE_CLOCK
from edge.gallery.directory import Directory
from edge.gallery.draft import Change, Draft, DraftedList
from edge.gallery.finding import Finding
from edge.gallery.naming import Naming
from edge.gallery.operations import Newness
from edge.gallery.photos import Photos
from edge.gallery.protocol import CANDIDATES, Counts, Decide, Gallery, Outcome, Probe, TemplatesWanted
from edge.gallery.rejecting import Rejecting
from edge.gallery.replica import Replica
from edge.types import Candidate, Decision, Embedding, Person, Verdict

__all__ = ["Counts", "Decide", "EmbeddedGallery", "Gallery", "Outcome", "Probe", "TemplatesWanted"]


class EmbeddedGallery(Photos, Naming, Finding, Rejecting, Directory, Replica):
    """The gallery in a data folder."""

    def identify(self, list_id: str, embedding: Embedding, persons: int = CANDIDATES) -> list[Candidate]:
        """Return up to `persons` candidates, best first. Raises ListNotFound, PackMismatch."""
        return self.identify_in_lists([list_id], embedding, persons)

    def identify_in_lists(
        self, list_ids: Sequence[str], embedding: Embedding, persons: int = CANDIDATES
    ) -> list[Candidate]:
        """Return up to `persons` candidates of all these lists together, best first, and between them the disputed.

        Raises ListNotFound, PackMismatch.
        """
        self._check_embedding(embedding)
        draft = self._draft(list_ids, None)  # nothing is drafted: a plain search
        while True:
            moves = self._indexes.moves
            candidates = draft.candidates(embedding, persons)
            if len(list_ids) == 1 or moves == self._indexes.moves:  # else somebody may have slipped past, without lock
                return list(candidates)

    def identify_or_enrol(
        self, list_id: str, probes: Sequence[Probe], decide: Decide
    ) -> list[Outcome] | TemplatesWanted:
        """Search, decide and write in one list: `search_or_enrol` with that list alone."""
        return self.search_or_enrol([list_id], list_id, probes, decide)

    def search_or_enrol(
        self,
        search_lists: Sequence[str],
        add_list: str | None,
        probes: Sequence[Probe],
        decide: Decide,
        persons: int = CANDIDATES,
    ) -> list[Outcome] | TemplatesWanted:
        """Search lists, decide and write for each probe in turn, in one step under one lock and with one commit.

        A later probe sees what an earlier one of the same call adds (to a list that is searched) or replaces. If
        `decide` says ADD or REPLACE of a probe without a template, nothing at all is written and TemplatesWanted says
        which probes need one: make them and call again, everything is decided anew. What an answer reports as written
        is on disk, all of it or, if this raises, none of it.

        Raises ListNotFound, PackMismatch (an embedding of another pack or length), ItemNotFound (who is matched or to
        be replaced is not in the lists searched), ValueError (ADD without a list to add to), StorageFull.
        """
        for probe in probes:
            self._check_probe(probe)
        if any(probe.template is not None for probe in probes):
            self._draft(search_lists, add_list)  # refused before anything is put on disk
        call = Call((tuple(search_lists), add_list), probes, decide, persons, self._save_pictures(probes))
        try:
            self._waiting.add(call)
            with self._lock:
                # Whoever has the lock takes along all who wait with the same lists: maybe this call was taken already.
                if not call.done:
                    self._take_along(self._waiting.taken(call))
            return call.answer()
        finally:
            self.pictures.delete(set(call.pictures.values()) - call.kept)

    def _take_along(self, calls: Sequence[Call]) -> None:
        """Decide and write for all these calls in one step, with one commit; each gets its own answer or refusal."""
        try:
            changes = self._decided_and_written(calls)
        except Exception as error:  # whatever it is, it is raised in the thread whose call it is
            if len(calls) == 1:
                calls[0].settle(error)
                return
            for call in calls:  # what they could not do together, some can alone: a match needs no room on the disk
                self._take_along([call])
            return
        self._follow(changes)

    def _decided_and_written(self, calls: Sequence[Call]) -> list[Change]:
        draft = self._draft(*calls[0].lists)
        answers: list[list[Outcome] | TemplatesWanted | Exception] = []
        for call in calls:
            before = draft.saved()
            try:
                answers.append(self._decided(draft, call.probes, call.decide, call.pictures, call.persons))
            except Exception as refusal:  # of this call alone: the others go on
                answers.append(refusal)
            if not isinstance(answers[-1], list):
                draft.go_back(before)
        changes = self._written(draft)
        for call, answer in zip(calls, answers, strict=True):
            call.kept = draft.pictures  # from here on rows name them, whatever else goes wrong
            call.settle(answer)
        return changes

    def _check_probe(self, probe: Probe) -> None:
        self._check_embedding(probe.embedding)
        if probe.template is not None:
            self._check_template(probe.template)

    def _save_pictures(self, probes: Sequence[Probe]) -> dict[int, str]:
        """Put the templates' pictures on disk, off the lock: a picture is there before the row that names it."""
        pictures = {
            number: probe.template.picture
            for number, probe in enumerate(probes)
            if probe.template is not None and probe.template.picture is not None
        }
        return dict(zip(pictures, self.pictures.save(list(pictures.values())), strict=True))

    def _draft(self, search_lists: Sequence[str], add_list: str | None) -> Draft:
        connection = self.database.read()

        def drafted(list_id: str, field: str) -> DraftedList:
            number, record = lists.the_list(connection, list_id, field)
            return DraftedList(number, list_id, record.count, self._indexes.of(number))

        searched = {list_id: drafted(list_id, "list_id") for list_id in dict.fromkeys(search_lists)}
        adding = None if add_list is None else searched.get(add_list) or drafted(add_list, "person_list_add")
        return Draft(
            searched=list(searched.values()),
            adding=adding,
            cohort_weight=self._cohort_weight,
            connection=connection,
            negatives=self._negatives,
        )

    def _decided(
        self, draft: Draft, probes: Sequence[Probe], decide: Decide, pictures: Mapping[int, str], count: int
    ) -> list[Outcome] | TemplatesWanted:
        """Decide on every probe, writing nothing but the draft."""
        outcomes: list[Outcome] = []
        wanted: list[int] = []
        for number, probe in enumerate(probes):
            candidates, list_size = draft.candidates(probe.embedding, count), draft.list_size
            decision = decide(number, list_size, candidates)
            person = self._person_meant(draft, decision)
            if decision.verdict in (Verdict.ADD, Verdict.REPLACE):
                template, picture = probe.template, pictures.get(number)
                if template is None:
                    wanted.append(number)
                elif person is None:
                    id_ = self._identifiers.new()
                    person = draft.add(id_, probe.newcomer, template, picture, self._clock(), decision.same_from)
                else:
                    person = draft.replace(person.person_id, probe.newcomer, template, picture, self._clock())
            outcomes.append(Outcome(decision, person, candidates, list_size))
        if wanted:
            self.database.space.check()  # before anybody makes templates that could not be kept
        return TemplatesWanted(tuple(wanted)) if wanted else [draft.settled(outcome) for outcome in outcomes]

    def _person_meant(self, draft: Draft, decision: Decision) -> Person | None:
        """Return who is matched or replaced. Raises ItemNotFound."""
        if decision.verdict not in (Verdict.MATCH, Verdict.REPLACE):
            return None
        person = draft.find(decision.person_id) if decision.person_id else None
        if person is None:
            field = "replace_on_found" if decision.verdict is Verdict.REPLACE else "person_id"
            raise ItemNotFound(Mistake(field, f"no person {decision.person_id} in the lists that are searched"))
        return person

    def _written(self, draft: Draft) -> list[Change]:
        """Write what was drafted in one transaction, which is on disk when this returns."""
        if not draft.persons:
            return []
        with self.database.write() as transaction:
            self._note_newness(draft)
            changes = draft.write(transaction, self._clock())
            transaction.execute(UPDATE_CLOCK, {"clock_ms": self._identifiers.latest_ms})
        return changes

    def _note_newness(self, draft: Draft) -> None:
        """Tell a fleet of whom nobody was like: another box may be adding the same face in this moment."""
        if self.database.capture is not None:
            for person_id, one in draft.persons.items():
                if one.number is None and one.same_from is not None:
                    self.database.capture.note_newness(person_id, Newness(one.same_from, self._cohort_weight))

    def _follow(self, changes: Sequence[Change]) -> None:
        """Bring indexes and pictures up to date with the rows."""
        of_list: defaultdict[int, list[Change]] = defaultdict(list)
        for change in changes:
            of_list[change.list_number].append(change)
        for number, ones in of_list.items():
            with self._indexes.following(number) as index:
                for change in ones:
                    index.add(change.template_id, change.person, change.embedding, instead_of=[change.person])
        for change in changes:
            self._clean_up(change.removed)
