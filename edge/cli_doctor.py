"""The verb `edge doctor`: what is wrong with this box, and what to do about it."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from edge import config, doctor
from edge.doctor_machine import Finding, Level, fail, ok, worst
from edge.errors import ConfigMistakes

EXIT_OF = {Level.OK: 0, Level.WARN: 1, Level.FAIL: 2}


def add_parsers(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb to the command's."""
    doctors = verbs.add_parser("doctor", parents=[common], help="look for what is wrong, and say what to do")
    doctors.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctors.set_defaults(diagnose=diagnose)


def diagnose(options: argparse.Namespace) -> int:
    """Print a line for every finding; return 0 (all is well), 1 (something should be mended) or 2 (must be)."""
    found = []
    for one in _findings(options):
        found.append(one)
        if not options.json:
            advice = f"; {one.advice}" if one.advice else ""
            print(f"{one.level.value:<5} {one.check:<12} {one.message}{advice}", flush=True)
    if options.json:
        rows = [{**dataclasses.asdict(one), "level": one.level.value} for one in found]
        print(json.dumps({"level": worst(found).value, "findings": rows}, ensure_ascii=False, indent=1))
    return EXIT_OF[worst(found)]


def _findings(options: argparse.Namespace) -> Iterator[Finding]:
    try:
        settings = config.load(options.config, flags=options.set)
    except ConfigMistakes as refusal:  # without settings there is nothing to look at
        for mistake in refusal.mistakes:
            yield fail("settings", f"{mistake.field}: {mistake.reason}", "edge/default.conf has every setting")
        return
    yield ok("settings", f"{len(settings.texts)}, all within their limits")
    yield from doctor.findings(settings)
