"""The settings: default.conf, a file, the environment, the command line; the later wins. Every mistake at once."""

from __future__ import annotations

import configparser
import contextlib
import dataclasses
import difflib
import io
import ipaddress
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from edge.errors import ConfigMistakes, Mistake

SYSTEM_FILE = Path("/etc/edge/edge.conf")
"""Read when neither --config nor $EDGE_CONFIG names a file, and it is there."""

Parse = Callable[[str], Any]


def whole(least: int, most: int) -> Parse:
    """Parse a whole number in least..most."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise ValueError(f"'{text}' is not a whole number ({least} to {most})") from None
        if not least <= number <= most:
            raise ValueError(f"{number} is not within {least} to {most}")
        return number

    return parse


def number(least: float, most: float) -> Parse:
    """Parse a number in least..most."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"'{text}' is not a number ({least:g} to {most:g})")
        if not least <= value <= most:
            raise ValueError(f"{value:g} is not within {least:g} to {most:g}")
        return value

    return parse


def one_of(*choices: str) -> Parse:
    """Parse one of the words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"'{text}' is none of {', '.join(choices)}")
        return text

    return parse


def truth(text: str) -> bool:
    """Parse true or false."""
    if text.lower() not in ("true", "false"):
        raise ValueError(f"'{text}' is neither true nor false")
    return text.lower() == "true"


def word_or(word: str, otherwise: Parse) -> Parse:
    """Parse the word as None, and anything else as a value."""

    def parse(text: str) -> Any:
        return None if text == word else otherwise(text)

    return parse


def text_up_to(most: int) -> Parse:
    """Parse a text of 1..most characters."""

    def parse(text: str) -> str:
        if not 1 <= len(text) <= most:
            raise ValueError(f"must have 1 to {most} characters")
        return text

    return parse


def text_to(most: int) -> Parse:
    """Parse a text of 0..most characters."""

    def parse(text: str) -> str:
        if len(text) > most:
            raise ValueError(f"must have {most} characters at most")
        return text

    return parse


def subject_token(text: str) -> str:
    """Parse what may be a part of a NATS subject and a stream's name."""
    if not 1 <= len(text) <= 100 or not text.isascii() or not text.replace("-", "").isalnum():
        raise ValueError(f"'{text[:100]}' is not of 1 to 100 letters, digits and hyphens")
    return text


def topic_level(least: int) -> Parse:
    """Parse a level of an MQTT topic: least..64 letters, digits, - and _."""

    def parse(text: str) -> str:
        if not re.fullmatch(rf"[a-zA-Z0-9_-]{{{least},64}}", text):
            raise ValueError(f"'{text}' must have {least} to 64 characters: letters, digits, - and _")
        return text

    return parse


def web_address(text: str) -> str:
    """Parse nothing, or an address of http or https."""
    if text and (not text.startswith(("http://", "https://")) or len(text) > 2048):
        raise ValueError("must begin with http:// or https:// and have 2048 characters at most")
    return text


def input_size(text: str) -> tuple[int, int]:
    """Parse ROWSxCOLUMNS."""
    rows, _, columns = text.partition("x")
    if not (rows.isdecimal() and columns.isdecimal()):
        raise ValueError(f"'{text}' is not of the form 192x320 (rows x columns)")
    return int(rows), int(columns)


def path(text: str) -> Path:
    """Parse a path; ~ is the home folder."""
    if not text:
        raise ValueError("must name a folder")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"'{text}' begins with a home folder that is not known here") from None


def _setting(parse: Parse) -> Any:
    # The default stands in default.conf and nowhere else, so a field has none.
    return dataclasses.field(metadata={"parse": parse})


FRACTION = number(0, 1)


