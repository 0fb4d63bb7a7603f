"""The verb of the `edge` command that watches a camera: watch."""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edge.cli_people import TOKEN_NAME, service_url
from edge.config import Config
from edge.credentials import secret
from edge.errors import invalid
from edge.people.api import Api, token
from edge.watching import Gate, Watch
from edge.web.values import uuid_text

LIVE = ("rtsp://", "rtsps://", "http://", "https://")
"""What is asked again when it ends; anything else is a file."""


def add_parsers(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb to the command's."""
    watch = verbs.add_parser("watch", parents=[common], help="post what moves before a camera that posts nothing")
    watch.add_argument("address", nargs="?", metavar="URL", help="rtsp://…, http://… (MJPEG), or a file")
    watch.add_argument("--address-file", type=Path, metavar="FILE", help="holds the URL, where that holds a password")
    watch.add_argument("--source", required=True, metavar="SOURCE_ID", help="the camera's source")
    watch.add_argument("--url", metavar="URL", help="of the service (default: as set)")
    watch.add_argument(
        "--token-file", type=Path, metavar="FILE", help=f"default: $EDGE_TOKEN, else <data>/{TOKEN_NAME}"
    )
    watch.add_argument("--motion", type=float, default=Gate.least_motion, metavar="SHARE", help="of the picture")
    watch.add_argument("--passage", type=float, default=Gate.passage_seconds, metavar="SECONDS", help="for one frame")
    watch.set_defaults(run=_watch)


def _watch(settings: Config, options: argparse.Namespace) -> int:
    if not 0 <= options.motion <= 1:
        raise invalid("--motion", f"{options.motion:g} is not within 0 to 1")
    if not 0 < options.passage <= 60:
        raise invalid("--passage", f"{options.passage:g} is not over 0, up to 60")
    try:
        source_id = uuid_text(options.source)
    except ValueError as error:
        raise invalid("--source", str(error)) from None
    address = _address(options.address, options.address_file)
    live = address.startswith(LIVE)
    if not live and not Path(address).is_file():
        raise invalid("URL", f"is neither a file that is there nor an address ({', '.join(LIVE)})")
    mine = token(options.token_file, os.environ, settings.data.folder / TOKEN_NAME)
    api = Api(options.url or service_url(settings), {"token": mine})
    watch = Watch(address, api, source_id, Gate(options.motion, options.passage))
    with contextlib.closing(api), contextlib.suppress(KeyboardInterrupt):
        watch.run(again=live)
    counts = watch.counts
    print(f"{counts.frames} frames seen, {counts.posted} posted, {counts.dropped} dropped for newer ones")
    return 0


def _address(text: str | None, file: Path | None) -> str:
    """Return the URL, given itself or by a file: every user of the machine can read the words of a command."""
    if (text is None) == (file is None):
        raise invalid("URL", "is needed, or --address-file in its place")
    if file is not None:
        return secret(file, "--address-file").decode("utf-8", "replace")
    assert text is not None, "one of the two is given"
    with contextlib.suppress(ValueError):  # no address, which is said later
        if text.startswith(LIVE) and urlsplit(text).password:
            reason = "holds a password: write it into a file (chmod 600), and name that with --address-file"
            raise invalid("URL", reason)
    return text
