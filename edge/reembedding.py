"""Embedding the persons anew for another pack, while the old one answers.

`edge reembed` is a process of its own beside the service. It only reads the gallery: for every template of another
pack whose picture was kept it finds the face in the picture again, embeds it with the wanted pack, and puts the vector
into a spool file (gallery/spool.py). Killed, it goes on where it was. When nothing is left it marks the spool as ready.
The service, which looks for that mark, finishes what it has in hand and starts again; at that start, before anything
is served, it embeds the few pictures that came meanwhile and takes everything in, in one transaction that also notes
the new pack (`take_over`). That is the switch: before it the old pack answers for everybody, after it the new one.
Where no service runs, `edge reembed` does the same.

A template keeps its person, picture, quality and time and gets another vector. Templates whose picture was not kept, or
shows no face, stay as they are and of their pack: they are listed, and serve again if their pack comes back.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.errors import Conflict, Mistake, PictureTooSmall, StorageFull, UnknownPicture
from edge.face import image
from edge.face.analysis import Analyser, Face
from edge.face.passes import whole
from edge.gallery import reembedding, spool
from edge.gallery.core import PICTURES_NAME
from edge.gallery.database import Database
from edge.gallery.pictures import Pictures
from edge.gallery.spool import Entry, Spool
from edge.types import Embedding, Picture

log = logging.getLogger(__name__)

KEPT_PIXELS = 4_000_000
"""A kept picture has at most 2000 pixels on its longer side (default.conf: pictures.longest_pixels)."""

BATCH_SECONDS = 1.0
"""What a kill costs at most: vectors are put on disk this often."""

MARGIN = 0.5
"""Of the picture's longer side, as a border on each side: a kept picture is cut so close that its face is larger than
what the detector was trained on. Of 303 kept pictures (LFW and camera frames) it finds the face in all with the border,
in 94 to 98 % without, at its smallest inputs."""

SPARE_BYTES = 32 << 20
"""What must be free on the disk besides what the switch needs."""

Embed = Callable[[bytes], "Embedding | None"]
"""A kept picture's bytes to its template's embedding; None where no face is found."""


@dataclass(frozen=True)
class Progress:
    """How far it is: pictures dealt with, of how many, and in how many of them no face was found."""

    done: int
    total: int
    without_face: int


@dataclass(frozen=True)
class PictureEmbedder:
    """Embeds the one face that a kept picture is about."""

    analyser: Analyser
    presence_floor: float

    def __call__(self, data: bytes) -> Embedding | None:
        """Return the template's embedding, None if the picture shows no face."""
        try:
            picture = image.decode(data, max_pixels=KEPT_PIXELS, min_side=1)
        except (UnknownPicture, PictureTooSmall):
            return None
        smallest = self.analyser.detector.smallest
        for looked_at in (_bordered(picture), picture):
            one = whole(smallest, *looked_at.shape[:2])
            faces = self.analyser.faces(looked_at, [one], presence_floor=self.presence_floor)
            if faces:
                return self.analyser.embedder.template(looked_at, _subject(faces, looked_at).landmarks.points)
        return None


def _bordered(picture: Picture) -> Picture:
    border = round(max(picture.shape[:2]) * MARGIN)
    return np.pad(picture, ((border, border), (border, border), (0, 0)))


def _subject(faces: list[Face], picture: Picture) -> Face:
    """Return the face that the picture was kept for: the largest that covers its middle, else the largest.

    A kept picture is cut about the face, so others are at its edges; and where it was sent whole, the largest counted.
    """
    rows, columns = picture.shape[:2]

    def covers_middle(face: Face) -> bool:
        box = face.landmarks.box
        return bool(box.x <= columns / 2 <= box.x + box.width and box.y <= rows / 2 <= box.y + box.height)

    return max(faces, key=lambda face: (covers_middle(face), face.landmarks.box.area))


@contextlib.contextmanager
def alone(data_folder: Path) -> Iterator[None]:
    """Hold the data folder against a second `edge reembed`. Raises Conflict if there is one."""
    descriptor = os.open(data_folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(Mistake("reembed", "another `edge reembed` is at work on this data folder")) from None
        yield
    finally:
        os.close(descriptor)


def embed_all(data_folder: Path, pack_id: str, embed: Embed) -> Iterator[Progress]:
    """Embed every picture whose template is of another pack and that has not been embedded yet; tell how far it is.

    Goes over them until a round finds nothing new: persons may be added meanwhile. Raises FileNotFoundError where there
    is no gallery.
    """
    pictures = Pictures(data_folder / PICTURES_NAME)
    without_face = 0
    with contextlib.closing(Spool(data_folder, pack_id)) as spooled, reembedding.reading(data_folder) as gallery:
        while True:
            names = list(reembedding.pending(gallery, pack_id))
            left = [name for name in names if not spooled.has(name)]
            done = len(names) - len(left)
            yield Progress(done, len(names), without_face)
            for batch in _batches(left, pictures, embed):
                spooled.keep(batch)
                # After it is written: who was erased before that is found here, who is erased later, by `forget`.
                still_there = reembedding.named(gallery, (entry.picture for entry in batch))
                spooled.erase(entry.picture for entry in batch if entry.picture not in still_there)
                done += len(batch)
                without_face += sum(entry.embedding is None for entry in batch)
                yield Progress(done, len(names), without_face)
            if not left:
                return


def _batches(names: Sequence[str], pictures: Pictures, embed: Embed) -> Iterator[list[Entry]]:
    """Yield what becomes of the pictures, as many at a time as are embedded within BATCH_SECONDS."""
    batch: list[Entry] = []
    due = time.monotonic() + BATCH_SECONDS
    for name in names:
        data = pictures.read(name)
        batch.append(Entry(name, None if data is None else embed(data)))
        if time.monotonic() >= due:
            yield batch
            batch, due = [], time.monotonic() + BATCH_SECONDS
    if batch:
        yield batch


def mark_ready(data_folder: Path, pack_id: str) -> None:
    """Ask for the switch. Raises StorageFull where the disk has no room for it: better now than at a start.

    The new rows go through the write-ahead log, so they are on disk three times for a moment.
    """
    needed = 3 * (data_folder / spool.SPOOL_NAME).stat().st_size + SPARE_BYTES
    free = shutil.disk_usage(data_folder).free
    if free < needed:
        reason = f"the switch needs {needed >> 20} MB, {free >> 20} MB are free; make room and run it again"
        raise StorageFull(Mistake("data.folder", reason))
    with contextlib.closing(Spool(data_folder, pack_id)) as spooled:
        spooled.mark_ready()


def take_over(data_folder: Path, pack_id: str, embed: Embed) -> int | None:
    """Take in what was embedded for the pack, if it is ready: the switch. Return how many templates, None if it is not.

    Only while nobody else has the gallery open. Raises GalleryUnusable, StorageFull; nothing is switched then.
    """
    if not reembedding.is_ready(data_folder, pack_id):
        return None
    with contextlib.closing(Database(data_folder)) as database:
        for _ in embed_all(data_folder, pack_id, embed):  # what came since it was made ready: a few
            pass
        with contextlib.closing(Spool(data_folder, pack_id)) as spooled:
            count = reembedding.take_in(database, spooled.entries(), pack_id)
    spool.discard(data_folder)
    log.info("%d templates are of the pack %s now", count, pack_id)
    return count