@dataclass(frozen=True)
class ServerConfig:
    """[server]."""

    host: str = _setting(text_up_to(255))
    plain_http_on_the_network: bool = _setting(truth)
    port: int = _setting(whole(0, 65535))
    status_codes: str = _setting(one_of("documented", "cloud"))
    max_body_megabytes: int = _setting(whole(1, 256))
    max_body_parts: int = _setting(whole(1, 10_000))
    max_field_kilobytes: int = _setting(whole(1, 16_384))
    request_deadline_seconds: float = _setting(number(1, 600))
    idle_seconds: int = _setting(whole(1, 3600))
    stop_seconds: float = _setting(number(0, 80))
    max_connections: int = _setting(whole(10, 10_000))
    max_connections_per_address: int = _setting(whole(1, 10_000))
    max_waiting_requests: int = _setting(whole(0, 1000))
    requests_per_token_per_second: int = _setting(whole(0, 10_000))
    wrong_tokens_per_minute: int = _setting(whole(1, 100_000))
    live_streams: int = _setting(whole(0, 100))
    trusted_proxy: str = _setting(one_of("", "127.0.0.1", "::1"))


@dataclass(frozen=True)
class TlsConfig:
    """[tls]."""

    folder: Path = _setting(path)
    pem: Path = _setting(path)
    names: str = _setting(text_to(2000))


@dataclass(frozen=True)
class DataConfig:
    """[data]."""

    folder: Path = _setting(path)
    reserve_megabytes: int = _setting(whole(16, 1_000_000))


@dataclass(frozen=True)
class ModelsConfig:
    """[models]."""

    folder: Path | None = _setting(word_or("", path))
    pack: str | None = _setting(word_or("auto", text_up_to(100)))
    operating_points: str = _setting(one_of("pack", "site"))
    interpreter: str = _setting(one_of("auto", "litert", "tflite-runtime"))
    workers: int | None = _setting(word_or("auto", whole(1, 64)))
    threads_per_face: int = _setting(whole(1, 16))


@dataclass(frozen=True)
class ImageConfig:
    """[image]."""

    max_megapixels: float = _setting(number(1, 100))
    min_side_pixels: int = _setting(whole(16, 1000))


@dataclass(frozen=True)
class DetectionConfig:
    """[detection]."""

    input_size: tuple[int, int] | None = _setting(word_or("auto", input_size))


@dataclass(frozen=True)
class FacesConfig:
    """[faces]."""

    min_face_pixels: float = _setting(number(20, 1000))
    presence_floor: float = _setting(FRACTION)


@dataclass(frozen=True)
class NewPersonConfig:
    """[new_person]. None: `auto`, or `threshold` for threshold_score."""

    threshold: float | None = _setting(word_or("auto", FRACTION))
    false_positive_rate: float = _setting(number(1e-6, 0.5))
    threshold_score: float | None = _setting(word_or("threshold", FRACTION))
    margin: float = _setting(FRACTION)
    passage_seconds: float = _setting(number(0, 60))
    passage_frames: int = _setting(whole(1, 10))
    square_min: float = _setting(number(0, 10_000))
    yaw_max: float = _setting(number(0, 90))
    pitch_max: float = _setting(number(0, 90))
    sharpness_min: float = _setting(FRACTION)
    presence_min: float = _setting(FRACTION)
    brightness_min: float = _setting(FRACTION)
    brightness_max: float = _setting(FRACTION)
    inside_min: float = _setting(FRACTION)


@dataclass(frozen=True)
class GalleryConfig:
    """[gallery]."""

    main_list_name: str = _setting(text_up_to(100))
    exact_limit: int = _setting(whole(0, 10_000_000))


@dataclass(frozen=True)
class PicturesConfig:
    """[pictures]."""

    longest_pixels: int = _setting(whole(128, 2000))
    jpeg_quality: int = _setting(whole(50, 100))
    address_valid_hours: int = _setting(whole(1, 87_600))


@dataclass(frozen=True)
class HistoryConfig:
    """[history]."""

    keep_days: int = _setting(whole(0, 36_500))
    keep_megabytes: int = _setting(whole(0, 1_000_000))


@dataclass(frozen=True)
class BackupConfig:
    """[backup]."""

    keep: int = _setting(whole(1, 1000))


