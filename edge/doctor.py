"""What `edge doctor` looks at: settings, models, disk, clock, port, broker, machine, backup, certificate.

It reads and tries, and changes nothing: no folder is made, no database opened but beside the service that has it open.
"""

from __future__ import annotations

import datetime
import http.client
import json
import os
import platform
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge import __version__, archive, assembly, backup, doctor_events, doctor_machine, packs
from edge.config import Config
from edge.doctor_machine import Finding, fail, ok, warn
from edge.errors import PackUnusable, Refusal, Unusable
from edge.face.tflite import installed
from edge.fleet import membership
from edge.gallery.database import DATABASE_NAME
from edge.gallery.space import LOW_FACTOR, MEGABYTE, free_bytes
from edge.tls import RENEW_DAYS, Tls

ANSWER_SECONDS = 5.0
"""For whoever has the port to say who that is."""

ANSWER_BYTES = 1 << 20

BACKUP_DAYS = 2
"""The timer makes one a night; one that was missed may be a box that was off."""

CLOCK_SLACK_SECONDS = 60.0
"""File systems and clocks may differ by so much."""

FOR_OTHERS = stat.S_IRWXG | stat.S_IRWXO

Health = Mapping[str, Any]


def findings(settings: Config) -> Iterator[Finding]:
    """Yield what is found, as it is found: the models take a few seconds."""
    yield _interpreter(settings)
    yield _models(settings)
    yield from _data(settings)
    health, port = _port(settings)
    yield port
    yield from _told(health)
    yield from _fleet(settings, health)
    yield from doctor_events.broker(settings)
    yield from doctor_events.webhooks(settings, is_running=health is not None)
    yield _clock(settings, health)
    yield doctor_machine.cores(
        len(os.sched_getaffinity(0)), assembly.workers_of(settings), settings.models.threads_per_face
    )
    yield doctor_machine.governor()
    yield doctor_machine.temperature()
    yield doctor_machine.memory(is_running=health is not None)
    yield _backup(settings)
    yield _certificate(settings)


def _fleet(settings: Config, health: Health | None) -> Iterator[Finding]:
    """Say how the fleet is, of a box that is in one."""
    folder = settings.data.folder / membership.FOLDER
    told = None if health is None else health.get("fleet")
    if told is None:
        if health is not None and (folder / membership.CODE_NAME).exists():
            yield fail("fleet", f"{folder} has a code, and the gallery is in no fleet", "edge fleet leave, then join")
        return
    silent = [str(one["box"]) for one in told["peers"] if one["silent"]]
    if not told["connected"]:
        advice = "look at the network, and at edge-nats on the boxes that keep the stream: journalctl -u edge-nats"
        yield warn("fleet", f"alone; {told['outbox']} changes wait to be told", advice)
    elif told["agrees"] is False:
        yield warn("fleet", "the boxes hold different things", "wait a few minutes; then journalctl -u edge")
    elif told["position"] is None:
        yield warn(
            "fleet", "joined, and not seeded yet", "start another box of the fleet, which this one takes over from"
        )
    elif silent:
        yield warn("fleet", f"silent: {', '.join(silent)}", "start them, or if they are gone for good leave it at that")
    else:
        yield ok("fleet", f"{len(told['peers'])} other boxes, {told['outbox']} changes wait to be told")


# --- models ---


def _interpreter(settings: Config) -> Finding:
    try:
        name, _ = installed(settings.models.interpreter)
    except PackUnusable as missing:
        return fail("interpreter", _reasons(missing), "install it (scripts/setup), or set models.interpreter = auto")
    return ok("interpreter", f"{name}, Python {platform.python_version()}, {platform.machine()}")


def _models(settings: Config) -> Finding:
    try:
        pack = assembly.wanted_pack(settings)
        packs.try_out(pack, assembly.networks(settings))
        assembly.operating_points(pack, settings)
    except (Refusal, OSError) as error:
        return fail("models", _reasons(error), "add the pack anew, or choose another: edge models list")
    return ok("models", f"pack {pack.id}: every hash is right, every network runs")


# --- the data folder ---


def _data(settings: Config) -> Iterator[Finding]:
    folder = settings.data.folder
    yield doctor_machine.file_system(folder)
    if not folder.is_dir():
        yield warn("data", f"{folder} is not there", "the first start makes it; or set data.folder")
        return
    yield _room(settings)
    try:
        yield _folder(folder)
        yield _secrets(folder)
    except PermissionError:
        yield fail("secrets", f"{folder} may not be read", "run edge doctor as the user of the service, or as root")


def _room(settings: Config) -> Finding:
    free, kept = free_bytes(settings.data.folder), settings.data.reserve_megabytes * MEGABYTE
    told = f"{free // MEGABYTE} MB free, {kept // MEGABYTE} are kept"
    if free < kept:
        return fail("disk", told, "nobody is added any more: make room, or lower history.keep_megabytes")
    if free < kept * LOW_FACTOR:
        return warn("disk", told, "old sightings give way: make room, or lower history.keep_megabytes")
    return ok("disk", told)


def _folder(folder: Path) -> Finding:
    found = folder.stat()
    if found.st_mode & FOR_OTHERS:
        return fail("data", f"others may enter {folder} ({_mode(found)})", f"chmod 700 {folder}")
    if os.geteuid() not in (0, found.st_uid):
        return fail("data", f"{folder} belongs to another user", "run edge doctor, and edge, as that user")
    return ok("data", f"{folder}, for its owner alone")


