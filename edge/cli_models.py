"""The verbs of the `edge` command that are about model packs: models list, show, add, use; calibrate; reembed."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge import assembly, bar, calibration, catalogue, errors, packs, reembedding
from edge.calibration import SiteCalibration
from edge.config import Config
from edge.errors import GalleryBroken, GalleryUnusable, PackUnusable
from edge.evaluation import ENOUGH_FALSE_MATCHES, Comparisons, Sample
from edge.gallery import reembedding as rows
from edge.gallery import rejections, spool
from edge.matching import SCORE_AT_FMR_1, SCORE_PER_DECADE
from edge.types import InputSpec, Pack

SWITCH_SECONDS = 120.0
"""For the service to notice, finish its requests (10 s) and start again (seconds, on a small board twenty)."""

SCORES_SHOWN = (0.7, 0.8)
"""Of what `edge calibrate` says: what the pack's scores promise and hold."""

NICE = 19
"""The service comes first: this is work for idle cores."""

EXIT_DONE, EXIT_REFUSED = 0, 1


def add_parsers(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verbs to the command's."""
    models = verbs.add_parser("models", help="list, show, add and choose model packs")
    actions = models.add_subparsers(required=True, metavar="ACTION")
    listed = actions.add_parser("list", parents=[common], help="list the packs and which of them answers")
    listed.set_defaults(run=_list)
    shown = actions.add_parser("show", parents=[common], help="show what a pack is made of")
    shown.add_argument("name", metavar="NAME", help="as `edge models list` prints it")
    shown.set_defaults(run=_show)
    added = actions.add_parser("add", parents=[common], help="check a pack, try it and copy it into the data folder")
    added.add_argument("source", type=Path, metavar="FOLDER|ZIP", help="with a pack.json in it")
    added.set_defaults(run=_add, audited="edge models add")
    used = actions.add_parser("use", parents=[common], help="choose the pack that is to answer")
    used.add_argument("name", metavar="NAME", help="as `edge models list` prints it")
    used.set_defaults(run=_use, audited="edge models use")

    measured = verbs.add_parser(
        "calibrate",
        parents=[common],
        help="measure on your own pictures what the scores are worth, and keep that beside what the pack says",
    )
    measured.add_argument("folder", type=Path, metavar="FOLDER", help="with a folder for each person")
    measured.add_argument(
        "--pack", metavar="NAME", help="as `edge models list` prints it (default: the one that answers)"
    )
    measured.set_defaults(run=_calibrate, audited="edge calibrate")

    again = verbs.add_parser(
        "reembed",
        parents=[common],
        help="make the persons' templates anew for the chosen pack, from the kept pictures, while the old one answers",
    )
    again.add_argument("--dry-run", action="store_true", help="only say how many, and who cannot be")
    again.set_defaults(run=_reembed, audited="edge reembed")


# --- packs ---


def _list(settings: Config, _: argparse.Namespace) -> int:
    folders = assembly.pack_folders(settings)
    wanted = packs.wanted(settings.data.folder, settings.models.pack)
    answers = _in_force(settings)
    for name, folder in catalogue.packs(folders).items():
        mark = "*" if name == answers else "+" if name == wanted else " "
        try:
            pack = catalogue.load(folder, folders)
            print(f"{mark} {name:20}  {pack.id:20}  {pack.description}")
        except PackUnusable as unusable:
            print(f"{mark} {name:20}  cannot be used: {errors.sentences(unusable.mistakes).strip()}")
    print("\n* answers" + ("" if wanted == answers else f"\n+ chosen; `edge reembed` lets it answer ({wanted})"))
    return EXIT_DONE


def _in_force(settings: Config) -> str | None:
    with contextlib.suppress(PackUnusable):
        return packs.in_force(settings.data.folder, settings.models.pack, assembly.pack_folders(settings))
    return None


def _show(settings: Config, options: argparse.Namespace) -> int:
    pack = catalogue.find(options.name, assembly.pack_folders(settings))
    embedder = pack.embedder
    print(f"{pack.name}: {pack.description}")
    print(f"  folder         {pack.folder}")
    print(f"  id             {pack.id} (vectors compare with those of packs of the same id)")
    print(f"  detector       {pack.detector.decoding}{_lender(pack, pack.detector.inputs[0][0].path)}")
    for file, spec in pack.detector.inputs:
        _show_file(file.path, spec)
    print(f"  landmarks      face mesh{_lender(pack, pack.landmarks.file.path)}")
    _show_file(pack.landmarks.file.path, pack.landmarks.input)
    cohort = f"cohort of {len(embedder.cohort.vectors)}" if embedder.cohort else "no cohort"
    crops = f"{len(embedder.probe_crops)} crops of a probe, {len(embedder.template_crops)} of a template"
    print(f"  embedder       {embedder.vector_length} numbers, {crops}, {cohort}{_lender(pack, embedder.file.path)}")
    _show_file(embedder.file.path, embedder.input)
    print("  similarity     at a false match rate of")
    for point in embedder.operating_points:
        print(f"    {point.similarity:8.4f}     {point.fmr:g}")
    return EXIT_DONE


def _show_file(path: Path, spec: InputSpec) -> None:
    size = path.stat().st_size / 1e6
    print(f"    {path.name:24} {spec.rows} x {spec.columns} {spec.colour}, {size:.1f} MB")


def _lender(pack: Pack, path: Path) -> str:
    """Return whose the role is, if it is not the pack's own."""
    return "" if path.parent == pack.folder else f" (of the pack {path.parent.name})"


def _add(settings: Config, options: argparse.Namespace) -> int:
    assembly.make_data_folder(settings.data.folder)
    folders = assembly.pack_folders(settings)
    pack = packs.add(options.source, folders[0], folders, assembly.networks(settings))
    print(f"added {pack.name} ({pack.id}); `edge models use {pack.name}` chooses it")
    return EXIT_DONE


def _use(settings: Config, options: argparse.Namespace) -> int:
    data_folder, folders = settings.data.folder, assembly.pack_folders(settings)
    if settings.models.pack is not None:
        reason = f"is set to '{settings.models.pack}', which comes before a choice; set it to auto"
        raise errors.ConfigMistakes(errors.Mistake("models.pack", reason))
    pack = catalogue.find(options.name, folders)
    packs.try_out(pack, assembly.networks(settings))
    assembly.build_analyser(pack, settings)  # has it the detector's input that is set?
    assembly.operating_points(pack, settings)  # and the site's, if those are to count?
    assembly.make_data_folder(data_folder)
    packs.choose(data_folder, options.name)
    if rows.answering(data_folder) == pack.id:  # what was embedded for a choice that is taken back is of no use
        spool.discard(data_folder)
    if _in_force(settings) == options.name:
        print(f"{options.name} is chosen; a running service takes it within seconds")
        return EXIT_DONE
    pending, without = _prospect(data_folder, pack.id)
    print(f"{options.name} is chosen. The persons' templates are of another pack, which goes on answering until")
    none = sum(not person.has_picture for person in without)
    print(f"`edge reembed` has made them anew: {pending} from kept pictures. Of {none} persons no picture was kept.")
    return EXIT_DONE


# --- calibrate ---


def _calibrate(settings: Config, options: argparse.Namespace) -> int:
    assembly.make_data_folder(settings.data.folder)
    folders = assembly.pack_folders(settings)
    pack = catalogue.find(options.pack, folders) if options.pack else assembly.pack_in_force(settings)
    files = calibration.pictures(options.folder)
    os.nice(NICE)
    sampler = assembly.sampler(assembly.build_analyser(pack, settings), settings)
    samples: list[Sample] = []
    with bar.drawn(f"embedding with {pack.name}") as draw:
        draw(0, len(files))
        for done, path in enumerate(files, 1):
            sample = sampler(path)
            samples += [sample] if sample else []
            draw(done, len(files))
    today = f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}"
    measured, data = calibration.calibrate(pack, samples, len(files), made=today)
    _print_calibration(pack, measured, data)
    path = calibration.keep(settings.data.folder, pack, measured)
    print(f"\nKept in {path}. From the next start on it counts with `operating_points = site` under [models] in the")
    print(f"settings, or with --set {calibration.SETTING}=site.")
    return EXIT_DONE


