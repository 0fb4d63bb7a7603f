"""Putting a backup back: by `edge restore`, or by itself where the gallery is found broken at a start.

Everything is unpacked and checked in a folder beside the live state, and only then changes places with it, by renames
that a crash at any moment lets the next start finish. What was there is set aside in a folder of the data folder, never
deleted. Two states of that folder say how far it is: READY, what is live is being set aside; MOVING, what was restored
is being put in its place.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge import archive, backup, calibration, durable
from edge.archive import Manifest
from edge.errors import BackupUnusable, GalleryBroken, GalleryUnusable
from edge.gallery import backup as rows
from edge.gallery import saved, soundness
from edge.gallery.audit import AUDIT_NAME
from edge.gallery.core import PICTURES_NAME
from edge.gallery.database import DATABASE_NAME, LOCK_NAME, Database, held, refusing_when_full
from edge.gallery.spool import SPOOL_NAME
from edge.packs import CHOICE_NAME

log = logging.getLogger(__name__)

MARKER_NAME = "restored.json"
"""Says that the gallery is that of a backup because the live one was broken, until somebody has taken note."""

UNFINISHED, READY, MOVING = "restoring.new", "restoring.ready", "restoring.moving"
PLAN_NAME = "plan.json"

_GALLERY_NAMES = (
    DATABASE_NAME,
    f"{DATABASE_NAME}-wal",  # left beside another database it would be taken for that one's
    f"{DATABASE_NAME}-shm",
    SPOOL_NAME,
    f"{SPOOL_NAME}-journal",
    PICTURES_NAME,
    saved.FOLDER_NAME,
    MARKER_NAME,
)
_ALL_NAMES = (
    *_GALLERY_NAMES,
    archive.ACCESS_NAME,
    f"{archive.ACCESS_NAME}-journal",
    archive.KEYS_NAME,
    CHOICE_NAME,
    calibration.FOLDER_NAME,
)
"""What a backup brings or makes untrue; packs, other backups and tokens' files stay where they are."""


@dataclass(frozen=True)
class Restored:
    """What was put back, and where what was there before is now; None: there was nothing."""

    manifest: Manifest
    aside: Path | None
    settings: Path
    """The settings of the box that the backup is of: not in force, to be compared."""
    erased: int
    """Persons of the backup who had been erased here since, and are not back."""


# --- edge restore ---


def restore(path: Path, data_folder: Path, *, now_ms: int, with_erased: bool = False) -> Restored:
    """Put a backup in the place of what is in the data folder, all of it or nothing.

    Who was erased here since it was made, as the audit log of the folder says, is not put back, or `with_erased` is.
    Raises BackupUnusable, StorageFull, GalleryUnusable (a service has the folder); nothing has changed then.
    """
    is_new = not data_folder.exists()
    try:
        with _alone(data_folder):
            _finish(data_folder)
            aside = f"before-restore-{_stamp(now_ms)}"
            # what has been done here stays known: only a box without an audit log takes the backup's
            names = _ALL_NAMES if (data_folder / AUDIT_NAME).exists() else (*_ALL_NAMES, AUDIT_NAME)
            manifest, erased = _prepare(path, data_folder, names, aside, names=None, with_erased=with_erased)
            _finish(data_folder)
    except BaseException:
        if is_new:
            (data_folder / LOCK_NAME).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                data_folder.rmdir()
        raise
    left = data_folder / aside
    settings = data_folder / f"restored-{archive.SETTINGS_NAME}"
    return Restored(manifest, left if left.exists() else None, settings, erased)


@contextlib.contextmanager
def _alone(data_folder: Path) -> Iterator[None]:
    try:
        with held(data_folder):
            yield
    except GalleryUnusable as error:
        if "in use" not in error.message:
            raise
        raise GalleryUnusable(message=f"{error.message}: stop the service first, and start it afterwards") from error


def acknowledge(data_folder: Path) -> bool:
    """Note that somebody knows that the gallery is that of a backup; whether there was anything to know."""
    marker = data_folder / MARKER_NAME
    there = marker.exists()
    marker.unlink(missing_ok=True)
    return there


