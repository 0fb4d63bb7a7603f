"""The routes of persons that are there already: read, page, change, move, delete, and more to know them by."""

from __future__ import annotations

import base64
from typing import Any

from edge import errors
from edge.errors import ItemNotFound, ListNotFound, Mistake, NothingToChange
from edge.gallery.protocol import PAGE, PAGE_LIMIT
from edge.recognition import FusionRequest, RejectedPicture
from edge.types import Person, Scope
from edge.web import schemas, views
from edge.web.forms import (
    DROP_IMAGE,
    FIELDS_OF_PERSON,
    LIST_ID,
    NEW_PERSON,
    new_person_limits,
    uncertain_is_below,
)
from edge.web.parameters import Flag, Form, Many, Maybe, Names, Needed, One, Pictures
from edge.web.site import DELETE, UPDATE, Call, Route, Told, always, ok
from edge.web.values import text, uuid_text, whole
from edge.web.vectors import Vectors, vector
from edge.web.views import Answer

DELETED_AT_ONCE = 1000  # persons
HEAVY_PAGE = 100  # persons of a page that comes with pictures or vectors
PICTURES_OF_FUSION = 16
VECTORS_OF_FUSION = 20  # as many as a person is recognised by

PERSON_ID = Needed("person_id", uuid_text, "The person.")
LIMIT = One("limit", whole(1, PAGE_LIMIT), f"Records of a page, at most. {PAGE} if absent.")
CURSOR = One(
    "cursor", text(64), "Where the page begins: the `cursor` of the page before. Empty or absent: at the first."
)

# --- POST /persons, /person ---

THUMBS = Flag("thumbs", f"Return everybody's picture, small, in base64; then a page has {HEAVY_PAGE} records at most.")
EMBEDDINGS = Flag("embeddings", f"Return everybody's vectors; then a page has {HEAVY_PAGE} records at most.")

PERSONS = Form(parameters=(LIST_ID, LIMIT, CURSOR, THUMBS, EMBEDDINGS))
PERSON = Form(parameters=(LIST_ID, PERSON_ID))


def persons(call: Call) -> Answer:
    """POST /persons: a list, page by page, in the order in which the persons were added."""
    values = call.values
    limit = values[LIMIT] or PAGE
    if values[THUMBS] or values[EMBEDDINGS]:
        limit = min(limit, HEAVY_PAGE)
    page = call.site.gallery.persons(call.list_id, values[CURSOR] or None, limit)
    return ok(persons=[_listed(call, one) for one in page.items], cursor=page.cursor)


def _listed(call: Call, person: Person) -> dict[str, Any]:
    site = call.site
    record = views.person(person, call.image_url)
    if call.values[THUMBS] and person.picture is not None:
        portrait = site.gallery.picture(person.picture)
        thumb = None if portrait is None else site.recognizer.thumb(portrait)
        if thumb is not None:  # else erased since the page was read, or damaged
            record["thumb"] = base64.b64encode(thumb).decode("ascii")
    if call.values[EMBEDDINGS]:
        templates = [one for one in site.gallery.templates_of(person.person_id) if one.pack_id == site.pack.id]
        record["embeddings"] = [[float(number) for number in one.embedding.vector] for one in templates]
        record["model"] = site.pack.id
    return record


def person(call: Call) -> Answer:
    """POST /person: one person's record."""
    person_id = call.values[PERSON_ID]
    try:
        found = call.site.gallery.person(call.list_id, person_id)
    except ListNotFound:
        mistake = Mistake(LIST_ID.name, f"no list {call.list_id}")
        raise ItemNotFound(mistake, message=f"list id {call.list_id} does not found") from None
    except ItemNotFound as unknown:
        raise ItemNotFound(*unknown.mistakes, message=f"person id {person_id} does not found") from None
    return Answer(200, views.person(found, call.image_url))


# --- POST /person/update, /person/delete ---

NEW_FIELDS = Maybe(FIELDS_OF_PERSON)
DROP_PICTURE = Flag("drop_image", "Erase the person's pictures; the vectors stay.")
NEW_LIST_ID = One("new_list_id", uuid_text, "The list to move the person to.", Names.LIST)
PERSON_IDS = Many(
    "person_id",
    uuid_text,
    "The person, or an array of them.",
    DELETED_AT_ONCE,
    least=1,
    spread=True,
    required=True,
)

