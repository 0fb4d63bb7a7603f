"""Judging pins by a folder of advisories in the OSV format, with no service to ask.

As https://github.com/pypa/advisory-database has them (YAML), or the exports of osv.dev (JSON): one advisory a file,
in whatever folders. https://ossf.github.io/osv-schema/ says how `affected` is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ECOSYSTEM = "PyPI"


@dataclass(frozen=True)
class Weakness:
    """A pin that an advisory says to be affected."""

    name: str
    version: str
    advisory: str
    fixed: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """What came of it. `about`: advisories about packages that are pinned, affected or not; `latest`: of all."""

    weaknesses: tuple[Weakness, ...]
    read: int
    about: Mapping[str, int]
    latest: str


def pins(text: str) -> dict[str, Version]:
    """Return the version of each package of a requirements file with hashes."""
    found = {}
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            one = Requirement(line.partition(" --hash")[0])
            (pinned,) = one.specifier
            found[canonicalize_name(one.name)] = Version(pinned.version)
    return found


def judge(pinned: Mapping[str, Version], folder: Path) -> Judged:
    """Hold every advisory of the folder against the pins. ValueError: a file is none; OSError."""
    weaknesses, count, about, latest = [], 0, dict.fromkeys(pinned, 0), ""
    for advisory in _advisories(folder):
        count += 1
        latest = max(latest, str(advisory.get("modified", "")))
        for affected in advisory.get("affected", ()):
            package = affected.get("package", {})
            name = canonicalize_name(str(package.get("name", "")))
            if package.get("ecosystem") != ECOSYSTEM or name not in pinned or advisory.get("withdrawn"):
                continue
            about[name] += 1
            if is_affected(affected, pinned[name]):
                fixed = tuple(str(event["fixed"]) for event in _events(affected) if "fixed" in event)
                weaknesses.append(Weakness(name, str(pinned[name]), str(advisory["id"]), fixed))
    return Judged(tuple(weaknesses), count, about, latest)


def is_affected(affected: Mapping[str, Any], version: Version) -> bool:
    """Whether the version is named, or within a range of versions (those of commits say nothing of a release)."""
    if any(_version(text) == version for text in affected.get("versions", ())):
        return True
    return any(_is_within(one.get("events", ()), version) for one in _ranges(affected))


def _is_within(events: Sequence[Mapping[str, Any]], version: Version) -> bool:
    def at(event: Mapping[str, Any]) -> Version:
        return _version(next(iter(event.values()))) or Version("0")

    within = False
    for event in sorted(events, key=at):
        if "introduced" in event:
            within = within or version >= at(event)
        elif ("fixed" in event and version >= at(event)) or ("last_affected" in event and version > at(event)):
            within = False
    return within


def _ranges(affected: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (one for one in affected.get("ranges", ()) if one.get("type") != "GIT")


def _events(affected: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (event for one in _ranges(affected) for event in one.get("events", ()))


def _version(text: object) -> Version | None:
    try:
        return Version(str(text))
    except InvalidVersion:  # of before there were rules: no pin has such a one
        return None


def _advisories(folder: Path) -> Iterator[Mapping[str, Any]]:
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".json", ".yaml", ".yml") or not path.is_file():
            continue
        try:
            content = path.read_text(encoding="utf-8")
            found = json.loads(content) if path.suffix == ".json" else yaml.safe_load(content)
        except (ValueError, yaml.YAMLError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
        if isinstance(found, dict) and "id" in found and "affected" in found:
            yield found