def _print_calibration(pack: Pack, measured: SiteCalibration, data: Comparisons) -> None:
    """Print what was measured beside what the pack promises."""
    without = f"{measured.without_face} ({measured.without_face / measured.pictures:.1%})"
    print(f"{pack.name} ({pack.id}) on {measured.pictures:,} pictures of {measured.people:,} people")
    print(f"without a face that may be compared (failure to enrol): {without}")
    print(f"{measured.non_mated:,} comparisons between people, {measured.mated:,} of people with themselves\n")
    print(f"{'FMR':>8}  {'similarity: pack':>16}  {'site':>8}  {'TMR at site':>11}  {'FMR of pack here':>16}")
    non_mated = data.similarity[data.non_mated]
    promised = {point.fmr: point.similarity for point in pack.embedder.operating_points}
    for number, (fmr, similarity, tmr) in enumerate(measured.rows):
        mark = "" if number < measured.measured_rows else " *"
        accepted = "-" if tmr is None else f"{tmr:.1%}"
        here = _rate(int((non_mated >= promised[fmr]).sum()), len(non_mated))
        print(f"{fmr:8g}  {promised[fmr]:16.4f}  {similarity:8.4f}  {accepted:>11}  {here:>16}{mark}")
    print("* rarer than these pictures can show: the pack's own, moved as far as the last measured row")
    print(
        f"\nA score is promised a false match rate. As the pack has it, on these pictures, of {measured.people} people:"
    )
    for score in SCORES_SHOWN:
        count = calibration.false_matches(pack.embedder.operating_points, data, score)
        fmr = 10 ** ((SCORE_AT_FMR_1 - score) / SCORE_PER_DECADE)
        print(
            f"  {score:g} is promised {fmr:g}, and has {_rate(count, len(non_mated))} ({count:,} of {len(non_mated):,})"
        )