PERSON_UPDATE = Form(parameters=(LIST_ID, PERSON_ID, NEW_FIELDS, DROP_PICTURE, NEW_LIST_ID))
PERSON_DELETE = Form(parameters=(LIST_ID, PERSON_IDS))


def person_update(call: Call) -> Answer:
    """POST /person/update: other fields, no picture, another list."""
    values = call.values
    fields, drop, new_list_id = values[NEW_FIELDS], values[DROP_PICTURE], values[NEW_LIST_ID]
    if fields is None and not drop and new_list_id is None:
        raise NothingToChange(Mistake("fields", "none of fields, drop_image and new_list_id was given"))
    call.site.gallery.update_person(
        call.list_id, values[PERSON_ID], fields=fields, drop_picture=drop, new_list_id=new_list_id
    )
    return ok(message="operation succeeded")


def person_delete(call: Call) -> Answer:
    """POST /person/delete: persons and everything about them, for good."""
    deleted = call.site.gallery.delete_persons(call.list_id, call.values[PERSON_IDS])
    if not deleted:
        raise ItemNotFound(Mistake(PERSON_IDS.name, f"nobody of these in the list {call.list_id}"))
    return ok(message=f"{deleted} person(s) deleted")


# --- POST /person/fusion ---

MORE_PICTURES = Pictures("images", "More pictures of the person; of each, the largest face counts.", PICTURES_OF_FUSION)
MORE_VECTORS = Vectors(
    "embeddings",
    vector,
    "More vectors of the person, each as `embedding` of /person/create.",
    VECTORS_OF_FUSION,
    least=1,
)
REPLACE_PERSON_ID = One(
    "replace_person_id",
    uuid_text,
    "Somebody of the same list who turned out to be this person: what is known of them is taken over, then they go.",
)

FUSION = Form(
    parameters=(
        LIST_ID,
        PERSON_ID,
        MORE_PICTURES,
        MORE_VECTORS,
        REPLACE_PERSON_ID,
        NEW_FIELDS,
        DROP_IMAGE,
        *NEW_PERSON,
    ),
    rules=(uncertain_is_below,),
)


def person_fusion(call: Call) -> Answer:
    """POST /person/fusion: more to recognise a person by."""
    values = call.values
    result = call.site.recognizer.fuse(
        FusionRequest(
            list_id=call.list_id,
            person_id=values[PERSON_ID],
            images=values[MORE_PICTURES],
            embeddings=values[MORE_VECTORS],
            replace_person_id=values[REPLACE_PERSON_ID],
            fields=values[NEW_FIELDS],
            drop_image=values[DROP_IMAGE],
            limits=new_person_limits(values),
        )
    )
    sent = len(values[MORE_PICTURES]) + len(values[MORE_VECTORS])
    return ok(
        message="operation succeeded" if result.added or not sent else _why_not(result.rejected[0]),
        spent=call.spent_ms,
        person=views.person(result.person, call.image_url),
        added=result.added,
        embeddings_total=len(call.site.gallery.templates_of(values[PERSON_ID])),
        rejected=[
            {
                "image": one.number,
                "message": _why_not(one),
                "reasons": [views.reason(reason) for reason in one.reasons],
            }
            for one in result.rejected
        ],
    )


def _why_not(rejected: RejectedPicture) -> str:
    if rejected.undecodable is not None:
        return rejected.undecodable.message
    return "the face misses the limits of a new person" if rejected.reasons else "no faces found"


# --- POST /person/reject, /person/rejections ---

SIGHTING_ID = Needed("sighting_id", uuid_text, "The sighting of the face that is not this person.")

REJECT = Form(parameters=(LIST_ID, PERSON_ID, SIGHTING_ID))
REJECTIONS = Form(parameters=(LIST_ID, PERSON_ID, LIMIT, CURSOR))


def person_reject(call: Call) -> Answer:
    """POST /person/reject: the face of a sighting is not this person. DELETE: it may be after all."""
    if call.environ["REQUEST_METHOD"] == "DELETE":
        return person_reject_undo(call)
    call.site.history.flush()  # what was answered a moment ago may still wait to be written
    _check_sighting(call, call.values[SIGHTING_ID])
    rejection = call.site.gallery.reject(call.list_id, call.values[PERSON_ID], call.values[SIGHTING_ID])
    return ok(message="operation succeeded", rejection=views.rejection(rejection))


