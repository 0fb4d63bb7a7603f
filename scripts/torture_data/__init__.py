"""The half of the battery that is about data: nothing lost, nothing back, nothing half done."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable


def _run(module: str, arguments: list[str]) -> int:
    """Run the verb of that module, which is loaded when it is asked for."""
    code: int = importlib.import_module(f"torture_data.{module}").main(arguments)
    return code


MODULES = {
    "kill": "kill",
    "power": "power",
    "full": "full",
    "flips": "flips",
    "threads": "threads",
    "backup": "backups",
    "stop": "stop",
}

VERBS: dict[str, Callable[[list[str]], int]] = {
    verb: functools.partial(_run, module) for verb, module in MODULES.items()
}
