"""One verb of the door's battery, without the dispatcher."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from torture_door import VERBS

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in VERBS:
        sys.exit(f"usage: torture_door {{{','.join(VERBS)}}} [--help]")
    sys.exit(VERBS[sys.argv[1]](sys.argv[2:]))
