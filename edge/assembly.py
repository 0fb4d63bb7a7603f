"""The parts of the appliance, each as the settings want it; the daemon and the commands are built of them."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from edge import archive, backup, calibration, catalogue, packs
from edge.config import Config, as_text
from edge.errors import Mistake, PackUnusable
from edge.evaluation import Sampler
from edge.events import Event, FaceSighted, Listener, Listeners
from edge.face.analysis import Analyser
from edge.face.networks import Networks
from edge.gallery.access import Access
from edge.gallery.audit import Audit
from edge.gallery.database import held
from edge.gallery.history import History
from edge.gallery.space import Space
from edge.gallery.store import EmbeddedGallery
from edge.matching import Calibration
from edge.recognition import Passages, Recognizer, Settings, Workers
from edge.reembedding import PictureEmbedder
from edge.types import Limit, OperatingPoint, Pack
from edge.web.body import BodyLimits
from edge.web.server import ServerLimits

log = logging.getLogger(__name__)

SPARE_THREADS = 4
"""Beyond those that work and wait: for answering that the line is full, and for routes without a picture."""

MEGABYTE = 1 << 20

SECONDS_A_DAY = 86_400

USUAL_FRAMES = ((480, 640), (720, 1280), (1080, 1920))
"""Rows and columns of what most cameras send: the detector's inputs for them are loaded at the start."""


def now_ms() -> int:
    """Return the time, UTC."""
    return time.time_ns() // 1_000_000


def make_data_folder(folder: Path) -> None:
    """Make the data folder, for its owner's eyes alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def open_access(config: Config) -> Access:
    """Open the tokens, made if there are none: safe while the service runs."""
    make_data_folder(config.data.folder)
    return Access(config.data.folder / archive.ACCESS_NAME)


def open_audit(config: Config, access: Access | None = None) -> Audit:
    """Open the audit log, made if there is none: safe while the service runs."""
    make_data_folder(config.data.folder)
    return Audit(config.data.folder, now_ms=(access or open_access(config)).trusted_now(now_ms()))


def set_clock(config: Config) -> None:
    """Judge temporary tokens by the present time from now on, though a later one was seen.

    Raises GalleryUnusable while the service runs, which has that later time in mind.
    """
    make_data_folder(config.data.folder)
    with held(config.data.folder):
        open_access(config).set_clock(now_ms())


def pack_folders(config: Config) -> list[Path]:
    """Return where packs are looked for: those that were added first, then those that came with the program."""
    shipped = config.models.folder or Path(__file__).resolve().parent.parent / "models"
    return [config.data.folder / "models", shipped]


def packs_there(config: Config, data_folder: Path | None = None) -> list[tuple[str, str]]:
    """Return the names and ids of the packs that are there; `data_folder`: another than the settings'."""
    folders = pack_folders(config)
    if data_folder is not None:
        folders[0] = data_folder / folders[0].name
    found = []
    for name, folder in catalogue.packs(folders).items():
        with contextlib.suppress(PackUnusable):
            found.append((name, catalogue.identity(folder, folders)))
    return found


def wanted_pack(config: Config) -> Pack:
    """Return the pack that the settings or `edge models use` name, checked; it answers once the persons are of it."""
    return catalogue.find(packs.wanted(config.data.folder, config.models.pack), pack_folders(config))


def pack_in_force(config: Config) -> Pack:
    """Return the pack that answers, checked: the wanted one unless the persons' templates are still of another."""
    name = packs.in_force(config.data.folder, config.models.pack, pack_folders(config))
    wanted = packs.wanted(config.data.folder, config.models.pack)
    if name != wanted:
        log.warning("the pack %s answers for %s until `edge reembed` has made every template anew", name, wanted)
    return catalogue.find(name, pack_folders(config))


def workers_of(config: Config) -> int:
    """Return how many pictures are worked on at once: by default one for each core this process may use."""
    return config.models.workers or len(os.sched_getaffinity(0))


def networks(config: Config) -> Networks:
    """Return how networks are made."""
    return Networks(config.models.interpreter, config.models.threads_per_face)


def build_analyser(pack: Pack, config: Config) -> Analyser:
    """Return one worker's own set of networks."""
    analyser = networks(config).analyser(pack)
    size = config.detection.input_size
    for needed in (size, size[::-1]) if size else ():
        if needed not in analyser.detector.sizes:
            there = ", ".join(f"{rows}x{columns}" for rows, columns in analyser.detector.sizes)
            reason = f"the pack '{pack.name}' has no input of {needed[0]}x{needed[1]}, which both ways need: {there}"
            raise PackUnusable(Mistake("detection.input_size", reason))
    return analyser


def warm_up(analyser: Analyser, config: Config) -> None:
    """Run the networks that the first frame of a usual camera will need."""
    size, smallest = config.detection.input_size, config.faces.min_face_pixels
    sizes = {one.size for frame in USUAL_FRAMES for one in analyser.detector.plan(*frame, smallest)}
    analyser.warm_up([size, size[::-1]] if size else sorted(sizes))


def operating_points(pack: Pack, config: Config) -> tuple[OperatingPoint, ...]:
    """Return what the pack's similarities are worth: as the pack says or, where that is set, as the site measured.

    Raises ConfigMistakes where the site has not.
    """
    if config.models.operating_points == "pack":
        return pack.embedder.operating_points
    return calibration.load(config.data.folder, pack)


