"""The door half of the battery: what strangers on the network may send, and how the real process bears it.

    scripts/torture.py VERB [--help]        (or, without the dispatcher: python scripts/torture_door VERB)

Each verb starts the real process, shows its progress on stderr, ends by itself, prints its figures in one last line of
stdout, and returns 1 where a promise was broken. docs/torture-door.md has the figures of the long forms.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

NAMES = ("malformed", "fuzz", "bombs", "slow", "smuggle", "tokens", "soak")


def _verb(name: str) -> Callable[[list[str]], int]:
    def run(arguments: list[str]) -> int:
        # when it is asked for: one needs hypothesis, one atheris
        code: int = importlib.import_module(f"torture_door.{name}").main(arguments)
        return code

    return run


VERBS: dict[str, Callable[[list[str]], int]] = {name: _verb(name) for name in NAMES}
