"""The topics, and what Home Assistant is told of them (its MQTT discovery, one retained message an entity)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge import __version__
from edge.gallery.outgoing import Message
from edge.types import Source, Verdict

NO_SOURCE = "none"
"""Stands for the source of a request that names none."""


PERSON_TEMPLATE = "{{ value_json.person if value_json is defined else 'None' }}"
ATTRIBUTES_TEMPLATE = "{{ value if value_json is defined else '{}' }}"
"""Empty is what clears the topic when somebody is erased: to Home Assistant `None` is a state that is not known."""


@dataclass(frozen=True)
class Announcement:
    """What is told at each connection, and which retained topics are still right."""

    messages: tuple[Message, ...]
    topics: frozenset[str]


@dataclass(frozen=True)
class Topics:
    """The topics of one box."""

    prefix: str
    box: str
    discovery_prefix: str | None

    @property
    def availability(self) -> str:
        """`online` or `offline`, retained."""
        return f"{self.prefix}/{self.box}/availability"

    @property
    def status(self) -> str | None:
        """Where Home Assistant says that it has come up."""
        return None if self.discovery_prefix is None else f"{self.discovery_prefix}/status"

    def event(self, source_id: str) -> str:
        """A sighting, JSON."""
        return self._of(source_id, "event")

    def person(self, source_id: str) -> str:
        """Who was seen last, JSON, retained."""
        return self._of(source_id, "person")

    def snapshot(self, source_id: str) -> str:
        """The face of the latest sighting, JPEG."""
        return self._of(source_id, "snapshot")

    def alert(self, group_id: str) -> str:
        """What an alert of a group's list wanted, JSON."""
        return f"{self.prefix}/{self.box}/alert/{group_id}"

    def _of(self, source_id: str, what: str) -> str:
        return f"{self.prefix}/{self.box}/source/{source_id or NO_SOURCE}/{what}"

    def announcement(self, sources: Sequence[Source], *, snapshots: bool) -> Announcement:
        """Return what makes Home Assistant know the box and its sources (nothing without a prefix), and what stays."""
        told: list[Message] = []
        if self.discovery_prefix is not None:
            told.append(self._config("binary_sensor", "availability", "Connection", self._connection(), None))
            for source in sources:
                told += self._of_source(source, snapshots=snapshots)
        kept = {self.person(source.source_id) for source in sources} | {message.topic for message in told}
        return Announcement(tuple(told), frozenset(kept))

    def _of_source(self, source: Source, *, snapshots: bool) -> list[Message]:
        id_, name = source.source_id, source.name
        seen = {"state_topic": self.event(id_), "event_types": [verdict.value for verdict in Verdict]}
        last = {
            "state_topic": self.person(id_),
            "value_template": PERSON_TEMPLATE,
            "json_attributes_topic": self.person(id_),
            "json_attributes_template": ATTRIBUTES_TEMPLATE,
            "icon": "mdi:face-recognition",
        }
        configs = [
            self._config("sensor", f"{id_}_person", f"{name} last person", last, id_),
            self._config("event", f"{id_}_event", f"{name} sighting", seen, id_),
        ]
        if snapshots:
            image = {"image_topic": self.snapshot(id_), "content_type": "image/jpeg"}
            configs.append(self._config("image", f"{id_}_snapshot", f"{name} snapshot", image, id_))
        return configs

    def _connection(self) -> dict[str, Any]:
        return {
            "state_topic": self.availability,
            "payload_on": "online",
            "payload_off": "offline",
            "device_class": "connectivity",
            "entity_category": "diagnostic",
        }

    def _config(self, component: str, object_id: str, name: str, own: dict[str, Any], source_id: str | None) -> Message:
        config = {
            "name": name,
            "unique_id": f"edge_{self.box}_{object_id}",
            "device": {
                "identifiers": [f"edge_{self.box}"],
                "name": f"edge {self.box}",
                "manufacturer": "edge",
                "sw_version": __version__,
            },
            "origin": {"name": "edge", "sw_version": __version__},
            **own,
        }
        if component != "binary_sensor":  # which says whether the box is there, so it is there itself
            config["availability_topic"] = self.availability
        topic = f"{self.discovery_prefix}/{component}/edge_{self.box}/{object_id}/config"
        return Message(
            "mqtt", "discovery", topic, json.dumps(config).encode(), 0, is_retained=True, source_id=source_id
        )
