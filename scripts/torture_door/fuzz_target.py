"""One door under atheris, in a process of its own, since libFuzzer ends it: started by `fuzz`.

    fuzz_target.py {form,picture} CORPUS [libFuzzer's flags]

A refusal is what a door may answer; whatever else comes out of it ends the run, and so do signals, 10 s and 2 GB.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

with atheris.instrument_imports(include=["edge.web", "edge.face.image", "multipart"]):
    from edge.errors import Refusal
    from edge.face import image
    from edge.web.body import BodyLimits, read_body
    from edge.web.forms import PERSON_CREATE
    from edge.web.parameters import Facts

FACTS = Facts(frozenset({"yaw", "eyes_open", "sharpness"}), 128)
TYPES = (
    "multipart/form-data; boundary=b",
    "multipart/form-data; boundary=b",
    "application/json",
    "application/x-www-form-urlencoded",
)
LONGEST_BOUNDARY = 70
"""RFC 2046, 5.1.1."""

MOST_PIXELS = 1 << 16
"""Of a picture, and it may have one pixel a side: a decoder has the same code for small ones, and a million of them."""


def form(data: bytes) -> None:
    """Take a body apart and read it as POST /person/create does; its first byte says of which type it is."""
    kind = data[0] if data else 0
    content_type, body = TYPES[kind % len(TYPES)], data[1:]
    if kind >= 128:  # the boundary is what the caller says, too
        boundary, _, body = body.partition(b"\n")
        content_type = f"multipart/form-data; boundary={boundary[:LONGEST_BOUNDARY].decode('latin-1')}"
    environ = {"CONTENT_TYPE": content_type, "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
    with contextlib.suppress(Refusal):
        PERSON_CREATE.read(read_body(environ, BodyLimits()), FACTS)


def picture(data: bytes) -> None:
    """Decode it, whole and as small as the decoder can."""
    with contextlib.suppress(Refusal):
        frame = image.opened(data, max_pixels=MOST_PIXELS, min_side=1)
        frame.picture()
        if frame.head.format == "JPEG":
            frame.picture(8)


DOORS: dict[str, Callable[[bytes], None]] = {"form": form, "picture": picture}

if __name__ == "__main__":
    door = DOORS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, door)
    atheris.Fuzz()
