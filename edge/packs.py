"""Packs that are added, and which of them is in force.

Adding is all or nothing: a pack is copied into a hidden folder beside the others, checked and tried there, made
durable, and only then given its name by one rename.

Which pack answers is decided by `in_force`. Wanted is what the setting `models.pack` names or, where it is `auto`, what
`edge models use` wrote to <data>/active-pack, or else the shipped one. But the gallery's templates are of one pack, and
those of another mean nothing to it: as long as they have not been embedded again (`edge reembed`), the pack that made
them goes on answering.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import multiprocessing
import os
import re
import secrets
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError  # the builtin one only from 3.11 on
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import IO

import numpy as np

from edge import catalogue, durable
from edge.errors import Mistake, PackUnusable
from edge.face.networks import Networks
from edge.gallery import reembedding
from edge.types import EmbedderSpec, Pack

log = logging.getLogger(__name__)

SHIPPED = "default"
"""The pack that came with the program."""

CHOICE_NAME = "active-pack"
"""The file in the data folder that holds the name of the chosen pack."""

MAX_PACK_BYTES = 1 << 30
"""A pack's files together. The largest embedders in use, ResNet-100 in float32, have 250 MB."""

MAX_DESCRIPTION_BYTES = 1 << 20
"""pack.json: a thousand operating points would be 50 KB."""

MAX_ARCHIVE_ENTRIES = 1000
"""Files in a ZIP: a pack has some twenty."""

TRIAL_SECONDS = 120
"""For one network to be loaded and run once: it takes a second, on a slow board with a slow card ten."""