@dataclass(frozen=True)
class TokensConfig:
    """[tokens]."""

    max_valid_days: int = _setting(whole(1, 3650))
    clock_leeway_seconds: int = _setting(whole(0, 3600))
    signing_keys: str = _setting(one_of("file", "credential"))


@dataclass(frozen=True)
class AuditConfig:
    """[audit]."""

    keep_days: int = _setting(whole(1, 36_500))
    keep_megabytes: int = _setting(whole(1, 10_000))


@dataclass(frozen=True)
class FleetConfig:
    """[fleet]."""

    servers: str = _setting(text_to(2000))
    ca_file: Path | None = _setting(word_or("", path))
    user: str = _setting(text_to(200))
    password_file: Path | None = _setting(word_or("", path))
    prefix: str = _setting(subject_token)
    box_name: str = _setting(text_to(100))
    share_pictures: bool = _setting(truth)
    digest_seconds: float = _setting(number(1, 3600))
    stream_days: float = _setting(number(1, 3650))
    stream_megabytes: int = _setting(whole(10, 1_000_000))


@dataclass(frozen=True)
class EventsConfig:
    """[events]."""

    keep_megabytes: int = _setting(whole(1, 100_000))
    keep_hours: int = _setting(whole(1, 8760))
    names: bool = _setting(truth)


@dataclass(frozen=True)
class MqttConfig:
    """[mqtt]."""

    host: str = _setting(text_to(255))
    port: int = _setting(whole(1, 65535))
    tls: bool = _setting(truth)
    ca_file: Path | None = _setting(word_or("", path))
    username: str = _setting(text_to(200))
    password_file: Path | None = _setting(word_or("", path))
    name: str = _setting(topic_level(0))
    topic_prefix: str = _setting(topic_level(1))
    discovery_prefix: str = _setting(topic_level(0))
    snapshots: bool = _setting(truth)
    quiet_seconds: int = _setting(whole(0, 86_400))


@dataclass(frozen=True)
class WebhooksConfig:
    """[webhooks]."""

    secret_file: Path | None = _setting(word_or("", path))
    unknown_url: str = _setting(web_address)
    ca_file: Path | None = _setting(word_or("", path))
    timeout_seconds: int = _setting(whole(1, 60))
    most_at_once: int = _setting(whole(1, 64))
    quiet_seconds: int = _setting(whole(0, 86_400))


@dataclass(frozen=True)
class LogConfig:
    """[log]."""

    level: str = _setting(one_of("debug", "info", "warning", "error"))
    requests: bool = _setting(truth)


@dataclass(frozen=True)
class Config:
    """The settings in force; default.conf says what each is."""

    server: ServerConfig
    tls: TlsConfig
    data: DataConfig
    models: ModelsConfig
    image: ImageConfig
    detection: DetectionConfig
    faces: FacesConfig
    new_person: NewPersonConfig
    gallery: GalleryConfig
    pictures: PicturesConfig
    history: HistoryConfig
    backup: BackupConfig
    tokens: TokensConfig
    audit: AuditConfig
    fleet: FleetConfig
    events: EventsConfig
    mqtt: MqttConfig
    webhooks: WebhooksConfig
    log: LogConfig

    texts: Mapping[str, str] = dataclasses.field(repr=False)
    """Each setting as it was written, by `section.name`, for `edge config`."""


_SECTIONS: Mapping[str, type[Any]] = {
    "server": ServerConfig,
    "tls": TlsConfig,
    "data": DataConfig,
    "models": ModelsConfig,
    "image": ImageConfig,
    "detection": DetectionConfig,
    "faces": FacesConfig,
    "new_person": NewPersonConfig,
    "gallery": GalleryConfig,
    "pictures": PicturesConfig,
    "history": HistoryConfig,
    "backup": BackupConfig,
    "tokens": TokensConfig,
    "audit": AuditConfig,
    "fleet": FleetConfig,
    "events": EventsConfig,
    "mqtt": MqttConfig,
    "webhooks": WebhooksConfig,
    "log": LogConfig,
}


