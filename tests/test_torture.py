"""The battery's short forms (scripts/torture.py): every verb tries what the long form tries, a few times."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "torture.py"
NOT_POSSIBLE = 77

SHORT = {
    "kill": ("--rounds", "2", "--ready-seconds", "0"),
    "power": ("--rounds", "1", "--control-rounds", "2"),
    "full": ("--step", "60", "--people", "100"),
    "flips": ("--rounds", "4", "--headers", "1"),
    "threads": ("--seconds", "5"),
    "backup": ("--rounds", "1"),
    "stop": ("--rounds", "1", "--end-seconds", "60"),
    "fleet": ("--rounds", "2", "--gone-seconds", "0"),
}


@pytest.mark.parametrize("verb", SHORT)
def test_a_short_round_of_the_battery(verb: str, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), verb, *SHORT[verb], "--folder", str(tmp_path / verb)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode == NOT_POSSIBLE:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith(" 0 violations")
