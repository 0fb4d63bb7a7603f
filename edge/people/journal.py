"""What an enrolment has done so far, a line for each photo, so that running it again posts nothing twice."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge.errors import invalid

SUFFIX = ".enrolled.jsonl"
"""After the folder's own name: the journal lies beside it."""


@dataclass(frozen=True)
class Done:
    """What became of one photo, as the report tells it too."""

    file: str
    name: str
    list_id: str
    outcome: str
    """`added` (a new person), `more` (one more photo of theirs), `known` (it was there already) or `refused`."""
    person_id: str = ""
    """Whom it was added to, or whom it matched."""
    person: str = ""
    """The first field of whoever it matched."""
    score: float | None = None
    check: str = ""
    """What was missed, or why else it was refused."""
    value: float | None = None
    limit: float | None = None
    faces: int = 1
    """In the picture; the largest was taken."""


Key = tuple[str, str, str, str]
"""The appliance's main list, SHA-256 of the photo, the list, the name."""


class Journal:
    """The file. It holds names, so it is for its owner alone."""

    def __init__(self, path: Path, appliance: str) -> None:
        """`appliance`: what tells it from others: its main list's id. InvalidSchema: the file is no journal."""
        self._appliance = appliance
        self._done: dict[Key, Done] = {}
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise invalid("--journal", f"{path}: {error.strerror}") from None
        self._file = os.fdopen(descriptor, "r+", encoding="utf-8")
        for number, line in enumerate(_lines(path), start=1):
            try:
                told = json.loads(line)
                key = (told["appliance"], told["sha256"], told["list_id"], told["name"])
                known = {one.name: told[one.name] for one in dataclasses.fields(Done) if one.name in told}
                self._done[key] = Done(**known)
            except (ValueError, KeyError, TypeError):
                raise invalid("--journal", f"{path}, line {number}: not of an enrolment") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def find(self, digest: str, list_id: str, name: str) -> Done | None:
        """Return what became of the photo in an earlier run."""
        return self._done.get((self._appliance, digest, list_id, name))

    def persons(self) -> Iterator[tuple[str, str, str]]:
        """Yield list, name and person_id of everybody whom a photo was added to."""
        for (appliance, *_), done in self._done.items():
            if appliance == self._appliance and done.outcome != "refused":
                yield done.list_id, done.name, done.person_id

    def add(self, digest: str, done: Done) -> None:
        """Write a line, and see to it that it is on the disk."""
        line = {"appliance": self._appliance, "sha256": digest, **dataclasses.asdict(done)}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._done[(self._appliance, digest, done.list_id, done.name)] = done


def _lines(path: Path) -> list[str]:
    """Return the lines; what a power cut left of the last one is cut off, in the file too."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) != len(content):
        os.truncate(path, len(whole))
    try:
        return whole.decode().splitlines()
    except UnicodeDecodeError:
        raise invalid("--journal", f"{path} is not of an enrolment") from None
