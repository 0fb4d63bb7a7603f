"""The verbs of the `edge` command that are about backups: backup, restore."""

from __future__ import annotations

import argparse
import configparser
import contextlib
import io
from pathlib import Path
from typing import Any

from edge import backup, bar, catalogue, cli_audit, config, daemon, restoring
from edge.archive import Manifest
from edge.config import Config
from edge.errors import PackUnusable, invalid

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
    put_back.set_defaults(run=_restore)


def _backup(settings: Config, options: argparse.Namespace) -> int:
    if options.auto == (options.file is not None):
        raise invalid("FILE", "name a file, or say --auto")
    data_folder = settings.data.folder
    known: dict[str, Any] = {"settings": _settings_text(settings), "packs": _packs(settings), "now_ms": daemon.now_ms()}
    with bar.drawn("backing up") as draw:
        if options.auto:
            made = backup.automatic(data_folder, settings.backup.keep, draw=draw, **known)
        else:
            made = backup.make(data_folder, options.file, draw=draw, **known)
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
    restored = restoring.restore(options.file, data_folder, now_ms=daemon.now_ms())
    manifest = restored.manifest
    cli_audit.note("edge restore", f"as it was at {manifest.made}", folder=data_folder)
    print(f"{data_folder} is as it was at {manifest.made}: {_counted(manifest)}")
    if restored.aside is not None:
        print(f"What was there before is in {restored.aside}: it holds faces, so delete it once it is of no use")
    print(f"The settings of then, which are not in force, are in {restored.settings}")
    print(f"Who was erased after {manifest.made} is back: erase them again. Tokens revoked since are good again.")
    wanted = next((name for name, id_ in manifest.packs if id_ == manifest.pack_id), manifest.pack_id)
    if manifest.pack_id not in (None, *(id_ for _, id_ in _packs(settings, data_folder))):
        print(f"The templates are of the pack {wanted}, which is not here: `edge models add` it, or `edge reembed`")
    return EXIT_DONE


def _counted(manifest: Manifest) -> str:
    return f"{manifest.persons} persons, {manifest.templates} templates, {manifest.pictures} pictures"


def _packs(settings: Config, data_folder: Path | None = None) -> list[tuple[str, str]]:
    """Return the names and ids of the packs that are there."""
    folders = daemon.pack_folders(settings)
    if data_folder is not None:
        folders[0] = data_folder / folders[0].name
    found = []
    for name, folder in catalogue.packs(folders).items():
        with contextlib.suppress(PackUnusable):
            found.append((name, catalogue.identity(folder, folders)))
    return found


def _settings_text(settings: Config) -> str:
    """Return the settings in force as a settings file."""
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    for name in config.names():
        section, _, key = name.partition(".")
        if not parser.has_section(section):
            parser.add_section(section)
        parser.set(section, key, settings.texts[name])
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()
