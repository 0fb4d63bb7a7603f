"""What `edge doctor` finds of those who are told of events: the broker, and what signs webhooks."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

from edge import announcing
from edge.config import Config
from edge.credentials import trusted
from edge.doctor_machine import Finding, fail, ok, warn
from edge.errors import Refusal, Unusable
from edge.gallery import exporting
from edge.gallery.database import DATABASE_NAME

BROKER_SECONDS = 5.0
"""For the connection with the broker and its answer, each."""


def broker(settings: Config) -> Iterator[Finding]:
    """Yield whether the MQTT broker takes a connection; nothing where none is set."""
    mqtt = settings.mqtt
    if not mqtt.host:
        return
    from edge.outbound.mqtt import Refused, try_out  # paho is loaded only where it is used

    at = f"{mqtt.host}:{mqtt.port}"
    try:
        try_out(announcing.broker(settings, announcing.box_name(settings)), BROKER_SECONDS)
    except Unusable as error:
        yield fail("mqtt", _reasons(error), "mend the file, or the setting that names it")
    except Refused as refused:
        advice = "set mqtt.username and mqtt.password_file to what the broker knows"
        yield fail("mqtt", f"{at} refuses the connection: {refused}", advice)
    except ssl.SSLCertVerificationError as error:
        advice = "set mqtt.ca_file to who signed it, and mqtt.host to a name that is in it"
        yield fail("mqtt", f"the certificate of {at} is not trusted: {error.verify_message}", advice)
    except ssl.SSLError as error:
        yield fail("mqtt", f"{at} speaks no TLS: {error.reason}", "set mqtt.tls = false, or mqtt.port (8883 is usual)")
    except ConnectionResetError:
        advice = "set mqtt.port, and mqtt.tls as the broker has it"
        yield fail("mqtt", f"{at} does not answer as a broker does", advice)
    except OSError as error:
        advice = "start the broker, or set mqtt.host and mqtt.port; messages wait meanwhile"
        yield warn("mqtt", f"{at} is not reached: {error.strerror or error}", advice)
    else:
        yield ok("mqtt", f"{at} takes the connection{', by TLS' if mqtt.tls else ''}")


def webhooks(settings: Config, *, is_running: bool) -> Iterator[Finding]:
    """Yield whether webhooks that somebody wants are sent; nothing where nobody does.

    What source groups want is read beside a service that has the database open: nothing of it is made here.
    """
    advice = "set webhooks.secret_file (docs/events.md says how one is made)"
    if settings.webhooks.secret_file is not None:
        try:
            announcing.signing_secret(settings.webhooks.secret_file)
            trusted(settings.webhooks.ca_file, "webhooks.ca_file")
        except Unusable as error:
            yield fail("webhooks", _reasons(error), "mend the file, or run edge doctor as the user of the service")
        else:
            yield ok("webhooks", "the key that signs them is there")
    elif settings.webhooks.unknown_url:
        yield fail("webhooks", "webhooks.unknown_url is told nothing: there is no key to sign with", advice)
    elif is_running and (count := _groups_with_addresses(settings.data.folder)):
        told = f"{count} source groups have an http address as on_found or on_failed, and there is no key to sign with"
        yield fail("webhooks", told, advice)


def _groups_with_addresses(folder: Path) -> int:
    """Return how many source groups want a webhook; 0 too where the gallery cannot be read."""
    from edge.outbound.telling import address

    if not (folder / f"{DATABASE_NAME}-shm").exists():
        return 0
    try:
        with exporting.opened(folder) as reading:
            return sum(
                any(
                    address(wanted) is not None
                    for alert in group.alerts
                    for wanted in (alert.on_found, alert.on_failed)
                )
                for group in reading.groups()
            )
    except (Refusal, OSError):
        return 0


def _reasons(error: Unusable) -> str:
    return "; ".join(f"{mistake.field}: {mistake.reason}" for mistake in error.mistakes)
