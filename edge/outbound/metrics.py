"""Numbers for Prometheus: what is counted as it happens, and what is looked up when they are asked for.

Nothing personal: no label names a person, a list, a source or a token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge.events import Event, FaceSighted, FrameSeen, StageDone
from edge.types import Verdict

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Buckets: from a search on a mini-PC to a 4K frame of five strangers on a Pi."""

REFUSED = ("400", "404", "405", "408", "413", "429", "431", "503")
"""Codes that are told from the start on."""

Readings = Callable[[], Mapping[str, float]]
"""What is so now, by the name of the number."""

TOLD = {
    "persons": "Persons in the gallery",
    "templates": "What they are recognised by",
    "lists": "Lists",
    "disk_free_bytes": "Room on the data folder's disk",
    "frames_superseded": "Frames given up for a newer one of their source, since the start",
    "sightings_dropped": "Sightings that could not be kept, since the start",
    "workers": "Pictures that can be worked on at once",
    "workers_busy": "Workers that have a picture now",
    "pictures_waiting": "Pictures that wait for a worker",
    "connections": "Open connections",
    "fleet_connected": "Whether the fleet's servers are reached",
    "fleet_outbox": "Operations that wait to be published to the fleet",
    "fleet_behind": "Operations of the fleet that are not applied here yet",
    "fleet_peers": "Other boxes of the fleet that were heard lately",
    "fleet_differs": "Whether the boxes of the fleet hold different things",
    "fleet_seeded": "Snapshots of other boxes taken over, since the start",
    "messages_waiting": "Messages on disk that have not arrived",
    "messages_dropped": "Messages that were too many, too old, or could not be kept, since the start",
    "mqtt_connected": "1: the broker has taken the connection",
    "mqtt_sent": "Messages that the broker acknowledged, since the start",
    "webhooks_sent": "Webhooks that arrived, since the start",
    "webhooks_given_up": "Webhooks that were refused, or too old, since the start",
}


class _Looked(Collector):
    """What is looked up when it is asked for."""

    def __init__(self, readings: Readings, facts: Mapping[str, str]) -> None:
        self._readings = readings
        self._facts = facts

    def collect(self) -> Iterable[Metric]:
        """Look."""
        info = GaugeMetricFamily("edge_info", "What runs here", labels=list(self._facts))
        info.add_metric(list(self._facts.values()), 1)
        yield info
        yield from self._gauges()

    def _gauges(self) -> Iterator[Metric]:
        for name, value in self._readings().items():
            yield GaugeMetricFamily(f"edge_{name}", TOLD[name], value=value)


class Metrics:
    """The numbers of one service. Safe to use from several threads at once."""

    def __init__(self, readings: Readings, facts: Mapping[str, str]) -> None:
        """`facts`: version and pack, as labels of `edge_info`."""
        self._registry = CollectorRegistry(auto_describe=False)
        self._requests = Histogram(
            "edge_request_seconds",
            "From the first look at a request to its answer",
            ["route", "code"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._stages = Histogram(
            "edge_stage_seconds", "Of a frame's way", ["stage"], buckets=SECONDS, registry=self._registry
        )
        self._faces = Counter("edge_faces", "Faces that were compared", ["outcome"], registry=self._registry)
        self._missed = Counter("edge_faces_missed", "Limits that faces missed", ["check"], registry=self._registry)
        self._faceless = Counter("edge_frames_without_face", "Pictures without a face", registry=self._registry)
        self._refused = Counter(
            "edge_refused", "Requests refused before a route was found", ["code"], registry=self._registry
        )
        self._registry.register(_Looked(readings, facts))
        for verdict in Verdict:
            self._faces.labels(verdict.value)  # a rate needs a zero to begin from
        for code in REFUSED:
            self._refused.labels(code)

    def listen(self, event: Event) -> None:
        """Count what happened."""
        if isinstance(event, StageDone):
            self._stages.labels(event.stage).observe(event.seconds)
        elif isinstance(event, FaceSighted):
            self._faces.labels(event.sighting.verdict.value).inc()
            for reason in event.sighting.reasons:
                self._missed.labels(reason.check).inc()
        elif isinstance(event, FrameSeen) and not event.faces:
            self._faceless.inc()

    def answered(self, route: str, code: int, seconds: float) -> None:
        """Count a request, by the route's template."""
        self._requests.labels(route, str(code)).observe(seconds)

    def refused(self, code: int) -> None:
        """Count a request that came to no route: unknown, malformed, too large, too late, or one too many."""
        self._refused.labels(str(code)).inc()

    def text(self) -> bytes:
        """Return all of it, in Prometheus' text format 0.0.4."""
        return generate_latest(self._registry)