def _secrets(folder: Path) -> Finding:
    """Return whether what is secret is its owner's alone, and that owner the folder's."""
    owner = folder.stat().st_uid
    names = (archive.ACCESS_NAME, archive.KEYS_NAME, DATABASE_NAME)
    there = [path for path in (*(folder / name for name in names), *sorted(folder.glob("*.token"))) if path.exists()]
    for path in there:
        found = path.stat()
        if found.st_uid != owner:
            told = f"{path.name} belongs to another user than the folder"
            return fail("secrets", told, f"chown --reference={folder} {path}")
        if found.st_mode & FOR_OTHERS:
            return fail("secrets", f"others may read {path.name} ({_mode(found)})", f"chmod 600 {path}")
    return ok("secrets", f"{len(there)} files, for their owner alone")


def _mode(found: os.stat_result) -> str:
    return f"mode {stat.S_IMODE(found.st_mode):03o}"


# --- the service ---


def _port(settings: Config) -> tuple[Health | None, Finding]:
    """Return what the service says of itself, None where none runs here, and whose the port is."""
    host, port = settings.server.host, settings.server.port
    if port == 0:
        return None, ok("port", "any free one")
    try:
        health = health_of(host, port)
    except ConnectionRefusedError:
        return None, ok("port", f"{port} is free: no service runs")
    except (OSError, http.client.HTTPException, ValueError):
        other = f"{port} is taken, by what is not edge"
        return None, fail("port", other, f"end that (ss -ltnp 'sport = :{port}'), or set server.port")
    if health["version"] != __version__:
        told = f"{port}: edge {health['version']} answers, this is {__version__}"
        return health, warn("port", told, "restart the service after an upgrade: systemctl restart edge")
    return health, ok("port", f"{port}: edge {__version__} answers, with pack {health['pack']}")


def health_of(host: str, port: int) -> Health:
    """Ask whoever listens there how it is. Raises OSError, HTTPException, or ValueError where that is not edge."""
    own = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (nothing is bound)
    connection = http.client.HTTPConnection(own, port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/health")
        health = json.loads(connection.getresponse().read(ANSWER_BYTES))
    finally:
        connection.close()
    if not isinstance(health, dict) or not {"version", "pack", "clock", "restored_from"} <= health.keys():
        raise ValueError("no health of edge")
    return health


def _told(health: Health | None) -> Iterator[Finding]:
    """Yield what the service itself complains of."""
    if health is None:
        return
    if health["restored_from"] is not None:
        told = f"the gallery was broken and is that of a backup ({health['restored_from']})"
        yield warn("gallery", told, "see what is missing since then, and: edge restore --acknowledge")
    elif health.get("pictures_missing"):
        told = f"{health['pictures_missing']} pictures are missing"
        yield warn("gallery", told, "persons are recognised without them; check the disk")
    else:
        yield ok("gallery", f"{health.get('persons')} persons in {health.get('lists')} lists")


def _clock(settings: Config, health: Health | None) -> Finding:
    """Return whether the clock may be right: at least not before what was written here by it."""
    now = time.time()
    told = f"{datetime.datetime.fromtimestamp(now, datetime.timezone.utc):%Y-%m-%d %H:%M} UTC"
    advice = "set it, and have it kept: timedatectl set-ntp true, or a battery for the board's clock"
    if health is not None and health["clock"] != "ok":
        return fail("clock", f"{told}: the service holds it to be {health['clock']}", advice)
    for path in (settings.data.folder / DATABASE_NAME, Path(__file__)):
        try:
            is_behind = path.stat().st_mtime > now + CLOCK_SLACK_SECONDS
        except OSError:
            continue
        if is_behind:
            return fail("clock", f"{told}: before {path.name} was written", advice)
    return ok("clock", told)


# --- what must not be forgotten ---


def _backup(settings: Config) -> Finding:
    folder = settings.data.folder
    advice = "systemctl enable --now edge-backup.timer, or: edge backup --auto"
    try:
        if not (folder / DATABASE_NAME).exists():
            return ok("backup", "nothing to back up yet")
        kept = backup.kept(folder)
    except OSError:
        return warn("backup", f"{folder} may not be read", "run edge doctor as the user of the service, or as root")
    if not kept:
        return warn("backup", "there is none", advice)
    days = int((time.time() - kept[0].stat().st_mtime) // assembly.SECONDS_A_DAY)
    told = f"{len(kept)}, the last {'today' if days < 1 else f'{days} days ago'}"
    return warn("backup", told, advice) if days > BACKUP_DAYS else ok("backup", told)


def _certificate(settings: Config) -> Finding:
    pem = settings.tls.pem
    try:
        if not pem.exists():
            if settings.server.plain_http_on_the_network:
                return warn("certificate", "none, and the network is served without TLS", "edge tls init")
            return ok("certificate", "none: edge tls init makes one")
        days = Tls(settings.tls.folder, pem).shown().days_left(datetime.datetime.now(datetime.timezone.utc))
    except PermissionError:
        return warn("certificate", f"{pem} may not be read", "run edge doctor as root")
    except (Unusable, OSError, ValueError) as error:
        return fail("certificate", _reasons(error), "edge tls init, or edge tls use CERT KEY")
    if days < 0:
        return fail("certificate", f"ended {-days} days ago", "edge tls renew, and: systemctl reload haproxy")
    if days < RENEW_DAYS:
        advice = "it should have been renewed: systemctl enable --now edge-tls.timer"
        return warn("certificate", f"{days} days left", advice)
    return ok("certificate", f"{days} days left")


def _reasons(error: Refusal | OSError | ValueError) -> str:
    if isinstance(error, Refusal) and error.mistakes:
        return "; ".join(f"{mistake.field}: {mistake.reason}" for mistake in error.mistakes)
    return str(error)
