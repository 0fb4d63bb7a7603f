#!/usr/bin/env python3
"""Asks for known weaknesses of what systemd/appliance.txt pins: pip-audit, which must know every package or fail.

    scripts/audit.py [--service pypi|osv]        (needs pip-audit, pip install '.[audit]', and that service's network)
    scripts/audit.py --database FOLDER           (a copy of github.com/pypa/advisory-database, or of osv.dev's export)

Exits with 1 where a weakness is known, with 2 where it could not be found out: an audit that skips is none. A folder
knows what it knew when it was copied: the last line says of when its latest advisory is.
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
    parser.add_argument("--database", type=Path, metavar="FOLDER", help="nobody is asked: advisories in the OSV format")
    parser.add_argument("--pins", type=Path, default=PINS, metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.database is not None:
        return by_folder(options.pins, options.database)
    return by_service(options.pins, options.service)


def by_folder(pins: Path, folder: Path) -> int:
    """Judge by advisories that are here."""
    import advisories

    try:
        judged = advisories.judge(advisories.pins(pins.read_text()), folder)
    except (OSError, ValueError) as error:
        print(f"audit: it could not be found out: {error}")
        return 2
    for weakness in judged.weaknesses:
        fixed = ", ".join(weakness.fixed) or "nothing yet"
        print(f"{weakness.name} {weakness.version}: {weakness.advisory}, fixed in {fixed}")
    about, known = sum(judged.about.values()), len(judged.weaknesses)
    told = f"{judged.read} advisories, the latest of {judged.latest[:10]}, {about} of them about these"
    print(f"audit: {len(judged.about)} packages, {known} weaknesses; {told}")
    return 1 if known else 2 if not judged.read else 0


def by_service(pins: Path, service: str) -> int:
    """Judge by a service in the network."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(pins), "--require-hashes", "--disable-pip"]
    command += ["-s", service, "-f", "json", "--progress-spinner", "off"]
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
    told = f", not known to {service}: {', '.join(skipped)}" if skipped else ""
    print(f"audit: {len(packages)} packages, {known} weaknesses{told}")
    return 1 if known else 2 if skipped or not packages else 0


if __name__ == "__main__":
    sys.exit(main())
