"""An export goes back into a running appliance: persons with their fields, vectors and pictures, through its API."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from edge.errors import Refusal, invalid
from edge.people.api import Api, ApiRefusal
from edge.people.enrolling import ADDED, KNOWN, REFUSED, Lists
from edge.people.exporting import ABOUT, FORMAT, LISTS, PERSONS, TAR
from edge.people.journal import Done, Journal

SAME = "1"
"""new_person_threshold of what comes back: whoever was two persons stays two, unless they score the most there is."""

PICTURE_BYTES = 16 << 20
"""The largest kept picture has 8 MB."""

Draw = Callable[[int, int], None]


class Source:
    """The files of an export, a folder's or a tar's; a tar is not unpacked."""

    def __init__(self, path: Path, tar: tarfile.TarFile | None) -> None:
        self._path = path
        self._tar = tar

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes]]:
        """Yield a file. InvalidSchema: there is none, or its name leads elsewhere."""
        if name.startswith("/") or ".." in name.split("/"):
            raise invalid("FILE", f"names a file outside itself: {name}")
        try:
            file = (self._path / name).open("rb") if self._tar is None else self._tar.extractfile(name)
        except (KeyError, OSError):
            file = None
        if file is None:
            raise invalid("FILE", f"{self._path} has no {name}")
        with file:
            yield file

    def read(self, name: str) -> bytes:
        """Return a small file or a picture."""
        with self.opened(name) as file:
            return file.read(PICTURE_BYTES)

    def lines(self, name: str) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Yield each line of a file of JSON Lines, and what it says."""
        with self.opened(name) as file:
            for number, line in enumerate(file, start=1):
                try:
                    value = json.loads(line)
                except ValueError:
                    value = None
                if not isinstance(value, dict):
                    raise invalid(f"{name}, line {number}", "is no JSON object")
                yield line, value


def is_export(path: Path) -> bool:
    """Whether the path is that of an export, by its form."""
    return path.suffix == TAR or (path / ABOUT).is_file()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Source, int]]:
    """Yield an export and how many persons it has. InvalidSchema: it is none."""
    with contextlib.ExitStack() as stack:
        try:
            tar = None if path.is_dir() else stack.enter_context(tarfile.open(path, "r:"))
        except (OSError, tarfile.TarError) as error:
            raise invalid("FILE", f"{path} is no tar: {error}") from None
        source = Source(path, tar)
        try:
            about = json.loads(source.read(ABOUT))
            if about["format"] != FORMAT:
                raise invalid("FILE", f"is of format {about['format']}; this release reads {FORMAT}")
            persons = int(about["persons"])
        except (ValueError, KeyError, TypeError):
            raise invalid("FILE", f"{path}: {ABOUT} is not of an export") from None
        yield source, persons


class Import:
    """One run: the persons of an export in, what became of each out."""

    def __init__(self, api: Api, journal: Journal, lists: Lists, source: Source) -> None:
        self._api = api
        self._journal = journal
        self._source = source
        self._lists = lists
        self._pack = str(api.get("/health").get("pack"))
        self._mains = set()
        with contextlib.suppress(Refusal):  # an export of one person has no lists
            self._mains = {one["list_id"] for _, one in source.lines(LISTS) if one["is_main"]}

    def run(self, total: int, draw: Draw) -> list[Done]:
        """Put back everybody whom an earlier run did not; return what became of each, in order. Raises ApiRefusal."""
        done = []
        for number, (line, person) in enumerate(self._source.lines(PERSONS)):
            draw(min(number, total), total)
            done.append(self._one(hashlib.sha256(line).hexdigest(), person))
        draw(total, total)
        return done

    def _one(self, digest: str, person: Mapping[str, Any]) -> Done:
        try:
            name, list_id = next(iter(person["fields"]), ""), self._list(person)
            before = self._journal.find(digest, list_id, name)
            if before is not None and before.outcome != REFUSED:
                return before
            done = self._put(person, name, list_id)
        except (KeyError, TypeError) as error:
            raise invalid(PERSONS, f"a person without {error}") from None
        self._journal.add(digest, done)
        return done

    def _list(self, person: Mapping[str, Any]) -> str:
        """Return the list of that name, made where there is none."""
        if person["list_id"] in self._mains or person["list"] is None:
            return self._lists.main
        return self._lists.find(person["list"]) or self._lists.make(self._api, person["list"])

    def _put(self, person: Mapping[str, Any], name: str, list_id: str) -> Done:
        def told(outcome: str, **more: Any) -> Done:
            return Done(person["person_id"], name, list_id, outcome, **more)

        first, *others = self._usable(person) or [{}]
        if not first:
            return told(REFUSED, check=f"has neither a picture nor a vector of the pack {self._pack}")
        parts: list[tuple[str, str | bytes]] = [*first.items(), ("list_id", list_id), ("new_person_threshold", SAME)]
        parts += [("fields", str(text)) for text in person["fields"]]
        parts += [(key, person[key]) for key in ("source_id", "group_id") if person.get(key)]
        try:
            answer = self._api.send("/v1/person/create", parts)
        except ApiRefusal as refusal:
            if refusal.status not in (400, 413):
                raise
            return told(REFUSED, check=refusal.message)
        if answer.get("matches"):
            match = answer["matches"][0]
            outcome = KNOWN if match["fields"] == [*person["fields"]] else REFUSED
            more = {} if outcome == KNOWN else {"person": next(iter(match["fields"]), ""), "check": "is somebody else"}
            if outcome == KNOWN:  # of a run that was killed, maybe before all was there; nothing is kept twice
                self._all_further(list_id, match["person_id"], others)
            return told(outcome, person_id=match["person_id"], score=match["score"], **more)
        if not answer.get("persons"):
            reason: dict[str, Any] = next(
                (one["reasons"][0] for one in answer.get("rejected", ()) if one["reasons"]), {}
            )
            check = reason.get("check") or str(answer.get("message"))
            return told(REFUSED, check=check, value=reason.get("value"), limit=reason.get("limit"))
        person_id = answer["persons"][0]["person_id"]
        self._all_further(list_id, person_id, others)
        return told(ADDED, person_id=person_id)

    def _all_further(self, list_id: str, person_id: str, templates: list[dict[str, str | bytes]]) -> None:
        for one in templates:
            self._further(list_id, person_id, one)

    def _further(self, list_id: str, person_id: str, template: Mapping[str, str | bytes]) -> None:
        """Add one more template: of its picture, so that a later pack can be made of it; else of its vector."""
        target = [("list_id", list_id), ("person_id", person_id)]
        if "image" in template:
            answer = self._api.send("/v1/person/fusion", [*target, ("images", template["image"])])
            if answer.get("added") or "embedding" not in template:
                return
        self._api.send("/v1/person/fusion", [*target, ("embeddings", f"[{template['embedding']!s}]")])

    def _usable(self, person: Mapping[str, Any]) -> list[dict[str, str | bytes]]:
        """Return what can be sent of each template: its vector if the pack is the same, its picture if it was kept."""
        found = []
        for template in person["templates"]:
            one: dict[str, str | bytes] = {}
            if template["pack"] == self._pack:
                one["embedding"] = json.dumps(template["vector"])
            if template["picture"]:
                one["image"] = self._source.read(template["picture"])
            if one:
                found.append(one)
        return found
