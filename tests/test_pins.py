"""systemd/appliance.txt: the appliance is installed with what setup.cfg asks for, and with nothing without a hash."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent


def pins() -> list[tuple[Requirement, list[str]]]:
    """Each pin, and its hashes."""
    text = (ROOT / "systemd" / "appliance.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [
        (Requirement(line.partition(" --hash")[0]), re.findall(r"--hash=sha256:([0-9a-f]{64})", line)) for line in lines
    ]


def required() -> list[Requirement]:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    lines = settings["options"]["install_requires"].splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_every_requirement_has_one_pin_that_satisfies_it(python: str, machine: str) -> None:
    here = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_system": "Linux",
    }
    applies = [(one, found) for one, found in pins() if one.marker is None or one.marker.evaluate(here)]
    by_name = {canonicalize_name(one.name): one for one, _ in applies}
    assert len(by_name) == len(applies)
    for needed in required():
        if needed.marker is None or needed.marker.evaluate(here):
            (version,) = by_name[canonicalize_name(needed.name)].specifier
            assert needed.specifier.contains(version.version), needed


def test_every_pin_is_one_version_with_hashes() -> None:
    found = pins()
    assert found
    for one, hashes in found:
        assert re.fullmatch(r"==[^*,]+", str(one.specifier)), one
        assert hashes, one