def _rate(count: int, comparisons: int) -> str:
    """Return the rate that so many are; `too few` where it would be chance."""
    return f"{count / comparisons:.2g}" if count >= ENOUGH_FALSE_MATCHES else "too few to say"


# --- reembed ---


def _reembed(settings: Config, options: argparse.Namespace) -> int:
    data_folder = settings.data.folder
    pack = assembly.wanted_pack(settings)
    try:
        pending, without = _prospect(data_folder, pack.id)
    except FileNotFoundError:
        print("there is no gallery yet: nothing to do")
        return EXIT_DONE
    if options.dry_run or (not pending and rows.answering(data_folder) in (None, pack.id)):
        print(f"{pending} templates are to be made for {pack.name}, from kept pictures")
        _print_unreached([person for person in without if not person.has_picture or not pending])
        return EXIT_DONE
    assembly.operating_points(pack, settings)  # it could not start with it
    with reembedding.alone(data_folder):
        os.nice(NICE)
        embed = assembly.picture_embedder(assembly.build_analyser(pack, settings), settings)
        with bar.drawn(f"embedding for {pack.name}") as draw:
            for progress in reembedding.embed_all(data_folder, pack.id, embed):
                draw(progress.done, progress.total)
        reembedding.mark_ready(data_folder, pack.id)
        try:
            reembedding.take_over(data_folder, pack.id, embed)
        except GalleryBroken:
            raise
        except GalleryUnusable:  # it is the service's
            if not _taken_over_by_service(data_folder, pack.id):
                return EXIT_REFUSED
    print(f"{pack.name} answers now")
    with rows.reading(data_folder) as gallery:
        _print_unreached(list(rows.unreached(gallery, pack.id)))
        idle = rejections.of_other_packs(gallery, pack.id)
    if idle:
        print(f"\nRejected faces of another pack, which count again when that answers: {idle}")
    return EXIT_DONE


def _prospect(data_folder: Path, pack_id: str) -> tuple[int, list[rows.Unreached]]:
    """Return how many templates can be made anew, and who has none of the pack yet."""
    with rows.reading(data_folder) as gallery:
        return sum(1 for _ in rows.pending(gallery, pack_id)), list(rows.unreached(gallery, pack_id))


def _taken_over_by_service(data_folder: Path, pack_id: str) -> bool:
    """Wait until the service has switched; False if it does not."""
    print("waiting for the service to switch", file=sys.stderr)
    deadline = time.monotonic() + SWITCH_SECONDS
    while rows.is_ready(data_folder, pack_id):
        if time.monotonic() >= deadline:
            print(
                f"edge: the service has not switched within {SWITCH_SECONDS:g} s. Everything is embedded; it switches"
                " at its next start if its setting models.pack is auto or names this pack",
                file=sys.stderr,
            )
            return False
        time.sleep(0.2)
    return True


def _print_unreached(persons: Sequence[rows.Unreached]) -> None:
    if not persons:
        return
    print(f"\nNot recognised by it, but on record and known to their old pack ({len(persons)}):")
    for person in persons:
        reason = "no face was found in the kept picture" if person.has_picture else "no picture was kept"
        print(f"  {person.person_id}  {person.list_name}: {reason}")
