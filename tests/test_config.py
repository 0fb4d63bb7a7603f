"""The settings: default.conf is their reference, every mistake is told at once, and the later source wins."""

from __future__ import annotations

import configparser
import dataclasses
import os
import re
from importlib import resources
from pathlib import Path

import pytest

from edge import config
from edge.errors import ConfigMistakes, Mistake, sentences

DEFAULT = resources.files("edge").joinpath("default.conf").read_text(encoding="utf-8")

RANGE = re.compile(r"([-+.0-9e]+) to ([-+.0-9e]+)")
"""As a parser's message and a comment name it."""


@pytest.fixture(autouse=True)
def no_system_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep this machine's own settings out of it; the file that stands in for them is not there yet."""
    path = tmp_path / "etc-edge.conf"
    monkeypatch.setattr(config, "SYSTEM_FILE", path)
    return path


def load(*flags: str, file: Path | None = None, **environment: str) -> config.Config:
    return config.load(file, environment=environment, flags=flags)


def mistakes(*flags: str, file: Path | None = None, **environment: str) -> dict[str, str]:
    """Every mistake that is told: the setting and what is wrong with it."""
    with pytest.raises(ConfigMistakes) as refused:
        load(*flags, file=file, **environment)
    told = {mistake.field: mistake.reason for mistake in refused.value.mistakes}
    assert len(told) == len(refused.value.mistakes)
    return told


def range_of(name: str) -> tuple[float, float] | None:
    """The range that a setting's parser names when it is given a word; None for a setting that takes words."""
    try:
        config.load(Path(os.devnull), environment={}, flags=[f"{name}=nonsense"])
    except ConfigMistakes as refused:
        found = RANGE.search(refused.mistakes[0].reason)
        return (float(found[1]), float(found[2])) if found else None
    return None


RANGED = {name: limits for name in config.names() if (limits := range_of(name))}


# --- default.conf ---


def settings_in(text: str) -> list[str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    return [f"{section}.{name}" for section in parser.sections() for name in parser[section]]


def test_default_conf_holds_every_setting_and_no_other_in_the_same_order() -> None:
    assert settings_in(DEFAULT) == config.names()


def test_every_default_is_valid() -> None:
    settings = load()
    assert settings.texts.keys() == set(config.names())
    assert settings.server.port == 8080
    assert settings.server.status_codes == "documented"
    assert settings.data.folder == Path("data")
    assert settings.models.folder is None
    assert settings.models.workers is None
    assert settings.image.max_megapixels == 40
    assert settings.detection.input_size is None
    assert settings.new_person.threshold is None
    assert settings.new_person.threshold_score is None
    assert settings.new_person.yaw_max == 45
    assert settings.new_person.pitch_max == 35
    assert settings.new_person.square_min == 80


def comments() -> dict[str, str]:
    """The comment of each setting: that of its paragraph, as neighbours may share one."""
    found: dict[str, str] = {}
    section = ""
    for paragraph in DEFAULT.split("\n\n"):
        lines = paragraph.splitlines()
        said = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
        for line in lines:
            if line.startswith("["):
                section = line.strip("[]")
            elif not line.startswith("#"):
                found[f"{section}.{line.partition('=')[0].strip()}"] = said
    return found


def test_every_setting_has_a_comment() -> None:
    assert comments().keys() == set(config.names())
    for name, comment in comments().items():
        assert len(comment) >= 25, name


@pytest.mark.parametrize("name", RANGED)
def test_the_comment_of_a_number_names_its_range(name: str) -> None:
    named = [(float(least), float(most)) for least, most in RANGE.findall(comments()[name])]
    assert RANGED[name] in named


def test_most_settings_are_numbers_with_a_range() -> None:
    """So that the tests above and below are about something."""
    assert len(RANGED) >= 30


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("server.status_codes", ["documented", "cloud"]),
        ("models.interpreter", ["litert", "tflite-runtime", "auto"]),
        ("models.workers", ["auto"]),
        ("new_person.threshold", ["auto"]),
        ("new_person.threshold_score", ["threshold"]),
        ("log.level", ["debug", "info", "warning", "error"]),
    ],
)
def test_the_comment_of_a_choice_names_every_word(name: str, words: list[str]) -> None:
    for word in words:
        assert f"`{word}`" in comments()[name]
        load(f"{name}={word}")
    assert mistakes(f"{name}=nonsense").keys() == {name}


# --- ranges ---


def written(value: float) -> str:
    return f"{value:.10f}".rstrip("0").rstrip(".")


