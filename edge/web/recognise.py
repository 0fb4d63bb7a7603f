"""The routes that look at pictures: /person/create, /action, /detect, /compare, and /vector/search."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edge import errors
from edge.recognition import ActionRequest, CompareRequest, DetectRequest, Searched, VectorSearch
from edge.types import Scope
from edge.web import forms, schemas, views
from edge.web.forms import (
    DROP_IMAGE,
    GROUP_ID,
    IMAGE,
    MULTI,
    NEW_PERSON,
    SOURCE_ID,
    WANTED,
    new_person_limits,
    uncertain_is_below,
    wanted_parts,
)
from edge.web.parameters import Flag, Form, Many, Names, One, Pictures
from edge.web.site import Call, Route, Told, ok
from edge.web.values import share, uuid_text, whole, word
from edge.web.vectors import Vectors, vector
from edge.web.views import Answer

IMAGES_OF_DETECT = 16
LISTS = 100  # lists searched at once
RESULTS = 100  # matches of a face, at most
VECTORS = 100  # of one search

# --- POST /person/create ---


def person_create(call: Call) -> Answer:
    """POST /person/create: what the appliance exists for."""
    request = forms.person_to_create(call.values)
    if not request.embedding_only:
        call.asker.require(Scope.ENROL)
    list_id, source_id = call.asker.may_use(request.list_id, request.source_id)
    request = replace(request, list_id=list_id, source_id=source_id, actor=call.actor)
    return views.person_created(
        call.site.recognizer.create(request),
        request,
        spent_ms=call.spent_ms,
        cloud_codes=call.site.cloud_codes,
        pack_id=call.site.pack.id,
        image_url=call.image_url,
    )


# --- POST /action ---

LISTS_TO_SEARCH = Many(
    "person_list_search",
    uuid_text,
    "The lists to search, together. If absent: the source's, else the main list (or the token's).",
    LISTS,
    spread=True,
    names=Names.LIST,
)
LIST_TO_ADD_TO = Many(
    "person_list_add",
    uuid_text,
    "The list that faces are added to which match nobody; it is searched too. If absent: the source's, else none.",
    1,
    spread=True,
    names=Names.LIST,
)
RESULTS_OF_ACTION = One("results", whole(1, RESULTS), "Matches of each face, at most. 1 if absent.")

ACTION = Form(
    parameters=(
        IMAGE,
        LISTS_TO_SEARCH,
        LIST_TO_ADD_TO,
        RESULTS_OF_ACTION,
        GROUP_ID,
        SOURCE_ID,
        *NEW_PERSON,
        MULTI,
        DROP_IMAGE,
        *WANTED,
    ),
    needs=(IMAGE.name,),
    rules=(uncertain_is_below,),
)


def action(call: Call) -> Answer:
    """POST /action: who the faces are, and where nobody, somebody new."""
    values, asker = call.values, call.asker
    image = values[IMAGE]
    assert image is not None, "the form needs it"
    request = ActionRequest(
        image=image,
        search_lists=tuple(dict.fromkeys(values[LISTS_TO_SEARCH])),
        add_list=next(iter(values[LIST_TO_ADD_TO]), None),
        results=values[RESULTS_OF_ACTION] or 1,
        group_id=values[GROUP_ID],
        source_id=values[SOURCE_ID] or asker.source_id,
        multi=values[MULTI],
        drop_image=values[DROP_IMAGE],
        limits=new_person_limits(values),
        wanted=wanted_parts(values),
        may_add=asker.has(Scope.ENROL),
        only_list=asker.list_id,
        actor=call.actor,
    )
    result = call.site.recognizer.act(request)
    return views.acted(result, request.wanted, spent_ms=call.spent_ms, image_url=call.image_url)


# --- POST /detect and /compare ---

IMAGES = Pictures(
    "images", "The pictures, a file each under the same name; in JSON, an array of base64.", IMAGES_OF_DETECT
)
TWO_IMAGES = Pictures("images", "The two pictures, a file each under the same name; in JSON, an array of base64.", 2, 2)
MATCH_THRESHOLD = One(
    "threshold", share, "The score from which on it is a match: 0 to 1, or a percentage. If absent, the setting's."
)

DETECT = Form(parameters=(IMAGES, MULTI, *WANTED), needs=(IMAGES.name,))
COMPARE = Form(parameters=(TWO_IMAGES, MATCH_THRESHOLD, MULTI, *WANTED), needs=(TWO_IMAGES.name,))


def detect(call: Call) -> Answer:
    """POST /detect: where the faces are."""
    request = DetectRequest(call.values[IMAGES], call.values[MULTI], wanted_parts(call.values))
    return views.detected(call.site.recognizer.detect(request), request.wanted, spent_ms=call.spent_ms)


def compare(call: Call) -> Answer:
    """POST /compare: whether two pictures show the same person."""
    values = call.values
    first, second = values[TWO_IMAGES]
    request = CompareRequest((first, second), values[MATCH_THRESHOLD], values[MULTI], wanted_parts(values))
    return views.compared(call.site.recognizer.compare(request), request.wanted, spent_ms=call.spent_ms)


# --- POST /vector/search ---


EMBEDDINGS = Vectors(
    "embeddings",
    vector,
    "The vectors: each as `embedding` of /person/create is.",
    VECTORS,
    least=1,
    required=True,
)
LIST_IDS = Many(
    "list_ids",
    uuid_text,
    "The lists to search, together; the main list (or the token's) if absent.",
    LISTS,
    spread=True,
    names=Names.LIST,
)
PERSON_DATA = Flag("person_data", "Return the record of everybody found.")
RESULTS_OF_SEARCH = One(
    "results", word("top", "all"), "`top` (if absent): the best match. `all`: every one, up to 100."
)

SEARCH = Form(parameters=(EMBEDDINGS, LIST_IDS, MATCH_THRESHOLD, PERSON_DATA, RESULTS_OF_SEARCH))


def search(call: Call) -> Answer:
    """POST /vector/search: whom vectors resemble."""
    values, bound = call.values, call.asker.list_id
    request = VectorSearch(
        embeddings=values[EMBEDDINGS],
        list_ids=values[LIST_IDS] or ((bound,) if bound else ()),
        threshold=values[MATCH_THRESHOLD],
        persons=RESULTS if values[RESULTS_OF_SEARCH] == "all" else 1,
    )
    found = call.site.recognizer.search(request)
    return ok(spent=call.spent_ms, results=[_searched(call, one, values[PERSON_DATA]) for one in found])


def _searched(call: Call, found: Searched, person_data: bool) -> dict[str, Any]:
    matches = []
    for match in found.matches:
        person = match.candidate.person
        hit: dict[str, Any] = {
            "person_id": person.person_id,
            "list_id": person.list_id,
            "score": round(match.score, 4),
        }
        if person_data:
            hit["person"] = views.person(person, call.image_url)
        matches.append(hit)
    return {"matches": matches, "threshold": found.threshold}


# --- the table ---

ENROL_OR_RECOGNIZE = frozenset({Scope.ENROL, Scope.RECOGNIZE})

ROUTES = (
    Route(
        "/person/create",
        person_create,
        "Add the persons of a picture to a list, unless they are there already",
        {
            200: Told("Something was added or replaced (cloud status codes: nothing was added)", schemas.CREATED),
            201: Told("Nothing was added (cloud status codes: somebody was)", schemas.CREATED),
        },
        "persons",
        scopes=ENROL_OR_RECOGNIZE,
        form=forms.PERSON_CREATE,
        refusals=(errors.ListNotFound, errors.ItemNotFound, errors.StorageFull),
        lists_are_items=False,
    ),
    Route(
        "/action",
        action,
        "Say who the faces of a picture are, of several lists; add those that nobody is",
        {200: Told("A result for each face, the largest first", schemas.ACTED)},
        "recognition",
        scopes=ENROL_OR_RECOGNIZE,
        form=ACTION,
        refusals=(errors.ItemNotFound, errors.StorageFull),
    ),
    Route(
        "/detect",
        detect,
        "Find the faces of up to 16 pictures",
        {200: Told("A list of faces for each picture, the largest first", schemas.DETECTED)},
        "recognition",
        scopes=frozenset({Scope.RECOGNIZE}),
        form=DETECT,
    ),
    Route(
        "/compare",
        compare,
        "Say whether two pictures show the same person",
        {200: Told("The score; null where a picture shows no face", schemas.COMPARED)},
        "recognition",
        scopes=frozenset({Scope.RECOGNIZE}),
        form=COMPARE,
    ),
    Route(
        "/vector/search",
        search,
        "Find the persons that vectors resemble",
        {200: Told("A result for each vector", schemas.SEARCHED)},
        "recognition",
        scopes=frozenset({Scope.RECOGNIZE}),
        form=SEARCH,
        refusals=(errors.ItemNotFound,),
    ),
)
