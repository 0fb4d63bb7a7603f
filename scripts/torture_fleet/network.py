"""Boxes in networks of their own: a namespace each, a bridge between them, and a way in that no partition cuts."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

FLEET_NET, CALLER_NET = "10.213.0", "10.214"
BRIDGE = "edge-bridge"


class Unavailable(Exception):
    """Nobody may make networks on this machine."""


@dataclass(frozen=True)
class Place:
    """Where a box is: what a command is run within to be there, and its addresses."""

    number: int

    @property
    def name(self) -> str:
        """Of the namespace, and of the box."""
        return f"edge-box-{self.number}"

    @property
    def within(self) -> Sequence[str]:
        """What a command is run by to be there."""
        return ("ip", "netns", "exec", self.name)

    @property
    def fleet_address(self) -> str:
        """By which the boxes call each other."""
        return f"{FLEET_NET}.{self.number + 1}"

    @property
    def caller_address(self) -> str:
        """By which its clients do, always."""
        return f"{CALLER_NET}.{self.number + 1}.2"

    def cut(self) -> None:
        """Let no other box reach it."""
        _ip("link", "set", f"edge-fleet-{self.number}", "down")

    def heal(self) -> None:
        """Let them again."""
        _ip("link", "set", f"edge-fleet-{self.number}", "up")


@contextmanager
def places(count: int) -> Iterator[list[Place]]:
    """Make so many, and take them away in the end. Raises Unavailable."""
    if shutil.which("ip") is None:
        raise Unavailable("there is no `ip` (Debian: iproute2)")
    made = [Place(number) for number in range(count)]
    try:
        _remove(made)
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("link", "set", BRIDGE, "up")
        for place in made:
            _make(place)
    except (OSError, subprocess.CalledProcessError) as error:
        _remove(made)
        raise Unavailable(str(error)) from error
    try:
        yield made
    finally:
        _remove(made)


def _make(place: Place) -> None:
    _ip("netns", "add", place.name)
    for kind, address in (("fleet", place.fleet_address), ("call", place.caller_address)):
        outer, inner = f"edge-{kind}-{place.number}", f"edge-in-{kind}"
        _ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", place.name)
        _ip("-n", place.name, "addr", "add", f"{address}/24", "dev", inner)
        _ip("-n", place.name, "link", "set", inner, "up")
        _ip("link", "set", outer, "up")
    _ip("-n", place.name, "link", "set", "lo", "up")
    _ip("link", "set", f"edge-fleet-{place.number}", "master", BRIDGE)
    _ip("addr", "add", f"{CALLER_NET}.{place.number + 1}.1/24", "dev", f"edge-call-{place.number}")


def _remove(made: Sequence[Place]) -> None:
    for place in made:
        for link in (f"edge-fleet-{place.number}", f"edge-call-{place.number}"):
            _ip("link", "del", link, check=False)
        _ip("netns", "del", place.name, check=False)
    _ip("link", "del", BRIDGE, check=False)


def _ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True)