@pytest.mark.parametrize("name", RANGED)
def test_a_range_takes_its_edges_and_nothing_beyond(name: str) -> None:
    section, _, key = name.partition(".")
    least, most = RANGED[name]
    for edge in (least, most):
        assert getattr(getattr(load(f"{name}={written(edge)}"), section), key) == edge
    whole = "whole" in mistakes(f"{name}=nonsense")[name]
    step = 1 if whole else 1e-7
    for beyond in (least - step, most + step):
        assert mistakes(f"{name}={written(beyond)}")[name].endswith(f"is not within {least:g} to {most:g}") or whole
    for text in ("", "nan", "inf", "-inf", "1,5", "0x10", *(["1.5"] if whole else [])):
        assert mistakes(f"{name}={text}").keys() == {name}


@pytest.mark.parametrize(
    ("text", "size"), [("192x320", (192, 320)), ("512x896", (512, 896)), (" 192x192 ", (192, 192))]
)
def test_an_input_size_is_rows_by_columns(text: str, size: tuple[int, int]) -> None:
    assert load(f"detection.input_size={text}").detection.input_size == size


@pytest.mark.parametrize("text", ["192", "x", "192x", "192 x 320", "-1x5", "192x320x3", "large"])
def test_anything_else_is_no_input_size(text: str) -> None:
    reason = mistakes(f"detection.input_size={text}")["detection.input_size"]
    assert reason == f"'{text}' is not of the form 192x320 (rows x columns)"


@pytest.mark.parametrize(
    ("name", "most"), [("server.host", 255), ("models.pack", 100), ("gallery.main_list_name", 100)]
)
def test_a_name_has_a_length(name: str, most: int) -> None:
    load(f"{name}={'n' * most}", "server.plain_http_on_the_network=true")
    for text in ("", " ", "n" * (most + 1)):
        assert mistakes(f"{name}={text}") == {name: f"must have 1 to {most} characters"}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_alone_needs_no_tls(host: str) -> None:
    assert load(f"server.host={host}").server.host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "box.example.org", "localhost.example.org"])
def test_the_network_without_tls_must_be_meant(host: str) -> None:
    reason = mistakes(f"server.host={host}")["server.host"]
    assert f"'{host}' is on the network" in reason and "plain_http_on_the_network = true" in reason
    assert load(f"server.host={host}", "server.plain_http_on_the_network=true").server.host == host
    assert mistakes("server.plain_http_on_the_network=yes") == {
        "server.plain_http_on_the_network": "'yes' is neither true nor false"
    }


def test_a_path_may_begin_with_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/edge")
    assert load("data.folder=~/faces").data.folder == Path("/home/edge/faces")
    assert load("models.folder=~/packs").models.folder == Path("/home/edge/packs")


def test_a_path_needs_a_name_and_a_known_home() -> None:
    assert mistakes("data.folder=") == {"data.folder": "must name a folder"}
    assert "not known here" in mistakes("data.folder=~nobody-of-that-name/x")["data.folder"]


# --- where a setting comes from ---


def conf(tmp_path: Path, text: str, name: str = "edge.conf", encoding: str = "utf-8") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding=encoding)
    return path


def test_the_file_wins_over_the_default_the_environment_over_the_file_the_flag_over_all(tmp_path: Path) -> None:
    file = conf(tmp_path, "[server]\nport = 1001\nidle_seconds = 21\nmax_connections = 31\n")
    settings = load("server.port=1003", file=file, EDGE_SERVER_PORT="1002", EDGE_SERVER_IDLE_SECONDS="22")
    assert settings.server.port == 1003
    assert settings.server.idle_seconds == 22
    assert settings.server.max_connections == 31
    assert settings.server.max_body_megabytes == 24


def test_the_last_of_two_flags_wins() -> None:
    assert load("server.port=1", " server.port = 2 ").server.port == 2


def test_what_is_overridden_is_not_judged(tmp_path: Path) -> None:
    file = conf(tmp_path, "[server]\nport = nonsense\n")
    assert load(file=file, EDGE_SERVER_PORT="99").server.port == 99


def test_the_file_is_the_flag_s_then_the_environment_s_then_the_system_s(tmp_path: Path, no_system_file: Path) -> None:
    named = conf(tmp_path, "[server]\nport = 1\n", "named.conf")
    other = conf(tmp_path, "[server]\nport = 2\n", "other.conf")
    no_system_file.write_text("[server]\nport = 3\n", encoding="utf-8")
    assert load(file=named, EDGE_CONFIG=str(other)).server.port == 1
    assert load(EDGE_CONFIG=str(other)).server.port == 2
    assert load(EDGE_CONFIG="").server.port == 3
    assert load().server.port == 3


def test_the_environment_of_the_process_is_taken_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_CONFIG", raising=False)
    monkeypatch.setenv("EDGE_NEW_PERSON_THRESHOLD_SCORE", "0.5")
    assert config.load().new_person.threshold_score == 0.5


