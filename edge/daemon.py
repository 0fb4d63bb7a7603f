"""The composition root: builds the parts in order, serves, and takes them down in reverse."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge import __version__, archive, backup, calibration, catalogue, packs, restoring
from edge.announcing import announced
from edge.config import Config, as_text
from edge.errors import Mistake, PackUnusable, Unusable
from edge.evaluation import Sampler
from edge.events import Event, FaceSighted, Listener, Listeners
from edge.face.analysis import Analyser
from edge.face.networks import Networks
from edge.face.tflite import installed
from edge.gallery import reembedding
from edge.gallery.access import Access
from edge.gallery.audit import Audit, pruner
from edge.gallery.database import held
from edge.gallery.history import History
from edge.gallery.space import Space
from edge.gallery.store import EmbeddedGallery
from edge.gallery.upkeep import kept_up
from edge.matching import Calibration
from edge.outbound import systemd
from edge.outbound.metrics import Metrics
from edge.recognition import Passages, Recognizer, Settings, Workers
from edge.reembedding import PictureEmbedder, take_over
from edge.types import Actor, ActOutcome, Limit, OperatingPoint, Pack
from edge.web.addresses import Signer
from edge.web.app import application
from edge.web.attempts import Pace, WrongTokens
from edge.web.auth import Authenticator, KeyFile, Keys
from edge.web.body import BodyLimits
from edge.web.server import Server, ServerLimits
from edge.web.site import Site
from edge.web.watching import Live

if TYPE_CHECKING:
    from edge.fleet.link import Link

log = logging.getLogger(__name__)

SPARE_THREADS = 4
"""Beyond those that work and wait: for answering that the line is full, and for routes without a picture."""

MEGABYTE = 1 << 20

USUAL_FRAMES = ((480, 640), (720, 1280), (1080, 1920))
"""Rows and columns of what most cameras send: the detector's inputs for them are loaded at the start."""

M_ARENA_MAX = -8
"""glibc's malloc.h: how many heaps there may be."""

START_AGAIN = -1
"""What `serve` returns instead of an exit code: the same program is to be started anew, with the pack that is due."""

PACK_WATCH_SECONDS = 2.0
"""How soon a choice of `edge models use`, or the end of `edge reembed`, is noticed. A look costs under 1 ms."""

RESTORE_SECONDS = 1800
"""What the service manager is asked to wait while a backup is put back: 9 GB at 10 MB/s, read and written."""

SECONDS_A_DAY = 86_400


def now_ms() -> int:
    """Return the time, UTC."""
    return time.time_ns() // 1_000_000


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


