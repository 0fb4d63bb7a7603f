"""The composition root: builds the parts in order, serves, and takes them down in reverse."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge import __version__, archive, assembly, backup, packs, restoring
from edge.announcing import announced
from edge.config import Config
from edge.errors import Mistake, PackUnusable, Unusable
from edge.events import Listeners
from edge.face.tflite import installed
from edge.gallery import reembedding
from edge.gallery.access import Access
from edge.gallery.audit import Audit, pruner
from edge.gallery.history import History
from edge.gallery.space import Space
from edge.gallery.store import EmbeddedGallery
from edge.gallery.upkeep import kept_up
from edge.matching import Calibration
from edge.outbound import systemd
from edge.outbound.metrics import Metrics
from edge.recognition import Recognizer
from edge.reembedding import take_over
from edge.types import Actor, ActOutcome, Pack
from edge.web.addresses import Signer
from edge.web.app import application
from edge.web.attempts import Pace, WrongTokens
from edge.web.auth import Authenticator, KeyFile, Keys
from edge.web.server import Server, bind
from edge.web.site import Site
from edge.web.watching import Live

if TYPE_CHECKING:
    from edge.fleet.link import Link

log = logging.getLogger(__name__)

MEGABYTE = 1 << 20

M_ARENA_MAX = -8
"""glibc's malloc.h: how many heaps there may be."""

START_AGAIN = -1
"""What `serve` returns instead of an exit code: the same program is to be started anew, with the pack that is due."""

PACK_WATCH_SECONDS = 2.0
"""How soon a choice of `edge models use`, or the end of `edge reembed`, is noticed. A look costs under 1 ms."""

RESTORE_SECONDS = 1800
"""What the service manager is asked to wait while a backup is put back: 9 GB at 10 MB/s, read and written."""


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
    with contextlib.ExitStack() as running:
        limits = assembly.server_limits(config)
        bound = running.enter_context(bind(limits))
        assembly.make_data_folder(config.data.folder)
        mended = _mend(config.data.folder)
        pack = assembly.pack_in_force(config)
        points = assembly.operating_points(pack, config)
        interpreter, _ = installed(config.models.interpreter)
        analysers = [assembly.build_analyser(pack, config) for _ in range(assembly.workers_of(config))]
        for analyser in analysers:
            assembly.warm_up(analyser, config)
        take_over(config.data.folder, pack.id, assembly.picture_embedder(analysers[0], config))
        space = Space(config.data.folder, reserve_bytes=config.data.reserve_megabytes * MEGABYTE)
        gallery = assembly.open_gallery(config.data.folder, config, pack, space=space, is_checked=True)  # by _mend
        running.callback(gallery.close)
        reembedding.note(gallery.database, pack.id)
        listeners = Listeners()
        history = History(gallery.database, gallery.pictures, clock=assembly.now_ms, listeners=listeners)
        running.callback(history.close)
        kept = config.history
        picture_bytes = kept.keep_megabytes * MEGABYTE
        access = assembly.open_access(config)
        running.callback(access.keep_mark)
        audit = assembly.open_audit(config, access)
        starting = Actor("edge serve", None, "the service", "", access.trusted_now(assembly.now_ms()))
        audit.note_settings(starting, config.texts)
        if mended is not None:
            audit.note(starting, ActOutcome.DONE, detail=f"restored by itself, from the backup of {mended}")
        hourly = pruner(
            audit,
            gallery.database,
            lambda: access.trusted_now(assembly.now_ms()),
            days=config.audit.keep_days,
            most_bytes=config.audit.keep_megabytes * MEGABYTE,
        )
        keeping = kept_up(history, space, days=kept.keep_days, picture_bytes=picture_bytes, hourly=hourly)
        running.enter_context(keeping)
        if config.history.keep_days:
            listeners.join(assembly.history_listener(history))
        live = Live(config.server.live_streams, has_history=config.history.keep_days > 0)
        listeners.join(live.listen)
        recognizer = assembly.build_recognizer(config, pack, analysers, gallery, listeners, Calibration(points))
        outward = running.enter_context(announced(config, gallery, listeners, assembly.now_ms))
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
            running.callback(fleet.stop, config.server.stop_seconds / 2)
        site = _site(config, pack, recognizer, gallery, history, space, live, access, audit, metrics, fleet)
        server = Server(application(site), limits, bound=bound, refused=metrics.refused)
        log.info("edge %s: pack %s on %s, %d workers", __version__, pack.id, interpreter, len(analysers))
        return _until_stopped(server, recognizer, ready, lambda: pack_is_due(config, pack))


def _mend(data_folder: Path) -> str | None:
    """Put the newest sound backup in the place of a broken gallery; return its time, None where nothing was broken.

    Raises GalleryUnusable where that cannot be.
    """
    fault = restoring.fault(data_folder)
    if fault is not None:
        systemd.notify(f"EXTEND_TIMEOUT_USEC={RESTORE_SECONDS * 1_000_000}")
        return restoring.restore_newest(data_folder, fault, now_ms=assembly.now_ms())
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
            assembly.now_ms,
            max_valid_seconds=config.tokens.max_valid_days * assembly.SECONDS_A_DAY,
            leeway_seconds=config.tokens.clock_leeway_seconds,
            on_denied=WrongTokens(config.server.wrong_tokens_per_minute).denied,
        ),
        signer=Signer(keys.secrets, valid_seconds=config.pictures.address_valid_hours * 3600),
        body_limits=assembly.body_limits(config),
        cloud_codes=config.server.status_codes == "cloud",
        pack=pack,
        clock_ms=assembly.now_ms,
        restored_from=lambda: restoring.restored_from(config.data.folder),
        live=live,
        answered=metrics.answered,
        refused=metrics.refused,
        metrics=metrics.text,
        pace=Pace(config.server.requests_per_token_per_second),
        logs_requests=config.log.requests,
        fleet=None if fleet is None else fleet.told,
        backups=lambda: backup.kept(config.data.folder),
        back_up=lambda: assembly.back_up(config, lambda done, total: None).path,
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
    longest = max(config.tokens.max_valid_days * assembly.SECONDS_A_DAY, config.pictures.address_valid_hours * 3600)
    keep_ms = 0 if at_once else (longest + config.tokens.clock_leeway_seconds) * 1000
    Keys.load(path).rotated(assembly.now_ms(), keep_ms).save(path)


def pack_is_due(config: Config, serving: Pack) -> bool:
    """Whether a start would now take another pack than the one that serves, or take in templates made for it."""
    try:
        name = packs.in_force(config.data.folder, config.models.pack, assembly.pack_folders(config))
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
