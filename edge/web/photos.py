"""The routes of a person's photos, one by one; of a picture that is only looked at; and of persons found by words."""

from __future__ import annotations

from typing import Any

from edge import errors
from edge.gallery.protocol import PAGE
from edge.recognition import PhotoRequest, Previewed
from edge.types import MEASURE_NAMES, Limit, Photo, Reason, Scope
from edge.web import schemas, views
from edge.web.forms import FIELDS_OF_PERSON, IMAGE, LIST_ID
from edge.web.parameters import Flag, Form, Many, Names, Needed, One
from edge.web.persons import CURSOR, LIMIT, PERSON_ID
from edge.web.site import DELETE, Call, Route, Told, always, ok
from edge.web.values import Kind, Unfit, text, uuid_text
from edge.web.views import Answer

PHOTOS_AT_ONCE = 20  # as many as a person is recognised by
LONGEST_TEXT = 200  # characters looked for


def _photo_id(value: Any) -> str:
    if not (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19):
        raise Unfit("must be the photo_id of one of the person's photos: digits, as a text")
    return value


# --- POST /person/photos, /person/photo/... ---

PHOTO_ID = Needed(
    "photo_id", Kind(_photo_id, {"type": "string", "pattern": "^[0-9]{1,18}$"}), "The photo, of /person/photos."
)
PHOTO_IDS = Many("photo_ids", PHOTO_ID.kind, "The photos, of /person/photos.", PHOTOS_AT_ONCE, least=1, required=True)
OF_LIST = One(LIST_ID.name, uuid_text, "The list; the person's own (or the token's) if absent.", Names.LIST)
FORCE = Flag("force", "Add it though it misses limits, or is much more like somebody else.")

PHOTOS = Form(parameters=(OF_LIST, PERSON_ID))
PHOTO_ADD = Form(parameters=(OF_LIST, PERSON_ID, IMAGE, FORCE), needs=(IMAGE.name,))
PHOTO_DELETE = Form(parameters=(OF_LIST, PERSON_ID, PHOTO_ID))
SPLIT = Form(parameters=(OF_LIST, PERSON_ID, PHOTO_IDS, FIELDS_OF_PERSON))


def _list_of(call: Call) -> str:
    return call.values[OF_LIST] or call.list_of(call.values[PERSON_ID])


def photos(call: Call) -> Answer:
    """POST /person/photos: what a person is recognised by."""
    found = call.site.gallery.photos(_list_of(call), call.values[PERSON_ID])
    return ok(photos=[_photo(call, one) for one in found])


def _photo(call: Call, photo: Photo) -> dict[str, Any]:
    template = photo.template
    url = None if template.picture is None else call.picture_url(call.values[PERSON_ID], template.picture)
    return {
        "photo_id": photo.photo_id,
        "created": views.timestamp(template.created_ms),
        "image_url": url,
        "is_portrait": photo.is_portrait,
        "model": template.pack_id,
        "measures": {"sharpness": round(template.quality, 4)},
    }


def photo_add(call: Call) -> Answer:
    """POST /person/photo/add: one photo more of a person."""
    values, gallery = call.values, call.site.gallery
    image = values[IMAGE]
    assert image is not None, "the form needs it"
    list_id, person_id = _list_of(call), values[PERSON_ID]
    before = {one.photo_id for one in gallery.photos(list_id, person_id)}
    person = call.site.recognizer.add_photo(PhotoRequest(list_id, person_id, image, values[FORCE]))
    new = [one for one in gallery.photos(list_id, person_id) if one.photo_id not in before]
    return ok(person=views.person(person, call.image_url), photo=_photo(call, new[-1]) if new else None)


def photo_delete(call: Call) -> Answer:
    """POST /person/photo/delete: a photo less, for good."""
    person = call.site.gallery.delete_photo(_list_of(call), call.values[PERSON_ID], call.values[PHOTO_ID])
    return ok(person=views.person(person, call.image_url))


def split(call: Call) -> Answer:
    """POST /person/split: two persons of one."""
    values = call.values
    person = call.site.gallery.split_person(
        _list_of(call), values[PERSON_ID], values[PHOTO_IDS], values[FIELDS_OF_PERSON]
    )
    return ok(person=views.person(person, call.image_url))


# --- POST /person/preview ---

PREVIEW = Form(parameters=(IMAGE, LIST_ID), needs=(IMAGE.name,))


def preview(call: Call) -> Answer:
    """POST /person/preview: what a picture would be; nothing is kept."""
    image = call.values[IMAGE]
    assert image is not None, "the form needs it"
    found = call.site.recognizer.preview(call.list_id, image)
    return ok(
        spent=call.spent_ms,
        faces_total=found.faces_total,
        faces=[_previewed(call, one) for one in found.faces],
    )


def _previewed(call: Call, face: Previewed) -> dict[str, Any]:
    nearest, matched = face.nearest, face.identification.matched
    person = None
    if nearest is not None:
        record = views.found_person(nearest, call.image_url)
        person = {name: record.get(name) for name in ("person_id", "list_id", "fields", "image_url", "score")}
    limits = {limit.measure: limit for limit in face.limits}
    return {
        "bbox": views.bbox(face.seen.box),
        "measures": [
            _measure(name, face.seen.face.measures.value(name), limits.get(name), face.reasons)
            for name in MEASURE_NAMES
        ],
        "reasons": [views.reason(one) for one in face.reasons],
        "nearest": person,
        "is_match": matched is not None,
        "is_uncertain": face.identification.uncertain is not None,
        "threshold": face.identification.thresholds.match,
    }


