"""Embeddings as callers send them: an array of JSON, numbers with commas between, or base64 of float32."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.types import Vector, unit
from edge.web.parameters import Facts, Many, json_text, kind_of, nested
from edge.web.values import Kind, Unfit, finite, number

VECTOR_CHARACTERS = 64  # of one number of an embedding with its comma; a double needs 25
VECTOR_NUMBER = 1e18  # greatest number of an embedding: float32 could not hold the square of a greater one
LEAST_LENGTH = 1e-6  # of a vector whose direction is not noise


def vector(facts: Facts) -> Kind[Vector]:
    """Return the reader of an embedding of the active pack's length, returned at unit length.

    An array of JSON, or a text: numbers with commas between, a JSON array, or base64 of little-endian float32.
    """
    length = facts.vector_length
    directed = {"anyOf": [{"minimum": LEAST_LENGTH}, {"maximum": -LEAST_LENGTH}]}
    numbers = {
        "type": "array",
        "items": number(-VECTOR_NUMBER, VECTOR_NUMBER).schema,
        "minItems": length,
        "maxItems": length,
        "contains": {"type": "number", **directed},
    }
    in_a_text = {"type": "string", "format": f"vector:{length}", "maxLength": length * VECTOR_CHARACTERS}
    return Kind(lambda value: _vector(value, length), {"anyOf": [numbers, in_a_text]}, in_a_text)


def _vector(value: Any, length: int) -> Vector:
    numbers = value if isinstance(value, list) else _numbers(value, length)
    if len(numbers) != length:
        raise Unfit(f"{len(numbers)} numbers; the active model's vectors have {length}")
    found = [finite(one) for one in numbers]
    if any(one is None for one in found):
        raise Unfit("must hold finite numbers only")
    if any(abs(one) > VECTOR_NUMBER for one in found if one is not None):
        raise Unfit(f"has no direction: a number beyond {VECTOR_NUMBER:g}")
    try:
        return unit(np.array(found, np.float64))
    except ValueError:
        raise Unfit("has no direction: all zeros, or nearly") from None


def _numbers(value: Any, length: int) -> list[Any]:
    if not isinstance(value, str):
        raise Unfit("must be numbers with commas between, a JSON array, or base64 of little-endian float32")
    if len(value) > length * VECTOR_CHARACTERS:
        raise Unfit(f"{len(value)} characters; {length} numbers never need more than {length * VECTOR_CHARACTERS}")
    if value.startswith("["):
        return list(nested(value))
    if "," in value:
        return [one.strip(" ") for one in value.split(",")]
    try:
        # an unescaped + of a form arrives as a space
        content = base64.b64decode(value.replace(" ", "+").encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise Unfit("is neither numbers with commas between, nor a JSON array, nor base64") from None
    if len(content) % 4:
        raise Unfit(f"{len(content)} bytes in base64; float32 needs four for each number")
    return [float(one) for one in np.frombuffer(content, "<f4")]


@dataclass(frozen=True, eq=False)
class Vectors(Many[Vector]):
    """One vector or several: the field repeated, an array of vectors, or in JSON, the numbers of a single one."""

    def _elements(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(values) != 1:
            return values
        only = values[0]
        if isinstance(only, str) and only.startswith("[["):
            only = nested(only)
        if isinstance(only, list) and all(isinstance(one, (list, str)) and one != "" for one in only):
            return tuple(only)
        return (only,)

    def schema(self, facts: Facts, *, form: bool) -> dict[str, Any]:
        """Return the schema of an array of vectors, and of a single one."""
        one = kind_of(self.kind, facts).schema_in(form=form)
        least = self.least if self.required or not form else 0
        array = {"type": "array", "items": one, "minItems": least, "maxItems": self.most}
        return array if form else {"anyOf": [array, one, json_text(array, self.name)]}