def restored_from(data_folder: Path) -> str | None:
    """Return the time of the backup that stands in for a broken gallery, None where none does or that is known."""
    try:
        return str(json.loads((data_folder / MARKER_NAME).read_bytes())["made"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


# --- at a start ---


def fault(data_folder: Path) -> str | None:
    """Finish what a crash interrupted; return what is wrong with the gallery, None where it can be opened.

    Raises GalleryUnusable for what a backup of the gallery does not mend: the folder is in use, or of a newer release,
    or who may call is lost.
    """
    if (data_folder / READY).exists() or (data_folder / MOVING).exists():
        with held(data_folder):
            _finish(data_folder)
    _check_access(data_folder / archive.ACCESS_NAME)
    lost = _lost(data_folder)
    if lost is not None:
        return lost
    try:
        Database(data_folder).close()
    except GalleryBroken as broken:
        return broken.message
    return None


def restore_newest(data_folder: Path, reason: str, *, now_ms: int) -> str:
    """Put the newest sound automatic backup in the place of a broken gallery; return its time.

    Tokens, users and keys stay as they are. Raises GalleryBroken with what to do where there is none.
    """
    with held(data_folder):
        for path in backup.kept(data_folder):
            aside = f"{DATABASE_NAME}.broken-{_stamp(now_ms)}"
            try:
                manifest, erased = _prepare(
                    path, data_folder, _GALLERY_NAMES, aside, names=frozenset({PICTURES_NAME}), reason=reason
                )
            except BackupUnusable as unusable:
                log.error("a backup is passed over: %s", unusable)
                continue
            _finish(data_folder)
            log.error(
                "%s; it is set aside in %s, and the backup of %s with %d persons is in its place, but for %d whom the"
                " audit log says to be erased since. Who was added since is missing, and who else was erased since is"
                " back: erase them again",
                reason,
                data_folder / aside,
                manifest.made,
                manifest.persons,
                erased,
            )
            return manifest.made
    raise GalleryBroken(
        message=f"{reason}. There is no sound backup in {data_folder / backup.FOLDER_NAME}: put one back with"
        f" `edge restore FILE`. To begin anew, without anybody, move {data_folder / DATABASE_NAME} and"
        f" {data_folder / PICTURES_NAME} away"
    )


def _check_access(path: Path) -> None:
    """Refuse to start without knowing who may call: from an older file, revoked tokens would be good again."""
    if not path.exists() or not path.stat().st_size:  # there are none yet
        return
    found = soundness.file_fault(path, archive.VERSIONS[archive.ACCESS_NAME], mode="rw")
    if found is not None and "newer release" not in found:  # that is refused by who opens it
        raise GalleryBroken(
            message=f"{path} is damaged ({found}), and with it all tokens and users: put a backup back with `edge"
            " restore FILE`, or move it away and make new tokens with `edge token create`"
        )


def _lost(data_folder: Path) -> str | None:
    """Return what to say where there is no database though there was one: to start empty would sweep its pictures."""
    path = data_folder / DATABASE_NAME
    if path.exists() and path.stat().st_size:
        return None
    if any((data_folder / PICTURES_NAME).glob("*/*.jpg")) or backup.kept(data_folder):
        return f"{path} is {'empty' if path.exists() else 'missing'}, though pictures or backups of it are there"
    return None


# --- changing places ---


def _prepare(
    path: Path,
    data_folder: Path,
    moved: Sequence[str],
    aside: str,
    *,
    names: frozenset[str] | None,
    reason: str | None = None,
    with_erased: bool = False,
) -> tuple[Manifest, int]:
    """Unpack and check the backup beside the live state, up to READY; nothing is left of one that is refused.

    Return what it says of itself, and how many of its persons were erased again.
    """
    unfinished = data_folder / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    try:
        with refusing_when_full():
            manifest = archive.unpack(path, unfinished, names=names, reuse=data_folder)
            copied, erased = unfinished / DATABASE_NAME, 0
            if not with_erased and (data_folder / AUDIT_NAME).exists():
                erased = rows.erase_again(copied, data_folder / AUDIT_NAME, data_folder / DATABASE_NAME)
            _sweep(unfinished / PICTURES_NAME, frozenset(rows.pictures(copied)))
            for name in archive.VERSIONS:
                if name not in moved:
                    (unfinished / name).unlink(missing_ok=True)
            settings = unfinished / archive.SETTINGS_NAME
            if settings.exists():
                settings.rename(unfinished / f"restored-{archive.SETTINGS_NAME}")
            if reason is not None:
                (unfinished / MARKER_NAME).write_text(json.dumps({"made": manifest.made, "reason": reason}))
            (unfinished / PLAN_NAME).write_text(json.dumps({"aside": aside, "names": list(moved)}))
            _sync(unfinished)
            unfinished.rename(data_folder / READY)
            durable.sync(data_folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return manifest, erased


def _sweep(folder: Path, named: frozenset[str]) -> None:
    """Remove the pictures that no row names: of those erased again, or erased while the backup was made."""
    for picture in folder.glob("*/*.jpg"):
        if picture.stem not in named:
            picture.unlink()


def _finish(data_folder: Path) -> None:
    """Go on from READY or MOVING to the end; from the start again if a crash comes in between."""
    ready, moving = data_folder / READY, data_folder / MOVING
    if ready.exists():
        plan = json.loads((ready / PLAN_NAME).read_bytes())
        aside = data_folder / plan["aside"]
        for name in plan["names"]:
            if os.path.lexists(data_folder / name):
                aside.mkdir(mode=0o700, exist_ok=True)
                (data_folder / name).rename(aside / name)
        if aside.exists():
            durable.sync(aside)
        durable.sync(data_folder)
        ready.rename(moving)
        durable.sync(data_folder)
    if moving.exists():
        for one in sorted(moving.iterdir()):
            if one.name != PLAN_NAME:
                one.replace(data_folder / one.name)
        durable.sync(data_folder)
        shutil.rmtree(moving)


def _sync(folder: Path) -> None:
    """Bring every folder in it, and its own small files, to the disk; the entries have been."""
    for name in (MARKER_NAME, PLAN_NAME):
        with contextlib.suppress(FileNotFoundError):
            durable.sync(folder / name)
    for root, _, _ in os.walk(folder):
        durable.sync(Path(root))


def _stamp(now_ms: int) -> str:
    moment = datetime.datetime.fromtimestamp(now_ms // 1000, datetime.timezone.utc)
    return f"{moment:%Y%m%dT%H%M%S}.{now_ms % 1000:03d}Z"
