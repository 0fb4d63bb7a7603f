"""Photos with names become persons of a running appliance, by its API, and every refusal is told with its reason."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edge.errors import Refusal, invalid
from edge.people.api import Api, ApiRefusal, Parts
from edge.people.journal import Done, Journal
from edge.people.photos import Photo, Unreadable

ADDED, MORE, KNOWN, REFUSED = "added", "more", "known", "refused"

LEAST_LIKE = 0.5
"""Score under which a further photo is taken for somebody else's: one stranger in ten is as like as that."""

LIST_PAGE = 1000

Draw = Callable[[int, int], None]


@dataclass(frozen=True)
class Options:
    """What a run may be told."""

    threshold: float | None = None
    """The score from which a photo is somebody of the list; None: the list's own."""
    likeness: float = LEAST_LIKE
    """The least score of a further photo with the person; 0: any."""
    retry: bool = False
    """Whether what was refused before is tried again."""


class Enrolment:
    """One run: photos in, what became of each out."""

    def __init__(self, api: Api, journal: Journal, lists: Lists, options: Options) -> None:
        self._api = api
        self._journal = journal
        self._lists = lists
        self._options = options
        self._persons = {(list_id, name): person_id for list_id, name, person_id in journal.persons()}

    def run(self, photos: Sequence[Photo], draw: Draw) -> list[Done]:
        """Put every photo to the appliance that an earlier run did not; return what became of each, in order.

        ApiRefusal: the appliance is not there, full, or the token is not good enough; what was done is journalled.
        """
        done = []
        for number, photo in enumerate(photos):
            draw(number, len(photos))
            done.append(self._one(photo))
        draw(len(photos), len(photos))
        return done

    def _one(self, photo: Photo) -> Done:
        if not photo.fields:
            return Done(photo.label, "", "", REFUSED, check="lies in no person's folder")
        list_id = self._lists.find(photo.list)
        name = photo.fields[0]
        if list_id is None:
            return Done(photo.label, name, "", REFUSED, check=f"no list {photo.list}")
        try:
            content = photo.read()
        except Unreadable as error:
            return Done(photo.label, name, list_id, REFUSED, check=str(error))
        digest = hashlib.sha256(content).hexdigest()
        before = self._journal.find(digest, list_id, name)
        if before is not None and not (before.outcome == REFUSED and self._options.retry):
            return before
        try:
            done = self._posted(photo, list_id, content)
        except ApiRefusal as refusal:
            if refusal.status not in (400, 413):  # of this photo alone
                raise
            done = Done(photo.label, name, list_id, REFUSED, check=_sentence(refusal))
        self._journal.add(digest, done)
        if done.outcome != REFUSED:
            self._persons[list_id, name] = done.person_id
        return done

    def _posted(self, photo: Photo, list_id: str, content: bytes) -> Done:
        person_id = self._persons.get((list_id, photo.fields[0]))
        if person_id is None:
            return self._first(photo, list_id, content)
        return self._further(photo, list_id, person_id, content)

    # --- the first photo of somebody ---

    def _first(self, photo: Photo, list_id: str, content: bytes) -> Done:
        parts: list[tuple[str, str | bytes]] = [("image", content), ("list_id", list_id)]
        parts += [("fields", text) for text in photo.fields]
        if self._options.threshold is not None:
            parts.append(("new_person_threshold", str(self._options.threshold)))
        answer = self._api.send("/v1/person/create", parts)
        if answer.get("persons"):
            return _done(photo, list_id, ADDED, answer, person=answer["persons"][0])
        if answer.get("matches"):
            match = answer["matches"][0]
            if match["fields"][:1] == [photo.fields[0]]:  # of a run whose journal is gone, or enrolled otherwise
                return self._further(photo, list_id, match["person_id"], content)
            return _done(
                photo, list_id, REFUSED, answer, person=match, check="is somebody else", limit=match.get("threshold")
            )
        if answer.get("rejected"):
            return _rejected(photo, list_id, answer, answer["rejected"][0])
        return _done(photo, list_id, REFUSED, answer, check=str(answer.get("message")))

    # --- further photos of them ---

    def _further(self, photo: Photo, list_id: str, person_id: str, content: bytes) -> Done:
        """Look who it is like first: nothing else would notice a photo in the wrong folder."""
        looked = self._api.send(
            "/v1/person/create", [("image", content), ("list_id", list_id), ("embedding_only", "true")]
        )
        faces = looked.get("faces")
        if not faces:
            return _done(photo, list_id, REFUSED, looked, check=str(looked.get("message")))
        wrong = self._unlike(photo, list_id, person_id, looked, faces[0]["embedding"])
        if wrong is not None:
            return wrong
        parts: Parts = [("images", content), ("person_id", person_id), ("list_id", list_id)]
        try:
            fused = self._api.send("/v1/person/fusion", parts)
        except ApiRefusal as refusal:
            if refusal.status != 404:
                raise
            self._persons.pop((list_id, photo.fields[0]), None)  # erased since the journal was written
            return self._first(photo, list_id, content)
        if fused.get("added"):
            return _done(photo, list_id, MORE, looked, person=fused["person"])
        return _rejected(photo, list_id, looked, next(iter(fused.get("rejected", ())), {}))

    def _unlike(
        self, photo: Photo, list_id: str, person_id: str, looked: dict[str, Any], vector: Sequence[float]
    ) -> Done | None:
        """Return the refusal of a photo that is more like somebody else than like the person, or not like them."""
        query = {"embeddings": [vector], "list_ids": [list_id], "person_data": True}
        if self._options.threshold is not None:
            query["threshold"] = self._options.threshold
        (best,) = self._api.post("/v1/vector/search", query)["results"]
        for match in best["matches"][:1]:
            if match["person_id"] == person_id:
                return None
            person = {**match["person"], "score": match["score"]}
            return _done(
                photo, list_id, REFUSED, looked, person=person, check="is somebody else", limit=best["threshold"]
            )
        wide = {**query, "threshold": self._options.likeness, "results": "all", "person_data": False}
        (alike,) = self._api.post("/v1/vector/search", wide)["results"]
        if any(match["person_id"] == person_id for match in alike["matches"]) or not self._options.likeness:
            return None
        return _done(
            photo,
            list_id,
            REFUSED,
            looked,
            person={"person_id": person_id, "fields": [*photo.fields]},
            check="is not like the person's other photos",
            limit=self._options.likeness,
        )