NOTICES = ("NOTICE", "LICENSE", "LICENSE.txt", "LICENSE.md", "README.md")
"""What is copied besides the files that pack.json names: whose the models are goes where they go."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_STAGING = ".new-"
_CHUNK = 1 << 20


# --- which one answers ---


def wanted(data_folder: Path, setting: str | None) -> str:
    """Return the name of the pack that the setting (None: auto), the choice or else the program names."""
    if setting is not None:
        return setting
    try:
        return (data_folder / CHOICE_NAME).read_text(encoding="utf-8").strip() or SHIPPED
    except FileNotFoundError:
        return SHIPPED
    except UnicodeDecodeError:
        reason = "is no name of a pack; choose again with `edge models use`"
        raise PackUnusable(Mistake(str(data_folder / CHOICE_NAME), reason)) from None


def choose(data_folder: Path, name: str) -> None:
    """Make the pack the wanted one, durably: the file is the old one or the new one, never half of one."""
    temporary = data_folder / f"{CHOICE_NAME}.new"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(f"{name}\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(data_folder / CHOICE_NAME)
    durable.sync(data_folder)


def in_force(data_folder: Path, setting: str | None, folders: Sequence[Path]) -> str:
    """Return the name of the pack that is to answer: the wanted one, or that of the templates until they are embedded.

    Cheap enough to be asked every few seconds: no model file is read. Raises PackUnusable for a wanted pack that is
    not there.
    """
    name = wanted(data_folder, setting)
    id_ = catalogue.identity(catalogue.folder_of(name, folders), folders)
    answering = reembedding.answering(data_folder)
    if answering in (None, id_) or reembedding.is_ready(data_folder, id_):
        return name
    return name_of_id(answering, folders) or name


def name_of_id(id_: str | None, folders: Sequence[Path]) -> str | None:
    """Return the name of a pack whose vectors have that id, None if there is none (any more)."""
    for name, folder in catalogue.packs(folders).items():
        with contextlib.suppress(PackUnusable):
            if catalogue.identity(folder, folders) == id_:
                return name
    return None


# --- adding ---


def add(source: Path, destination: Path, folders: Sequence[Path], networks: Networks) -> Pack:
    """Copy the pack in a folder or a ZIP to `destination`/NAME and return it. Nothing is left of one that is refused.

    `folders`: where packs are, `destination` among them. Raises PackUnusable: not a pack, altered, too large, a name
    or an id that is taken, or a file that is no model or does not run.
    """
    destination.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(destination):
        for left in destination.glob(f"{_STAGING}*"):  # by an `add` that was killed
            shutil.rmtree(left, ignore_errors=True)
        staging = destination / (_STAGING + secrets.token_hex(8))
        try:
            folder = staging / (source.resolve().stem or "pack")  # what refusals call it
            folder.mkdir(mode=0o700, parents=True)
            with _opened(source) as open_entry:
                _copy(open_entry, folder)
            pack = catalogue.load(folder, folders)
            _check_name(pack, destination, folders)
            _check_id(pack, folders)
            try_out(pack, networks)
            _make_durable(folder)
            folder.rename(destination / pack.name)
            durable.sync(destination)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return catalogue.load(destination / pack.name, folders)


OpenEntry = Callable[[str], "IO[bytes] | None"]
"""Opens a file of the source by its name; None if there is none."""


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[OpenEntry]:
    """Yield how to open a file of a folder or a ZIP."""
    if source.is_dir():
        yield lambda name: (source / name).open("rb") if (source / name).is_file() else None
        return
    try:
        with zipfile.ZipFile(source) as archive:
            prefix = _prefix(source, archive)
            there = set(archive.namelist())
            yield lambda name: archive.open(prefix + name) if prefix + name in there else None
    except FileNotFoundError:
        raise PackUnusable(Mistake(str(source), "is not there")) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        reason = f"is neither a folder nor a sound ZIP archive: {error}"
        raise PackUnusable(Mistake(source.name, reason)) from None


def _prefix(source: Path, archive: zipfile.ZipFile) -> str:
    """Return the folder in the ZIP that the pack is in, empty for its top. Raises PackUnusable for a suspicious one."""
    names = archive.namelist()
    if len(names) > MAX_ARCHIVE_ENTRIES:
        raise PackUnusable(Mistake(source.name, f"holds {len(names)} files; a pack has at most {MAX_ARCHIVE_ENTRIES}"))
    for name in names:
        if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
            raise PackUnusable(Mistake(source.name, f"holds a file that wants to lie outside its folder: {name}"))
    size = sum(entry.file_size for entry in archive.infolist())
    if size > MAX_PACK_BYTES:
        raise PackUnusable(Mistake(source.name, f"unpacks to {size:,} bytes; the limit is {MAX_PACK_BYTES:,}"))
    found = [name for name in names if re.fullmatch(r"([^/]+/)?pack\.json", name)]
    if len(found) != 1:
        raise PackUnusable(Mistake(source.name, f"has {len(found) or 'no'} pack.json at its top or in one folder"))
    return found[0].removesuffix("pack.json")


def _copy(open_entry: OpenEntry, folder: Path) -> None:
    """Copy pack.json, what it names, and whose it is."""
    left = MAX_PACK_BYTES - _copied(open_entry, "pack.json", folder, MAX_DESCRIPTION_BYTES, is_needed=True)
    for name in catalogue.files(folder):
        left -= _copied(open_entry, name, folder, left, is_needed=True)
    for name in NOTICES:
        left -= _copied(open_entry, name, folder, left)


def _copied(open_entry: OpenEntry, name: str, folder: Path, limit: int, *, is_needed: bool = False) -> int:
    """Copy one file and return its size, which is counted as it comes: what a ZIP declares may be a lie."""
    field = f"{folder.name}/{name}"
    incoming = open_entry(name)
    if incoming is None:
        if is_needed:
            raise PackUnusable(Mistake(field, "is not there"))
        return 0
    size = 0
    with incoming, (folder / name).open("xb") as file:
        while chunk := incoming.read(_CHUNK):
            size += len(chunk)
            if size > limit:
                raise PackUnusable(Mistake(field, f"has more than {limit:,} bytes; a pack may have {MAX_PACK_BYTES:,}"))
            file.write(chunk)
    return size


def _check_name(pack: Pack, destination: Path, folders: Sequence[Path]) -> None:
    if not _NAME.fullmatch(pack.name):
        reason = f"its name '{pack.name}' is not of small letters, digits, dots, dashes and underscores, 64 at most"
        raise PackUnusable(Mistake("pack.json", reason))
    there = catalogue.packs(folders).get(pack.name)
    if there is not None or (destination / pack.name).exists():
        reason = f"there is a pack '{pack.name}' in {there or destination / pack.name}: remove it first, or rename one"
        raise PackUnusable(Mistake("pack.json", reason))


def _check_id(pack: Pack, folders: Sequence[Path]) -> None:
    """Two embedders under one id would let vectors meet that have nothing to say to each other."""
    for name, folder in catalogue.packs(folders).items():
        with contextlib.suppress(PackUnusable):
            if catalogue.identity(folder, folders) != pack.id:
                continue
            if not _is_same_embedder(catalogue.load(folder, folders).embedder, pack.embedder):
                reason = f"its id '{pack.id}' is that of the pack '{name}', whose embedder is another: give it its own"
                break
    else:
        return
    raise PackUnusable(Mistake("pack.json", reason))


def _is_same_embedder(one: EmbedderSpec, other: EmbedderSpec) -> bool:
    if (one.file.sha256, one.input, one.alignment) != (other.file.sha256, other.input, other.alignment):
        return False
    if one.cohort is None or other.cohort is None:
        return one.cohort is other.cohort
    settings = (one.cohort.nearest, one.cohort.weight), (other.cohort.nearest, other.cohort.weight)
    return settings[0] == settings[1] and np.array_equal(one.cohort.vectors, other.cohort.vectors)


# --- trying ---


def try_out(pack: Pack, networks: Networks) -> None:
    """Load every network of the pack and run it once, in a process of its own: a broken file can end its interpreter.

    Raises PackUnusable that names the file.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        for number, (path, _) in enumerate(_trials(pack, networks)):
            field = f"{pack.folder.name}/{path.name}"
            try:
                reason = pool.submit(_tried, pack, networks, number).result(TRIAL_SECONDS)
            except BrokenProcessPool:
                reason = f"ends the interpreter that tries to run it ({catalogue.nature(path.read_bytes())})"
            except FutureTimeoutError:
                for process in multiprocessing.active_children():
                    process.kill()
                reason = f"has not answered within {TRIAL_SECONDS} s"
            if reason is not None:
                raise PackUnusable(Mistake(field, reason))


