"""The battery: what is promised of the data and of the door, tried until it breaks. docs/torture.md has the figures.

    .venv/bin/python scripts/torture.py VERB [--rounds N ...]

A verb ends by itself, prints its figures in one line at the end, and exits with 1 if a promise was broken, with 77
where this machine does not let it be tried. `scripts/torture.py` alone lists the verbs, `VERB --help` what each takes.
"""

from __future__ import annotations

import importlib
import importlib.util
import signal
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT / "scripts", ROOT / "tests", ROOT):  # `edge` for who runs it without installing
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

PARTS = ("torture_data", "torture_door", "torture_fleet")


def verbs() -> dict[str, Callable[[list[str]], int]]:
    """Return what each verb does: it takes its arguments and returns the exit code."""
    found: dict[str, Callable[[list[str]], int]] = {}
    for part in PARTS:
        if importlib.util.find_spec(part) is not None:
            found |= importlib.import_module(part).VERBS
    return found


def main(arguments: list[str]) -> int:
    """Run the verb that is named."""
    known = verbs()
    if not arguments or arguments[0] not in known:
        print(__doc__, *sorted(known), sep="\n    ", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what a verb has started and mounted goes with it
    return known[arguments[0]](arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