def make_data_folder(folder: Path) -> None:
    """Make the data folder, for its owner's eyes alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def pack_folders(config: Config) -> list[Path]:
    """Return where packs are looked for: those that were added first, then those that came with the program."""
    shipped = config.models.folder or Path(__file__).resolve().parent.parent / "models"
    return [config.data.folder / "models", shipped]


def workers_of(config: Config) -> int:
    """Return how many pictures are worked on at once: by default one for each core this process may use."""
    return config.models.workers or len(os.sched_getaffinity(0))


def networks(config: Config) -> Networks:
    """Return how networks are made."""
    return Networks(config.models.interpreter, config.models.threads_per_face)


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


def back_up(config: Config, draw: backup.Draw, target: Path | None = None) -> backup.Made:
    """Make a backup file, or without a target one in <data>/backups; see backup.make and backup.automatic."""
    folder, settings, there = config.data.folder, as_text(config), packs_there(config)
    if target is None:
        keep = config.backup.keep
        return backup.automatic(folder, keep, settings=settings, packs=there, now_ms=now_ms(), draw=draw)
    return backup.make(folder, target, settings=settings, packs=there, now_ms=now_ms(), draw=draw)


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


def bound_memory() -> None:
    """Have all threads allocate from one heap, before there are any.

    glibc gives each of many threads a heap of its own, and every one of them keeps the room of the largest frame that
    its thread has seen: with the server's fifty threads 520 MB after 10,000 frames and growing, with one heap 320 MB
    and not. Elsewhere than on glibc nothing is done.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def serve(config: Config, *, ready: Callable[[str], None] = lambda url: None) -> int:
    """Run the appliance until SIGTERM or SIGINT; return the exit code, or START_AGAIN.

    `ready` is told the URL once the first frame can be answered. Raises Unusable or OSError, with a sentence,
    where it cannot start.
    """
    bound_memory()
    with contextlib.ExitStack() as parts:
        make_data_folder(config.data.folder)
        mended = _mend(config.data.folder)
        pack = pack_in_force(config)
        points = operating_points(pack, config)
        interpreter, _ = installed(config.models.interpreter)
        analysers = [build_analyser(pack, config) for _ in range(workers_of(config))]
        for analyser in analysers:
            warm_up(analyser, config)
        take_over(config.data.folder, pack.id, picture_embedder(analysers[0], config))
        space = Space(config.data.folder, reserve_bytes=config.data.reserve_megabytes * MEGABYTE)
        gallery = open_gallery(config.data.folder, config, pack, space=space, is_checked=True)  # by _mend
        parts.callback(gallery.close)
        reembedding.note(gallery.database, pack.id)
        listeners = Listeners()
        history = History(gallery.database, gallery.pictures, clock=now_ms, listeners=listeners)
        parts.callback(history.close)
        kept = config.history
        picture_bytes = kept.keep_megabytes * MEGABYTE
        access = open_access(config)
        parts.callback(access.keep_mark)
        audit = open_audit(config, access)
        starting = Actor("edge serve", None, "the service", "", access.trusted_now(now_ms()))
        audit.note_settings(starting, config.texts)
        if mended is not None:
            audit.note(starting, ActOutcome.DONE, detail=f"restored by itself, from the backup of {mended}")
        hourly = pruner(
            audit,
            gallery.database,
            lambda: access.trusted_now(now_ms()),
            days=config.audit.keep_days,
            most_bytes=config.audit.keep_megabytes * MEGABYTE,
        )
        keeping = kept_up(history, space, days=kept.keep_days, picture_bytes=picture_bytes, hourly=hourly)
        parts.enter_context(keeping)
        if config.history.keep_days:
            listeners.join(history_listener(history))
        live = Live(config.server.live_streams, has_history=config.history.keep_days > 0)
        listeners.join(live.listen)
        recognizer = build_recognizer(config, pack, analysers, gallery, listeners, Calibration(points))
        outward = parts.enter_context(announced(config, gallery, listeners, now_ms))
        metrics = Metrics(
            lambda: {
                **_readings(gallery, history, space, recognizer, fleet),
                **outward(),
                **recognizer.workload,
                "connections": server.connections,
            },
            {"version": __version__, "pack": pack.id},
        )
        listeners.join(metrics.listen)
        fleet = fleet_link(config, gallery, pack)
        if fleet is not None:
            fleet.start()
            parts.callback(fleet.stop, config.server.stop_seconds / 2)
        site = _site(config, pack, recognizer, gallery, history, space, live, access, audit, metrics, fleet)
        server = Server(application(site), server_limits(config), refused=metrics.refused)
        log.info("edge %s: pack %s on %s, %d workers", __version__, pack.id, interpreter, len(analysers))
        return _until_stopped(server, recognizer, ready, lambda: pack_is_due(config, pack))


def _mend(data_folder: Path) -> str | None:
    """Put the newest sound backup in the place of a broken gallery; return its time, None where nothing was broken.

    Raises GalleryUnusable where that cannot be.
    """
    fault = restoring.fault(data_folder)
    if fault is not None:
        systemd.notify(f"EXTEND_TIMEOUT_USEC={RESTORE_SECONDS * 1_000_000}")
        return restoring.restore_newest(data_folder, fault, now_ms=now_ms())
    return None


def _site(
    config: Config,
    pack: Pack,
    recognizer: Recognizer,
    gallery: EmbeddedGallery,
    history: History,
    space: Space,
    live: Live,
    access: Access,
    audit: Audit,
    metrics: Metrics,
    fleet: Link | None,
) -> Site:
    """Return what the routes reach, tokens and keys opened."""
    keys = KeyFile(keys_path(config))
    return Site(
        recognizer=recognizer,
        gallery=gallery,
        history=history,
        access=access,
        audit=audit,
        space=space,
        authenticator=Authenticator(
            keys,
            access,
            now_ms,
            max_valid_seconds=config.tokens.max_valid_days * SECONDS_A_DAY,
            leeway_seconds=config.tokens.clock_leeway_seconds,
            on_denied=WrongTokens(config.server.wrong_tokens_per_minute).denied,
        ),
        signer=Signer(keys.secrets, valid_seconds=config.pictures.address_valid_hours * 3600),
        body_limits=body_limits(config),
        cloud_codes=config.server.status_codes == "cloud",
        pack=pack,
        clock_ms=now_ms,
        restored_from=lambda: restoring.restored_from(config.data.folder),
        live=live,
        answered=metrics.answered,
        refused=metrics.refused,
        metrics=metrics.text,
        pace=Pace(config.server.requests_per_token_per_second),
        logs_requests=config.log.requests,
        fleet=None if fleet is None else fleet.told,
        backups=lambda: backup.kept(config.data.folder),
        back_up=lambda: back_up(config, lambda done, total: None).path,
    )


