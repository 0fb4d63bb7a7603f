"""What Home Assistant takes of an MQTT discovery message.

Written down from DISCOVERY_SCHEMA of home-assistant/core, homeassistant/components/mqtt/{sensor,binary_sensor,event,
image}.py, with MQTT_RO_SCHEMA and MQTT_BASE_SCHEMA of config.py and MQTT_ENTITY_COMMON_SCHEMA, MQTT_ORIGIN_INFO_SCHEMA
and MQTT_ENTITY_DEVICE_INFO_SCHEMA of schemas.py (mixins.py before 2024.8), and TOPIC_MATCHER of discovery.py. There an
unknown key of an entity is dropped (REMOVE_EXTRA) and one of `device` or `origin` refuses the whole; here each refuses,
as we have no business with keys that nobody reads. The lists have been held against the schemas of 2024.3 as they run,
which lack `options` and `model_id`; later releases add keys that are not here (scripts/try_home_assistant.py asks a
whole one). Abbreviated keys (abbreviations.py) are unknown here: we write none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

Is = Callable[[Any], bool]


def text(value: Any) -> bool:
    return isinstance(value, str)


def one_of(*choices: Any) -> Is:
    return lambda value: value in choices


def topic(value: Any) -> bool:
    return text(value) and 0 < len(value.encode()) <= 65535 and not re.search(r"[\x00-\x1f\x7f-\x9f+#]", value)


def truth(value: Any) -> bool:
    return isinstance(value, bool)


def whole(value: Any) -> bool:
    return isinstance(value, int) and not truth(value) and value >= 0


def texts(value: Any) -> bool:
    return text(value) or (isinstance(value, list) and all(text(one) for one in value))


def pairs(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, list) and len(one) == 2 and texts(one) for one in value)


def address(value: Any) -> bool:
    return text(value) and value.startswith(("http://", "https://", "homeassistant://"))


def of(known: Mapping[str, Is], *required: str) -> Is:
    """Whether it is an object of these keys, the required ones among them."""
    return lambda value: not faults(value, known, required)


def faults(value: Any, known: Mapping[str, Is], required: tuple[str, ...] = ()) -> list[str]:
    if not isinstance(value, dict):
        return [f"{value!r} is no object"]
    wrong = [f"{key} = {one!r}" for key, one in value.items() if key not in known or not known[key](one)]
    return wrong + [f"{key} is missing" for key in required if key not in value]


ORIGIN = of({"name": text, "sw_version": text, "support_url": address}, "name")
_DEVICE = of(
    {
        "identifiers": texts,
        "connections": pairs,
        "configuration_url": address,
        **dict.fromkeys(
            ("manufacturer", "model", "model_id", "name", "hw_version", "serial_number", "sw_version"), text
        ),
        **dict.fromkeys(("via_device", "suggested_area"), text),
    }
)


def device(value: Any) -> bool:
    return _DEVICE(value) and bool(value.get("identifiers") or value.get("connections"))


AVAILABILITY = of(
    {"topic": topic, "payload_available": text, "payload_not_available": text, "value_template": text}, "topic"
)
COMMON: Mapping[str, Is] = {
    "qos": one_of(0, 1, 2),
    "encoding": text,
    "name": lambda value: value is None or text(value),
    "availability": lambda value: isinstance(value, list) and all(AVAILABILITY(one) for one in value),
    "availability_mode": one_of("all", "any", "latest"),
    "availability_topic": topic,
    "availability_template": text,
    "payload_available": text,
    "payload_not_available": text,
    "device": device,
    "origin": ORIGIN,
    "enabled_by_default": truth,
    "entity_category": one_of("config", "diagnostic"),
    "icon": lambda value: text(value) and ":" in value,
    "json_attributes_topic": topic,
    "json_attributes_template": text,
    "object_id": text,
    "unique_id": text,
}
READ: Mapping[str, Is] = {**COMMON, "state_topic": topic, "value_template": text}
PLATFORMS: Mapping[str, tuple[Mapping[str, Is], tuple[str, ...]]] = {
    "sensor": (
        READ
        | {
            "device_class": text,
            "expire_after": whole,
            "force_update": truth,
            "last_reset_value_template": text,
            "options": texts,
            "suggested_display_precision": whole,
            "state_class": one_of("measurement", "total", "total_increasing"),
            "unit_of_measurement": text,
        },
        ("state_topic",),
    ),
    "binary_sensor": (
        READ
        | {
            "device_class": one_of("connectivity", "motion", "occupancy", "presence", "problem", "running"),
            "expire_after": whole,
            "force_update": truth,
            "off_delay": whole,
            "payload_off": text,
            "payload_on": text,
        },
        ("state_topic",),
    ),
    "event": (
        READ | {"device_class": one_of("button", "doorbell", "motion"), "event_types": texts},
        ("state_topic", "event_types"),
    ),
    "image": (
        COMMON
        | {
            "content_type": text,
            "image_topic": topic,
            "image_encoding": one_of("b64"),
            "url_topic": topic,
            "url_template": text,
        },
        (),
    ),
}
"""Of each platform the keys and which of them must be there. The device classes of a binary sensor are a selection."""

TOPIC = re.compile(r"homeassistant/(?P<component>\w+)/(?:[a-zA-Z0-9_-]+/)?[a-zA-Z0-9_-]+/config")

BLOCKED = {"assumed_state", "available", "device_class", "device_info", "entity_category", "entity_picture", "icon"} | {
    "entity_registry_enabled_default", "extra_state_attributes", "force_update", "name", "should_poll", "state"
} | {"supported_features", "unique_id", "unit_of_measurement"}  # fmt: skip
"""Attributes that Home Assistant drops (MQTT_ATTRIBUTES_BLOCKED)."""


def check(at: str, payload: bytes) -> tuple[str, dict[str, Any]]:
    """Return the platform and what it is told, or fail with everything that Home Assistant would not take."""
    found = TOPIC.fullmatch(at)
    assert found, at
    known, required = PLATFORMS[found["component"]]
    config = json.loads(payload)
    wrong = faults(config, known, required)
    if found["component"] == "image" and ("image_topic" in config) == ("url_topic" in config):
        wrong.append("one of image_topic and url_topic")
    if "availability" in config and "availability_topic" in config:
        wrong.append("availability and availability_topic exclude each other")
    # Not of the schema, but without them an entity has no device, or its user cannot change it (entity.py).
    wrong += [f"{key} is missing" for key in ("device", "unique_id", "origin") if key not in config]
    assert not wrong, (at, wrong)
    return found["component"], config
