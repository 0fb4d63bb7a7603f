"""systemd/appliance.txt: the appliance is installed with what setup.cfg asks for, and with nothing without a hash."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
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


# --- scripts/audit.py --database ---

YAML = """
id: PYSEC-2026-1
modified: "2026-02-03T00:00:00Z"
affected:
- package: {ecosystem: PyPI, name: Soap_Bubble}
  ranges:
  - {type: GIT, repo: "https://example.org/soap", events: [{introduced: "0"}]}
  - type: ECOSYSTEM
    events: [{introduced: "1.0"}, {fixed: "1.4.2"}, {introduced: "2.0"}, {fixed: "2.1"}]
"""
JSON = {
    "id": "GHSA-soap",
    "modified": "2026-01-01T00:00:00Z",
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "soap-bubble"},
            "versions": ["0.9", "of old"],
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "3.0"}, {"last_affected": "3.1"}]}],
        },
        {"package": {"ecosystem": "npm", "name": "soap-bubble"}, "versions": ["1.9"]},
    ],
}


def audited(folder: Path, version: str, database: Path) -> tuple[int, str]:
    pinned = folder / "pins.txt"
    pinned.write_text(f"soap-bubble=={version} \\\n    --hash=sha256:{'0' * 64}\nwater==1\n")
    command = [sys.executable, str(ROOT / "scripts" / "audit.py"), "--pins", str(pinned), "--database", str(database)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert not done.stderr
    return done.returncode, done.stdout


@pytest.fixture
def database(tmp_path: Path) -> Path:
    folder = tmp_path / "vulns"
    (folder / "soap-bubble").mkdir(parents=True)
    (folder / "soap-bubble" / "PYSEC-2026-1.yaml").write_text(YAML)
    (folder / "GHSA-soap.json").write_text(json.dumps(JSON))
    return folder


def test_advisories_of_a_folder_are_held_against_the_pins(tmp_path: Path, database: Path) -> None:
    told = "2 advisories, the latest of 2026-02-03, 2 of them about these"
    fine = (0, f"audit: 2 packages, 0 weaknesses; {told}\n")
    for version in ("0.8", "1.4.2", "1.9", "2.1", "2.9", "3.2"):
        assert audited(tmp_path, version, database) == fine, version
    for version, advisory, fixed in (
        ("0.9", "GHSA-soap", "nothing yet"),
        ("1.0", "PYSEC-2026-1", "1.4.2, 2.1"),
        ("1.4.1", "PYSEC-2026-1", "1.4.2, 2.1"),
        ("2.0.9", "PYSEC-2026-1", "1.4.2, 2.1"),
        ("3.1", "GHSA-soap", "nothing yet"),
    ):
        code, printed = audited(tmp_path, version, database)
        assert code == 1
        assert printed.startswith(f"soap-bubble {version}: {advisory}, fixed in {fixed}\n"), printed


def test_a_folder_that_says_nothing_is_no_audit(tmp_path: Path, database: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert audited(tmp_path, "1.9", tmp_path / "empty")[0] == 2
    (database / "torn.yaml").write_text("id: [")
    code, printed = audited(tmp_path, "1.9", database)
    assert (code, "torn.yaml cannot be read" in printed) == (2, True)