def fleet_link(config: Config, gallery: EmbeddedGallery, pack: Pack) -> Link | None:
    """Return the link to the fleet, None where the box is in none. Raises Unusable."""
    if not gallery.is_in_fleet:
        return None
    try:  # NATS' client is for those boxes alone
        from edge.fleet import terms
        from edge.fleet.link import Link
    except ModuleNotFoundError as error:
        reason = f"this box is in a fleet, and {error.name} is not installed: pip install 'edge[fleet]'"
        raise Unusable(Mistake("fleet", reason)) from error

    if config.fleet.share_pictures:
        gallery.share_pictures()
    return Link(gallery, terms.of(config, pack))


def _readings(
    gallery: EmbeddedGallery, history: History, space: Space, recognizer: Recognizer, fleet: Link | None
) -> dict[str, float]:
    """Return what /metrics looks up."""
    counts = gallery.counts()
    shared = {} if fleet is None else fleet.readings()
    return {
        **shared,
        "persons": counts.persons,
        "templates": counts.templates,
        "lists": counts.lists,
        "disk_free_bytes": space.room().free_bytes,
        "frames_superseded": recognizer.superseded,
        "sightings_dropped": history.dropped,
    }


def keys_path(config: Config) -> Path:
    """Return the file of the signing keys: in the data folder, or a credential that systemd hands over.

    Raises Unusable where it should and has not.
    """
    if config.tokens.signing_keys == "file":
        return config.data.folder / archive.KEYS_NAME
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    path = Path(folder) / archive.KEYS_NAME
    if not folder or not path.exists():
        reason = (
            f"is `credential`, and systemd hands over none of the name {archive.KEYS_NAME}: see systemd/edge.service"
        )
        raise Unusable(Mistake("tokens.signing_keys", reason))
    return path


def rotate_key(config: Config, *, at_once: bool) -> None:
    """Let a new key sign from now on, in the running service too.

    What the older ones have signed stays good until it expires, or with `at_once` is worth nothing any more.
    """
    if config.tokens.signing_keys != "file":
        reason = "the signing keys are a credential of systemd, which nothing here can change: see systemd/edge.service"
        raise Unusable(Mistake("tokens.signing_keys", reason), message="the key was not changed")
    path = config.data.folder / archive.KEYS_NAME
    longest = max(config.tokens.max_valid_days * SECONDS_A_DAY, config.pictures.address_valid_hours * 3600)
    keep_ms = 0 if at_once else (longest + config.tokens.clock_leeway_seconds) * 1000
    Keys.load(path).rotated(now_ms(), keep_ms).save(path)


def pack_is_due(config: Config, serving: Pack) -> bool:
    """Whether a start would now take another pack than the one that serves, or take in templates made for it."""
    try:
        name = packs.in_force(config.data.folder, config.models.pack, pack_folders(config))
    except (PackUnusable, OSError):  # is told to whoever starts the service, or asks for the pack
        return False
    return name != serving.folder.name or reembedding.is_ready(config.data.folder, serving.id)


def _until_stopped(
    server: Server, recognizer: Recognizer, ready: Callable[[str], None], pack_is_due: Callable[[], bool]
) -> int:
    asked_to_stop = []

    def stop(number: int, _frame: object) -> None:
        asked_to_stop.append(number)
        systemd.notify("STOPPING=1")
        server.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    done = threading.Event()
    watchdog = threading.Thread(target=_feed_watchdog, args=(recognizer, done), name="watchdog", daemon=True)
    watchdog.start()
    due = threading.Event()
    watcher = threading.Thread(target=_watch_packs, args=(server, pack_is_due, due, done), name="packs", daemon=True)
    watcher.start()
    url = f"http://{server.address}"
    log.info("ready on %s", url)
    ready(url)
    systemd.notify("READY=1")
    try:
        drained = server.serve()
    finally:
        done.set()
        watchdog.join()
        watcher.join()
    if not drained:
        log.warning("stopped with requests still in hand")
    if due.is_set() and not asked_to_stop:
        return START_AGAIN
    return 0 if drained else 1


def _watch_packs(server: Server, pack_is_due: Callable[[], bool], due: threading.Event, done: threading.Event) -> None:
    """End the service when another pack is to answer, so that it is started again with that."""
    while not done.wait(PACK_WATCH_SECONDS):
        if pack_is_due():
            log.info("another pack is to answer: starting again")
            due.set()
            server.stop()
            return


def _feed_watchdog(recognizer: Recognizer, done: threading.Event) -> None:
    """Say `alive` as long as a picture still gets through: what hangs there, hangs here, and is then restarted."""
    interval = systemd.watchdog_seconds()
    while interval is not None and not done.wait(interval):
        recognizer.self_check()
        systemd.notify("WATCHDOG=1")


def set_up_logging(config: Config) -> None:
    """Send the log to standard error, where the journal picks it up with its own time stamps."""
    logging.basicConfig(
        stream=sys.stderr,
        level=config.log.level.upper(),
        format="%(levelname)s %(name)s: %(message)s",
    )