def _check_sighting(call: Call, sighting_id: str) -> None:
    """Refuse a sighting of another list or source than the token is bound to, as one that is not there."""
    stored = call.site.history.sighting(sighting_id)
    if stored is None:
        return  # the gallery says so
    asker, seen = call.asker, stored.sighting
    if asker.list_id not in (None, seen.list_id) or asker.source_id not in (None, seen.source_id):
        raise ItemNotFound(Mistake(SIGHTING_ID.name, f"no sighting {sighting_id}"))


def person_reject_undo(call: Call) -> Answer:
    """POST /person/reject/delete: the same as DELETE, for whoever cannot send it with a body."""
    call.site.gallery.undo_rejection(call.list_id, call.values[PERSON_ID], call.values[SIGHTING_ID])
    return ok(message="1 rejection(s) deleted")


def person_rejections(call: Call) -> Answer:
    """POST /person/rejections: what was said not to be this person."""
    values = call.values
    page = call.site.gallery.rejections(call.list_id, values[PERSON_ID], values[CURSOR] or None, values[LIMIT] or PAGE)
    return ok(rejections=[views.rejection(one) for one in page.items], cursor=page.cursor)


# --- the table ---

DONE = {200: Told("Done", schemas.done())}
REJECTED = schemas.obj({**schemas.STATUS, "message": schemas.TEXT}, {"rejection": schemas.named("Rejection")})
READ = frozenset({Scope.READ})
ENROL = frozenset({Scope.ENROL})

ROUTES = (
    Route(
        "/persons",
        persons,
        "Page through the persons of a list",
        {
            200: Told(
                "A page; it neither skips nor repeats, whatever is written meanwhile",
                schemas.listing("persons", "ListedPerson"),
            )
        },
        "persons",
        scopes=READ,
        form=PERSONS,
        refusals=(errors.ItemNotFound,),
        audited=lambda values: values[THUMBS] or values[EMBEDDINGS],
    ),
    Route(
        "/person",
        person,
        "Read a person's record",
        {200: Told("The record", schemas.named("Person"))},
        "persons",
        scopes=READ,
        form=PERSON,
        refusals=(errors.ItemNotFound,),
    ),
    Route(
        "/person/update",
        person_update,
        "Change a person's fields, erase the pictures, move to another list",
        DONE,
        "persons",
        methods=UPDATE,
        scopes=ENROL,
        form=PERSON_UPDATE,
        refusals=(errors.ItemNotFound, errors.NothingToChange, errors.StorageFull),
        audited=always,
    ),
    Route(
        "/person/delete",
        person_delete,
        "Erase persons: records, vectors, pictures, sightings",
        DONE,
        "persons",
        methods=DELETE,
        scopes=ENROL,
        form=PERSON_DELETE,
        refusals=(errors.ItemNotFound, errors.StorageFull),
        audited=always,
    ),
    Route(
        "/person/fusion",
        person_fusion,
        "Add pictures or vectors that a person is recognised by, or merge two persons",
        {200: Told("The person as they are then", schemas.FUSED)},
        "persons",
        scopes=ENROL,
        form=FUSION,
        refusals=(errors.ItemNotFound, errors.NothingToChange, errors.Conflict, errors.StorageFull),
        audited=always,
    ),
    Route(
        "/person/reject",
        person_reject,
        "Say that the face of a sighting is not this person: it matches them no longer. DELETE takes it back",
        {200: Told("Remembered, or with DELETE forgotten (then without `rejection`)", REJECTED)},
        "persons",
        methods=DELETE,
        scopes=ENROL,
        form=REJECT,
        refusals=(errors.ItemNotFound, errors.Conflict, errors.PackMismatch, errors.StorageFull),
        audited=always,
    ),
    Route(
        "/person/reject/delete",
        person_reject_undo,
        "Take back that the face of a sighting is not this person",
        DONE,
        "persons",
        methods=DELETE,
        scopes=ENROL,
        form=REJECT,
        refusals=(errors.ItemNotFound, errors.StorageFull),
        audited=always,
    ),
    Route(
        "/person/rejections",
        person_rejections,
        "Page through what was said not to be a person",
        {200: Told("A page", schemas.listing("rejections", "Rejection"))},
        "persons",
        scopes=READ,
        form=REJECTIONS,
        refusals=(errors.ItemNotFound,),
    ),
)
