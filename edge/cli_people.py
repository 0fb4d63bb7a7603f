"""The verbs of the `edge` command that are about people in and out by the folder: enrol, export."""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge import assembly, bar
from edge.config import Config
from edge.errors import invalid
from edge.gallery import exporting as gallery_exporting
from edge.people import exporting, importing, photos
from edge.people.api import Api, token
from edge.people.enrolling import ADDED, KNOWN, LEAST_LIKE, MORE, REFUSED, Enrolment, Lists, Options
from edge.people.journal import SUFFIX, Done, Journal

EXIT_DONE = 0
EXIT_SOME_REFUSED = 3
"""Everything was tried, and something was refused: the report says what and why."""

TOKEN_NAME = "admin.token"  # noqa: S105 (a file's name)
"""What a first start puts into the data folder."""

FORMS = ("folder", "csv", "export", "double-take", "compreface")

ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 (not to listen on)
"""An address that is listened on everywhere, and the one of it to ask."""

REPORT = tuple(one.name for one in dataclasses.fields(Done))


def add_parsers(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verbs to the command's."""
    put = verbs.add_parser("enrol", parents=[common], help="add people by the folder, through the running service")
    put.add_argument("place", metavar="FOLDER", help="a folder for each person; or a CSV, an export, an address")
    put.add_argument("--from", dest="form", choices=FORMS, help="what it is (default: by its look)")
    put.add_argument("--url", metavar="URL", help="of the service (default: as set)")
    put.add_argument("--token-file", type=Path, metavar="FILE", help=f"default: $EDGE_TOKEN, else <data>/{TOKEN_NAME}")
    put.add_argument("--key-file", type=Path, metavar="FILE", help="of CompreFace's API key, for --from compreface")
    put.add_argument("--list", metavar="LIST", help="id or name (default: the main list)")
    put.add_argument("--threshold", type=float, metavar="SCORE", help="from which a photo is somebody who is there")
    put.add_argument(
        "--likeness",
        type=float,
        default=LEAST_LIKE,
        metavar="SCORE",
        help=f"least score of a further photo with the person, 0: any (default: {LEAST_LIKE})",
    )
    put.add_argument("--report", type=Path, metavar="FILE", help="write what became of each photo, as CSV")
    put.add_argument("--journal", type=Path, metavar="FILE", help=f"what is done (default: <FOLDER>{SUFFIX})")
    put.add_argument("--retry", action="store_true", help="try again what an earlier run refused")
    put.set_defaults(run=_enrol)

    out = verbs.add_parser("export", parents=[common], help="write out everybody, the service running")
    out.add_argument("path", type=Path, metavar="FOLDER|FILE.tar", help="to be made; it will hold faces")
    out.add_argument("--person", metavar="ID", help="one person alone, with everything that is kept of them")
    out.add_argument("--history", action="store_true", help="the sightings too")
    out.set_defaults(run=_export)


# --- enrol ---


def _enrol(settings: Config, options: argparse.Namespace) -> int:
    for name in ("threshold", "likeness"):
        value = getattr(options, name)
        if value is not None and not 0 <= value <= 1:
            raise invalid(f"--{name}", f"{value:g} is not within 0 to 1")
    secret = token(options.token_file, os.environ, settings.data.folder / TOKEN_NAME)
    form = options.form or _form(options.place)
    api = Api(options.url or service_url(settings), {"token": secret})
    with contextlib.closing(api):
        lists = Lists(api, options.list)
        journal = Journal(_journal(options, form), lists.main)
        with contextlib.closing(journal), bar.drawn("enrolling") as draw:
            done = _run(api, journal, lists, form, options, draw)
    if options.report is not None:
        _write_report(options.report, done)
    return _told(done)


def _run(
    api: Api, journal: Journal, lists: Lists, form: str, options: argparse.Namespace, draw: bar.Bar
) -> Sequence[Done]:
    if form == "export":
        with importing.opened(Path(options.place)) as (source, persons):
            return importing.Import(api, journal, lists, source).run(persons, draw)
    found = _photos(form, options)
    chosen = Options(threshold=options.threshold, likeness=options.likeness, retry=options.retry)
    return Enrolment(api, journal, lists, chosen).run(found, draw)


def _photos(form: str, options: argparse.Namespace) -> list[photos.Photo]:
    if form == "compreface":
        if options.key_file is None:
            raise invalid("--key-file", "must be given: the API key of the recognition service")
        return photos.of_compreface(options.place, token(options.key_file, {}, options.key_file))
    read = {"csv": photos.of_csv, "double-take": photos.of_double_take}.get(form, photos.of_folder)
    return read(Path(options.place))


def _form(place: str) -> str:
    path = Path(place)
    if place.startswith(("http://", "https://")):
        raise invalid("--from", "must say whose address it is: compreface")
    if importing.is_export(path):
        return "export"
    return "csv" if path.suffix.lower() == ".csv" else "folder"


def _journal(options: argparse.Namespace, form: str) -> Path:
    if options.journal is not None:
        return Path(options.journal)
    if form == "compreface":
        return Path(f"compreface{SUFFIX}")
    path = Path(options.place).resolve()
    return path.with_name(path.name + SUFFIX)


def service_url(settings: Config) -> str:
    """Return where the service is to be asked, as set."""
    host = settings.server.host
    host = ANY_ADDRESS.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{settings.server.port}"


def _told(done: Sequence[Done]) -> int:
    """Print every refusal and the sums; return the exit code."""
    refused = [one for one in done if one.outcome == REFUSED]
    for one in refused:
        print(f"{one.file}: {_why(one)}")
    for one in done:
        if one.outcome in (ADDED, MORE) and one.faces > 1:
            print(f"{one.file}: {one.faces} faces, of which the largest was taken")
    counts = {outcome: sum(one.outcome == outcome for one in done) for outcome in (ADDED, MORE, KNOWN)}
    print(
        f"{counts[ADDED]} persons added, {counts[MORE]} more photos of them, {counts[KNOWN]} known already,"
        f" {len(refused)} refused"
    )
    return EXIT_SOME_REFUSED if refused else EXIT_DONE


def _why(one: Done) -> str:
    """Return why a photo was refused, with the value and the limit."""
    text = one.check
    if one.person_id:
        text += f": {one.person or 'nameless'} ({one.person_id})"
    if one.score is not None:
        text += f", score {one.score:g}"
    if one.value is not None:
        text += f" {one.value:g}"
    if one.limit is not None:
        text += f", limit {one.limit:g}"
    return text


def _write_report(path: Path, done: Sequence[Done]) -> None:
    """Write the CSV, for its owner alone: it holds names."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(REPORT)
        rows.writerows([getattr(one, name) for name in REPORT] for one in done)
    print(f"the report is in {path}", file=sys.stderr)


# --- export ---


def _export(settings: Config, options: argparse.Namespace) -> int:
    with gallery_exporting.opened(settings.data.folder) as reading, bar.drawn("exporting") as draw:
        done = exporting.export(
            reading,
            options.path,
            person_id=options.person,
            history=options.history,
            now_ms=assembly.now_ms(),
            draw=draw,
        )
    print(f"{options.path}: {done.persons} persons, {done.pictures} pictures, {done.sightings} sightings")
    print("It holds faces: keep it where nobody else can read it. Who is erased from now on stays in it.")
    return EXIT_DONE
