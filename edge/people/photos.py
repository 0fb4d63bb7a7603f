"""Where photos with names come from: a folder for each person, a CSV, another product's folder or API."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from edge.errors import Mistake, Refusal, invalid
from edge.people.api import Api

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""Of files that are taken for photos; what they really are, the appliance finds out."""

PHOTO_BYTES = 64 << 20
"""The largest file that is read at all; a photo of 40 megapixels has 16 MB."""

FILE, NAME, LIST = "file", "name", "list"
"""Columns of a CSV that mean something; every other one is a further field of the person."""

COMPREFACE_PAGE = 500
"""Examples asked for at once: 60 bytes each."""

DOUBLE_TAKE_FOLDER = "train"
"""Where Double Take keeps its training pictures, below its storage folder."""


class Unreadable(Refusal):
    """A photo that cannot be read."""

    message = "cannot be read"


@dataclass(frozen=True)
class Photo:
    """One photo of one person; nothing is read before it is its turn."""

    label: str
    """As the report names it: a path below the folder, or an id."""
    fields: tuple[str, ...]
    """The person's, the name first. Photos of the same name and list are of the same person."""
    read: Callable[[], bytes]
    """Raises Unreadable, or ApiRefusal."""
    list: str | None = None
    """Id or name; None: the one of the whole run."""


def of_folder(folder: Path) -> list[Photo]:
    """Return the photos of a folder that has a folder for each person, in the order of their names."""
    if not folder.is_dir():
        raise invalid("FOLDER", f"{folder} is no folder")
    photos = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in inside.parts):
            fields = inside.parts[:1] if len(inside.parts) > 1 else ()
            photos.append(Photo(str(inside), fields, _reader(path)))
    return _some(photos, f"{folder} has no photos ({', '.join(SUFFIXES)})")


def of_csv(file: Path) -> list[Photo]:
    """Return the photos that a CSV names: columns file and name, maybe list, then further fields.

    UTF-8, the first row the columns' names; files lie beside the CSV, or where their path says.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            rows = list(csv.DictReader(opened, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise invalid("FILE", f"{file} is no CSV in UTF-8: {error}") from None
    photos = []
    for number, row in enumerate(rows, start=2):
        texts = {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)}
        if None in row or not texts.get(FILE) or not texts.get(NAME):
            raise invalid(f"{file.name}, row {number}", f"needs the columns {FILE} and {NAME}, and none too many")
        others = tuple(value for key, value in texts.items() if key not in (FILE, NAME, LIST))
        path = file.parent / texts[FILE]
        photos.append(Photo(texts[FILE], (texts[NAME], *others), _reader(path), texts.get(LIST) or None))
    return _some(photos, f"{file} names no photos")


def of_double_take(folder: Path) -> list[Photo]:
    """Return the training pictures of Double Take's storage folder: train/<name>/<file>."""
    train = folder / DOUBLE_TAKE_FOLDER
    return of_folder(train if train.is_dir() else folder)


def of_compreface(url: str, key: str) -> list[Photo]:
    """Return the saved examples of a CompreFace recognition service, by its REST API.

    `key`: the service's API key. Each picture is fetched when it is its turn. Raises ApiRefusal.
    """
    api = Api(url, {"x-api-key": key})
    photos = [_example(api, one) for one in _examples(api)]
    return _some(sorted(photos, key=lambda one: (one.fields, one.label)), f"{url} has no saved examples")


def _examples(api: Api) -> Iterator[Mapping[str, Any]]:
    page = 0
    while True:
        answer = api.get(f"/api/v1/recognition/faces?page={page}&size={COMPREFACE_PAGE}")
        faces = answer.get("faces")
        if not isinstance(faces, list):
            raise Unreadable(Mistake("faces", "missing: is this CompreFace's address?"))
        yield from faces
        page += 1
        if not faces or page >= int(answer.get("total_pages", 0)):
            return


def _example(api: Api, face: Mapping[str, Any]) -> Photo:
    image_id, subject = str(face.get("image_id")), str(face.get("subject"))
    path = f"/api/v1/recognition/faces/{quote(image_id, safe='')}/img"

    def read() -> bytes:
        content = api.bytes("GET", path)
        if not content:  # so it says that it has kept none
            raise Unreadable(Mistake("image", "CompreFace has not kept it"))
        return content

    return Photo(image_id, (subject,), read)


def _some(photos: Sequence[Photo], otherwise: str) -> list[Photo]:
    if not photos:
        raise invalid("FOLDER", otherwise)
    return list(photos)


def _reader(path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            if path.stat().st_size > PHOTO_BYTES:
                raise Unreadable(Mistake("file", f"has over {PHOTO_BYTES} bytes"))
            return path.read_bytes()
        except OSError as error:
            raise Unreadable(Mistake("file", error.strerror or "cannot be read")) from None

    return read
