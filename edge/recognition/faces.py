"""The faces of a picture as callers want them reported, and the pictures and templates that are kept of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.errors import UnknownPicture
from edge.events import FrameSeen
from edge.face import image
from edge.face.analysis import Analyser, Face
from edge.face.image import Frame
from edge.recognition.room import Room
from edge.types import Box, Embedding, FeatureBound, Picture, Template, WantedParts

THUMB_GROWTH, THUMB_PIXELS, THUMB_QUALITY = 1.3, 256, 85
"""The contract's thumb: the box grown by 30 %, at most 256 pixels."""

NORMALIZED_QUALITY = 95
"""The aligned crop is for looking at and for embedding elsewhere: nearly without loss."""

PORTRAIT_GROWTH = 2.0
"""The picture kept of a person: the tight box doubled holds the whole head, and all that any pack's crop shows."""

SIGHTING_PIXELS, SIGHTING_QUALITY = 160, 80
"""A sighting's picture is for a person to recognise at a glance; about 6 KB."""

FEATURE_VERSION = "1"
"""Rises when a measure's scale changes, so that a client can tell old numbers from new ones."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A face as the caller wants it reported: JPEGs and numbers, nothing that refers to the picture."""

    face: Face
    box: Box
    """Within the frame."""
    thumb: bytes | None
    normalized: bytes | None
    features: tuple[Mapping[str, Any], ...]
    embedding: Embedding | None
    """The template's, where it was asked for."""


@dataclass(frozen=True, eq=False)
class Look:
    """What was found in a picture: all faces counted, those of sufficient size described, the largest first."""

    faces_total: int
    seen: tuple[Seen, ...]
    picture: Picture
    """The one in whose pixels the faces' landmarks are: the frame, or the frame made smaller."""


def look(
    room: Room,
    worker: Analyser,
    frame: Frame,
    wanted: WantedParts,
    *,
    multi: bool,
    pose: tuple[float | None, float | None] = (None, None),
    with_templates: bool = False,
    source_id: str | None = None,
) -> Look:
    """Find the faces and describe them as wanted: all of sufficient size, or the largest, posed as the caller says.

    For who holds a worker: decoding keeps a core busy like any other stage. Raises UnknownPicture.
    """
    settings = room.settings
    picture, faces = _found(room, worker, frame, source_id, multi=multi)
    chosen = [face for face in faces if face.size >= settings.min_face_pixels]
    if not multi:
        chosen = [face.with_pose(*pose) for face in chosen[:1]]
    seen = tuple(_seen(worker, picture, face, wanted, with_templates) for face in chosen)
    return Look(len(faces), seen, picture)


def _found(
    room: Room, worker: Analyser, frame: Frame, source_id: str | None, *, multi: bool
) -> tuple[Picture, list[Face]]:
    """Return the picture and the faces in it.

    A large frame is decoded no larger than the detector needs; where a face then has fewer pixels than the embedder
    takes, it is decoded again. The next frames of that source and size are decoded whole at once, until one shows no
    such face: who has come is still there in the next frame.
    """
    settings = room.settings
    smallest = settings.min_face_pixels
    passes = worker.passes(frame.shape, smallest, settings.detector_size)
    stream = (source_id, frame.shape)
    worth = frame.reduction(passes[-1].scale)
    reduction = 1 if room.closeups.has(stream) else worth
    with room.timed("decode"):
        picture = frame.picture(reduction)
    if reduction > 1:
        passes = worker.passes(picture.shape, smallest / reduction, settings.detector_size)
    with room.timed("detect"):
        faces = worker.faces(
            picture,
            passes,
            presence_floor=settings.presence_floor,
            enough_pixels=None if multi else smallest / reduction,
            reduction=reduction,
        )
    room.listeners.tell(FrameSeen(len(faces)))
    if worth > 1:
        needed = not all(
            worker.embedder.is_fed(face.landmarks.points, worth / reduction) for face in faces if face.size >= smallest
        )
        room.closeups.note(stream, needed=needed)
        if needed and reduction > 1:
            with room.timed("decode_again"):
                picture = frame.picture()
            faces = worker.closer(picture, faces)
    return picture, faces


