"""docs/troubleshooting.md says what the program says: its sentences, settings, numbers and messages are looked up."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edge.config import names
from edge.outbound.metrics import TOLD

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SOURCES = "\n".join(
    re.sub(r'"\s*\n\s*f?"', "", path.read_text(encoding="utf-8"))  # sentences over several lines
    for pattern in ("*.py", "*.js")
    for path in sorted((ROOT / "edge").rglob(pattern))
)


def section(title: str) -> str:
    found = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", DOCUMENT, re.M | re.S)
    assert found, title
    return found[1]


def sentences() -> list[str]:
    """What a start says, by the table; what differs from box to box is an ellipsis."""
    return [row.split(" | ")[0] for row in re.findall(r"^\| (`.*)$", section("It does not start"), re.M)]


@pytest.mark.parametrize("told", sentences())
def test_a_start_says_that(told: str) -> None:
    parts = [part.strip("?, :") for quoted in re.findall("`([^`]+)`", told) for part in quoted.split("…")]
    parts = [part.strip("'") for part in parts if len(part) > 3]
    assert parts
    for part in parts:
        field, _, rest = part.partition(": ")
        assert (rest if field in names() else part) in SOURCES, part


def test_every_message_is_one_of_the_program() -> None:
    messages = re.findall(r"^\| \*\*\d+\*\* `([^`]+)`", section("A status code"), re.M)
    assert len(messages) > 8
    for message in messages:
        assert f'"{message}"' in SOURCES, message


def test_every_setting_and_number_is_there() -> None:
    for name in re.findall(r"`((?:server|data|models|detection|faces|new_person|history|backup|fleet)\.\w+)", DOCUMENT):
        assert name in names(), name
    for name in re.findall(r"\bedge_[a-z_]+", DOCUMENT):
        kept = re.sub("_(total|count)$", "", name)  # Prometheus' own endings
        assert name.removeprefix("edge_") in TOLD or f'"{kept}"' in SOURCES, name


def test_its_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", DOCUMENT):
        assert (ROOT / "docs" / link).exists() or link == "fleet.md", link
