#!/usr/bin/env python3
"""Asks for known weaknesses of what systemd/appliance.txt pins: pip-audit, which must know every package or fail.

    scripts/audit.py [--service pypi|osv]        (needs pip-audit, pip install '.[audit]', and that service's network)

Exits with 1 where a weakness is known, with 2 where it could not be found out: an audit that skips is none.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

PINS = Path(__file__).resolve().parent.parent / "systemd" / "appliance.txt"


def main() -> int:
    """Ask, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--service", choices=("pypi", "osv"), default="pypi", help="who is asked (default: pypi)")
    options = parser.parse_args()
    command = [sys.executable, "-m", "pip_audit", "-r", str(PINS), "--require-hashes", "--disable-pip"]
    command += ["-s", options.service, "-f", "json", "--progress-spinner", "off"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(asked.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (asked.stderr.strip().splitlines() or ["no answer"])[-1]
        print(f"audit: it could not be found out: {last}")
        return 2
    for package in packages:
        for weakness in package.get("vulns", ()):
            fixed = ", ".join(weakness["fix_versions"]) or "nothing yet"
            print(f"{package['name']} {package['version']}: {weakness['id']}, fixed in {fixed}")
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    known = sum(len(package.get("vulns", ())) for package in packages)
    told = f", not known to {options.service}: {', '.join(skipped)}" if skipped else ""
    print(f"audit: {len(packages)} packages, {known} weaknesses{told}")
    return 1 if known else 2 if skipped or not packages else 0


if __name__ == "__main__":
    sys.exit(main())