def test_no_two_settings_share_a_variable() -> None:
    variables = {name.replace(".", "_").upper() for name in config.names()}
    assert len(variables) == len(config.names())


def test_somebody_else_s_variables_are_left_alone() -> None:
    load(EDGE_TEST_DATA="/data", EDGE_VENV=".venv", PATH="/bin")


def test_texts_say_what_is_in_force_as_it_was_written(tmp_path: Path) -> None:
    settings = load("new_person.threshold=0.80", file=conf(tmp_path, "[data]\nfolder = ~/faces\n"))
    assert settings.texts["new_person.threshold"] == "0.80"
    assert settings.texts["data.folder"] == "~/faces"
    assert settings.texts["server.port"] == "8080"


def test_nobody_can_change_them_afterwards() -> None:
    settings = load()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.server.port = 1  # type: ignore[misc]


# --- mistakes ---


def test_every_mistake_of_every_source_is_told_at_once(tmp_path: Path) -> None:
    file = conf(
        tmp_path,
        "[server]\nprot = 80\nport = 70000\n[galery]\nexact_limit = 5\n[log]\nlevel = loud\n",
    )
    told = mistakes(
        "faces.min_face_pixel=60",
        "no-equals-sign",
        "new_person.yaw_max=91",
        file=file,
        EDGE_IMAGE_MAX_MEGAPIXELS="many",
        EDGE_MODELS_WORKERS="all",
    )
    assert told == {
        "server.prot": f"is not a setting; did you mean server.port? ({file})",
        "server.port": "70000 is not within 0 to 65535",
        "galery.exact_limit": f"is not a setting; did you mean gallery.exact_limit? ({file})",
        "log.level": "'loud' is none of debug, info, warning, error",
        "faces.min_face_pixel": "is not a setting; did you mean faces.min_face_pixels? (--set)",
        "--set no-equals-sign": "must be of the form section.name=value",
        "new_person.yaw_max": "91 is not within 0 to 90",
        "image.max_megapixels": "'many' is not a number (1 to 100)",
        "models.workers": "'all' is not a whole number (1 to 64)",
    }


def test_a_name_that_is_like_nothing_gets_no_guess() -> None:
    assert mistakes("zzz.qqq=1") == {"zzz.qqq": "is not a setting (--set)"}


def test_a_name_alone_is_no_setting() -> None:
    assert "did you mean server.port?" in mistakes("server_port=1")["server_port"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("port = 80\n", "File contains no section headers"),
        ("[server]\nport = 1\nport = 2\n", "option 'port' in section 'server' already exists"),
        ("[server]\nport = 1\n[server]\nhost = x\n", "section 'server' already exists"),
        ("[server]\njust words\n", "parsing errors"),
        ("[server\nport = 1\n", "File contains no section headers"),
    ],
)
def test_a_file_that_cannot_be_read_as_settings_is_one_mistake_among_others(
    tmp_path: Path, text: str, reason: str
) -> None:
    file = conf(tmp_path, text)
    told = mistakes("log.level=loud", file=file)
    assert told.keys() == {str(file), "log.level"}
    assert reason in told[str(file)]
    assert "\n" not in told[str(file)]


def test_a_file_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "none.conf"
    assert mistakes(file=path) == {str(path): "cannot be read: No such file or directory"}
    assert mistakes(EDGE_CONFIG=str(path)) == {str(path): "cannot be read: No such file or directory"}
    assert mistakes(file=tmp_path) == {str(tmp_path): "cannot be read: Is a directory"}


def test_a_file_that_is_not_utf_8_is_a_mistake(tmp_path: Path) -> None:
    path = conf(tmp_path, "[gallery]\nmain_list_name = Türen\n", encoding="latin-1")
    assert mistakes(file=path) == {str(path): "cannot be read: is not UTF-8"}


def test_a_file_from_windows_is_read(tmp_path: Path) -> None:
    path = tmp_path / "edge.conf"
    path.write_bytes("\ufeff[gallery]\r\nmain_list_name = Türen\r\n".encode())
    assert load(file=path).gallery.main_list_name == "Türen"


def test_a_percent_sign_is_only_a_percent_sign(tmp_path: Path) -> None:
    path = conf(tmp_path, "[data]\nfolder = /srv/%(here)s/100%\n")
    assert load(file=path).data.folder == Path("/srv/%(here)s/100%")


def test_a_section_called_default_gives_nothing_to_the_others(tmp_path: Path) -> None:
    path = conf(tmp_path, "[DEFAULT]\nport = 1\n")
    assert mistakes(file=path).keys() == {"DEFAULT.port"}


def test_the_terminal_gets_a_mistake_a_line() -> None:
    assert sentences([Mistake("a.b", "is wrong"), Mistake("c.d", "is too")]) == "  a.b: is wrong\n  c.d: is too"
