#!/usr/bin/env python3
"""Writes systemd/appliance.txt: every package that edge runs with, at one version, with the hashes of its files.

    scripts/pin.py [--latest]        (needs uv: pip install '.[audit]')

Good for Python 3.11 to 3.13 on x86_64 and aarch64, for `pip install --require-hashes -r systemd/appliance.txt`. The
versions are those installed beside this interpreter, which the tests ran with; with --latest, the newest that setup.cfg
allows.
"""

from __future__ import annotations

import argparse
import configparser
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "systemd" / "appliance.txt"
OLDEST_PYTHON = "3.11"
HEAD = """\
# What edge runs with, for `pip install --require-hashes -r appliance.txt`. Written by scripts/pin.py; not by hand.
"""


def required() -> list[Requirement]:
    """Return what setup.cfg says that edge needs to run."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    lines = settings["options"]["install_requires"].splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def installed() -> list[str]:
    """Return the versions beside this interpreter as constraints."""
    return sorted({f"{found.name}=={found.version}" for found in importlib.metadata.distributions() if found.name})


def pinned(constraints: list[str]) -> str:
    """Return the pins with their hashes. CalledProcessError: nothing satisfies everything, or no index was reached."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "edge.in").write_text("".join(f"{one}\n" for one in required()))
        (folder / "constraints.txt").write_text("".join(f"{one}\n" for one in constraints))
        command = [uv, "pip", "compile", "edge.in", "-c", "constraints.txt", "--universal", "--generate-hashes"]
        command += ["--python-version", OLDEST_PYTHON, "--no-header", "--no-annotate", "--quiet"]
        return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latest", action="store_true", help="the newest versions that setup.cfg allows")
    options = parser.parse_args()
    try:
        text = pinned([] if options.latest else installed())
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"nothing was pinned: {error}")
    temporary = PINS.with_suffix(".new")
    temporary.write_text(HEAD + text)
    temporary.replace(PINS)
    pins = sum(line[:1].isalpha() for line in text.splitlines())
    print(f"{PINS.relative_to(ROOT)}: {pins} pins, {text.count('--hash=')} hashes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