def _measure(name: str, value: float, limit: Limit | None, reasons: tuple[Reason, ...]) -> dict[str, Any]:
    answer: dict[str, Any] = {"name": name, "value": round(value, 4)}
    if limit is None:
        return {**answer, "ok": True}
    if limit.most is not None:
        answer["most"] = limit.most
    if limit.least is not None:
        answer["least"] = limit.least
    elif limit.absolute and limit.most is not None:
        answer["least"] = -limit.most
    return {**answer, "ok": all(one.check != limit.check for one in reasons)}


# --- POST /person/find ---

TEXT = Needed(
    "text",
    text(LONGEST_TEXT),
    "What one of the person's fields contains; case does not count. Empty: persons none of whose fields says anything.",
)
IN_LIST = One(LIST_ID.name, uuid_text, "The list; all of them (or the token's) if absent.", Names.LIST)

FIND = Form(parameters=(TEXT, IN_LIST, LIMIT, CURSOR))


def find(call: Call) -> Answer:
    """POST /person/find: persons by what is written of them, or those of whom nothing is."""
    values = call.values
    list_id = values[IN_LIST] or call.asker.list_id
    page = call.site.gallery.find_persons(values[TEXT] or None, list_id, values[CURSOR] or None, values[LIMIT] or PAGE)
    return ok(persons=[views.person(one, call.image_url) for one in page.items], cursor=page.cursor)


# --- the table ---

PERSON_THEN = schemas.obj({**schemas.STATUS, "person": schemas.named("Person")})
MEASURE = schemas.obj(
    {"name": schemas.TEXT, "value": schemas.NUMBER, "ok": schemas.TRUTH},
    {"least": schemas.NUMBER, "most": schemas.NUMBER},
)
NEAREST = schemas.obj(
    {
        "person_id": schemas.UUID,
        "list_id": schemas.UUID,
        "fields": schemas.array(schemas.TEXT),
        "image_url": schemas.maybe(schemas.TEXT),
        "score": schemas.SCORE,
    }
)
PREVIEWED = schemas.obj(
    {
        "bbox": schemas.named("Box"),
        "measures": schemas.array(MEASURE),
        "reasons": schemas.array(schemas.named("Reason")),
        "nearest": schemas.maybe(NEAREST),
        "is_match": schemas.TRUTH,
        "is_uncertain": schemas.TRUTH,
        "threshold": schemas.SCORE,
    }
)
READ = frozenset({Scope.READ})
ENROL = frozenset({Scope.ENROL})

ROUTES = (
    Route(
        "/person/photos",
        photos,
        "Show what a person is recognised by, photo by photo",
        {200: Told("Oldest first", schemas.obj({**schemas.STATUS, "photos": schemas.array(schemas.named("Photo"))}))},
        "persons",
        scopes=READ,
        form=PHOTOS,
        refusals=(errors.ItemNotFound,),
    ),
    Route(
        "/person/photo/add",
        photo_add,
        "Add a photo that a person is recognised by",
        {
            200: Told(
                "The person, and the photo; null where it shows nothing that is not known already",
                schemas.obj(
                    {
                        **schemas.STATUS,
                        "person": schemas.named("Person"),
                        "photo": schemas.maybe(schemas.named("Photo")),
                    }
                ),
            )
        },
        "persons",
        scopes=ENROL,
        form=PHOTO_ADD,
        audited=always,
        refusals=(
            errors.ItemNotFound,
            errors.UnknownPicture,
            errors.PictureTooSmall,
            errors.FaceRefused,
            errors.StorageFull,
        ),
    ),
    Route(
        "/person/photo/delete",
        photo_delete,
        "Take a photo away that a person is recognised by, for good",
        {200: Told("The person as they are then", PERSON_THEN)},
        "persons",
        methods=DELETE,
        scopes=ENROL,
        form=PHOTO_DELETE,
        audited=always,
        refusals=(errors.ItemNotFound, errors.Conflict, errors.StorageFull),
    ),
    Route(
        "/person/split",
        split,
        "Make a new person, of the same list, of some of a person's photos and of the sightings that are like them",
        {200: Told("The new person", PERSON_THEN)},
        "persons",
        scopes=ENROL,
        form=SPLIT,
        audited=always,
        refusals=(errors.ItemNotFound, errors.Conflict, errors.StorageFull),
    ),
    Route(
        "/person/preview",
        preview,
        "Look at a picture as if to add its faces, and keep nothing of it",
        {
            200: Told(
                "The faces, the largest first: what is measured, which limits fail, and who is nearest",
                schemas.obj(
                    {
                        **schemas.STATUS,
                        "spent": schemas.WHOLE,
                        "faces_total": schemas.WHOLE,
                        "faces": schemas.array(PREVIEWED),
                    }
                ),
            )
        },
        "recognition",
        scopes=frozenset({Scope.RECOGNIZE}),
        form=PREVIEW,
        refusals=(errors.ItemNotFound, errors.UnknownPicture, errors.PictureTooSmall),
    ),
    Route(
        "/person/find",
        find,
        "Find persons by what their fields contain, or those without a name",
        {200: Told("A page; it may be short, or empty, and still lead on", schemas.listing("persons", "Person"))},
        "persons",
        scopes=READ,
        form=FIND,
        refusals=(errors.ItemNotFound,),
    ),
)