def _seen(worker: Analyser, picture: Picture, face: Face, wanted: WantedParts, with_template: bool) -> Seen:
    rows, columns = (side * face.reduction for side in picture.shape[:2])
    box, points = face.landmarks.box, face.landmarks.points
    thumb = normalized = None
    if wanted.thumb:
        thumb = _jpeg_of(picture, box.grown(THUMB_GROWTH), THUMB_PIXELS, THUMB_QUALITY)
    if wanted.normalized:
        normalized = image.encode_jpeg(worker.embedder.crop(picture, points), quality=NORMALIZED_QUALITY)
    return Seen(
        face=face,
        box=face.box.within(columns, rows),
        thumb=thumb,
        normalized=normalized,
        features=_features(face, wanted.features),
        embedding=worker.embedder.template(picture, points) if with_template else None,
    )


def _features(face: Face, bounds: Sequence[FeatureBound]) -> tuple[Mapping[str, Any], ...]:
    """Return the features that were asked for, as they are kept with the record."""
    return tuple(
        {
            "name": bound.name,
            "version": FEATURE_VERSION,
            "result": round(face.measures.value(bound.name), 4),
            "confidence": f"{face.landmarks.presence:.4f}",
            "spent": face.measured_ms,
        }
        for bound in bounds
    )


# --- what is kept ---


def template_of(room: Room, worker: Analyser, picture: Picture, seen: Seen, *, drop_image: bool) -> Template:
    """Return what is kept of a face to recognise it, the portrait with it unless no picture may be kept."""
    embedding = seen.embedding or worker.embedder.template(picture, seen.face.landmarks.points)
    kept = None
    if not drop_image:
        box = seen.face.landmarks.box.grown(PORTRAIT_GROWTH)
        kept = _jpeg_of(picture, box, room.settings.portrait_pixels, room.settings.portrait_quality)
    return Template(embedding, room.pack_id, seen.face.measures.sharpness, kept)


def whole_jpeg(room: Room, picture: Picture) -> bytes:
    """Return the whole picture, made as small as a portrait."""
    small = image.shrunk(picture, longest=room.settings.portrait_pixels)
    return image.encode_jpeg(small, quality=room.settings.portrait_quality)


def sighting_picture(room: Room, picture: Picture, seen: Seen, *, drop_image: bool) -> bytes | None:
    """Return the small picture of a sighting, None where none may be kept."""
    if drop_image or not room.settings.sighting_pictures:
        return None
    part = image.cut(picture, seen.face.landmarks.box.grown(THUMB_GROWTH), longest=max(picture.shape))
    longer = max(part.shape[:2])
    if longer > SIGHTING_PIXELS:  # every frame pays for it
        rows, columns = (max(1, round(side * SIGHTING_PIXELS / longer)) for side in part.shape[:2])
        part = image.resized(part, (columns, rows))
    return image.encode_jpeg(np.ascontiguousarray(part), quality=SIGHTING_QUALITY)


def thumb_of(room: Room, portrait: bytes) -> bytes | None:
    """Return a portrait that was kept, made as small as a thumb; None where the file is not a picture any more."""
    try:
        picture = image.decode(portrait, max_pixels=room.settings.max_pixels, min_side=1)
    except UnknownPicture:  # a damaged file: the request, which is for a page of persons, is in order
        return None
    return image.encode_jpeg(image.shrunk(picture, longest=THUMB_PIXELS), quality=THUMB_QUALITY)


def _jpeg_of(picture: Picture, box: Box, longest: int, quality: int) -> bytes:
    """Return the part of the picture in the box; a face always meets its picture, so there is one."""
    part = image.cut(picture, box, longest=longest)
    return image.encode_jpeg(np.ascontiguousarray(part), quality=quality)
