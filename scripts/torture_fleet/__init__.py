"""The battery's verb for several boxes (docs/fleet.md)."""

from torture_fleet import fleet

VERBS = {"fleet": fleet.main}