def _trials(pack: Pack, networks: Networks) -> list[tuple[Path, Callable[[], None]]]:
    """Return each network's file, and how to run it once."""

    def detector(size: tuple[int, int]) -> Callable[[], None]:
        return lambda: _run_detector(pack, networks, size)

    inputs = pack.detector.inputs
    return [
        *((file.path, detector((spec.rows, spec.columns))) for file, spec in inputs),
        (pack.landmarks.file.path, lambda: _run_mesh(pack, networks)),
        (pack.embedder.file.path, lambda: _run_embedder(pack, networks)),
    ]


def _tried(pack: Pack, networks: Networks, number: int) -> str | None:
    """Run one network; return why that cannot be done, None if it can."""
    path, run = _trials(pack, networks)[number]
    try:
        run()
    except PackUnusable as unusable:
        reason = "; ".join(mistake.reason for mistake in unusable.mistakes)
        is_sound = not reason.startswith("is not a model")  # as face.tflite says of what it cannot load
        return reason if is_sound else f"{reason} ({catalogue.nature(path.read_bytes())})"
    except (ValueError, RuntimeError, IndexError, KeyError) as error:
        return f"cannot be used as the pack says: {error}"
    return None


def _run_detector(pack: Pack, networks: Networks, size: tuple[int, int]) -> None:
    networks.detector(pack.detector).detect(np.full((*size, 3), 127, np.uint8), size)


def _run_mesh(pack: Pack, networks: Networks) -> None:
    mesh = networks.mesh(pack.landmarks)
    mesh.model.run(np.full((mesh.model.spec.rows, mesh.model.spec.columns, 3), 127, np.uint8))


def _run_embedder(pack: Pack, networks: Networks) -> None:
    embedder = networks.embedder(pack.embedder)
    rows, columns = embedder.model.spec.rows, embedder.model.spec.columns
    noise = np.random.default_rng(0).integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    embedder.given(embedder.model.run(noise)[0].ravel())


# --- disk ---


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder against another `add`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make_durable(folder: Path) -> None:
    for path in folder.iterdir():
        durable.sync(path)
    durable.sync(folder)
