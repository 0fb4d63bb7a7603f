"""The verbs of the `edge` command that are about backups: backup, restore."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge import assembly, bar, cli_audit, restoring
from edge.archive import Manifest
from edge.config import Config
from edge.errors import invalid

EXIT_DONE = 0


def add_parsers(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verbs to the command's."""
    made = verbs.add_parser("backup", parents=[common], help="put everything into one file, the service running")
    made.add_argument("file", type=Path, nargs="?", metavar="FILE", help="to be made; it will hold faces and keys")
    made.add_argument("--auto", action="store_true", help="into the data folder, and remove the oldest there")
    made.set_defaults(run=_backup, audited="edge backup")

    put_back = verbs.add_parser("restore", parents=[common], help="put a backup back, the service stopped")
    put_back.add_argument("file", type=Path, nargs="?", metavar="FILE", help="as `edge backup` has made it")
    put_back.add_argument("--data", type=Path, metavar="FOLDER", help="the data folder (default: as set)")
    put_back.add_argument(
        "--acknowledge", action="store_true", help="take note that the service has restored a backup by itself"
    )
    put_back.add_argument(
        "--with-erased", action="store_true", help="bring those back too whom the audit log says to be erased since"
    )
    put_back.set_defaults(run=_restore)


def _backup(settings: Config, options: argparse.Namespace) -> int:
    if options.auto == (options.file is not None):
        raise invalid("FILE", "name a file, or say --auto")
    with bar.drawn("backing up") as draw:
        made = assembly.back_up(settings, draw, options.file)
    print(f"{made.path}: {_counted(made.manifest)}, {made.size / 1e6:.1f} MB, read back whole")
    if made.erased_meanwhile:
        print(f"Erased while it was made, and not in it as persons: {made.erased_meanwhile}")
    print("It holds faces and keys: keep it where nobody else can read it. Who is erased from now on stays in it.")
    return EXIT_DONE


def _restore(settings: Config, options: argparse.Namespace) -> int:
    data_folder = options.data or settings.data.folder
    if options.acknowledge == (options.file is not None):
        raise invalid("FILE", "name a backup, or say --acknowledge")
    if options.acknowledge:
        noted = restoring.acknowledge(data_folder)
        if noted:
            cli_audit.note("edge restore", "acknowledged", folder=data_folder)
        print("noted" if noted else "there is nothing to take note of")
        return EXIT_DONE
    restored = restoring.restore(options.file, data_folder, now_ms=assembly.now_ms(), with_erased=options.with_erased)
    manifest = restored.manifest
    but = f", {restored.erased} persons erased again" if restored.erased else ""
    cli_audit.note("edge restore", f"as it was at {manifest.made}{but}", folder=data_folder)
    print(f"{data_folder} is as it was at {manifest.made}: {_counted(manifest)}")
    if restored.aside is not None:
        print(f"What was there before is in {restored.aside}: it holds faces, so delete it once it is of no use")
    print(f"The settings of then, which are not in force, are in {restored.settings}")
    if restored.erased:
        print(f"Erased again, as the audit log here says: {restored.erased} persons (--with-erased brings them back)")
    print(f"Who else was erased after {manifest.made} is back: erase them again. Tokens revoked since are good again.")
    wanted = next((name for name, id_ in manifest.packs if id_ == manifest.pack_id), manifest.pack_id)
    if manifest.pack_id not in (None, *(id_ for _, id_ in assembly.packs_there(settings, data_folder))):
        print(f"The templates are of the pack {wanted}, which is not here: `edge models add` it, or `edge reembed`")
    return EXIT_DONE


def _counted(manifest: Manifest) -> str:
    return f"{manifest.persons} persons, {manifest.templates} templates, {manifest.pictures} pictures"