def sampler(analyser: Analyser, config: Config) -> Sampler:
    """Return what embeds pictures to be compared, as frames are embedded."""
    return Sampler(
        analyser,
        detector_size=config.detection.input_size,
        presence_floor=config.faces.presence_floor,
        min_face_pixels=config.faces.min_face_pixels,
        max_pixels=int(config.image.max_megapixels * 1e6),
        min_side_pixels=config.image.min_side_pixels,
    )


def picture_embedder(analyser: Analyser, config: Config) -> PictureEmbedder:
    """Return what embeds kept pictures anew."""
    return PictureEmbedder(analyser, config.faces.presence_floor)


def open_gallery(
    folder: Path, config: Config, pack: Pack, *, space: Space | None = None, is_checked: bool = False
) -> EmbeddedGallery:
    """Open the gallery of that folder, for vectors of that pack; see EmbeddedGallery.open."""
    return EmbeddedGallery.open(
        folder,
        pack_id=pack.id,
        vector_length=pack.embedder.vector_length,
        cohort_weight=pack.embedder.cohort_weight,
        exact_limit=config.gallery.exact_limit,
        main_list_name=config.gallery.main_list_name,
        clock=now_ms,
        space=space,
        is_checked=is_checked,
    )


def recognition_settings(config: Config) -> Settings:
    """Return the plain numbers of the story."""
    new = config.new_person
    return Settings(
        max_pixels=int(config.image.max_megapixels * 1e6),
        min_side_pixels=config.image.min_side_pixels,
        detector_size=config.detection.input_size,
        min_face_pixels=config.faces.min_face_pixels,
        presence_floor=config.faces.presence_floor,
        threshold=new.threshold,
        threshold_score=new.threshold_score,
        margin=new.margin,
        false_positive_rate=new.false_positive_rate,
        square_min=new.square_min,
        yaw_max=new.yaw_max,
        pitch_max=new.pitch_max,
        limits=(
            Limit("sharpness", "sharpness", least=new.sharpness_min),
            Limit("presence", "face_presence", least=new.presence_min),
            Limit("brightness", "brightness", least=new.brightness_min, most=new.brightness_max),
            Limit("inside", "inside", least=new.inside_min),
        ),
        passage_frames=new.passage_frames,
        portrait_pixels=config.pictures.longest_pixels,
        portrait_quality=config.pictures.jpeg_quality,
        keeps_sightings=config.history.keep_days > 0,
        sighting_pictures=config.history.keep_days > 0 and config.history.keep_megabytes > 0,
    )


def passages(config: Config, scores: Calibration, pack: Pack) -> Passages | None:
    """Return the memory of what each source has just seen, None where every frame is decided for itself."""
    seconds = config.new_person.passage_seconds
    return Passages(seconds, scores, pack.embedder.cohort_weight) if seconds else None


def build_recognizer(
    config: Config,
    pack: Pack,
    analysers: Sequence[Analyser],
    gallery: EmbeddedGallery,
    listeners: Listeners,
    scores: Calibration,
) -> Recognizer:
    """Return the story's door, with these parts behind it."""
    return Recognizer(
        workers=Workers(analysers, max_waiting=config.server.max_waiting_requests),
        gallery=gallery,
        listeners=listeners,
        calibration=scores,
        cohort_weight=pack.embedder.cohort_weight,
        pack_id=pack.id,
        settings=recognition_settings(config),
        clock_ms=now_ms,
        passages=passages(config, scores, pack),
    )


def history_listener(history: History) -> Listener:
    """Return the listener that keeps sightings."""

    def listen(event: Event) -> None:
        if isinstance(event, FaceSighted):
            history.record(event.sighting)

    return listen


def server_limits(config: Config) -> ServerLimits:
    """Return where to listen and how much a client may take."""
    server = config.server
    return ServerLimits(
        host=server.host,
        port=server.port,
        threads=workers_of(config) + server.max_waiting_requests + SPARE_THREADS + server.live_streams,
        max_connections=server.max_connections,
        max_connections_per_address=server.max_connections_per_address,
        max_body_bytes=server.max_body_megabytes * MEGABYTE,
        request_deadline_seconds=server.request_deadline_seconds,
        idle_seconds=server.idle_seconds,
        stop_seconds=server.stop_seconds,
        trusted_proxy=server.trusted_proxy,
    )


def body_limits(config: Config) -> BodyLimits:
    """Return what a body may cost."""
    server = config.server
    return BodyLimits(
        body_bytes=server.max_body_megabytes * MEGABYTE,
        parts=server.max_body_parts,
        field_bytes=server.max_field_kilobytes * 1024,
        text_bytes=max(BodyLimits.text_bytes, server.max_field_kilobytes * 1024),
    )


def back_up(config: Config, draw: backup.Draw, target: Path | None = None) -> backup.Made:
    """Make a backup file, or without a target one in <data>/backups; see backup.make and backup.automatic."""
    folder, settings, there = config.data.folder, as_text(config), packs_there(config)
    if target is None:
        keep = config.backup.keep
        return backup.automatic(folder, keep, settings=settings, packs=there, now_ms=now_ms(), draw=draw)
    return backup.make(folder, target, settings=settings, packs=there, now_ms=now_ms(), draw=draw)
