"""The JSON of answers, described: what `views` and the handlers build, for /openapi.json and for the tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer", "minimum": 0}
PIXELS: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
TRUTH: Schema = {"type": "boolean"}
SCORE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
UUID: Schema = {"type": "string", "format": "uuid"}
TIME: Schema = {"type": "string", "format": "date-time", "examples": ["2026-01-31T09:30:47.120Z"]}
JPEG: Schema = {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/jpeg"}
ANYTHING: Schema = {}
"""Whatever a caller wrote, as it was written."""


def obj(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> dict[str, Any]:
    """Return the schema of an object with these keys and no others."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def array(item: Schema) -> dict[str, Any]:
    """Return the schema of an array."""
    return {"type": "array", "items": item}


def maybe(schema: Schema) -> dict[str, Any]:
    """Return the schema of a value or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def one_of(*words: str) -> dict[str, Any]:
    """Return the schema of one of these words."""
    return {"type": "string", "enum": list(words)}


def named(name: str) -> dict[str, Any]:
    """Return a reference to one of COMPONENTS."""
    return {"$ref": f"#/components/schemas/{name}"}


STATUS = {"status": one_of("ok")}

BOX = obj({"x": PIXELS, "y": PIXELS, "w": PIXELS, "h": PIXELS})
CORNERS = {
    "type": "array",
    "items": {"type": "array", "items": PIXELS, "minItems": 2, "maxItems": 2},
    "minItems": 4,
    "maxItems": 4,
    "description": "Top left, top right, bottom right, bottom left of the box turned with the head: x and y each.",
}
FEATURE = obj(
    {
        "name": TEXT,
        "version": TEXT,
        "result": NUMBER,
        "confidence": {"type": "string", "maxLength": 6},
        "spent": WHOLE,
    }
)
REASON = obj({"check": TEXT, "value": NUMBER, "limit": NUMBER})
MISTAKE = obj({"field": TEXT, "reason": TEXT})
MISTAKES = array(named("Mistake"))

WANTED_PARTS: dict[str, Schema] = {
    "bbox": named("Box"),
    "bbox_pro": named("Corners"),
    "thumb": JPEG,
    "normalized": JPEG,
}
"""What a request asks for of each face it sends."""

RECORD: dict[str, Schema] = {
    "person_id": UUID,
    "list_id": UUID,
    "group_id": maybe(UUID),
    "source_id": maybe(UUID),
    "created": TIME,
    "updated": TIME,
    "fields": array(TEXT),
    "features": array(named("Feature")),
    "yaw": maybe(NUMBER),
    "pitch": maybe(NUMBER),
    "roll": maybe(NUMBER),
    "score": maybe(SCORE),
}
URL: dict[str, Schema] = {"image_url": {"type": "string", "description": "Absent where no picture was kept."}}
SIGHTED: dict[str, Schema] = {
    "sighting_id": {**UUID, "description": "Of the posted face, for /person/reject. Absent where no history is kept."}
}
PERSON = obj({**RECORD, "status": one_of("init")}, URL)
TOGETHER: dict[str, Schema] = {"passage_frames": WHOLE}
"""Of how many frames of a visit the decision is, where frames are decided on together."""

KEPT_PERSON = obj(
    {**RECORD, "status": one_of("init", "replaced"), "threshold": SCORE},
    {**URL, **SIGHTED, **TOGETHER, **WANTED_PARTS},
)
MATCHED_PERSON = obj({**RECORD, "threshold": SCORE}, {**URL, **SIGHTED, **TOGETHER, **WANTED_PARTS})
FOUND_PERSON = obj(RECORD, URL)
CANDIDATE = obj({"person_id": UUID, "list_id": UUID, "fields": array(TEXT), "score": SCORE})
REJECTED_FACE = obj(
    {"reasons": array(named("Reason")), "threshold": SCORE},
    {"candidate": named("Candidate"), "rival": named("Candidate"), **SIGHTED, **TOGETHER, **WANTED_PARTS},
)
EMBEDDED_FACE = obj({"embedding": array(NUMBER), "model": TEXT}, {"features": array(named("Feature")), **WANTED_PARTS})
FACE = obj(
    {"score": SCORE, "yaw": NUMBER, "pitch": NUMBER, "roll": NUMBER},
    {"features": array(named("Feature")), **WANTED_PARTS},
)

SHORT = {"faces_total": WHOLE, "message": TEXT, "spent": WHOLE, **STATUS}
CREATED = {
    "anyOf": [
        obj(
            {
                **SHORT,
                "persons": array(named("KeptPerson")),
                "matches": array(named("MatchedPerson")),
                "rejected": array(named("RejectedFace")),
                "persons_new": WHOLE,
                "persons_updated": WHOLE,
                "persons_total": WHOLE,
            },
            {"errors": MISTAKES},
        ),
        obj(SHORT, {"faces": array(named("EmbeddedFace")), "errors": MISTAKES}),
    ]
}
ACTED_FACE = obj(
    {
        "matches": array(named("FoundPerson")),
        "threshold": SCORE,
        "reasons": array(named("Reason")),
        "bbox": named("Box"),
    },
    {
        **TOGETHER,
        "added": named("Person"),
        "candidate": named("Candidate"),
        "rival": named("Candidate"),
        **SIGHTED,
        "features": array(named("Feature")),
        "bbox_pro": named("Corners"),
        "thumb": JPEG,
        "normalized": JPEG,
    },
)
ACTED = obj({**SHORT, "results": array(named("ActedFace")), "persons_new": WHOLE}, {"errors": MISTAKES})
DETECTED = obj({**SHORT, "results": array(array(named("Face")))}, {"errors": MISTAKES})
COMPARED = obj(
    {
        **SHORT,
        "score": maybe(SCORE),
        "match": TRUTH,
        "threshold": SCORE,
        "results": array(array(named("Face"))),
    },
    {"errors": MISTAKES},
)
HIT = obj({"person_id": UUID, "list_id": UUID, "score": SCORE}, {"person": named("Person")})
SEARCHED = obj({**STATUS, "spent": WHOLE, "results": array(obj({"matches": array(named("Hit")), "threshold": SCORE}))})
FUSED = obj(
    {**STATUS, "message": TEXT, "spent": WHOLE, "person": named("Person"), "added": WHOLE, "embeddings_total": WHOLE},
    {"rejected": array(obj({"image": WHOLE, "message": TEXT, "reasons": array(named("Reason"))}))},
)
LISTED_PERSON = obj(
    {**RECORD, "status": one_of("init")}, {**URL, "thumb": JPEG, "embeddings": array(array(NUMBER)), "model": TEXT}
)

ALERT = obj({"id": UUID, "on_found": ANYTHING, "on_failed": ANYTHING})
GROUP = obj({"group_id": UUID, "name": TEXT, "created": TIME, "person_list_search": array(named("Alert"))})
BOUND = obj({"name": TEXT}, {"min": NUMBER, "max": NUMBER})
SOURCE = obj(
    {
        "source_id": UUID,
        "group_id": maybe(UUID),
        "name": TEXT,
        "created": TIME,
        "feature_check": maybe(array(named("Bound"))),
        "new_person_threshold": maybe(SCORE),
        "new_person_threshold_score": maybe(SCORE),
        "new_person_square_min": maybe(NUMBER),
        "new_person_yaw_max": maybe(NUMBER),
        "new_person_pitch_max": maybe(NUMBER),
        "person_list_add": array(UUID),
        "person_list_search": array(UUID),
    }
)
PERSON_LIST = obj({"id": UUID, "name": TEXT, "count": WHOLE, "created": TIME, "main": TRUTH, "threshold": SCORE})
EXPIRY = {"anyOf": [TIME, one_of("never")]}
TOKEN = obj(
    {
        "id": UUID,
        "name": TEXT,
        "scope": array(one_of("admin", "enrol", "read", "recognize")),
        "list_id": maybe(UUID),
        "source_id": maybe(UUID),
        "expires": EXPIRY,
        "created": TIME,
        "last_used": maybe(TIME),
    }
)
SIGHTING = obj(
    {
        "id": UUID,
        "time": TIME,
        "list_id": UUID,
        "source_id": maybe(UUID),
        "group_id": maybe(UUID),
        "verdict": one_of("match", "add", "replace", "reject"),
        "person_id": maybe(UUID),
        "score": maybe(SCORE),
        "threshold": SCORE,
        "bbox": maybe(named("Box")),
        "reasons": array(named("Reason")),
    },
    URL,
)

PHOTO = obj(
    {
        "photo_id": TEXT,
        "created": TIME,
        "image_url": maybe(TEXT),
        "is_portrait": TRUTH,
        "model": TEXT,
        "measures": obj({"sharpness": SCORE}),
    }
)

REJECTION = obj({"person_id": UUID, "sighting_id": UUID, "created": TIME})

REFUSAL = obj({"message": TEXT, "status": one_of("error", "failed")}, {"errors": MISTAKES})

COMPONENTS: Mapping[str, Schema] = {
    "ActedFace": ACTED_FACE,
    "Alert": ALERT,
    "Bound": BOUND,
    "Box": BOX,
    "Candidate": CANDIDATE,
    "Corners": CORNERS,
    "EmbeddedFace": EMBEDDED_FACE,
    "Face": FACE,
    "Feature": FEATURE,
    "FoundPerson": FOUND_PERSON,
    "Group": GROUP,
    "Hit": HIT,
    "KeptPerson": KEPT_PERSON,
    "ListedPerson": LISTED_PERSON,
    "MatchedPerson": MATCHED_PERSON,
    "Mistake": MISTAKE,
    "Person": PERSON,
    "PersonList": PERSON_LIST,
    "Photo": PHOTO,
    "Reason": REASON,
    "Refusal": REFUSAL,
    "Rejection": REJECTION,
    "RejectedFace": REJECTED_FACE,
    "Sighting": SIGHTING,
    "Source": SOURCE,
    "Token": TOKEN,
}
"""What several answers hold, by the name it has in /openapi.json."""


def listing(key: str, item: str) -> dict[str, Any]:
    """Return the schema of a page: records under the key, and the cursor to the next page (null: the last one)."""
    return obj({**STATUS, key: array(named(item)), "cursor": maybe(TEXT)})


def done(**more: Schema) -> dict[str, Any]:
    """Return the schema of what only says that it was done."""
    return obj({**STATUS, "message": TEXT, **more})
