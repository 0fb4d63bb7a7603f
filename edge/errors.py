"""Why a request or a start can be refused: one class per reason. Nothing here knows HTTP.

Every refusal carries the sentence for the person who has to mend it. `web.views` gives each class its
status code, `cli` its exit code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    """One thing to mend: which field, and what is wrong with it (with the limit, where there is one)."""

    field: str
    reason: str


class Refusal(Exception):
    """A request or an action is declined; nothing has been changed by it."""

    message = "refused"

    def __init__(self, *mistakes: Mistake, message: str | None = None) -> None:
        self.message = message or type(self).message
        self.mistakes: tuple[Mistake, ...] = mistakes
        super().__init__("; ".join([self.message, *(f"{m.field}: {m.reason}" for m in mistakes)]))


# --- who may ask ---


class AccessDenied(Refusal):
    """No token, or one that is malformed, unknown, expired or revoked: always told alike."""

    message = "access denied"


class ScopeMissing(AccessDenied):
    """A valid token without the right that the route needs."""


class TooManyAttempts(Refusal):
    """Too many wrong tokens or passwords from one address within a minute."""

    message = "too many attempts"


class TooManyRequests(Refusal):
    """More requests of one token within a second than the settings let it make."""

    message = "too many requests"


# --- what was asked ---


class NoImage(Refusal):
    """Neither a picture nor an embedding was sent."""

    message = "no image attached"


class UnexpectedField(Refusal):
    """A file under a name that the route does not take, or a second picture."""

    message = "unexpected field"


class InvalidSchema(Refusal):
    """A value is missing, or outside its type or range."""

    message = "invalid schema"


class MalformedBody(InvalidSchema):
    """The body is not what its content type says."""


class BodyTooLarge(Refusal):
    """The body, or the number or size of its parts, is above the limit."""

    message = "request body is too large"


class UnsupportedBody(InvalidSchema):
    """A content type or encoding that no route reads."""


class ListNotFound(Refusal):
    """A well-formed list_id that names no list."""

    message = "list with this id does not exists"  # the cloud's own spelling, which clients compare


class ItemNotFound(Refusal):
    """An identifier that names nothing."""

    message = "item with this id not found"


class Conflict(Refusal):
    """The change contradicts what is there: a taken name, the main list renamed."""

    message = "conflict"


class NothingToChange(Refusal):
    """An update that gives nothing to update."""

    message = "nothing to change"


# --- what the picture was ---


class UnknownPicture(Refusal):
    """Not a JPEG, PNG, WebP or BMP, broken, or declared larger than may be decoded."""

    message = "image format is unknown"


class PictureTooSmall(Refusal):
    """Fewer pixels on a side than any face needs."""

    message = "image is too small"


class FaceRefused(Refusal):
    """A photo whose face is not to be added to a person: it misses limits, or is somebody else's."""

    message = "the face misses the limits of a new person"


# --- what the box can bear ---


class TooBusy(Refusal):
    """As many requests are waiting as may wait."""

    message = "too many requests are waiting"


class TooManyStreams(TooBusy):
    """As many live streams are open as may be."""

    message = "too many live streams"


class Superseded(Refusal):
    """A newer frame of the same source came while this one waited for its turn."""

    message = "superseded by a newer frame"


class StorageFull(Refusal):
    """The disk is so full that nothing can be added; recognition and erasing go on."""

    message = "storage is full"

    def __init__(
        self,
        *mistakes: Mistake,
        message: str | None = None,
        free_megabytes: int | None = None,
        least_megabytes: int | None = None,
    ) -> None:
        """`free_megabytes`, `least_megabytes`: what is free, and what must be; None: the disk itself has refused."""
        super().__init__(*mistakes, message=message)
        self.free_megabytes = free_megabytes
        self.least_megabytes = least_megabytes


# --- what stops a start or a command ---


class Unusable(Refusal):
    """The appliance cannot start, or a command cannot run, until a person mends something."""

    message = "cannot start"


class ConfigMistakes(Unusable):
    """Every mistake found in the settings, at once."""

    message = "the settings have mistakes"


class PackUnusable(Unusable):
    """A model pack that is missing, incomplete, altered or not a pack."""

    message = "the model pack cannot be used"


class GalleryUnusable(Unusable):
    """The database cannot be opened, is newer than this program, or is in use by another process."""

    message = "the gallery cannot be opened"


class GalleryBroken(GalleryUnusable):
    """The file is damaged: not a database, or one whose pages or references are torn."""

    message = "the gallery is damaged"


class BackupUnusable(Unusable):
    """A file that is no sound backup of this program, or of a newer release."""

    message = "the backup cannot be used"


class PackMismatch(Refusal):
    """Vectors of two packs would meet: they have nothing to say to each other."""

    message = "the vector belongs to another model pack"


def invalid(field: str, reason: str) -> InvalidSchema:
    """Return the commonest refusal: one field outside its type or range."""
    return InvalidSchema(Mistake(field, reason))


def sentences(mistakes: Sequence[Mistake]) -> str:
    """Return the mistakes one a line, for a terminal."""
    return "\n".join(f"  {mistake.field}: {mistake.reason}" for mistake in mistakes)