def names() -> list[str]:
    """Return every setting as `section.name`."""
    return [f"{section}.{f.name}" for section, kind in _SECTIONS.items() for f in dataclasses.fields(kind)]


def load(file: Path | None = None, environment: Mapping[str, str] | None = None, flags: Sequence[str] = ()) -> Config:
    """Return the settings in force; `flags` are `section.name=value`.

    Raises ConfigMistakes with every mistake of every source at once.
    """
    environment = os.environ if environment is None else environment
    mistakes: list[Mistake] = []
    texts: dict[str, str] = {}
    for origin, values in _sources(file, environment, flags, mistakes):
        for name, text in values.items():
            if name not in names():
                mistakes.append(Mistake(name, f"is not a setting{_did_you_mean(name)} ({origin})"))
            else:
                texts[name] = text.strip()
    sections = {section: _section(section, kind, texts, mistakes) for section, kind in _SECTIONS.items()}
    if not mistakes:
        mistakes += _in_the_open(sections["server"])
    if mistakes:
        raise ConfigMistakes(*mistakes)
    return Config(**sections, texts=texts)


def as_text(settings: Config) -> str:
    """Return the settings in force as a settings file."""
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    for name in names():
        section, _, key = name.partition(".")
        if not parser.has_section(section):
            parser.add_section(section)
        parser.set(section, key, settings.texts[name])
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()


def _sources(
    file: Path | None, environment: Mapping[str, str], flags: Sequence[str], mistakes: list[Mistake]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the origins of settings, least important first."""
    default = resources.files("edge").joinpath("default.conf").read_text(encoding="utf-8")
    yield "default.conf", _read("default.conf", default, mistakes)
    if file is None and environment.get("EDGE_CONFIG"):
        file = Path(environment["EDGE_CONFIG"])
    if file is None and SYSTEM_FILE.exists():
        file = SYSTEM_FILE
    if file is not None:
        try:
            yield str(file), _read(str(file), file.read_text(encoding="utf-8-sig"), mistakes)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
            mistakes.append(Mistake(str(file), f"cannot be read: {reason}"))
    yield "environment", _from_environment(environment)
    given = {}
    for flag in flags:
        name, equals, text = flag.partition("=")
        if not equals:
            mistakes.append(Mistake(f"--set {flag}", "must be of the form section.name=value"))
        else:
            given[name.strip()] = text
    yield "--set", given


def _read(origin: str, text: str, mistakes: list[Mistake]) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(text, source=origin)
    except configparser.Error as error:
        mistakes.append(Mistake(origin, " ".join(str(error).split())))
        return {}
    return {f"{section}.{name}": value or "" for section in parser.sections() for name, value in parser.items(section)}


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings among the EDGE_ variables; others of that prefix belong to somebody else."""
    by_variable = {"EDGE_" + name.replace(".", "_").upper(): name for name in names()}
    return {by_variable[key]: text for key, text in environment.items() if key in by_variable}


def _section(section: str, kind: type[Any], texts: Mapping[str, str], mistakes: list[Mistake]) -> Any:
    values = {}
    for f in dataclasses.fields(kind):
        name = f"{section}.{f.name}"
        try:
            values[f.name] = f.metadata["parse"](texts[name])
        except KeyError:
            mistakes.append(Mistake(name, "has no value"))
        except ValueError as error:
            mistakes.append(Mistake(name, str(error)))
    return kind(**values) if len(values) == len(dataclasses.fields(kind)) else None


def _in_the_open(server: ServerConfig) -> list[Mistake]:
    """Return the mistake of listening on the network without TLS, where nobody has said that this is meant."""
    if server.plain_http_on_the_network or _is_loopback(server.host):
        return []
    reason = (
        f"'{server.host}' is on the network, and there is no TLS: put a proxy before it (`edge tls init`) and keep"
        " 127.0.0.1, or set server.plain_http_on_the_network = true"
    )
    return [Mistake("server.host", reason)]


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _did_you_mean(name: str) -> str:
    near = difflib.get_close_matches(name, names(), n=1)
    return f"; did you mean {near[0]}?" if near else ""