class Lists:
    """The appliance's lists, by name and by id."""

    def __init__(self, api: Api, chosen: str | None) -> None:
        """`chosen`: the list of photos that name none; None: the main one. InvalidSchema: there is none of it."""
        self._ids: dict[str, str] = {}
        cursor = None
        main = None
        while True:
            page = api.post("/v1/person/lists", {"limit": LIST_PAGE, **({"cursor": cursor} if cursor else {})})
            for one in page["lists"]:
                main = main or one["id"]
                self._ids.setdefault(one["name"], one["id"])
                self._ids[one["id"]] = one["id"]
            cursor = page["cursor"]
            if cursor is None:
                break
        if main is None:
            raise invalid("--list", "the token can see no list")
        chosen_id = main if chosen is None else self._ids.get(chosen)
        if chosen_id is None:
            raise invalid("--list", f"no list {chosen}")
        self.main: str = main
        self._chosen = chosen_id

    def find(self, text: str | None) -> str | None:
        """Return the id of a list by its name or id; None: there is none."""
        return self._chosen if text is None else self._ids.get(text)

    def make(self, api: Api, name: str) -> str:
        """Make a list; return its id. ApiRefusal: the token may not."""
        list_id: str = api.post("/v1/person/list/create", {"name": name})["list_id"]
        self._ids[name] = self._ids[list_id] = list_id
        return list_id


def _done(
    photo: Photo,
    list_id: str,
    outcome: str,
    answer: dict[str, Any],
    *,
    person: dict[str, Any] | None = None,
    check: str = "",
    limit: float | None = None,
) -> Done:
    person = person or {}
    refused = outcome == REFUSED
    return Done(
        photo.label,
        photo.fields[0],
        list_id,
        outcome,
        person_id=person.get("person_id", ""),
        person=next(iter(person.get("fields", ())), "") if refused else "",
        score=person.get("score") if refused else None,  # elsewhere it is the detector's
        check=check,
        limit=limit,
        faces=int(answer.get("faces_total", 0)),
    )


def _rejected(photo: Photo, list_id: str, answer: dict[str, Any], rejected: dict[str, Any]) -> Done:
    """Return the refusal of a face with the first limit that it misses; whom it may be, where that is why."""
    reason: dict[str, Any] = next(iter(rejected.get("reasons", ())), {})
    person = rejected.get("candidate") or {}
    return Done(
        photo.label,
        photo.fields[0],
        list_id,
        REFUSED,
        person_id=person.get("person_id", ""),
        person=next(iter(person.get("fields", ())), ""),
        score=person.get("score"),
        check=str(reason.get("check") or rejected.get("message") or "refused"),
        value=reason.get("value"),
        limit=reason.get("limit"),
        faces=int(answer.get("faces_total", 0)),
    )


def _sentence(refusal: Refusal) -> str:
    reasons = "; ".join(f"{one.field}: {one.reason}" for one in refusal.mistakes)
    return f"{refusal.message} ({reasons})" if reasons else refusal.message
